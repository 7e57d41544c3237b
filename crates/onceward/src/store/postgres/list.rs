//! Lists, newest first: by index where there is one, and the rest of a query row by row.

use std::collections::BTreeMap;

use onceward_core::operation::Operation;

use super::days::Gone;
use super::decode;
use super::link::{Id, Links};
use crate::store::row::{self, kind};
use crate::store::{Counted, Page, Query, Standing, StoreError};

/// Rows read at once.
const PAGE: i64 = 500;

const ALL: &str = "SELECT id, row FROM op WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// From what was made to who made it, and never the other way: by the names that it has, of each the
/// newest, however many have it. A row may be left of an operation that is gone.
pub(super) const MADE: &str = "\
    WITH RECURSIVE names(name) AS ( \
        SELECT coalesce($4::text COLLATE \"C\", (SELECT min(name) FROM made WHERE id = $3)) \
        UNION ALL SELECT (SELECT min(next.name) FROM made AS next \
            WHERE next.id = $3 AND next.name > names.name) \
        FROM names WHERE names.name IS NOT NULL AND $4::text IS NULL), \
    ids AS MATERIALIZED (SELECT DISTINCT newest.op FROM names CROSS JOIN LATERAL \
        (SELECT made.op FROM made WHERE made.id = $3 AND made.name = names.name AND made.op < $1 \
        ORDER BY made.op DESC LIMIT $2) AS newest ORDER BY newest.op DESC LIMIT $2) \
    SELECT ids.op AS id, found.row FROM ids LEFT JOIN LATERAL \
        (SELECT row FROM op WHERE op.id = ids.op LIMIT 1) AS found ON true ORDER BY ids.op DESC";

/// What somebody has to look after: of each kind the newest, and of those the newest.
pub(super) const OPEN: &str = "\
    SELECT first.id, first.row FROM UNNEST($3::smallint[]) AS t(kind) CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.kind = t.kind AND op.kind IN (1, 2, 4, 5, 6) \
        AND id < $1 ORDER BY id DESC LIMIT $2) AS first ORDER BY first.id DESC LIMIT $2";

/// Whether more wait than are put in order for a list.
pub(super) const MANY_WAIT: &str = "SELECT count(*) > $1::bigint FROM (SELECT FROM op WHERE kind = 0 LIMIT $1::bigint + 1) AS waiting";

/// The same beside accepted work that waits. That has an index by lane: all its ids are put in order,
/// and only the newest are read.
pub(super) const WAITING: &str = "\
    WITH waiting AS MATERIALIZED (SELECT id FROM op WHERE kind = 0 AND id < $1), \
    newest AS MATERIALIZED (SELECT id FROM waiting ORDER BY id DESC LIMIT $2) \
    SELECT open.id, open.row FROM ( \
        SELECT found.id, found.row FROM newest CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.id = newest.id LIMIT 1) AS found UNION ALL \
        SELECT first.id, first.row FROM UNNEST($3::smallint[]) AS t(kind) CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.kind = t.kind AND op.kind IN (1, 2, 4, 5, 6) \
        AND id < $1 ORDER BY id DESC LIMIT $2) AS first) AS open ORDER BY open.id DESC LIMIT $2";

/// What came into doubt first of all, or of one tenant; a later release's is told by its nodes.
pub(super) const OLDEST_IN_DOUBT: &str = "\
    SELECT id, row FROM op WHERE kind = 2 AND kind IN (1, 2, 4, 5, 6) AND get_byte(row, 0) <= $2 \
    AND ($1::text IS NULL OR lane IN (SELECT lane.id FROM lane WHERE tenant = $1::text)) \
    ORDER BY id LIMIT 1";

/// How many stand where, counted no further than `$1` rows of each kind.
pub(super) const COUNTS: &str = "\
    SELECT t.kind, met.count, met.count AS own FROM UNNEST('{1,2,4,5,6}'::smallint[]) AS t(kind) \
        CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT FROM op WHERE op.kind = t.kind \
        AND op.kind IN (1, 2, 4, 5, 6) LIMIT $1) AS open) AS met \
    UNION ALL SELECT 0::smallint, count(*), count(*) FROM \
        (SELECT FROM op WHERE kind = 0 LIMIT $1) AS waiting";

/// The same of one tenant. What waits has an index by lane; of the rest those of others are met too.
pub(super) const COUNTS_OF: &str = "\
    WITH own AS MATERIALIZED (SELECT id FROM lane WHERE tenant = $2) \
    SELECT t.kind, met.count, met.own FROM UNNEST('{1,2,4,5,6}'::smallint[]) AS t(kind) \
        CROSS JOIN LATERAL (SELECT count(*), count(*) FILTER (WHERE open.lane IN (SELECT id FROM own)) AS own \
        FROM (SELECT lane FROM op WHERE op.kind = t.kind \
        AND op.kind IN (1, 2, 4, 5, 6) LIMIT $1) AS open) AS met \
    UNION ALL SELECT 0::smallint, count(*), count(*) FROM (SELECT FROM own CROSS JOIN LATERAL \
        (SELECT FROM op WHERE op.kind = 0 AND op.lane = own.id LIMIT $1) AS of_lane LIMIT $1) AS waiting";

/// How many stand where, of a tenant or of all, of each standing no further than `max` rows.
pub(super) async fn counts(
    links: &Links,
    tenant: Option<String>,
    max: u64,
) -> Result<Vec<(Standing, Counted)>, StoreError> {
    let limit = i64::try_from(max.saturating_add(1)).unwrap_or(i64::MAX);
    let rows = match tenant {
        None => links.query(COUNTS, &[&limit]).await?,
        Some(tenant) => links.query(COUNTS_OF, &[&limit, &tenant]).await?,
    };
    let number = |found: &tokio_postgres::Row, column| found.get::<_, i64>(column) as u64;
    let met = rows.iter().map(|found| {
        let counted = Counted::of(number(found, "own"), number(found, "count"), max);
        (found.get("kind"), counted)
    });
    let met: BTreeMap<i16, Counted> = met.collect();
    let open = Standing::ALL.into_iter().filter(|standing| standing.is_open());
    let counted = |standing| met.get(&i16::from(kind(standing))).copied().unwrap_or(Counted::NONE);
    Ok(open.map(|standing| (standing, counted(standing))).collect())
}

/// The operation in doubt that came first.
pub(super) async fn oldest_in_doubt(
    links: &Links,
    gone: &Gone,
    tenant: Option<String>,
) -> Result<Option<Operation>, StoreError> {
    let rows = links.query(OLDEST_IN_DOUBT, &[&tenant, &row::VERSION]).await?;
    rows.first().map(|found| Ok(gone.seen(decode(found)?))).transpose()
}

/// The page that `query` asks for.
pub(super) async fn page(links: &Links, gone: &Gone, query: &Query) -> Result<Page, StoreError> {
    let kinds: Vec<i16> =
        query.standing.iter().map(|standing| i16::from(kind(*standing))).collect();
    let is_open = !kinds.is_empty() && query.standing.iter().copied().all(Standing::is_open);
    let waits = query.standing.contains(&Standing::Pending);
    // Many are soon met on the way through all.
    let is_indexed = is_open && !(waits && do_many_wait(links).await?);
    let mut before = Id(query.begins_before());
    let (mut page, mut looked_at) = (Page::default(), 0);
    loop {
        let rows = match &query.made {
            Some((name, id)) => links.query(MADE, &[&before, &PAGE, id, name]).await?,
            None if is_indexed => {
                let sql = if waits { WAITING } else { OPEN };
                links.query(sql, &[&before, &PAGE, &kinds]).await?
            }
            None => links.query(ALL, &[&before, &PAGE]).await?,
        };
        for found in &rows {
            before = found.get("id");
            if query.ends_before(before.0.sequence()) {
                return Ok(page);
            }
            looked_at += 1;
            // A later release's are listed by its nodes.
            let row: Option<&[u8]> = found.get("row");
            if row.is_some_and(|row| !row::is_later(row)) {
                let operation = gone.seen(decode(found)?);
                if query.wants(&operation) {
                    page.operations.push(operation);
                }
            }
            if page.operations.len() >= query.limit || looked_at >= Query::ROWS_MAX {
                page.next = Some(before.0);
                return Ok(page);
            }
        }
        if (rows.len() as i64) < PAGE {
            return Ok(page);
        }
    }
}

async fn do_many_wait(links: &Links) -> Result<bool, StoreError> {
    Ok(links.query(MANY_WAIT, &[&(Query::ROWS_MAX as i64)]).await?[0].get(0))
}

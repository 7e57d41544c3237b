//! Lists, newest first: by index where there is one, and the rest of a query row by row.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onceward_core::id::OperationId;
use onceward_core::operation::Operation;
use tokio_postgres::types::ToSql;

use super::days::Gone;
use super::decode;
use super::link::{Id, Links};
use crate::store::row::{self, Signs, kind};
use crate::store::{Counted, Page, Query, Standing, StoreError};

/// Rows read at once, at most and at least.
const PAGE: i64 = 500;
const PAGE_MIN: i64 = 20;

/// Rows passed over at first; each stretch after is up to four times as long, so that what is near is found soon.
const STRETCH: usize = 500;

/// A stretch at most: one statement, behind which others of its connection wait.
const STRETCH_MAX: usize = 8_000;

/// A list that has taken so long goes on from where it is when it is asked to.
const PASSING_TIME_MAX: Duration = Duration::from_secs(2);

/// How many rows one list passes over: a server takes twice as long for it as an embedded ledger.
const PASSED_MAX: usize = Query::PASSED_MAX / 2;

/// Before every operation.
const NIL: OperationId = OperationId::from_u128(0);

const ALL: &str = "SELECT id, row FROM op WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// The last of so many rows and one.
pub(super) const LAST: &str = "SELECT id FROM op WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1";

/// Rows of a stretch, of some kinds or before a place, that have a version, a word and another.
pub(super) const PASSING: &str = "\
    SELECT id, row FROM op WHERE id < $1 AND id >= $3 AND (kind = ANY($4::smallint[]) OR id < $8) \
        AND get_byte(row, 0) >= $5 AND position($6::bytea IN row) > 0 AND position($7::bytea IN row) > 0 \
    ORDER BY id DESC LIMIT $2";

/// The last of so many rows and one that somebody has to look after.
pub(super) const LAST_OPEN: &str = "\
    SELECT first.id FROM UNNEST($3::smallint[]) AS t(kind) CROSS JOIN LATERAL \
        (SELECT id FROM op WHERE op.kind = t.kind AND op.kind IN (1, 2, 4, 5, 6) \
        AND id < $1 ORDER BY id DESC LIMIT $2::bigint + 1) AS first ORDER BY first.id DESC OFFSET $2::bigint LIMIT 1";

/// Those of a stretch that have a version, a word and another.
pub(super) const PASSING_OPEN: &str = "\
    SELECT first.id, first.row FROM UNNEST($4::smallint[]) AS t(kind) CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.kind = t.kind AND op.kind IN (1, 2, 4, 5, 6) \
        AND id < $1 AND id >= $3 AND get_byte(row, 0) >= $5 AND position($6::bytea IN row) > 0 \
        AND position($7::bytea IN row) > 0 ORDER BY id DESC LIMIT $2) AS first \
    ORDER BY first.id DESC LIMIT $2";

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
pub(super) async fn count_open(
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
    let signs = Signs::of(query);
    let is_open =
        !query.standing.is_empty() && query.standing.iter().copied().all(Standing::is_open);
    let waits = query.standing.contains(&Standing::Pending);
    let mut listing = Listing {
        links,
        gone,
        query,
        before: query.begins_before(),
        page: Page::default(),
        looked_at: 0,
    };
    if let Some((name, id)) = &query.made {
        listing.read(MADE, &[id, name]).await?;
    } else if is_open && !waits && signs.are_any() {
        listing.pass(&signs, Through::Open).await?;
    } else if is_open && !(waits && do_many_wait(links).await?) {
        let kinds = kinds(&query.standing);
        listing.read(if waits { WAITING } else { OPEN }, &[&kinds]).await?;
    } else if query.standing.is_empty() && !signs.are_any() {
        listing.read(ALL, &[]).await?;
    } else {
        // Many that wait are soon met on the way through all.
        listing.pass(&signs, Through::All).await?;
    }
    Ok(listing.page)
}

fn kinds(standing: &[Standing]) -> Vec<i16> {
    standing.iter().map(|standing| i16::from(kind(*standing))).collect()
}

/// What a list goes through that passes over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// Every row.
    All,
    /// What somebody has to look after.
    Open,
}

/// A list on its way.
struct Listing<'a> {
    links: &'a Links,
    gone: &'a Gone,
    query: &'a Query,
    /// What is looked at is older than this.
    before: OperationId,
    page: Page,
    looked_at: usize,
}

impl Listing<'_> {
    /// Reads what `sql` finds, a few rows at a time.
    async fn read(
        &mut self,
        sql: &'static str,
        by: &[&(dyn ToSql + Sync)],
    ) -> Result<(), StoreError> {
        let mut rows_max = self.rows_at_once();
        loop {
            let before = Id(self.before);
            let mut with: Vec<&(dyn ToSql + Sync)> = vec![&before, &rows_max];
            with.extend(by);
            let rows = self.links.query(sql, &with).await?;
            if self.visit(&rows)? || (rows.len() as i64) < rows_max {
                return Ok(());
            }
            // Those that are wanted stand far apart.
            rows_max = PAGE;
        }
    }

    /// Passes over rows without these signs where they are, and reads those that have them.
    async fn pass(&mut self, signs: &Signs, through: Through) -> Result<(), StoreError> {
        let kinds = if self.query.standing.is_empty() {
            kinds(&Standing::ALL)
        } else {
            kinds(&self.query.standing)
        };
        // There, what is done may be seen as its mark.
        let is_of_marks = self.query.standing.contains(&Standing::Tombstone);
        let marks = Id(if is_of_marks { self.gone.bodies_before() } else { NIL });
        let version = i32::from(signs.version);
        let words = [0, 1].map(|n| signs.words.get(n).map(Vec::as_slice).unwrap_or_default());
        let first = self.query.since.map_or(NIL, OperationId::first_at);
        let (mut passed, mut stretch) = (0, STRETCH);
        let begun = Instant::now();
        while passed < PASSED_MAX && begun.elapsed() < PASSING_TIME_MAX {
            let (before, ahead) = (Id(self.before), stretch as i64 - 1);
            let end = match through {
                Through::All => self.links.query(LAST, &[&before, &ahead]).await?,
                Through::Open => self.links.query(LAST_OPEN, &[&before, &ahead, &kinds]).await?,
            };
            let end = end.first().map(|found| found.get::<_, Id>("id").0);
            let from = end.unwrap_or(NIL).max(first);
            loop {
                let (before, rows_max, from) = (Id(self.before), self.rows_at_once(), Id(from));
                let mut with: Vec<&(dyn ToSql + Sync)> =
                    vec![&before, &rows_max, &from, &kinds, &version, &words[0], &words[1]];
                let sql = match through {
                    Through::All => {
                        with.push(&marks);
                        PASSING
                    }
                    Through::Open => PASSING_OPEN,
                };
                let rows = self.links.query(sql, &with).await?;
                if self.visit(&rows)? {
                    return Ok(());
                }
                if (rows.len() as i64) < rows_max {
                    break;
                }
            }
            match end.filter(|end| *end >= first) {
                Some(end) => self.before = end,
                None => return Ok(()),
            }
            passed += stretch;
            stretch = (stretch * 4).min(STRETCH_MAX).min(PASSED_MAX - passed);
        }
        self.page.next = Some(self.before);
        Ok(())
    }

    /// As many as are missing, and a little more.
    fn rows_at_once(&self) -> i64 {
        let missing = self.query.limit.saturating_sub(self.page.operations.len());
        (missing as i64 + 1).clamp(PAGE_MIN, PAGE)
    }

    /// Takes of `rows` what is wanted; tells whether that ends the list.
    fn visit(&mut self, rows: &[tokio_postgres::Row]) -> Result<bool, StoreError> {
        for found in rows {
            self.before = found.get::<_, Id>("id").0;
            if self.query.ends_before(self.before.sequence()) {
                return Ok(true);
            }
            self.looked_at += 1;
            // A later release's are listed by its nodes.
            let row: Option<&[u8]> = found.get("row");
            if row.is_some_and(|row| !row::is_later(row)) {
                let operation = self.gone.seen(decode(found)?);
                if self.query.wants(&operation) {
                    self.page.operations.push(operation);
                }
            }
            let is_full = self.page.operations.len() >= self.query.limit;
            if is_full || self.looked_at >= Query::ROWS_MAX {
                self.page.next = Some(self.before);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

async fn do_many_wait(links: &Links) -> Result<bool, StoreError> {
    Ok(links.query(MANY_WAIT, &[&(Query::ROWS_MAX as i64)]).await?[0].get(0))
}

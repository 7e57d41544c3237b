//! Lists, newest first: by index where there is one, and the rest of a query row by row.

use onceward_core::id::OperationId;

use super::days::Gone;
use super::decode;
use super::link::{Id, Links};
use crate::store::row::{self, kind};
use crate::store::{Page, Query, Standing, StoreError};

/// Rows read at once.
const PAGE: i64 = 500;

const ALL: &str = "SELECT id, row FROM op WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// From what was made to who made it, and never the other way.
pub(super) const MADE: &str = "\
    WITH ids AS MATERIALIZED (SELECT DISTINCT op FROM made WHERE made.id = $3 AND op < $1) \
    SELECT found.id, found.row FROM ids CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.id = ids.op LIMIT 1) AS found \
    ORDER BY found.id DESC LIMIT $2";

/// What somebody has to look after: of each kind the newest, and of those the newest.
pub(super) const OPEN: &str = "\
    SELECT first.id, first.row FROM UNNEST($3::smallint[]) AS t(kind) CROSS JOIN LATERAL \
        (SELECT id, row FROM op WHERE op.kind = t.kind AND op.kind IN (1, 2, 4, 5, 6) \
        AND id < $1 ORDER BY id DESC LIMIT $2) AS first ORDER BY first.id DESC LIMIT $2";

const PENDING: &str = "SELECT id, row FROM op WHERE kind = 0 AND id < $1 ORDER BY id DESC LIMIT $2";

/// Of these there may be no index.
const KINDS: &str =
    "SELECT id, row FROM op WHERE kind = ANY($3) AND id < $1 ORDER BY id DESC LIMIT $2";

/// The page that `query` asks for.
pub(super) async fn page(links: &Links, gone: &Gone, query: &Query) -> Result<Page, StoreError> {
    let kinds: Vec<i16> =
        query.standing.iter().map(|standing| i16::from(kind(*standing))).collect();
    let mut before = Id(query.before.unwrap_or_else(|| OperationId::from_u128(u128::MAX)));
    let (mut page, mut looked_at) = (Page::default(), 0);
    loop {
        let rows = match (&query.made, &query.standing[..]) {
            (Some((_, id)), _) => links.query(MADE, &[&before, &PAGE, id]).await?,
            (None, []) => links.query(ALL, &[&before, &PAGE]).await?,
            (None, [Standing::Pending]) => links.query(PENDING, &[&before, &PAGE]).await?,
            (None, standing) if standing.iter().copied().all(is_open) => {
                links.query(OPEN, &[&before, &PAGE, &kinds]).await?
            }
            (None, _) => links.query(KINDS, &[&before, &PAGE, &kinds]).await?,
        };
        for found in &rows {
            before = found.get("id");
            if query.ends_before(before.0.sequence()) {
                return Ok(page);
            }
            looked_at += 1;
            // A later release's are listed by its nodes.
            if !row::is_later(found.get("row")) {
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

fn is_open(standing: Standing) -> bool {
    match standing {
        Standing::Held
        | Standing::Delivering
        | Standing::InDoubt
        | Standing::DeadLetter
        | Standing::Told => true,
        Standing::Pending | Standing::Done | Standing::Tombstone => false,
    }
}

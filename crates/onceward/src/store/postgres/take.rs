//! Taking work that is due: read, judged and changed in one transaction, past what others are at.

use std::sync::Arc;

use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio_postgres::types::ToSql;

use super::batch::Batch;
use super::decode;
use super::link::{Address, Id, Link, answered, meaning, pause};
use super::writer::RETRY;
use crate::store::{Judge, StoreError, row};

/// From one lane with waiting work to the next: those on which nothing waits cost nothing, however
/// many there are.
pub(super) const LANES: &str = "WITH RECURSIVE busy (id) AS ( \
    (SELECT lane FROM op WHERE kind = 0 ORDER BY lane LIMIT 1) UNION ALL \
    SELECT (SELECT lane FROM op WHERE kind = 0 AND lane > busy.id ORDER BY lane LIMIT 1) \
    FROM busy WHERE busy.id IS NOT NULL) \
    SELECT lane.tenant, lane.route, lane.flow, first.due FROM busy \
    CROSS JOIN LATERAL (SELECT * FROM lane WHERE id = busy.id LIMIT 1) AS lane \
    CROSS JOIN LATERAL (SELECT due FROM op WHERE kind = 0 AND lane = busy.id AND \
    get_byte(row, 0) <= $1 ORDER BY due LIMIT 1) AS first";

pub(super) const DUE: &str = "SELECT row FROM op WHERE kind = 0 AND lane = $1 AND due <= $2 AND \
    get_byte(row, 0) <= $4 ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED";

/// Takes at most `max` operations of `lane` that are due at `now`, and makes of each what `judge` says.
pub(super) async fn take(
    link: Arc<Link>,
    address: Address,
    lane: i32,
    now: Timestamp,
    max: usize,
    judge: Judge,
) -> Result<Vec<Operation>, StoreError> {
    let (now_micros, max) = (now.as_micros(), max as i64);
    let with: [&(dyn ToSql + Sync); 4] = [&lane, &now_micros, &max, &row::VERSION];
    let due = answered(link.begin_with(DUE, &with)).await?;
    let mut taken = Vec::new();
    for found in &due {
        let operation = decode(found)?;
        // What cannot follow is a mistake of ours, and is left for the next look.
        if let Ok(next) = operation.after(judge(&operation), now) {
            taken.push(next);
        }
    }
    match Batch::of_changed(&taken).write_and_commit(&link).await {
        Ok((written, Ok(()))) => {
            taken.retain(|operation| written.contains(&operation.id));
            Ok(taken)
        }
        // The end was sent behind it: what the server refused it took back, of all else nobody knows.
        Err(error) if error.as_db_error().is_some() => Err(meaning(&error)),
        Ok((_, Err(_))) | Err(_) => kept(&address, taken).await,
    }
}

/// Those of `taken` that were written, where an answer was lost: looked for until that is known,
/// since what this session has in hand nobody else would attempt.
async fn kept(address: &Address, mut taken: Vec<Operation>) -> Result<Vec<Operation>, StoreError> {
    let ids: Vec<Id> = taken.iter().map(|operation| Id(operation.id)).collect();
    loop {
        match stored(address, &ids).await {
            Ok(stored) => {
                taken.retain(|operation| stored.contains(operation));
                return Ok(taken);
            }
            Err(error) if error.may_pass() => pause(RETRY).await,
            Err(error) => return Err(error),
        }
    }
}

/// The operations as they stand once whoever is at them has ended: locked, so that what is read is
/// as safe as what is written.
async fn stored(address: &Address, ids: &[Id]) -> Result<Vec<Operation>, StoreError> {
    let link = address.open().await?;
    let sql = "SELECT op.row FROM UNNEST($1::uuid[]) AS t(id) JOIN op ON op.id = t.id \
        ORDER BY op.id FOR UPDATE OF op";
    let rows = link.query(sql, &[&ids]).await.map_err(|error| meaning(&error))?;
    // What a later release has changed meanwhile is not as it was written here.
    rows.iter().filter(|found| !row::is_later(found.get("row"))).map(decode).collect()
}

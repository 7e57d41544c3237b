//! The rights of sessions, by the server's clock.

use onceward_core::lease::{LEASE, Session};
use onceward_core::operation::Operation;

use super::decode;
use super::link::Links;
use crate::clock::{Clock as _, SystemClock};
use crate::sabotage::Sabotage;
use crate::store::{StoreError, row};

/// A beat, and what sessions had in hand whose right has lapsed. The own row comes first, and rows
/// that others are at are left alone: so no two beats wait for each other.
///
/// Whoever finds its own right lapsed and not taken was away together with the server: those who had
/// theirs until then have a lease to come back too.
///
/// What is under way and has no owner is a claim: it keeps its own time. All that is in hand is found
/// before it is put in order: by its ids, all of the ledger would be looked through for it.
pub(super) const BEAT: &str = "\
    WITH beaten AS (INSERT INTO session VALUES ($1, now() + make_interval(secs => $2)) \
        ON CONFLICT (id) DO UPDATE SET lapses_at = EXCLUDED.lapses_at RETURNING id), \
    back AS (SELECT lapses_at - make_interval(secs => $2) AS since FROM session \
        WHERE id = $1 AND lapses_at < now()), \
    others AS (SELECT id, (lapses_at > (SELECT since FROM back)) IS TRUE AS is_back FROM session \
        WHERE id <> (SELECT id FROM beaten) \
        AND (lapses_at < now() OR lapses_at > (SELECT since FROM back)) FOR UPDATE SKIP LOCKED), \
    granted AS (UPDATE session SET lapses_at = now() + make_interval(secs => $2) FROM others \
        WHERE session.id = others.id AND others.is_back), \
    lapsed AS (DELETE FROM session USING others \
        WHERE session.id = others.id AND NOT others.is_back RETURNING session.id), \
    in_hand AS MATERIALIZED (SELECT id, row FROM op WHERE kind IN (1, 6) \
        AND owner IS DISTINCT FROM $1 AND (owner IS NOT NULL OR kind = 6) AND NOT EXISTS \
        (SELECT FROM session WHERE session.id = op.owner \
        AND session.id NOT IN (SELECT id FROM lapsed)) AND get_byte(row, 0) <= $4) \
    SELECT row FROM in_hand ORDER BY id LIMIT $3";

/// Keeps the right of `session` alive; tells at most `max` operations of those that have none.
pub(super) async fn beat(
    links: &Links,
    session: Session,
    max: usize,
) -> Result<Vec<Operation>, StoreError> {
    let lease = LEASE.as_secs_f64();
    let rows =
        links.query(BEAT, &[&(session.0 as i64), &lease, &(max as i64), &row::VERSION]).await?;
    if Sabotage::LeaseByOwnClock.is_on() {
        let until = SystemClock.now().plus(LEASE).as_micros() as f64 / 1e6;
        let sql = "UPDATE session SET lapses_at = to_timestamp($2) WHERE id = $1";
        links.query(sql, &[&(session.0 as i64), &until]).await?;
    }
    rows.iter().map(decode).collect()
}

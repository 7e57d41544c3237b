//! Forgetting, for all nodes: one of them makes a pass at a time, and the others go past.

use std::sync::Arc;

use onceward_core::admission;
use onceward_core::time::Timestamp;

use super::link::{Id, Link, Links, meaning};
use super::queue::Queue;
use super::{batch, days, decode, first_at};
use crate::judgement;
use crate::secret::random;
use crate::store::{StoreError, Swept, digest_of, row};

/// How long a step may take, in seconds, before another node takes the pass for abandoned.
const STEP_MAX: f64 = 60.0;

/// How long nobody else begins after a pass, in seconds: as long as each node pauses between two.
const REST: f64 = 600.0;

/// The duty is taken where it is free or one's own, and kept for so long.
const TAKE: &str = "\
    INSERT INTO duty VALUES ('sweep', $1, now() + make_interval(secs => $2)) \
    ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, ends_at = EXCLUDED.ends_at \
    WHERE duty.holder = EXCLUDED.holder OR duty.ends_at < now() RETURNING name";

/// What has a partition of its day goes with it; only the rest is looked at one by one.
pub(super) const REST_OF_DAYS: &str =
    "SELECT id, row FROM op_rest WHERE id >= $1 ORDER BY id LIMIT $2";

/// Who sweeps, as far as this node is concerned.
#[derive(Debug)]
pub(super) struct Sweeper {
    holder: i64,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { holder: i64::from_le_bytes(random()) }
    }
}

impl Sweeper {
    /// Whether the next step is this node's to make.
    pub(super) async fn begins(&self, links: &Links) -> Result<bool, StoreError> {
        Ok(!links.query(TAKE, &[&self.holder, &STEP_MAX]).await?.is_empty())
    }

    /// The pass is over.
    pub(super) async fn rests(&self, links: &Links) -> Result<(), StoreError> {
        links.query(TAKE, &[&self.holder, &REST]).await.map(drop)
    }
}

/// One step of a pass.
pub(super) async fn step(
    link: Arc<Link>,
    queue: Arc<Queue>,
    now: Timestamp,
    from: u64,
    max: usize,
) -> Result<Swept, StoreError> {
    let failed = |error: tokio_postgres::Error| meaning(&error);
    if from == 0 {
        days::make(&link, days::day_of(now)).await.map_err(failed)?;
        days::drop_old(&link, &queue.gone, now).await.map_err(failed)?;
    }
    let rows =
        link.query(REST_OF_DAYS, &[&first_at(from + 1), &(max as i64)]).await.map_err(failed)?;
    let mut swept = Swept::default();
    let (mut gone, mut digests, mut marks, mut bodies) = (vec![], vec![], vec![], vec![]);
    for found in rows.iter().filter(|found| !row::is_later(found.get("row"))) {
        let operation = decode(found)?;
        if !judgement::is_expired(&operation, now) {
            if operation.request.is_some() && admission::are_bodies_over(&operation, now) {
                bodies.extend(operation.bodies());
                marks.push(operation.without_bodies());
            }
            continue;
        }
        if admission::is_tombstone_over(&operation, now)
            || admission::leaves_no_tombstone(&operation)
        {
            digests.push(digest_of(&operation).0.to_vec());
            gone.push((Id(operation.id), operation.fence.0 as i64));
            bodies.extend(operation.bodies());
        } else if admission::is_more_than_its_mark(&operation) {
            bodies.extend(operation.bodies());
            marks.push(operation.forgotten_but_for_its_mark());
        }
    }
    if rows.len() == max {
        swept.next = rows.last().map(|found| found.get::<_, Id>("id").0.sequence());
    }
    if gone.is_empty() && marks.is_empty() {
        return Ok(swept);
    }
    link.client.batch_execute("BEGIN").await.map_err(failed)?;
    let (ids, fences): (Vec<Id>, Vec<i64>) = gone.into_iter().unzip();
    let removed = link
        .query(
            "DELETE FROM op USING UNNEST($1::uuid[], $2::bigint[]) AS t(id, fence) \
             WHERE op.id = t.id AND op.fence = t.fence RETURNING op.id",
            &[&ids, &fences],
        )
        .await
        .map_err(failed)?;
    let removed: Vec<Id> = removed.iter().map(|found| found.get(0)).collect();
    swept.removed = removed.len() as u32;
    link.query("DELETE FROM key WHERE digest = ANY($1) AND op = ANY($2)", &[&digests, &removed])
        .await
        .map_err(failed)?;
    link.query("DELETE FROM asked WHERE op = ANY($1)", &[&removed]).await.map_err(failed)?;
    link.query("DELETE FROM made WHERE op = ANY($1)", &[&removed]).await.map_err(failed)?;
    swept.forgotten = batch::mark(&link, &marks).await.map_err(failed)? as u32;
    let (days, ns): (Vec<i32>, Vec<i64>) =
        bodies.iter().map(|body| (body.segment as i32, i64::from(body.offset))).unzip();
    link.query(
        "DELETE FROM body USING UNNEST($1::integer[], $2::bigint[]) AS t(day, n) \
         WHERE body.day = t.day AND body.n = t.n",
        &[&days, &ns],
    )
    .await
    .map_err(failed)?;
    link.commit().await.map_err(failed)?;
    Ok(swept)
}

//! Lanes and the numbers that stand for them in rows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::link::Link;
use crate::store::Lane;

/// Lanes that are kept in mind, at most; the others are looked up.
const LANES_MAX: usize = 64 * 1024;

/// The lanes that this node has met lately.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<Lane, i32>>);

impl Lanes {
    fn met(&self) -> MutexGuard<'_, HashMap<Lane, i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of `lane`, made where no node has met it.
    pub(super) async fn number(
        &self,
        link: &Link,
        lane: &Lane,
    ) -> Result<i32, tokio_postgres::Error> {
        if let Some(number) = self.met().get(lane) {
            return Ok(*number);
        }
        let with: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&lane.tenant, &lane.route, &lane.flow];
        link.query(
            "INSERT INTO lane (tenant, route, flow) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &with,
        )
        .await?;
        let sql = "SELECT id FROM lane WHERE tenant = $1 AND route = $2 AND flow = $3";
        let number = link.query(sql, &with).await?[0].get(0);
        let mut met = self.met();
        if met.len() >= LANES_MAX {
            met.clear();
        }
        met.insert(lane.clone(), number);
        Ok(number)
    }
}

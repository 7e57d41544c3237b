//! Lanes and the numbers that stand for them in rows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::link::Link;
use crate::store::Lane;

/// The lanes that this node has met.
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
        let with: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&lane.tenant, &lane.route];
        link.query(
            "INSERT INTO lane (tenant, route) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &with,
        )
        .await?;
        let rows =
            link.query("SELECT id FROM lane WHERE tenant = $1 AND route = $2", &with).await?;
        let number = rows[0].get(0);
        self.met().insert(lane.clone(), number);
        Ok(number)
    }
}

//! The store alone: batched as it is built, beside a transaction for each write.

use std::sync::Arc;

use onceward::store::Store;
use onceward::store::postgres::{PostgresOptions, PostgresStore};

use super::Bench;
use super::drive::{Cost, Places, Way, ratio};
use super::plain::Plain;
use crate::{Outcome, compare};

const CALLERS: [usize; 2] = [64, 256];

/// Connections of the pool without batching: one for every two callers of the smaller load.
const POOL: usize = 32;

pub(super) fn measure(bench: &Bench) -> Outcome<()> {
    let places = Arc::new(Places::now()?);
    let (url, batched, plain) = bench.runtime.block_on(async {
        let url = bench.server.database("writes").await?;
        let store = open(&url).await?;
        let plain = Plain::open(&url, POOL, &*store, &places).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((
            url,
            Way::Batched(store),
            Way::Plain(plain),
        ))
    })?;
    for way in [&batched, &plain] {
        bench.turn(&url, way, CALLERS[0], super::WARM_UP, &places)?;
    }
    let mut costs: Vec<(Cost, Cost)> = CALLERS.iter().map(|_| Default::default()).collect();
    for round in 1..=bench.options.rounds {
        for (callers, (of_batched, of_plain)) in CALLERS.iter().zip(&mut costs) {
            compare::say(&format!("writes, round {round}: {callers} callers"));
            of_batched.add(bench.turn(&url, &batched, *callers, bench.options.turn, &places)?);
            of_plain.add(bench.turn(&url, &plain, *callers, bench.options.turn, &places)?);
        }
    }
    println!("\n{}", super::HEAD);
    for (callers, (mut of_batched, mut of_plain)) in CALLERS.iter().zip(costs) {
        let times = ratio(&of_batched.rounds, &of_plain.rounds);
        super::line(&format!("batched, {callers} callers"), &mut of_batched, times);
        super::line(&format!("a transaction each, {callers}"), &mut of_plain, 1.0);
    }
    Ok(())
}

pub(crate) async fn open(url: &str) -> Outcome<Arc<dyn Store>> {
    let options = PostgresOptions { url: url.to_owned(), ca_file: None };
    Ok(Arc::new(PostgresStore::open(&options).await?))
}

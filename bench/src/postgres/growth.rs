//! What an operation costs as the ledger grows: ledgers of several sizes side by side, measured in
//! turns. Their operations are spread over a month, and loaded by the server itself.

use std::sync::Arc;

use super::Bench;
use super::drive::{Cost, Places, Way, ratio};
use super::server::connect;
use super::writes::open;
use crate::{Outcome, compare, ledger};

/// Days that a ledger has operations of.
const DAYS: i64 = 30;

/// Bytes of each body that is loaded: what is measured has 1 KiB, this is only to fill the index.
const BODY_BYTES: i64 = 64;

const CALLERS: usize = 64;

/// Operations of one day, as the store would have left them: done, with request and answer. `$1`
/// day, `$2` first number, `$3` how many, `$4` bytes of a body.
const LOAD: [&str; 3] = [
    "INSERT INTO op (id, fence, kind, lane, expires, gone, row) \
     SELECT pg_temp.id($1, n), 3, kind, lane, expires, gone, row FROM shape, generate_series($2::bigint, $2 + $3 - 1) AS n \
     WHERE $4::bigint > 0",
    "INSERT INTO key (digest, op) SELECT sha256(int8send(n)), pg_temp.id($1, n) \
     FROM generate_series($2::bigint, $2 + $3 - 1) AS n WHERE $4::bigint > 0",
    "INSERT INTO body (day, n, bytes) \
     SELECT $1, (1::bigint << 40) + n, decode(repeat('61', $4::bigint::integer), 'hex') \
     FROM generate_series(2 * $2::bigint, 2 * ($2 + $3) - 1) AS n",
];

/// The `n`th id of a day, a thousand to a second: milliseconds, version, counter, variant, chance.
const ID: &str = "CREATE FUNCTION pg_temp.id(day integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ \
    SELECT (lpad(to_hex(day * 86400000::bigint + n % 86400000), 12, '0') || '7000' || '8000' \
        || lpad(to_hex(n), 12, '0'))::uuid $$";

pub(super) fn measure(bench: &Bench) -> Outcome<()> {
    let places = Arc::new(Places::now()?);
    let mut ledgers = Vec::new();
    for rows in &bench.options.rows {
        compare::say(&format!("growth: loading {rows} operations"));
        let (url, way) = bench.runtime.block_on(async {
            let url = bench.server.database(&format!("growth_{rows}")).await?;
            let store = open(&url).await?;
            ledger::one(&*store, places.next()).await?;
            load(&url, *rows).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((url, Way::Batched(store)))
        })?;
        ledgers.push((*rows, url, way, Cost::default()));
    }
    bench.runtime.block_on(async {
        let (_, url, ..) = ledgers.first().ok_or("no ledger")?;
        connect(url).await?.batch_execute("CHECKPOINT").await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    for round in 0..=bench.options.rounds {
        for (rows, url, way, cost) in &mut ledgers {
            compare::say(&format!("growth, round {round}: {rows} operations"));
            let turn = bench.turn(url, way, CALLERS, bench.options.turn, &places)?;
            // The first round warms up.
            if round > 0 {
                cost.add(turn);
            }
        }
    }
    println!("\n{}", super::HEAD);
    let first = ledgers.first().map(|(_, _, _, cost)| cost.rounds.clone()).unwrap_or_default();
    for (rows, _, _, cost) in &mut ledgers {
        let times = ratio(&cost.rounds, &first);
        super::line(&format!("{rows} operations"), cost, times);
    }
    Ok(())
}

/// Loads `rows` operations, as many a day.
async fn load(url: &str, rows: u64) -> Outcome<()> {
    let client = connect(url).await?;
    client
        .batch_execute(&format!(
            "SET synchronous_commit = off; {ID}; \
             CREATE TEMPORARY TABLE shape AS SELECT kind, lane, expires, gone, row FROM op"
        ))
        .await?;
    let today =
        client.query_one("SELECT (extract(epoch FROM now()) / 86400)::integer", &[]).await?;
    let today = i64::from(today.get::<_, i32>(0));
    for day in 1..=DAYS {
        let (first, count) = ((day - 1) * rows as i64 / DAYS, rows as i64 / DAYS);
        let day = today - day;
        make_day(&client, day).await?;
        for sql in LOAD {
            client.execute(sql, &[&i32::try_from(day)?, &first, &count, &BODY_BYTES]).await?;
        }
    }
    tidy(url).await
}

/// Leaves a ledger as the server's own upkeep would have left it by now: the parts, not the whole.
pub(crate) async fn tidy(url: &str) -> Outcome<()> {
    let client = connect(url).await?;
    let parts = "SELECT relname::text FROM pg_class \
        WHERE relkind = 'r' AND relname ~ '^(op|key|body|made)_'";
    for part in client.query(parts, &[]).await? {
        let part: String = part.get(0);
        client.batch_execute(&format!("VACUUM (ANALYZE) {part}")).await?;
    }
    Ok(())
}

/// The partitions of these days, as they were made when those were to come.
pub(crate) async fn make_days(url: &str, days: std::ops::Range<i64>) -> Outcome<()> {
    let client = connect(url).await?;
    for day in days {
        make_day(&client, day).await?;
    }
    Ok(())
}

/// The partitions of a day that is past.
async fn make_day(client: &tokio_postgres::Client, day: i64) -> Outcome<()> {
    let id = |day: i64| {
        let hex = format!("{:012x}", day * 86_400_000);
        format!("{}-{}-0000-0000-000000000000", &hex[..8], &hex[8..])
    };
    client
        .batch_execute(&format!(
            "CREATE TABLE op_{day} PARTITION OF op FOR VALUES FROM ('{from}') TO ('{to}'); \
             CREATE TABLE made_{day} PARTITION OF made FOR VALUES FROM ('{from}') TO ('{to}'); \
             CREATE TABLE body_{day} PARTITION OF body FOR VALUES FROM ({day}) TO ({next})",
            from = id(day),
            to = id(day + 1),
            next = day + 1
        ))
        .await?;
    Ok(())
}

//! Nodes that nobody calls: how many statements and transactions they ask for.

use std::net::SocketAddr;

use super::Bench;
use super::server::{connect, number};
use crate::subject::Subject;
use crate::{Outcome, compare};

const NODES: [usize; 2] = [1, 3];

/// After starting, until nothing is left of it.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(8);

const TRANSACTIONS: &str =
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";

/// Of each statement, how often it was asked for; ours, which only look, left out.
const STATEMENTS: &str = "SELECT calls, query FROM pg_stat_statements \
    JOIN pg_database ON pg_database.oid = dbid \
    WHERE datname = current_database() AND query !~ 'pg_stat_' ORDER BY calls DESC";

pub(super) fn measure(bench: &Bench) -> Outcome<()> {
    for count in NODES {
        compare::say(&format!("idle: {count} nodes"));
        let name = format!("idle_{count}");
        let url = bench.runtime.block_on(async {
            let url = bench.server.database(&name).await?;
            let client = connect(&url).await?;
            // From the next connection on.
            client.batch_execute("CREATE EXTENSION pg_stat_statements").await?;
            let track = format!("ALTER DATABASE {name} SET pg_stat_statements.track = 'top'");
            client.batch_execute(&track).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(url)
        })?;
        let sink = Subject::sink()?;
        let nodes = start(bench, &url, sink.address, count)?;
        bench.runtime.block_on(watch(bench, &url, count))?;
        drop(nodes);
    }
    Ok(())
}

async fn watch(bench: &Bench, url: &str, count: usize) -> Outcome<()> {
    tokio::time::sleep(SETTLE).await;
    let client = connect(url).await?;
    client.batch_execute("SET pg_stat_statements.track = 'none'").await?;
    client.batch_execute("SELECT pg_stat_statements_reset()").await?;
    let before = number(&client, TRANSACTIONS).await?;
    tokio::time::sleep(bench.options.watch).await;
    let seconds = bench.options.watch.as_secs_f64();
    // Ours are the look before, and this one.
    let transactions = (number(&client, TRANSACTIONS).await? - before - 1).max(0) as f64 / seconds;
    let statements = client.query(STATEMENTS, &[]).await?;
    let calls: i64 = statements.iter().map(|row| row.get::<_, i64>(0)).sum();
    println!(
        "\nidle, {count} node(s): {:.2} statements and {transactions:.2} transactions a second",
        calls as f64 / seconds
    );
    for row in statements {
        let text: String = row.get(1);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().take(100).collect();
        println!("{:>8.2}  {text}", row.get::<_, i64>(0) as f64 / seconds);
    }
    Ok(())
}

/// Starts nodes on the ledger at `url`.
pub(super) fn start(
    bench: &Bench,
    url: &str,
    sink: SocketAddr,
    count: usize,
) -> Outcome<Vec<Subject>> {
    (0..count).map(|_| Subject::node(&bench.binary, sink, &bench.data, url)).collect()
}

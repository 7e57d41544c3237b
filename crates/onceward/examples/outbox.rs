//! How does a request leave if, and only if, the order it is about was committed?
//!
//! `DATABASE_URL=postgres://… cargo run -p onceward --example outbox`

use std::error::Error;

use onceward::core::key::Key;
use onceward::sql::postgres::Outbox;
use onceward::sql::postgres::tokio_postgres::{self, Client, NoTls};
use onceward::sql::{Dialect, Message, ddl};
use serde_json::json;

async fn place_order(database: &mut Client, id: &str, amount: i64) -> Result<(), Box<dyn Error>> {
    let tx = database.transaction().await?;
    let insert = "INSERT INTO example_orders (id, amount) VALUES ($1, $2)";
    tx.execute(insert, &[&id, &amount]).await?;
    // Not a call: a row, which a relay makes a call of once this transaction is committed.
    let charge = Message::new("payments")?
        .key(Key::new(&format!("charge-{id}"))?)
        .path("/v1/charges")?
        .json(&json!({ "order": id, "amount": amount }))
        .subject(format!("order/{id}"));
    Outbox::new().add(&tx, &charge).await?;
    if amount < 0 {
        // Neither the order nor its charge was ever there.
        tx.rollback().await?;
        return Err("an order costs something".into());
    }
    tx.commit().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL names no PostgreSQL")?;
    let (mut database, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    database.batch_execute(&ddl(Dialect::Postgres)).await?;
    let table = "CREATE TEMPORARY TABLE example_orders (id text PRIMARY KEY, amount bigint)";
    database.batch_execute(table).await?;
    for (id, amount) in [("1", 4900), ("2", -1)] {
        match place_order(&mut database, id, amount).await {
            Ok(()) => println!("order {id} is placed"),
            Err(why) => println!("order {id} is not placed: {why}"),
        }
    }
    for row in database.query("SELECT key, route, path FROM onceward.outbox", &[]).await? {
        let (key, route, path): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        println!("to leave: {key} to {route}{path}");
    }
    Ok(())
}

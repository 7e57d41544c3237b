//! A shop whose order and whose call to the warehouse are one transaction, in tokio-postgres.
//!
//! `DATABASE_URL=postgres://… cargo run -- CUSTOMER ITEM …`

use std::error::Error;

use serde_json::json;
use tokio_postgres::{Client, NoTls};

/// The shop's own table.
pub(crate) const ORDERS: &str = include_str!("orders.sql");
const PLACE: &str = include_str!("place.sql");
const CALL: &str = include_str!("call.sql");

/// An order, and the call that leaves if, and only if, it is committed.
pub(crate) async fn place_order(
    shop: &mut Client,
    customer: &str,
    item: &str,
) -> Result<i64, Box<dyn Error>> {
    let tx = shop.transaction().await?;
    let order: i64 = tx.query_one(PLACE, &[&customer, &item]).await?.get(0);
    let pick = json!({"order": order, "customer": customer, "item": item}).to_string();
    tx.execute(CALL, &[&format!("pick-{order}"), &pick, &customer]).await?;
    if item == "sold out" {
        // Dropped without a commit, the transaction is rolled back, and with it the call.
        return Err("it is sold out".into());
    }
    tx.commit().await?;
    Ok(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut shop, connection) =
        tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    shop.batch_execute(ORDERS).await?;
    let mut arguments = std::env::args().skip(1);
    let customer = arguments.next().ok_or("whose order is it?")?;
    for item in arguments {
        match place_order(&mut shop, &customer, &item).await {
            Ok(order) => println!("order {order}: {item}"),
            Err(why) => println!("no order: {item}: {why}"),
        }
    }
    Ok(())
}

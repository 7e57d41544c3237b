//! A shop whose order and whose call to the warehouse are one transaction, in sqlx.
//!
//! `DATABASE_URL=postgres://… cargo run -- CUSTOMER ITEM …`

use std::error::Error;

use serde_json::json;
use sqlx::PgPool;

const ORDERS: &str = include_str!("orders.sql");
const PLACE: &str = include_str!("place.sql");
const CALL: &str = include_str!("call.sql");

/// An order, and the call that leaves if, and only if, it is committed.
async fn place_order(pool: &PgPool, customer: &str, item: &str) -> Result<i64, Box<dyn Error>> {
    let mut tx = pool.begin().await?;
    let order: i64 =
        sqlx::query_scalar(PLACE).bind(customer).bind(item).fetch_one(&mut *tx).await?;
    let pick = json!({"order": order, "customer": customer, "item": item});
    sqlx::query(CALL)
        .bind(format!("pick-{order}"))
        .bind(pick.to_string())
        .bind(customer)
        .execute(&mut *tx)
        .await?;
    if item == "sold out" {
        // Dropped without a commit, the transaction is rolled back, and with it the call.
        return Err("it is sold out".into());
    }
    tx.commit().await?;
    Ok(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    sqlx::query(ORDERS).execute(&pool).await?;
    let mut arguments = std::env::args().skip(1);
    let customer = arguments.next().ok_or("whose order is it?")?;
    for item in arguments {
        match place_order(&pool, &customer, &item).await {
            Ok(order) => println!("order {order}: {item}"),
            Err(why) => println!("no order: {item}: {why}"),
        }
    }
    Ok(())
}

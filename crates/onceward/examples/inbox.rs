//! How does a consumer handle each message once, and never let an old state win?
//!
//! `cargo run -p onceward --example inbox`

use onceward::sql::sqlite::Inbox;
use onceward::sql::sqlite::rusqlite::{Connection, Error, TransactionBehavior};
use onceward::sql::{Dialect, ddl};

/// What a broker or a webhook brings: at least once, and in any order.
struct Event {
    id: &'static str,
    order: &'static str,
    version: i64,
    status: &'static str,
}

fn handle(database: &mut Connection, event: &Event) -> Result<(), Error> {
    let inbox = Inbox::new("orders");
    let tx = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !inbox.first(&tx, event.id)? {
        println!("{}: handled before", event.id);
    } else if !inbox.newest(&tx, event.order, event.version)? {
        println!("{}: {} is older than what is there", event.id, event.status);
    } else {
        let set = "INSERT OR REPLACE INTO orders (id, status) VALUES (?1, ?2)";
        tx.execute(set, [event.order, event.status])?;
        println!("{}: {} is {}", event.id, event.order, event.status);
    }
    // What was done and that it was done are kept together. Acknowledge only after this.
    tx.commit()
}

fn main() -> Result<(), Error> {
    let mut database = Connection::open_in_memory()?;
    database.execute_batch(&ddl(Dialect::Sqlite))?;
    database.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, status TEXT NOT NULL)")?;
    let placed = Event { id: "evt_1", order: "order/1", version: 1, status: "placed" };
    let paid = Event { id: "evt_2", order: "order/1", version: 2, status: "paid" };
    let shipped = Event { id: "evt_3", order: "order/1", version: 3, status: "shipped" };
    for event in [&placed, &shipped, &paid, &shipped] {
        handle(&mut database, event)?;
    }
    Ok(())
}

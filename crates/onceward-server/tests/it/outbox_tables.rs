//! An application with an outbox: how it reaches its database.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::path::Path;
use std::time::Duration;

use onceward::sql::sqlite::rusqlite::Connection;
use tokio_postgres::{Client, NoTls};

/// A connection of the application's to its PostgreSQL.
pub(crate) async fn postgres(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A connection of the application's to its SQLite.
pub(crate) fn sqlite(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_mins(1)).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db
}

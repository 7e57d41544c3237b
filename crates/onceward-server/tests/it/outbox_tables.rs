//! An application with an outbox: its database, and what it has committed.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio_postgres::{Client, NoTls};

/// The table that `onceward sql ddl` makes.
pub(crate) const POSTGRES: &str = "\
    CREATE SCHEMA onceward; \
    CREATE TABLE onceward.outbox ( \
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(), \
        key text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text, \
        route text NOT NULL, method text NOT NULL DEFAULT 'POST', path text NOT NULL DEFAULT '/', \
        headers jsonb NOT NULL DEFAULT '{}', body bytea NOT NULL DEFAULT '', \
        subject text, sequence bigint, not_before timestamptz, \
        created_at timestamptz NOT NULL DEFAULT now());";

/// The same.
pub(crate) const SQLITE: &str = "\
    CREATE TABLE onceward_outbox ( \
        id INTEGER PRIMARY KEY AUTOINCREMENT, \
        key TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))), \
        route TEXT NOT NULL, method TEXT NOT NULL DEFAULT 'POST', path TEXT NOT NULL DEFAULT '/', \
        headers TEXT NOT NULL DEFAULT '{}', body BLOB NOT NULL DEFAULT x'', \
        subject TEXT, sequence INTEGER, not_before INTEGER, \
        created_at INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)));";

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

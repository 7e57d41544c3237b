//! Within one's own database: an inbox, an outbox and a write boundary that are part of the user's
//! own transaction.
//!
//! [`ddl`] lays down tables (and, on PostgreSQL, functions for any language) in the database where
//! the effects are; `onceward sql ddl` prints the same. [`postgres`] and [`sqlite`] have the types
//! for Rust. What they remember commits and rolls back with the effect itself, so nothing is ever
//! remembered and not done, or done and not remembered. What reaches beyond the database (a mail, a
//! call) is not in the transaction: write it to the outbox.
//!
//! ```no_run
//! use onceward::core::key::Key;
//! use onceward::sql::Message;
//! use onceward::sql::postgres::{Inbox, Outbox, tokio_postgres::Client};
//!
//! # type Outcome = Result<(), Box<dyn std::error::Error>>;
//! async fn handle(database: &mut Client, event: &str, order: &str) -> Outcome {
//!     let tx = database.transaction().await?;
//!     if Inbox::new("bills").first(&tx, event).await? {
//!         tx.execute("INSERT INTO bill (for_order) VALUES ($1)", &[&order]).await?;
//!         let mail = Message::new("mail")?.key(Key::new(&format!("bill-{order}"))?);
//!         Outbox::new().add(&tx, &mail).await?;
//!     }
//!     tx.commit().await?;
//!     Ok(())
//! }
//! ```

pub mod postgres;
pub mod sqlite;

mod message;

use std::fmt;

pub use self::message::{EnqueueError, Message, MessageError};

/// The version of the SQL that [`ddl`] gives; an installation has its own in `onceward.installed`
/// (`onceward_installed` in SQLite).
pub const VERSION: i32 = 1;

/// Whose SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 13 or newer: tables and functions in a schema.
    Postgres,
    /// SQLite 3.24 or newer: tables, and statements to take over.
    Sqlite,
}

/// The SQL that lays down the tables and functions, or brings those of an earlier version up to
/// [`VERSION`]. Run it whole, in one transaction; it can be run again.
pub fn ddl(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => postgres::ddl(&Schema::default()),
        Dialect::Sqlite => sqlite::ddl(),
    }
}

/// The PostgreSQL schema in which the tables and functions are; `onceward` unless one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

/// A schema's name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a schema's name is 1 to 63 of a-z, 0-9 and _, and does not begin with a digit")]
pub struct SchemaError;

impl Schema {
    /// A name that needs no quotes but where it is a word of SQL.
    pub fn new(name: &str) -> Result<Self, SchemaError> {
        let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_name = name.starts_with(is_letter)
            && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
            && name.len() <= 63;
        if is_name { Ok(Self(name.to_owned())) } else { Err(SchemaError) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self("onceward".to_owned())
    }
}

/// As it stands in SQL, where `user` would be a word.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_name_that_needs_no_quotes() {
        for good in ["onceward", "_x", "a1", "user", &"a".repeat(63)] {
            assert_eq!(Schema::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "1a", "A", "a-b", "a.b", "a b", "a\"", "ü", &"a".repeat(64)] {
            assert_eq!(Schema::new(bad), Err(SchemaError), "{bad}");
        }
    }

    #[test]
    fn both_scripts_say_the_version_that_they_are() {
        let version = format!("VALUES ({VERSION})");
        assert!(ddl(Dialect::Postgres).contains(&version));
        assert!(ddl(Dialect::Postgres).contains(&format!(".installed) > {VERSION} THEN")));
        assert!(ddl(Dialect::Postgres).contains(&format!("which is version {VERSION}'")));
        assert!(ddl(Dialect::Sqlite).contains(&format!("VALUES (1, {VERSION})")));
    }

    #[test]
    fn another_schema_is_meant_wherever_the_first_one_was() {
        let script = postgres::ddl(&Schema::new("things").unwrap());
        assert!(script.contains("CREATE SCHEMA IF NOT EXISTS \"things\";"));
        // The notification, the name without a schema, the command and the words of an error stay.
        let left = script.replace("onceward_", "").replace("onceward sql", "");
        let left = left.replace("onceward: ", "").replace("newer onceward", "");
        assert!(!left.contains("onceward"), "{left}");
    }
}

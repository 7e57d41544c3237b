//! Outbox tables in databases that are not ours: rows that have committed are read, and those that
//! are remembered are taken away or marked. What becomes of a row whoever reads it decides.
//!
//! A row is read for as long as it is there and not marked, so that none is missed however late its
//! transaction commits. Rows come in the order of their ids, all of them from one snapshot: where one
//! transaction had committed before another wrote its row, the row of the first comes first. (An order
//! by transaction ids would not keep that: a transaction gets its id at its first write, and may wait
//! for its turn after that.)

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::time::Timestamp;

mod postgres;
mod sqlite;

/// Where a table is. What it shows of itself has no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A PostgreSQL.
    Postgres {
        /// The connection string; with `sslmode=require` TLS is verified.
        url: String,
        /// Further certificate authorities, PEM.
        ca_file: Option<PathBuf>,
    },
    /// The file of an SQLite database.
    Sqlite(PathBuf),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres { url, .. } => f.write_str(&without_secrets(url)),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A PostgreSQL's address without its user, its password and its options.
pub fn without_secrets(url: &str) -> String {
    let place = url.split_once("://").map_or("", |(_, rest)| rest);
    let place = place.split('?').next().unwrap_or_default();
    format!("postgres://{}", place.rsplit('@').next().unwrap_or_default())
}

/// An outbox table, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Where it is.
    pub database: Database,
    /// What it is called, with its schema where it is in one; each part as the database spells it.
    pub name: String,
    /// Which of its columns is what.
    pub columns: Columns,
    /// What becomes of a row that is remembered.
    pub after: After,
}

/// Which column of a table is what; what is nothing is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Unique among the rows, and never given twice.
    pub id: String,
    /// What rows are ordered by, in place of the id: a number that grows with each insert.
    pub order: Option<String>,
    /// The idempotency key; else the id.
    pub key: Option<String>,
    /// Where a row goes.
    pub route: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// Its path and query.
    pub path: Option<String>,
    /// Its headers, a JSON object.
    pub headers: Option<String>,
    /// Its body: bytes, text or JSON.
    pub body: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Its place among those about the same.
    pub sequence: Option<String>,
    /// Before when it is not to be sent.
    pub not_before: Option<String>,
    /// When it was written.
    pub created_at: Option<String>,
}

impl Columns {
    /// Those of the table that `onceward sql ddl` makes.
    pub fn own() -> Self {
        let named = |name: &str| Some(name.to_owned());
        Self {
            id: "id".to_owned(),
            order: None,
            key: named("key"),
            route: named("route"),
            method: named("method"),
            path: named("path"),
            headers: named("headers"),
            body: "body".to_owned(),
            subject: named("subject"),
            sequence: named("sequence"),
            not_before: named("not_before"),
            created_at: named("created_at"),
        }
    }

    /// Every column that is read.
    fn all(&self) -> impl Iterator<Item = &str> {
        let Self { id, body, .. } = self;
        let may_be = [
            &self.order,
            &self.key,
            &self.route,
            &self.method,
            &self.path,
            &self.headers,
            &self.subject,
            &self.sequence,
            &self.not_before,
            &self.created_at,
        ];
        let may_be = may_be.into_iter().filter_map(|column| column.as_deref());
        [id.as_str(), body.as_str()].into_iter().chain(may_be)
    }
}

/// What becomes of a row that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It is deleted.
    Delete,
    /// This column says when, or that, it was taken; rows in which it says so are not read.
    Mark(String),
}

/// A row as it was read; what of it can be used is for others to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Its id, as text.
    pub id: String,
    /// Its key.
    pub key: Option<String>,
    /// Where it goes.
    pub route: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// Its path and query.
    pub path: Option<String>,
    /// Its headers, as JSON.
    pub headers: Option<String>,
    /// Its body; nothing where it is larger than was asked for.
    pub body: Option<Bytes>,
    /// The size of its body.
    pub body_bytes: u64,
    /// Whether the column of its body holds JSON.
    pub is_json: bool,
    /// What it is about.
    pub subject: Option<String>,
    /// Its place among those about the same, as text.
    pub sequence: Option<String>,
    /// Before when it is not to be sent, in seconds since 1970; it may be infinite.
    pub not_before: Option<f64>,
    /// How long ago it was written, by the clock of its database.
    pub age: Option<Duration>,
}

impl Row {
    /// The instant of so many seconds since 1970; nothing where that is none.
    pub fn instant(seconds: f64) -> Option<Timestamp> {
        // A hundred thousand years, as microseconds, is far from where they overflow.
        let is_sane = (0.0..3e12).contains(&seconds);
        is_sane.then(|| Timestamp::from_micros((seconds * 1e6) as i64))
    }
}

/// Which rows are read.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How many at most.
    pub max: usize,
    /// Larger bodies are left out.
    pub body_bytes_max: usize,
    /// Rows with these ids are passed over.
    pub but_ids: &'a [String],
    /// Rows that go on these routes are passed over.
    pub but_routes: &'a [String],
    /// Rows that are about these are passed over.
    pub but_subjects: &'a [String],
}

/// An open table. What goes wrong with it is told in words: it is not ours, and opened anew after that.
#[derive(Debug)]
pub enum Source {
    /// In a PostgreSQL.
    Postgres(Box<postgres::Source>),
    /// In an SQLite.
    Sqlite(sqlite::Source),
}

impl Source {
    /// Opens `table`; nothing where another reader has it now.
    pub async fn open(table: &Table) -> Result<Option<Self>, String> {
        match &table.database {
            Database::Postgres { url, ca_file } => {
                let source = postgres::Source::open(url, ca_file.clone(), table).await?;
                Ok(source.map(|source| Self::Postgres(Box::new(source))))
            }
            Database::Sqlite(path) => {
                Ok(Some(Self::Sqlite(sqlite::Source::open(path.clone(), table).await?)))
            }
        }
    }

    /// Rows that have committed, in order.
    pub async fn read(&self, ask: Ask<'_>) -> Result<Vec<Row>, String> {
        match self {
            Self::Postgres(source) => source.read(ask).await,
            Self::Sqlite(source) => source.read(ask).await,
        }
    }

    /// Takes rows away, or marks them.
    pub async fn settle(&self, ids: &[String]) -> Result<(), String> {
        match self {
            Self::Postgres(source) => source.settle(ids).await,
            Self::Sqlite(source) => source.settle(ids).await,
        }
    }

    /// Those of `ids` whose rows are still to be read.
    pub async fn still_there(&self, ids: &[String]) -> Result<Vec<String>, String> {
        match self {
            Self::Postgres(source) => source.still_there(ids).await,
            Self::Sqlite(source) => source.still_there(ids).await,
        }
    }

    /// Waits until it is told that there may be more: a hint, that may never come.
    pub async fn told(&self) {
        match self {
            Self::Postgres(source) => source.told().await,
            Self::Sqlite(_) => std::future::pending().await,
        }
    }
}

/// What rows come in, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Key,
    Route,
    Method,
    Path,
    Headers,
    Subject,
    Sequence,
}

impl Field {
    const ALL: [Self; 8] = [
        Self::Id,
        Self::Key,
        Self::Route,
        Self::Method,
        Self::Path,
        Self::Headers,
        Self::Subject,
        Self::Sequence,
    ];

    fn of(self, columns: &Columns) -> Option<&str> {
        let column = match self {
            Self::Id => return Some(&columns.id),
            Self::Key => &columns.key,
            Self::Route => &columns.route,
            Self::Method => &columns.method,
            Self::Path => &columns.path,
            Self::Headers => &columns.headers,
            Self::Subject => &columns.subject,
            Self::Sequence => &columns.sequence,
        };
        column.as_deref()
    }
}

/// A row of which the texts are known, in the order of [`Field::ALL`].
fn row_of(texts: [Option<String>; 8]) -> Row {
    let [id, key, route, method, path, headers, subject, sequence] = texts;
    let id = id.unwrap_or_default();
    Row { id, key, route, method, path, headers, subject, sequence, ..Row::default() }
}

/// A name in a statement, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name in a statement, part by part.
fn quoted_path(name: &str) -> String {
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// What rows are ordered by. Of an id that is no number nobody knows whether it grows, unless it is
/// said to. Of the table `t`: without its name, what is selected under the same name would count, which
/// is a text.
fn order_of(columns: &Columns, is_number: bool) -> Result<String, String> {
    let id = format!("t.{}", quoted(&columns.id));
    match &columns.order {
        Some(order) => Ok(format!("t.{}, {id}", quoted(order))),
        None if is_number => Ok(id),
        None => Err(format!(
            "the column {:?} is no number, and does not say which row came first: name one that does with order_by",
            columns.id
        )),
    }
}

/// Whether a table that has columns of these types, by name, has all that is read; tells the column
/// by which its rows are marked.
fn check<'a>(table: &'a Table, types: &HashMap<String, String>) -> Result<Option<&'a str>, String> {
    let Table { name, columns, after, .. } = table;
    if types.is_empty() {
        return Err(format!("there is no table {name}: `onceward sql ddl` prints one"));
    }
    let mark = match after {
        After::Delete => None,
        After::Mark(column) => Some(column.as_str()),
    };
    match columns.all().chain(mark).find(|column| !types.contains_key(*column)) {
        Some(missing) => Err(format!("the table {name} has no column {missing:?}")),
        None => Ok(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_itself_without_its_secrets() {
        let url = "postgres://u:s3cret@a:5432/d?options=x".to_owned();
        let database = Database::Postgres { url, ca_file: None };
        assert_eq!(format!("{database} {database:?}"), "postgres://a:5432/d postgres://a:5432/d");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_statement() {
        assert_eq!(quoted_path("onceward.outbox"), "\"onceward\".\"outbox\"");
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }

    #[test]
    fn what_is_no_instant_is_told_from_one() {
        assert_eq!(Row::instant(1.5), Some(Timestamp::from_micros(1_500_000)));
        for seconds in [f64::INFINITY, f64::NAN, -1.0, 1e300] {
            assert_eq!(Row::instant(seconds), None, "{seconds}");
        }
    }
}

//! An outbox table in SQLite: there is one writer at a time, so that ids are in the order of commits.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{After, Ask, Columns, Field, Row, Table, check, order_of, quoted, quoted_path, row_of};
use crate::clock::{Clock as _, SystemClock};

/// How long somebody else may be writing.
const BUSY: Duration = Duration::from_secs(5);

/// An open table.
#[derive(Debug)]
pub struct Source {
    db: Arc<Mutex<Connection>>,
    sql: Arc<Statements>,
}

#[derive(Debug)]
struct Statements {
    read: String,
    settle: String,
    there: String,
    is_json: bool,
}

impl Source {
    pub(super) async fn open(path: PathBuf, table: &Table) -> Result<Self, String> {
        let table = table.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let db = Connection::open_with_flags(&path, flags).map_err(|error| failed(&error))?;
            db.busy_timeout(BUSY).map_err(|error| failed(&error))?;
            let (types, made) = look(&db, &table).map_err(|error| failed(&error))?;
            let sql = Statements::of(&table, &types, &made)?;
            Ok(Self { db: Arc::new(Mutex::new(db)), sql: Arc::new(sql) })
        });
        opened.await.map_err(|error| error.to_string())?
    }

    /// Works on the connection, apart from what waits for others.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Statements) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let (db, sql) = (Arc::clone(&self.db), Arc::clone(&self.sql));
        let done = tokio::task::spawn_blocking(move || {
            let mut db = db.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut db, &sql).map_err(|error| error.to_string())
        });
        done.await.map_err(|error| error.to_string())?
    }

    pub(super) async fn read(&self, ask: Ask<'_>) -> Result<Vec<Row>, String> {
        let (max, bytes_max) = (ask.max as i64, ask.body_bytes_max as i64);
        let (ids, routes) = (list(ask.but_ids), list(ask.but_routes));
        let subjects = list(ask.but_subjects);
        self.with(move |db, sql| {
            let now = SystemClock.now().as_micros() as f64 / 1e6;
            let mut read = db.prepare_cached(&sql.read)?;
            let mut found = read.query((max, bytes_max, ids, routes, subjects))?;
            let mut rows = Vec::new();
            while let Some(found) = found.next()? {
                rows.push(Row { is_json: sql.is_json, ..row(found, now)? });
            }
            Ok(rows)
        })
        .await
    }

    pub(super) async fn settle(&self, ids: &[String]) -> Result<(), String> {
        let ids = list(ids);
        self.with(move |db, sql| db.prepare_cached(&sql.settle)?.execute([ids]).map(drop)).await
    }

    pub(super) async fn still_there(&self, ids: &[String]) -> Result<Vec<String>, String> {
        let ids = list(ids);
        self.with(move |db, sql| {
            let mut there = db.prepare_cached(&sql.there)?;
            let found = there.query_map([ids], |found| found.get(0))?;
            found.collect()
        })
        .await
    }
}

fn nothing() -> String {
    "NULL".to_owned()
}

/// Values for `json_each`.
fn list(values: &[String]) -> String {
    serde_json::to_string(values).unwrap_or_default()
}

/// A row; what is no text is taken for one all the same, so that one row keeps none of the others.
fn row(found: &rusqlite::Row<'_>, now: f64) -> rusqlite::Result<Row> {
    let mut texts: [Option<String>; 8] = std::array::from_fn(|_| None);
    for (place, text) in texts.iter_mut().enumerate() {
        *text = match found.get_ref(place)? {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        };
    }
    let size: Option<u64> = found.get(9)?;
    let body: Option<Vec<u8>> = found.get(8)?;
    let created_at: Option<f64> = found.get(11)?;
    let age = created_at.map(|at| Duration::from_secs_f64((now - at).clamp(0.0, 1e10)));
    Ok(Row {
        // A body that is nothing is empty.
        body: body.map(Bytes::from).or_else(|| size.is_none().then(Bytes::new)),
        body_bytes: size.unwrap_or_default(),
        not_before: found.get(10)?,
        age,
        ..row_of(texts)
    })
}

/// The columns of a table, what they hold, and the statement that made it.
fn look(db: &Connection, table: &Table) -> rusqlite::Result<(HashMap<String, String>, String)> {
    let mut columns = db.prepare("SELECT name, upper(type) FROM pragma_table_info(?)")?;
    let types = columns
        .query_map([&table.name], |found| Ok((found.get(0)?, found.get(1)?)))?
        .collect::<rusqlite::Result<HashMap<String, String>>>()?;
    let mut made =
        db.prepare("SELECT upper(sql) FROM sqlite_master WHERE name = ? COLLATE NOCASE")?;
    let made = made.query_map([&table.name], |found| found.get(0))?.next().transpose()?;
    Ok((types, made.unwrap_or_default()))
}

impl Statements {
    fn of(table: &Table, types: &HashMap<String, String>, made: &str) -> Result<Self, String> {
        let Table { columns, after, .. } = table;
        let mark = check(table, types)?;
        let type_of = |name: &str| types.get(name).map_or("", String::as_str);
        let kind = type_of(&columns.id);
        if kind.is_empty() || kind == "BLOB" {
            return Err(format!("the column {:?} has to hold numbers or texts", columns.id));
        }
        let is_rowid = kind == "INTEGER" && !made.contains("AUTOINCREMENT");
        if columns.key.is_none() && *after == After::Delete && is_rowid {
            return Err(format!(
                "the ids of {} are given again after rows are deleted, and cannot be keys: name a column for the key, or make the id AUTOINCREMENT",
                table.name
            ));
        }
        let (path, id) = (quoted_path(&table.name), quoted(&columns.id));
        let (open, taken) = match mark {
            None => ("TRUE".to_owned(), String::new()),
            Some(column) => marked(column, type_of(column)),
        };
        let among = format!("{id} IN (SELECT value FROM json_each(?1))");
        let settle = match after {
            After::Delete => format!("DELETE FROM {path} WHERE {among}"),
            After::Mark(_) => format!("UPDATE {path} SET {taken} WHERE {among}"),
        };
        Ok(Self {
            read: format!(
                "SELECT {} FROM {path} AS t WHERE {open} \
                 AND {id} NOT IN (SELECT value FROM json_each(?3)) \
                 AND COALESCE({}, '') NOT IN (SELECT value FROM json_each(?4)) \
                 AND COALESCE({}, '') NOT IN (SELECT value FROM json_each(?5)) \
                 ORDER BY {} LIMIT ?1",
                selected(columns),
                columns.route.as_deref().map_or_else(nothing, quoted),
                columns.subject.as_deref().map_or_else(nothing, quoted),
                order_of(columns, kind.contains("INT"))?,
            ),
            settle,
            there: format!("SELECT CAST({id} AS TEXT) FROM {path} WHERE {open} AND {among}"),
            is_json: type_of(&columns.body).starts_with("JSON"),
        })
    }
}

/// The columns of an answer, in the order in which [`row`] takes them.
fn selected(columns: &Columns) -> String {
    let mut all: Vec<String> =
        Field::ALL.iter().map(|field| field.of(columns).map_or_else(nothing, quoted)).collect();
    let body = format!("CAST({} AS BLOB)", quoted(&columns.body));
    all.push(format!("CASE WHEN length({body}) <= ?2 THEN {body} END"));
    all.push(format!("length({body})"));
    for column in [&columns.not_before, &columns.created_at] {
        all.push(column.as_deref().map_or_else(nothing, seconds));
    }
    all.join(", ")
}

/// A time in seconds since 1970: a number is of milliseconds, a text is read as a date.
fn seconds(column: &str) -> String {
    let name = quoted(column);
    format!(
        "CASE typeof({name}) WHEN 'integer' THEN {name} / 1000.0 WHEN 'real' THEN {name} / 1000.0 \
         WHEN 'text' THEN (julianday({name}) - 2440587.5) * 86400.0 END"
    )
}

/// What is true of a row that was not taken, and what makes it a taken one.
fn marked(column: &str, kind: &str) -> (String, String) {
    let name = quoted(column);
    if kind.starts_with("BOOL") {
        return (format!("COALESCE({name}, 0) = 0"), format!("{name} = 1"));
    }
    let now = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)";
    (format!("{name} IS NULL"), format!("{name} = {now}"))
}

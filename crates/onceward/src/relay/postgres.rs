//! An outbox table in PostgreSQL: one connection, which reads, takes away, holds the table for this
//! reader and hears that there is more.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{After, Ask, Columns, Field, Row, Table, check, order_of, quoted, quoted_path, row_of};
use crate::store::StoreError;
use crate::store::postgres::PostgresOptions;
use crate::store::postgres::link::{Address, meaning};

/// What a connection is told first. A reader whose host is gone gives the table free within a minute.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '5s'; \
    SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    LISTEN onceward_outbox";

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(35);

/// What stands before a table's own number in the number of its lock.
const LOCK: i64 = 7077 << 32;

const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

const HOLD: &str = "SELECT pg_try_advisory_lock($2 | to_regclass($1)::oid::bigint)";

/// An open table.
#[derive(Debug)]
pub struct Source {
    client: Client,
    hint: Arc<Notify>,
    read: Statement,
    settle: Statement,
    there: Statement,
    is_json: bool,
}

impl Source {
    pub(super) async fn open(
        url: &str,
        ca_file: Option<PathBuf>,
        table: &Table,
    ) -> Result<Option<Self>, String> {
        let address =
            Address::new(&PostgresOptions { url: url.to_owned(), ca_file }).map_err(why)?;
        let hint = Arc::new(Notify::new());
        let told = Arc::clone(&hint);
        // Of the end too: whoever waits for more finds then that there is no connection.
        let client = address.connect(SESSION, move |_| told.notify_one()).await.map_err(why)?;
        let path = quoted_path(&table.name);
        let sql = Statements::of(table, &path, &timed(types(&client, &path)).await?)?;
        let held = timed(client.query_one(HOLD, &[&path, &LOCK])).await?;
        if !held.get::<_, bool>(0) {
            return Ok(None);
        }
        let [read, settle, there] =
            [&sql.read, &sql.settle, &sql.there].map(|sql| client.prepare(sql));
        let (read, settle, there) =
            timed(async { Ok((read.await?, settle.await?, there.await?)) }).await?;
        Ok(Some(Self { hint, read, settle, there, is_json: sql.is_json, client }))
    }

    pub(super) async fn read(&self, ask: Ask<'_>) -> Result<Vec<Row>, String> {
        let (max, bytes_max) = (ask.max as i64, ask.body_bytes_max as i64);
        let with: [&(dyn ToSql + Sync); 5] =
            [&max, &bytes_max, &ask.but_ids, &ask.but_routes, &ask.but_subjects];
        let found = timed(self.client.query(&self.read, &with)).await?;
        Ok(found.iter().map(|found| self.row(found)).collect())
    }

    fn row(&self, found: &tokio_postgres::Row) -> Row {
        let texts = std::array::from_fn(|place| found.get(place));
        let size: Option<i32> = found.get(9);
        let body: Option<Vec<u8>> = found.get(8);
        let (created_at, now): (Option<f64>, f64) = (found.get(11), found.get(12));
        // A numeric column can hold what is no number at all.
        let age =
            created_at.and_then(|at| Duration::try_from_secs_f64((now - at).clamp(0.0, 1e10)).ok());
        Row {
            // A body that is nothing is empty.
            body: body.map(Bytes::from).or_else(|| size.is_none().then(Bytes::new)),
            body_bytes: size.unwrap_or_default() as u64,
            is_json: self.is_json,
            not_before: found.get(10),
            age,
            ..row_of(texts)
        }
    }

    pub(super) async fn settle(&self, ids: &[String]) -> Result<(), String> {
        timed(self.client.execute(&self.settle, &[&ids])).await.map(drop)
    }

    pub(super) async fn still_there(&self, ids: &[String]) -> Result<Vec<String>, String> {
        let found = timed(self.client.query(&self.there, &[&ids])).await?;
        Ok(found.iter().map(|found| found.get(0)).collect())
    }

    pub(super) async fn told(&self) {
        self.hint.notified().await;
    }
}

async fn timed<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| why(meaning(&error))),
        Err(_) => Err("the server does not answer".to_owned()),
    }
}

/// The words of an error that are not about a ledger.
fn why(error: StoreError) -> String {
    match error {
        StoreError::Full(why)
        | StoreError::Away(why)
        | StoreError::Unavailable(why)
        | StoreError::Damaged(why) => why,
        StoreError::Stale => error.to_string(),
    }
}

/// The columns of a table and what they hold.
async fn types(
    client: &Client,
    path: &str,
) -> Result<HashMap<String, String>, tokio_postgres::Error> {
    let found = client.query(COLUMNS, &[&path]).await?;
    Ok(found.iter().map(|found| (found.get(0), found.get(1))).collect())
}

/// What is asked of a table.
struct Statements {
    read: String,
    settle: String,
    there: String,
    is_json: bool,
}

impl Statements {
    fn of(table: &Table, path: &str, types: &HashMap<String, String>) -> Result<Self, String> {
        let Table { columns, after, .. } = table;
        let mark = check(table, types)?;
        let type_of = |name: &str| types.get(name).map_or("", String::as_str);
        let id = quoted(&columns.id);
        // As the column's own type, so that its index serves.
        let ids = |place: &str| format!("{place}::text[]::{}[]", type_of(&columns.id));
        let is_number = matches!(type_of(&columns.id), "bigint" | "integer" | "numeric");
        let (open, taken) = match mark {
            None => ("TRUE".to_owned(), String::new()),
            Some(column) => marked(column, type_of(column))?,
        };
        let settle = match after {
            After::Delete => format!("DELETE FROM {path} WHERE {id} = ANY({})", ids("$1")),
            After::Mark(_) => {
                format!("UPDATE {path} SET {taken} WHERE {id} = ANY({})", ids("$1"))
            }
        };
        Ok(Self {
            read: format!(
                "SELECT {} FROM {path} AS t WHERE {open} AND {id} <> ALL({}) \
                 AND COALESCE({}, '') <> ALL($4::text[]) AND COALESCE({}, '') <> ALL($5::text[]) ORDER BY {} LIMIT $1",
                selected(columns, &type_of)?,
                ids("$3"),
                columns.route.as_deref().map_or_else(nothing, text),
                columns.subject.as_deref().map_or_else(nothing, text),
                order_of(columns, is_number)?,
            ),
            settle,
            there: format!(
                "SELECT {id}::text FROM {path} WHERE {open} AND {id} = ANY({})",
                ids("$1")
            ),
            is_json: type_of(&columns.body).starts_with("json"),
        })
    }
}

fn nothing() -> String {
    "NULL::text".to_owned()
}

fn text(column: &str) -> String {
    format!("{}::text", quoted(column))
}

/// The columns of an answer, in the order in which [`Source::row`] takes them.
fn selected<'a>(columns: &Columns, type_of: &impl Fn(&str) -> &'a str) -> Result<String, String> {
    let mut all: Vec<String> =
        Field::ALL.iter().map(|field| field.of(columns).map_or_else(nothing, text)).collect();
    let body = match type_of(&columns.body) {
        "bytea" => quoted(&columns.body),
        _ => format!("convert_to({}, 'UTF8')", text(&columns.body)),
    };
    all.push(format!("CASE WHEN octet_length({body}) <= $2::bigint THEN {body} END"));
    all.push(format!("octet_length({body})"));
    for column in [&columns.not_before, &columns.created_at] {
        all.push(match column {
            None => "NULL::float8".to_owned(),
            Some(column) => seconds(column, type_of(column))?,
        });
    }
    all.push("extract(epoch FROM clock_timestamp())::float8".to_owned());
    Ok(all.join(", "))
}

/// A time in seconds since 1970: none that a column can hold makes the statement fail.
fn seconds(column: &str, kind: &str) -> Result<String, String> {
    let name = quoted(column);
    match kind {
        "bigint" | "integer" | "numeric" => Ok(format!("({name}::float8 / 1000)")),
        kind if kind.starts_with("timestamp") => {
            Ok(format!("extract(epoch FROM {name}::timestamptz)::float8"))
        }
        other => Err(format!("the column {column:?} holds {other}, which is no time")),
    }
}

/// What is true of a row that was not taken, and what makes it a taken one.
fn marked(column: &str, kind: &str) -> Result<(String, String), String> {
    let name = quoted(column);
    match kind {
        "boolean" => Ok((format!("{name} IS NOT TRUE"), format!("{name} = TRUE"))),
        "bigint" => Ok((
            format!("{name} IS NULL"),
            format!("{name} = (extract(epoch FROM now()) * 1000)::bigint"),
        )),
        kind if kind.starts_with("timestamp") => {
            Ok((format!("{name} IS NULL"), format!("{name} = now()")))
        }
        other => Err(format!(
            "the column {column:?} holds {other}: rows are marked by a timestamp, a boolean or a bigint of milliseconds"
        )),
    }
}

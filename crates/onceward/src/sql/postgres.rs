//! Inbox, outbox and write boundary in a transaction of `tokio-postgres`.
//!
//! Each call is one round trip to a function that [`ddl`] installed. They take a transaction and no
//! client, because alone they would remember what is not yet done.
//!
//! At READ COMMITTED a call that meets another transaction with the same key waits for its end and
//! then tells what is true. At REPEATABLE READ and SERIALIZABLE it fails with SQLSTATE 40001 where
//! the other committed: begin again. In neither is anything done twice.

use std::time::SystemTime;

use onceward_core::key::Key;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Error, Transaction};

use super::{EnqueueError, Message, Schema};
// The driver whose transactions these are: use it by this name, and the versions agree.
pub use tokio_postgres;

const SCRIPT: &str = include_str!("../../sql/postgres.sql");

/// The SQL that lays down tables and functions in `schema`; see [`super::ddl`].
pub fn ddl(schema: &Schema) -> String {
    if *schema == Schema::default() {
        return SCRIPT.to_owned();
    }
    SCRIPT
        .replace("SCHEMA IF NOT EXISTS onceward;", &format!("SCHEMA IF NOT EXISTS {schema};"))
        .replace("onceward.", &format!("{schema}."))
}

/// What a consumer has handled, kept in the transaction that handles it.
#[derive(Debug, Clone)]
pub struct Inbox {
    consumer: String,
    schema: Schema,
}

impl Inbox {
    /// The inbox of `consumer`: whoever handles the same messages for another purpose is another
    /// consumer.
    pub fn new(consumer: impl Into<String>) -> Self {
        Self { consumer: consumer.into(), schema: Schema::default() }
    }

    /// The same, installed in another schema.
    #[must_use]
    pub fn in_schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }

    /// Whether this transaction is the first to handle `key`. It waits for another that has it in
    /// hand, and is the first if that one rolls back.
    pub async fn first(&self, tx: &Transaction<'_>, key: &str) -> Result<bool, Error> {
        let sql = format!("SELECT {}.first($1, $2)", self.schema);
        one(tx, &sql, &[(&self.consumer, Type::TEXT), (&key, Type::TEXT)]).await
    }

    /// Those of `keys` that this transaction is the first to handle, each once, in one round trip.
    pub async fn first_of(
        &self,
        tx: &Transaction<'_>,
        keys: &[&str],
    ) -> Result<Vec<String>, Error> {
        let sql = format!("SELECT {}.first_of($1, $2)", self.schema);
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.consumer, Type::TEXT), (&keys, Type::TEXT_ARRAY)];
        tx.query_typed(&sql, &parameters).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// Whether `version` is greater than all that this consumer has seen of `subject`: an older
    /// state that comes late is not applied. It is kept in the [`WriteBoundary`] of the consumer's
    /// name.
    pub async fn newest(
        &self,
        tx: &Transaction<'_>,
        subject: &str,
        version: i64,
    ) -> Result<bool, Error> {
        apply_if_newer(tx, &self.schema, &self.consumer, subject, version).await
    }

    /// Forgets what this consumer handled before `before`, and says how many keys that were. What
    /// is delivered once more after that is the first again: keep them for longer than any sender
    /// retries. Versions stay.
    pub async fn forget(&self, tx: &Transaction<'_>, before: SystemTime) -> Result<i64, Error> {
        let sql = format!("SELECT {}.forget($1, $2)", self.schema);
        one(tx, &sql, &[(&before, Type::TIMESTAMPTZ), (&self.consumer, Type::TEXT)]).await
    }
}

/// Requests that leave when the transaction that wrote them has committed.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    schema: Schema,
}

impl Outbox {
    /// The database's outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, installed in another schema.
    #[must_use]
    pub fn in_schema(self, schema: Schema) -> Self {
        Self { schema }
    }

    /// Writes `message` and gives its row's id. The same request under a key that still waits is
    /// that row again.
    pub async fn add(
        &self,
        tx: &Transaction<'_>,
        message: &Message,
    ) -> Result<i64, EnqueueError<Error>> {
        let sql = format!(
            "SELECT {}.enqueue($1, $2, $3::bytea, $4, $5, $6::text::jsonb, $7, $8, $9)",
            self.schema
        );
        let key = message.key.as_ref().map(Key::as_str);
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&message.route, Type::TEXT),
            (&key, Type::TEXT),
            (&message.body.as_ref(), Type::BYTEA),
            (&message.method, Type::TEXT),
            (&message.path, Type::TEXT),
            (&message.headers_json(), Type::TEXT),
            (&message.subject, Type::TEXT),
            (&message.sequence, Type::INT8),
            (&message.not_before, Type::TIMESTAMPTZ),
        ];
        let added = one(tx, &sql, &parameters).await;
        added.map_err(|error| match &message.key {
            Some(key) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                EnqueueError::AnotherRequest(key.clone())
            }
            _ => EnqueueError::Database(error),
        })
    }
}

/// Who may write, decided in the transaction that writes: for one's own tables, one row of a version
/// for each `key` in a scope.
///
/// Each call locks that row until the transaction ends, so that what it said holds for the write
/// that follows it.
#[derive(Debug, Clone)]
pub struct WriteBoundary {
    scope: String,
    schema: Schema,
}

impl WriteBoundary {
    /// The versions of `scope`: the name of a table, say, or of the one purpose they are for.
    pub fn new(scope: impl Into<String>) -> Self {
        Self { scope: scope.into(), schema: Schema::default() }
    }

    /// The same, installed in another schema.
    #[must_use]
    pub fn in_schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }

    /// Newest wins: whether `version` is greater than where `key` stands, which then stands at it.
    pub async fn apply_if_newer(
        &self,
        tx: &Transaction<'_>,
        key: &str,
        version: i64,
    ) -> Result<bool, Error> {
        apply_if_newer(tx, &self.schema, &self.scope, key, version).await
    }

    /// Whether `key` stood at `expected` (`None`: nobody has written it), and stands at the version
    /// after it now.
    pub async fn compare_and_swap(
        &self,
        tx: &Transaction<'_>,
        key: &str,
        expected: Option<i64>,
    ) -> Result<bool, Error> {
        let sql = format!("SELECT {}.compare_and_swap($1, $2, $3)", self.schema);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.scope, Type::TEXT), (&key, Type::TEXT), (&expected, Type::INT8)];
        one(tx, &sql, &parameters).await
    }

    /// First write wins: whether nobody has written `key` before.
    pub async fn first_write(&self, tx: &Transaction<'_>, key: &str) -> Result<bool, Error> {
        self.compare_and_swap(tx, key, None).await
    }

    /// Last write wins: waits until no other writer has `key` in hand, and gives the number of this
    /// write's place.
    pub async fn last_write(&self, tx: &Transaction<'_>, key: &str) -> Result<i64, Error> {
        let sql = format!("SELECT {}.last_write($1, $2)", self.schema);
        one(tx, &sql, &[(&self.scope, Type::TEXT), (&key, Type::TEXT)]).await
    }

    /// Where `key` stands; `None` where nobody has written it.
    pub async fn version(&self, tx: &Transaction<'_>, key: &str) -> Result<Option<i64>, Error> {
        let sql = format!("SELECT {}.version_of($1, $2)", self.schema);
        one(tx, &sql, &[(&self.scope, Type::TEXT), (&key, Type::TEXT)]).await
    }
}

async fn apply_if_newer(
    tx: &Transaction<'_>,
    schema: &Schema,
    scope: &str,
    key: &str,
    version: i64,
) -> Result<bool, Error> {
    let sql = format!("SELECT {schema}.apply_if_newer($1, $2, $3)");
    one(tx, &sql, &[(&scope, Type::TEXT), (&key, Type::TEXT), (&version, Type::INT8)]).await
}

/// What a function returned. Types are named, so that nothing has to be prepared: that saves a round
/// trip, and works behind a pooler too.
async fn one<T: FromSqlOwned>(
    tx: &Transaction<'_>,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<T, Error> {
    tx.query_typed_one(sql, parameters).await?.try_get(0)
}

//! Inbox, outbox and write boundary in a transaction of `rusqlite`, and the statements behind them
//! for any language.
//!
//! SQLite has one writer at a time: a transaction that has written keeps all others from writing
//! until it ends, so that two with one key follow one another. Begin with `BEGIN IMMEDIATE`
//! ([`rusqlite::TransactionBehavior::Immediate`]) and set a busy timeout: a transaction that reads
//! first and then finds that another has written meanwhile is refused (`SQLITE_BUSY`), and has to
//! begin again.

use std::fmt::Write as _;
use std::time::SystemTime;

use onceward_core::key::Key;
use onceward_core::time::Timestamp;
use rusqlite::{Error, OptionalExtension as _, ToSql, Transaction, params};

use super::{EnqueueError, Message};
// The driver whose transactions these are: use it by this name, and the versions agree.
pub use rusqlite;

const SCRIPT: &str = include_str!("../../sql/sqlite.sql");

/// A statement in the place of a stored function, which SQLite has not.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// The name that the function has in PostgreSQL.
    pub name: &'static str,
    /// What its parameters are, and what it says.
    pub meaning: &'static str,
    /// The statement.
    pub sql: &'static str,
}

const FIRST: Statement = Statement {
    name: "first",
    meaning: "?1 consumer, ?2 key: one row changed means that this transaction is the first \
              to handle it",
    sql: "INSERT INTO onceward_inbox (consumer, key) VALUES (?1, ?2) \
          ON CONFLICT (consumer, key) DO NOTHING",
};

const FORGET: Statement = Statement {
    name: "forget",
    meaning: "?1 before, in unix milliseconds, ?2 consumer or null for all: what is delivered \
              once more after it\nis the first again; a time still to come forgets nothing",
    sql: "DELETE FROM onceward_inbox WHERE processed_at < ?1 AND (?2 IS NULL OR consumer = ?2) \
          AND ?1 <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
};

const APPLY_IF_NEWER: Statement = Statement {
    name: "apply_if_newer",
    meaning: "?1 scope, ?2 key, ?3 version: one row changed means that it is newer; apply it",
    sql: "INSERT INTO onceward_version (scope, key, version) VALUES (?1, ?2, ?3) \
          ON CONFLICT (scope, key) DO UPDATE \
          SET version = excluded.version, updated_at = excluded.updated_at \
          WHERE excluded.version > onceward_version.version",
};

const COMPARE_AND_SWAP: Statement = Statement {
    name: "compare_and_swap",
    meaning: "?1 scope, ?2 key, ?3 expected version: one row changed means that it stood \
              there,\nand stands at the next one now; from nothing it is first_write",
    sql: "UPDATE onceward_version SET version = version + 1, \
          updated_at = CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) \
          WHERE scope = ?1 AND key = ?2 AND version = ?3",
};

const FIRST_WRITE: Statement = Statement {
    name: "first_write",
    meaning: "?1 scope, ?2 key: one row changed means that nobody has written it before",
    sql: "INSERT INTO onceward_version (scope, key, version) VALUES (?1, ?2, 1) \
          ON CONFLICT (scope, key) DO NOTHING",
};

const LAST_WRITE: Statement = Statement {
    name: "last_write",
    meaning: "?1 scope, ?2 key: each write goes one version on, which version_of tells",
    sql: "INSERT INTO onceward_version (scope, key, version) VALUES (?1, ?2, 1) \
          ON CONFLICT (scope, key) DO UPDATE \
          SET version = onceward_version.version + 1, updated_at = excluded.updated_at",
};

const VERSION_OF: Statement = Statement {
    name: "version_of",
    meaning: "?1 scope, ?2 key: where it stands; no row where nobody has written it",
    sql: "SELECT version FROM onceward_version WHERE scope = ?1 AND key = ?2",
};

const ENQUEUE: Statement = Statement {
    name: "enqueue",
    meaning: "?1 route, ?2 key or null for a made one, ?3 body, ?4 method, ?5 path, ?6 headers \
              as a JSON object,\n?7 subject, ?8 sequence, ?9 not before, in unix milliseconds; \
              from ?3 on null for what is usual.\nNo row changed means that the key waits there \
              already",
    sql: "INSERT INTO onceward_outbox \
          (route, key, body, method, path, headers, subject, sequence, not_before) \
          VALUES (?1, coalesce(?2, lower(hex(randomblob(16)))), CAST(coalesce(?3, x'') AS BLOB), \
          coalesce(?4, 'POST'), coalesce(?5, '/'), coalesce(?6, '{}'), ?7, ?8, ?9) \
          ON CONFLICT (key) DO NOTHING",
};

/// The statements, in the order in which they are told of.
pub const STATEMENTS: [Statement; 8] =
    [FIRST, FORGET, APPLY_IF_NEWER, COMPARE_AND_SWAP, FIRST_WRITE, LAST_WRITE, VERSION_OF, ENQUEUE];

/// The SQL that lays down the tables, and the statements as comments behind it; see [`super::ddl`].
pub fn ddl() -> String {
    let mut script = SCRIPT.to_owned();
    script.push_str(
        "\n-- SQLite has no stored functions. These are the statements in their place, for a transaction\n\
         -- that began with BEGIN IMMEDIATE and does the effect itself:\n",
    );
    for Statement { name, meaning, sql } in STATEMENTS {
        // Writing into a string does not fail.
        let meaning = meaning.replace('\n', "\n-- ");
        let _ = write!(script, "--\n-- {name}: {meaning}\n--   {sql};\n");
    }
    script
}

/// What a consumer has handled, kept in the transaction that handles it.
#[derive(Debug, Clone)]
pub struct Inbox {
    consumer: String,
}

impl Inbox {
    /// The inbox of `consumer`: whoever handles the same messages for another purpose is another
    /// consumer.
    pub fn new(consumer: impl Into<String>) -> Self {
        Self { consumer: consumer.into() }
    }

    /// Whether this transaction is the first to handle `key`.
    pub fn first(&self, tx: &Transaction<'_>, key: &str) -> Result<bool, Error> {
        changes(tx, &FIRST, params![self.consumer, key])
    }

    /// Whether `version` is greater than all that this consumer has seen of `subject`: an older
    /// state that comes late is not applied. It is kept in the [`WriteBoundary`] of the consumer's
    /// name.
    pub fn newest(&self, tx: &Transaction<'_>, subject: &str, version: i64) -> Result<bool, Error> {
        changes(tx, &APPLY_IF_NEWER, params![self.consumer, subject, version])
    }

    /// Forgets what this consumer handled before `before`, and says how many keys that were. What
    /// is delivered once more after that is the first again: keep them for longer than any sender
    /// retries. Versions stay.
    pub fn forget(&self, tx: &Transaction<'_>, before: SystemTime) -> Result<usize, Error> {
        tx.prepare_cached(FORGET.sql)?.execute(params![millis(before), self.consumer])
    }
}

/// Requests that leave when the transaction that wrote them has committed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outbox;

impl Outbox {
    /// The database's outbox.
    pub fn new() -> Self {
        Self
    }

    /// Writes `message` and gives its row's id. The same request under a key that still waits is
    /// that row again.
    pub fn add(self, tx: &Transaction<'_>, message: &Message) -> Result<i64, EnqueueError<Error>> {
        let key = message.key.as_ref().map(Key::as_str);
        let body = message.body.as_ref();
        let headers = message.headers_json();
        let is_new = changes(
            tx,
            &ENQUEUE,
            params![
                message.route,
                key,
                body,
                message.method,
                message.path,
                headers,
                message.subject,
                message.sequence,
                message.not_before.map(millis),
            ],
        )?;
        match &message.key {
            Some(key) if !is_new => waiting(tx, message, key, &headers),
            _ => Ok(tx.last_insert_rowid()),
        }
    }
}

/// The row that has `key` already, if it is of the same request.
fn waiting(
    tx: &Transaction<'_>,
    message: &Message,
    key: &Key,
    headers: &str,
) -> Result<i64, EnqueueError<Error>> {
    let sql = "SELECT id FROM onceward_outbox WHERE key = ?1 AND route = ?2 AND method = ?3 \
               AND path = ?4 AND body = ?5 AND json(headers) = json(?6)";
    let (route, method, path) = (&message.route, &message.method, &message.path);
    let same = params![key.as_str(), route, method, path, message.body.as_ref(), headers];
    let id = tx.prepare_cached(sql)?.query_row(same, |row| row.get(0)).optional()?;
    id.ok_or_else(|| EnqueueError::AnotherRequest(key.clone()))
}

/// Who may write, decided in the transaction that writes: for one's own tables, one row of a version
/// for each `key` in a scope.
#[derive(Debug, Clone)]
pub struct WriteBoundary {
    scope: String,
}

impl WriteBoundary {
    /// The versions of `scope`: the name of a table, say, or of the one purpose they are for.
    pub fn new(scope: impl Into<String>) -> Self {
        Self { scope: scope.into() }
    }

    /// Newest wins: whether `version` is greater than where `key` stands, which then stands at it.
    pub fn apply_if_newer(
        &self,
        tx: &Transaction<'_>,
        key: &str,
        version: i64,
    ) -> Result<bool, Error> {
        changes(tx, &APPLY_IF_NEWER, params![self.scope, key, version])
    }

    /// Whether `key` stood at `expected` (`None`: nobody has written it), and stands at the version
    /// after it now.
    pub fn compare_and_swap(
        &self,
        tx: &Transaction<'_>,
        key: &str,
        expected: Option<i64>,
    ) -> Result<bool, Error> {
        match expected {
            None => self.first_write(tx, key),
            Some(expected) => changes(tx, &COMPARE_AND_SWAP, params![self.scope, key, expected]),
        }
    }

    /// First write wins: whether nobody has written `key` before.
    pub fn first_write(&self, tx: &Transaction<'_>, key: &str) -> Result<bool, Error> {
        changes(tx, &FIRST_WRITE, params![self.scope, key])
    }

    /// Last write wins: gives the number of this write's place.
    pub fn last_write(&self, tx: &Transaction<'_>, key: &str) -> Result<i64, Error> {
        changes(tx, &LAST_WRITE, params![self.scope, key])?;
        tx.prepare_cached(VERSION_OF.sql)?.query_row(params![self.scope, key], |row| row.get(0))
    }

    /// Where `key` stands; `None` where nobody has written it.
    pub fn version(&self, tx: &Transaction<'_>, key: &str) -> Result<Option<i64>, Error> {
        let mut statement = tx.prepare_cached(VERSION_OF.sql)?;
        statement.query_row(params![self.scope, key], |row| row.get(0)).optional()
    }
}

/// Whether the statement changed a row.
fn changes(
    tx: &Transaction<'_>,
    statement: &Statement,
    parameters: &[&dyn ToSql],
) -> Result<bool, Error> {
    Ok(tx.prepare_cached(statement.sql)?.execute(parameters)? > 0)
}

/// Unix milliseconds.
fn millis(at: SystemTime) -> i64 {
    Timestamp::from(at).as_micros().div_euclid(1000)
}

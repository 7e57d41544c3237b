//! Connections to the server: opened when they are needed, opened anew where they broke, and what
//! their errors mean.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use onceward_core::id::OperationId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use crate::clock::{Clock as _, SystemClock};
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::upstream::trusted;

/// What each connection holds itself to, where the connection string's `options` do not say
/// otherwise. A commit is answered only once it is on stable storage; nothing waits for a lock, or
/// stays in a transaction, for longer than a caller would.
///
/// A plan is made once and kept: to make one takes longer than to write a batch, and the more days
/// there are, the longer. It is made while tables may still be empty, and then reading all of a table
/// looks cheapest: so each goes by its indexes from the beginning.
const SESSION: [(&str, &str); 9] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// What a connection is told first.
fn session(options: Option<&str>) -> String {
    let said = options.unwrap_or_default();
    let ours = SESSION.iter().filter(|(name, _)| !said.contains(name));
    let set = ours
        .fold(String::new(), |said, (name, value)| said + "SET " + name + " = '" + value + "';");
    if Sabotage::WeakerSync.is_on() { set + "SET synchronous_commit = off;" } else { set }
}

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that acknowledges nothing for so long is gone, though nobody said so.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer is waited for that somebody reads for a caller.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// An operation's id as the server keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(pub(super) OperationId);

impl ToSql for Id {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.as_u128().to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(OperationId::from_u128(u128::from_be_bytes(raw.try_into()?))))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// What is said of a server that accepts and says nothing.
fn no_answer() -> StoreError {
    StoreError::Away("the server does not answer".to_owned())
}

/// What comes of a question whose asker can go where it is not answered.
pub(super) async fn answered<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, question).await.map_err(|_| no_answer())?;
    answer.map_err(|error| meaning(&error))
}

/// Lets time pass.
pub(super) async fn pause(time: Duration) {
    SystemClock.sleep_until(SystemClock.now().plus(time)).await;
}

/// One connection and the statements that it has prepared.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
}

impl Link {
    /// The statement of this text, prepared once for each connection.
    pub(super) async fn prepare(
        &self,
        sql: &'static str,
    ) -> Result<Statement, tokio_postgres::Error> {
        let mut prepared = self.prepared.lock().await;
        if let Some(statement) = prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &self,
        sql: &'static str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let statement = self.prepare(sql).await?;
        self.client.query(&statement, with).await
    }

    /// Begins a transaction with a question, in one way there and back.
    pub(super) async fn begin_with(
        &self,
        sql: &'static str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        // What is not prepared would come after what is sent behind it; here and below.
        self.prepare(sql).await?;
        let (begun, found) =
            tokio::join!(biased; self.client.batch_execute("BEGIN"), self.query(sql, with));
        begun?;
        found
    }

    pub(super) async fn commit(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("COMMIT").await
    }
}

/// How to reach the server.
#[derive(Clone)]
pub(crate) struct Address {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds a password.
        f.debug_struct("Address").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a connection string. `sslmode=require` means TLS whose certificate is verified; else
    /// there is none.
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut config: Config = options.url.parse().map_err(|error: tokio_postgres::Error| {
            StoreError::Unavailable(format!("the address of the database cannot be read: {error}"))
        })?;
        let tls = if config.get_ssl_mode() == SslMode::Require {
            let trusted = trusted(options.ca_file.as_deref());
            let tls = trusted.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            Some(MakeRustlsConnect::new(tls))
        } else {
            config.ssl_mode(SslMode::Disable);
            None
        };
        config.application_name("onceward").connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(HOST_TIMEOUT);
        config.keepalives_idle(HOST_TIMEOUT / 2).keepalives_interval(HOST_TIMEOUT / 4);
        config.keepalives_retries(2);
        Ok(Self { config, tls })
    }

    /// Opens a connection whose notifications are not of interest.
    pub(super) async fn open(&self) -> Result<Link, StoreError> {
        // Even a server that lets nobody in has said nothing about the ledger.
        self.first().await.map_err(|error| match error {
            StoreError::Unavailable(why) => StoreError::Away(why),
            error => error,
        })
    }

    /// The same for a store that is being opened: who is not let in then has a wrong password, or a
    /// wrong name.
    pub(super) async fn first(&self) -> Result<Link, StoreError> {
        let client = self.connect(&session(self.config.get_options()), |_| {}).await?;
        Ok(Link { client, prepared: Mutex::default() })
    }

    /// Opens a connection that begins with `words`. What it is notified of `hear` is told, and at last
    /// that it has ended: that is nothing.
    pub(crate) async fn connect(
        &self,
        words: &str,
        hear: impl FnMut(Option<Notification>) + Send + 'static,
    ) -> Result<Client, StoreError> {
        let opened = async {
            let client = match &self.tls {
                None => drive(self.config.connect(NoTls).await?, hear),
                Some(tls) => drive(self.config.connect(tls.clone()).await?, hear),
            };
            client.batch_execute(words).await?;
            Ok(client)
        };
        // A server that accepts and says nothing is no server.
        let opened = tokio::time::timeout(CONNECT_TIMEOUT * 2, opened);
        opened.await.map_err(|_| no_answer())?.map_err(|error| meaning(&error))
    }
}

/// Drives a connection to its end, in a task of its own.
fn drive<S, T>(
    (client, mut connection): (Client, Connection<S, T>),
    mut hear: impl FnMut(Option<Notification>) + Send + 'static,
) -> Client
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(hint) = message {
                hear(Some(hint));
            }
        }
        hear(None);
    });
    client
}

/// A few connections that many share: statements are sent one behind the other, without waiting.
#[derive(Debug)]
pub(super) struct Links {
    address: Address,
    all: Vec<Mutex<Option<Arc<Link>>>>,
    next: AtomicUsize,
}

impl Links {
    pub(super) fn new(address: Address, size: usize) -> Self {
        let all = (0..size).map(|_| Mutex::default()).collect();
        Self { address, all, next: AtomicUsize::new(0) }
    }

    /// One of them, opened where it is not.
    pub(super) async fn any(&self) -> Result<Arc<Link>, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let mut place = self.all[turn].lock().await;
        if let Some(link) = place.as_ref().filter(|link| !link.client.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(self.address.open().await?);
        *place = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Asks one of them.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let link = self.any().await?;
        if let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, link.query(sql, with)).await {
            return answer.map_err(|error| meaning(&error));
        }
        self.drop(&link).await;
        Err(no_answer())
    }

    /// Nobody is to wait behind what was not answered.
    async fn drop(&self, link: &Arc<Link>) {
        for place in &self.all {
            let mut place = place.lock().await;
            if place.as_ref().is_some_and(|other| Arc::ptr_eq(other, link)) {
                *place = None;
            }
        }
    }
}

/// A connection that waits for the next who needs one alone.
#[derive(Debug, Default)]
pub(super) struct Spare(std::sync::Mutex<Option<Arc<Link>>>);

impl Spare {
    pub(super) fn take(&self) -> Option<Arc<Link>> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.filter(|link| !link.client.is_closed())
    }

    pub(super) fn put(&self, link: Arc<Link>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }
}

/// What an error says about the ledger. What comes from a broken connection says nothing about
/// what was written; whoever wrote has to look.
pub(crate) fn meaning(error: &tokio_postgres::Error) -> StoreError {
    let Some(said) = error.as_db_error() else {
        // What it does not say itself: that a certificate is not believed, for example.
        let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
        return StoreError::Away(format!("the server cannot be reached: {error}{cause}"));
    };
    let text = format!("{} ({})", said.message(), said.code().code());
    let code = said.code();
    if *code == SqlState::DISK_FULL {
        return StoreError::Full(text);
    }
    // Resources, an operator's intervention, a standby, a conflict between transactions: it passes.
    let passes = ["08", "40", "53", "57", "25", "55"];
    if passes.iter().any(|class| code.code().starts_with(class)) {
        return StoreError::Away(text);
    }
    StoreError::Unavailable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_connection_string_says_is_not_said_over() {
        let said = session(Some("-c synchronous_commit=remote_apply -c search_path=once"));
        assert!(!said.contains("synchronous_commit"), "{said}");
        assert!(said.contains("SET statement_timeout = '30s';"), "{said}");
        assert_eq!(session(None).matches("SET ").count(), SESSION.len());
    }
}

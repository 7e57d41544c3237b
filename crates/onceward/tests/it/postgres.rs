//! A PostgreSQL server for tests, and a database of its own for each: `cargo xtask test` starts the
//! server and names it in `TEST_POSTGRES`.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU32, Ordering};

use onceward::core::hex;
use onceward::store::postgres::{PostgresOptions, PostgresStore};
use tokio_postgres::{AsyncMessage, NoTls};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The server.
pub(crate) struct Server(String);

/// The server that the environment names; says so where it names none.
#[expect(clippy::print_stdout, reason = "never silently")]
pub(crate) fn server() -> Option<Server> {
    let server = std::env::var("TEST_POSTGRES").ok().map(Server);
    if server.is_none() {
        println!("skipped: TEST_POSTGRES names no server; `cargo xtask test` starts one");
    }
    server
}

impl Server {
    /// The address of a new database.
    pub(crate) async fn database(&self) -> String {
        let (client, connection) = tokio_postgres::connect(&self.0, NoTls).await.unwrap();
        tokio::spawn(connection);
        let place = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("once_{}_{place}", std::process::id());
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        format!("{} dbname={name}", self.0)
    }
}

/// Runs SQL beside the store.
pub(crate) async fn run(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

/// What nodes tell each other of what they write while `work` goes on.
pub(crate) async fn told(url: &str, work: impl Future<Output = ()>) -> Vec<String> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message.unwrap() {
                let _ = tell.send(told.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN onceward").await.unwrap();
    work.await;
    client.batch_execute("NOTIFY onceward, 'the end'").await.unwrap();
    let mut all = Vec::new();
    loop {
        match heard.recv().await.unwrap() {
            end if end == "the end" => return all,
            told => all.push(told),
        }
    }
}

/// The tables in which `words` stand.
pub(crate) async fn holders(url: &str, words: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables = "SELECT oid::regclass::text FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let hex = hex::encode(words.as_bytes());
    let mut found = Vec::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        // A row as text has its bytes in hexadecimal digits.
        let stands = format!(
            "SELECT count(*) FROM {table} AS it WHERE it::text LIKE '%{words}%' OR it::text LIKE '%{hex}%'"
        );
        if client.query_one(&stands, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            found.push(table);
        }
    }
    found
}

/// Ends every session: its process is gone for sure.
pub(crate) async fn end_sessions(url: &str) {
    run(url, "DELETE FROM session").await;
}

pub(crate) async fn open(url: &str) -> PostgresStore {
    let options = PostgresOptions { url: url.to_owned(), ca_file: None };
    PostgresStore::open(&options).await.unwrap()
}

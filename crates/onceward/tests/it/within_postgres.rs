//! An inbox within a PostgreSQL database of one's own, and how it is installed.

use std::time::{Duration, SystemTime};

use onceward::sql::postgres::{self as own, Inbox, Outbox, WriteBoundary};
use onceward::sql::{Dialect, Message, Schema, VERSION, ddl};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Error, IsolationLevel, NoTls};

use crate::postgres;

/// The address of a new database with the tables and functions; none without a server.
pub(crate) async fn database() -> Option<String> {
    let url = postgres::server()?.database().await;
    postgres::run(&url, &ddl(Dialect::Postgres)).await;
    Some(url)
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn ask<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until somebody in this database waits for somebody else's transaction.
pub(crate) async fn until_one_waits(client: &Client) {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let seen = async { while ask::<i64>(client, waiting).await == 0 {} };
    tokio::time::timeout(Duration::from_mins(1), seen).await.expect("somebody waits");
}

pub(crate) fn code(error: &Error) -> &SqlState {
    error.code().unwrap_or_else(|| panic!("not of the server: {error}"))
}

#[tokio::test]
async fn the_script_can_be_run_again_and_keeps_what_is_there() {
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    let version = "SELECT version FROM onceward.installed";
    assert!(ask::<bool>(&client, "SELECT onceward.first('bills', 'evt_1')").await);
    assert_eq!(ask::<i64>(&client, "SELECT onceward_enqueue('pay')").await, 1);
    client.batch_execute(&ddl(Dialect::Postgres)).await.unwrap();
    assert!(!ask::<bool>(&client, "SELECT onceward.first('bills', 'evt_1')").await);
    assert_eq!(ask::<i64>(&client, "SELECT count(*) FROM onceward.outbox").await, 1);
    assert_eq!(ask::<i32>(&client, version).await, VERSION);

    // An earlier one is brought up to this one, whatever of it is missing.
    let earlier = "UPDATE onceward.installed SET version = 0; DROP TABLE onceward.version; \
                   DROP FUNCTION onceward.last_write; DROP INDEX onceward.outbox_commit_order";
    client.batch_execute(earlier).await.unwrap();
    client.batch_execute(&ddl(Dialect::Postgres)).await.unwrap();
    assert_eq!(ask::<i32>(&client, version).await, VERSION);
    assert_eq!(ask::<i64>(&client, "SELECT onceward.last_write('a', 'b')").await, 1);
    assert!(!ask::<bool>(&client, "SELECT onceward.first('bills', 'evt_1')").await);

    // A later one is left alone, and said.
    client.batch_execute("UPDATE onceward.installed SET version = 99").await.unwrap();
    let refused = client.batch_execute(&ddl(Dialect::Postgres)).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("later version"), "{refused}");
    assert_eq!(ask::<i32>(&client, version).await, 99);
}

#[tokio::test]
async fn many_install_at_once() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    let install = || {
        let url = url.clone();
        tokio::spawn(async move {
            connect(&url).await.batch_execute(&ddl(Dialect::Postgres)).await.unwrap();
        })
    };
    for one in [install(), install(), install(), install()] {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn it_lives_in_another_schema_too() {
    let Some(server) = postgres::server() else { return };
    let url = server.database().await;
    // A word of SQL, which needs its quotes.
    let schema = Schema::new("user").unwrap();
    postgres::run(&url, &own::ddl(&schema)).await;
    let mut client = connect(&url).await;
    let tx = client.transaction().await.unwrap();
    let inbox = Inbox::new("bills").in_schema(schema.clone());
    assert!(inbox.first(&tx, "evt_1").await.unwrap());
    assert!(inbox.newest(&tx, "order/1", 1).await.unwrap());
    let boundary = WriteBoundary::new("account").in_schema(schema.clone());
    assert!(boundary.first_write(&tx, "a").await.unwrap());
    let outbox = Outbox::new().in_schema(schema);
    outbox.add(&tx, &Message::new("pay").unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ask::<i64>(&client, "SELECT onceward_enqueue('pay')").await, 2);
    assert_eq!(ask::<i64>(&client, "SELECT count(*) FROM \"user\".outbox").await, 2);
}

#[tokio::test]
async fn a_key_is_the_first_once_for_each_consumer() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let (bills, mails) = (Inbox::new("bills"), Inbox::new("mails"));
    let tx = client.transaction().await.unwrap();
    assert!(bills.first(&tx, "evt_1").await.unwrap());
    assert!(!bills.first(&tx, "evt_1").await.unwrap());
    assert!(mails.first(&tx, "evt_1").await.unwrap());
    tx.commit().await.unwrap();
    let tx = client.transaction().await.unwrap();
    assert!(!bills.first(&tx, "evt_1").await.unwrap());
    let several = bills.first_of(&tx, &["evt_3", "evt_1", "evt_2", "evt_3"]).await.unwrap();
    assert_eq!(several, ["evt_2", "evt_3"]);
    assert!(bills.first_of(&tx, &["evt_3"]).await.unwrap().is_empty());
    assert!(bills.first_of(&tx, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_rolled_back_was_not_handled() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let inbox = Inbox::new("bills");
    let mut tx = client.transaction().await.unwrap();
    let inner = tx.transaction().await.unwrap();
    assert!(inbox.first(&inner, "evt_1").await.unwrap());
    inner.rollback().await.unwrap();
    assert!(inbox.first(&tx, "evt_1").await.unwrap());
    assert!(inbox.newest(&tx, "order/1", 7).await.unwrap());
    Outbox::new().add(&tx, &Message::new("pay").unwrap()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(ask::<i64>(&client, "SELECT count(*) FROM onceward.outbox").await, 0);
    let tx = client.transaction().await.unwrap();
    assert!(inbox.first(&tx, "evt_1").await.unwrap());
    assert!(inbox.newest(&tx, "order/1", 7).await.unwrap());
}

#[tokio::test]
async fn the_second_with_a_key_waits_for_the_first() {
    let Some(url) = database().await else { return };
    let (mut one, look) = (connect(&url).await, connect(&url).await);
    let inbox = Inbox::new("bills");
    for (key, commits) in [("evt_1", true), ("evt_2", false)] {
        let first = one.transaction().await.unwrap();
        assert!(inbox.first(&first, key).await.unwrap());
        let mut other = connect(&url).await;
        let second = tokio::spawn(async move {
            let tx = other.transaction().await.unwrap();
            let is_first = Inbox::new("bills").first(&tx, key).await.unwrap();
            tx.commit().await.unwrap();
            is_first
        });
        until_one_waits(&look).await;
        if commits {
            first.commit().await.unwrap();
        } else {
            first.rollback().await.unwrap();
        }
        // Who waited is the first where the first one came to nothing.
        assert_eq!(second.await.unwrap(), !commits, "{key}");
        let tx = one.transaction().await.unwrap();
        assert!(!inbox.first(&tx, key).await.unwrap());
    }
}

#[tokio::test]
async fn at_the_higher_levels_the_second_has_to_begin_again() {
    let Some(url) = database().await else { return };
    let mut one = connect(&url).await;
    let inbox = Inbox::new("bills");
    let boundary = WriteBoundary::new("account");
    for (n, level) in
        [IsolationLevel::RepeatableRead, IsolationLevel::Serializable].into_iter().enumerate()
    {
        let key = format!("evt_{n}");
        let mut other = connect(&url).await;
        let begin = other.build_transaction().isolation_level(level);
        let late = begin.start().await.unwrap();
        // It has its view of the database before the other commits.
        assert_eq!(boundary.version(&late, &key).await.unwrap(), None);
        let tx = one.transaction().await.unwrap();
        assert!(inbox.first(&tx, &key).await.unwrap());
        assert!(boundary.apply_if_newer(&tx, &key, 5).await.unwrap());
        tx.commit().await.unwrap();
        let refused = inbox.first(&late, &key).await.unwrap_err();
        assert_eq!(code(&refused), &SqlState::T_R_SERIALIZATION_FAILURE);
        late.rollback().await.unwrap();
        let again = other.build_transaction().isolation_level(level).start().await.unwrap();
        assert!(!inbox.first(&again, &key).await.unwrap());
        assert!(!boundary.apply_if_newer(&again, &key, 5).await.unwrap());
        assert!(boundary.apply_if_newer(&again, &key, 6).await.unwrap());
        again.commit().await.unwrap();
    }
}

/// Handles `key` and commits, at the second try where it first gives up, and begins again whenever
/// the server asks for it.
async fn handle(client: &mut Client, level: IsolationLevel, key: &str, gives_up: bool) {
    let mut gives_up = gives_up;
    loop {
        let tx = client.build_transaction().isolation_level(level).start().await.unwrap();
        let done = async {
            if Inbox::new("bills").first(&tx, key).await? {
                tx.execute("INSERT INTO effect VALUES ($1)", &[&key]).await?;
            }
            Ok::<_, Error>(())
        };
        let done = done.await;
        if done.is_ok() && std::mem::take(&mut gives_up) {
            tx.rollback().await.unwrap();
            continue;
        }
        let ended = match done {
            Ok(()) => tx.commit().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(error) => assert_eq!(code(&error), &SqlState::T_R_SERIALIZATION_FAILURE),
        }
    }
}

#[tokio::test]
async fn of_many_at_once_one_has_the_effect_at_every_level() {
    const HANDLERS: usize = 6;
    const KEYS: usize = 10;
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    client.batch_execute("CREATE TABLE effect (key text NOT NULL)").await.unwrap();
    for level in [
        IsolationLevel::ReadCommitted,
        IsolationLevel::RepeatableRead,
        IsolationLevel::Serializable,
    ] {
        let handler = |n: usize| {
            let url = url.clone();
            tokio::spawn(async move {
                let mut client = connect(&url).await;
                for key in 0..KEYS {
                    let name = format!("{level:?}-{key}");
                    // Every other one rolls its first try back.
                    handle(&mut client, level, &name, (n + key).is_multiple_of(2)).await;
                }
            })
        };
        let handlers: Vec<_> = (0..HANDLERS).map(handler).collect();
        for handler in handlers {
            handler.await.unwrap();
        }
    }
    let effects = "SELECT count(*) FROM effect";
    assert_eq!(ask::<i64>(&client, effects).await, 3 * KEYS as i64);
    let different = "SELECT count(DISTINCT key) FROM effect";
    assert_eq!(ask::<i64>(&client, different).await, 3 * KEYS as i64);
}

#[tokio::test]
async fn what_the_functions_cannot_do_they_refuse_in_words() {
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    for (call, said) in [
        ("first('', 'a')", "onceward: the consumer is null or empty"),
        ("first('a', NULL)", "onceward: the key is null or empty"),
        (
            "first('a', repeat('k', 1025))",
            "onceward: the key has 1025 bytes, and 1024 are the most",
        ),
        ("first_of('a', '{b,NULL}')", "onceward: a key is null or empty"),
        ("forget(NULL)", "onceward: before is null or still to come, which would forget all"),
        ("forget(now() + interval '1 s')", "onceward: before is null or still to come"),
        ("apply_if_newer('a', 'b', NULL)", "onceward: the version is null"),
        ("apply_if_newer(NULL, 'b', 1)", "onceward: the scope is null or empty"),
        ("compare_and_swap('a', 'b', 5, 5)", "onceward: the next version, 5, is not after"),
        ("first_write('a', '')", "onceward: the key is null or empty"),
        ("last_write('', 'a')", "onceward: the scope is null or empty"),
        ("enqueue(NULL)", "onceward: the route is null or empty"),
        ("enqueue('pay', '')", "onceward: the key is not 1 to 255 visible ASCII letters"),
        ("enqueue('pay', ' k')", "onceward: the key is not 1 to 255 visible ASCII letters"),
        ("enqueue('pay', repeat('k', 256))", "onceward: the key is not 1 to 255"),
        ("enqueue('pay', method => 'post')", "onceward: the method is not one, such as POST"),
        ("enqueue('pay', path => 'v1')", "onceward: the path does not begin with a slash"),
        ("enqueue('pay', path => '/a b')", "onceward: the path does not begin with a slash"),
        ("enqueue('pay', headers => '[]')", "onceward: the headers are not an object"),
        (
            "enqueue('pay', body => 'x', headers => 'null')",
            "onceward: the headers are not an object",
        ),
        ("enqueue('pay', headers => '{\"a\": 1}')", "onceward: a header's name is not one"),
        ("enqueue('pay', headers => '{\"a b\": \"1\"}')", "onceward: a header's name is not one"),
        (r#"enqueue('pay', headers => '{"a": "1\r\nb: 2"}')"#, "onceward: a header's name is not"),
    ] {
        let refused = client.query(&format!("SELECT onceward.{call}"), &[]).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(refused.code(), &SqlState::INVALID_PARAMETER_VALUE, "{call}: {refused}");
        assert!(refused.message().starts_with(said), "{call}: {refused}");
    }
    assert_eq!(ask::<i64>(&client, "SELECT count(*) FROM onceward.outbox").await, 0);
}

#[tokio::test]
async fn what_is_forgotten_is_the_first_again() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let (bills, mails) = (Inbox::new("bills"), Inbox::new("mails"));
    let tx = client.transaction().await.unwrap();
    for inbox in [&bills, &mails] {
        assert_eq!(inbox.first_of(&tx, &["evt_1", "evt_2"]).await.unwrap().len(), 2);
    }
    assert!(bills.newest(&tx, "order/1", 7).await.unwrap());
    let old = "UPDATE onceward.inbox SET processed_at = to_timestamp(1) WHERE key = 'evt_1'";
    tx.execute(old, &[]).await.unwrap();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(bills.forget(&tx, at(1)).await.unwrap(), 0);
    assert_eq!(bills.forget(&tx, at(2)).await.unwrap(), 1);
    assert!(bills.first(&tx, "evt_1").await.unwrap());
    assert!(!bills.first(&tx, "evt_2").await.unwrap());
    assert!(!mails.first(&tx, "evt_1").await.unwrap());
    assert!(!bills.newest(&tx, "order/1", 7).await.unwrap());
}

//! Inbox, outbox and write boundary within a PostgreSQL database of one's own.

use std::time::{Duration, SystemTime};

use onceward::core::key::Key;
use onceward::sql::postgres::{self as own, Inbox, Outbox, WriteBoundary};
use onceward::sql::{Dialect, EnqueueError, Message, Schema, VERSION, ddl};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, NoTls};

use crate::postgres;

/// The address of a new database with the tables and functions; none without a server.
async fn database() -> Option<String> {
    let url = postgres::server()?.database().await;
    postgres::run(&url, &ddl(Dialect::Postgres)).await;
    Some(url)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until somebody in this database waits for somebody else's transaction.
async fn until_one_waits(client: &Client) {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while ask::<i64>(client, waiting).await == 0 {}
}

fn code(error: &Error) -> &SqlState {
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
async fn of_two_versions_at_once_the_newer_one_stays() {
    let Some(url) = database().await else { return };
    let (mut one, look) = (connect(&url).await, connect(&url).await);
    let inbox = Inbox::new("bills");
    for (subject, late, wins) in [("order/1", 1, false), ("order/2", 3, true)] {
        let first = one.transaction().await.unwrap();
        assert!(inbox.newest(&first, subject, 2).await.unwrap());
        let mut other = connect(&url).await;
        let second = tokio::spawn(async move {
            let tx = other.transaction().await.unwrap();
            let is_newest = Inbox::new("bills").newest(&tx, subject, late).await.unwrap();
            tx.commit().await.unwrap();
            is_newest
        });
        until_one_waits(&look).await;
        first.commit().await.unwrap();
        assert_eq!(second.await.unwrap(), wins, "{subject}");
    }
    let tx = one.transaction().await.unwrap();
    let seen = [3, 3, -1, 4, i64::MAX, 5].map(|version| inbox.newest(&tx, "order/2", version));
    let mut is_newest = Vec::new();
    for one in seen {
        is_newest.push(one.await.unwrap());
    }
    assert_eq!(is_newest, [false, false, false, true, true, false]);
    // A message's key and a subject of the same name are two things.
    assert!(inbox.first(&tx, "order/2").await.unwrap());
}

#[tokio::test]
async fn a_balance_that_many_change_at_once_comes_out_right() {
    const WRITERS: i64 = 8;
    const TIMES: i64 = 10;
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    let account = "CREATE TABLE account (id text PRIMARY KEY, balance bigint NOT NULL); \
                   INSERT INTO account VALUES ('a', 0)";
    client.batch_execute(account).await.unwrap();
    let writer = || {
        let url = url.clone();
        tokio::spawn(async move {
            let mut client = connect(&url).await;
            let boundary = WriteBoundary::new("account");
            for _ in 0..TIMES {
                loop {
                    // Both are read from one view of the database: it is the pair that has to fit.
                    let tx = client.transaction().await.unwrap();
                    let read = "SELECT balance, onceward.version_of('account', 'a') FROM account";
                    let row = tx.query_one(read, &[]).await.unwrap();
                    let (balance, version): (i64, Option<i64>) = (row.get(0), row.get(1));
                    if boundary.compare_and_swap(&tx, "a", version).await.unwrap() {
                        let set = "UPDATE account SET balance = $1";
                        tx.execute(set, &[&(balance + 1)]).await.unwrap();
                        tx.commit().await.unwrap();
                        break;
                    }
                }
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| writer()).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(ask::<i64>(&client, "SELECT balance FROM account").await, WRITERS * TIMES);
    let version = "SELECT onceward.version_of('account', 'a')";
    assert_eq!(ask::<i64>(&client, version).await, WRITERS * TIMES);
}

#[tokio::test]
async fn the_write_boundary_says_who_may_write() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let boundary = WriteBoundary::new("account");
    let tx = client.transaction().await.unwrap();
    assert_eq!(boundary.version(&tx, "a").await.unwrap(), None);
    assert!(!boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert!(boundary.compare_and_swap(&tx, "a", None).await.unwrap());
    assert!(!boundary.compare_and_swap(&tx, "a", None).await.unwrap());
    assert!(boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert!(!boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert_eq!(boundary.version(&tx, "a").await.unwrap(), Some(2));

    assert!(boundary.first_write(&tx, "b").await.unwrap());
    assert!(!boundary.first_write(&tx, "b").await.unwrap());
    assert_eq!(boundary.last_write(&tx, "b").await.unwrap(), 2);
    assert_eq!(boundary.last_write(&tx, "c").await.unwrap(), 1);
    assert!(!boundary.first_write(&tx, "c").await.unwrap());
    assert!(!boundary.apply_if_newer(&tx, "c", 1).await.unwrap());
    assert!(boundary.apply_if_newer(&tx, "c", 9).await.unwrap());
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
async fn a_message_is_in_the_table_as_it_will_leave() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let message = Message::new("pay").unwrap().key(Key::new("order-1").unwrap());
    let message = message.json(&serde_json::json!({"amount": 5})).path("/v1/charges?a=b").unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let message = message.subject("order/1").sequence(4).not_before(at).method("PUT").unwrap();
    let outbox = Outbox::new();
    let tx = client.transaction().await.unwrap();
    let id = outbox.add(&tx, &message).await.unwrap();
    assert_eq!(outbox.add(&tx, &message).await.unwrap(), id);
    tx.commit().await.unwrap();
    let row: String = ask(
        &client,
        "SELECT concat_ws(' ', key, route, method, path, headers, convert_from(body, 'UTF8'), \
         subject, sequence, round(extract(epoch FROM not_before) * 1000)) FROM onceward.outbox",
    )
    .await;
    assert_eq!(
        row,
        "order-1 pay PUT /v1/charges?a=b {\"content-type\": \"application/json\"} \
         {\"amount\":5} order/1 4 1700000000123"
    );
    let other = message.json(&serde_json::json!({"amount": 6}));
    let tx = client.transaction().await.unwrap();
    let refused = outbox.add(&tx, &other).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::AnotherRequest(key) if key.as_str() == "order-1"));
}

#[tokio::test]
async fn a_request_can_be_written_again_while_its_row_is_taken_away() {
    const WRITERS: usize = 4;
    const TIMES: usize = 50;
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    let writer = || {
        let url = url.clone();
        tokio::spawn(async move {
            let mut client = connect(&url).await;
            let message = Message::new("pay").unwrap().key(Key::new("order-1").unwrap());
            for _ in 0..TIMES {
                let tx = client.transaction().await.unwrap();
                Outbox::new().add(&tx, &message).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| writer()).collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        client.execute("DELETE FROM onceward.outbox", &[]).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_is_written_from_sql_and_told() {
    let Some(url) = database().await else { return };
    let (mut heard, told) = (connect_listening(&url).await, connect(&url).await);
    let json = "SELECT string_agg(convert_from(body, 'UTF8') || (headers ->> 'content-type'), ' ' \
                ORDER BY id) FROM onceward.outbox";
    told.batch_execute(
        "SELECT onceward_enqueue('pay', 'k1', '{\"a\":1}'); \
         SELECT onceward_enqueue('pay', 'k2', '{\"a\":2}'::jsonb); \
         SELECT onceward_enqueue('pay', 'k3', 'a=3', \
             headers => '{\"Content-Type\": \"application/x-www-form-urlencoded\"}'); \
         SELECT onceward_enqueue('pay', 'k4', '\\x00ff'::bytea); \
         SELECT onceward_enqueue('pay', key => 'k5', path => '/x', subject => 's', sequence => 1, \
             not_before => now())",
    )
    .await
    .unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    assert_eq!(
        ask::<String>(&told, json.replace("body", "nullif(body, '\\x00ff')").as_str()).await,
        "{\"a\":1}application/json {\"a\": 2}application/json"
    );
    let form = "SELECT headers ->> 'Content-Type' FROM onceward.outbox WHERE key = 'k3'";
    assert_eq!(ask::<String>(&told, form).await, "application/x-www-form-urlencoded");
    // Who has written but not committed keeps nobody from telling, and a plain row is told of too.
    let mut open = connect(&url).await;
    let tx = open.transaction().await.unwrap();
    Outbox::new().add(&tx, &Message::new("pay").unwrap()).await.unwrap();
    while heard.try_recv().is_ok() {}
    told.batch_execute("INSERT INTO onceward.outbox (route) VALUES ('pay')").await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    tx.commit().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    let bare = "SELECT count(*) FROM onceward.outbox WHERE headers = '{}' AND key IN ('k4', 'k5')";
    assert_eq!(ask::<i64>(&told, bare).await, 2);
}

/// The channels that are notified.
async fn connect_listening(url: &str) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(notification) = message {
                let _ = told.send(notification.channel().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN onceward_outbox").await.unwrap();
    // The connection lives as long as its client.
    std::mem::forget(client);
    heard
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

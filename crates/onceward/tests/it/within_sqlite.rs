//! Inbox, outbox and write boundary within a SQLite database of one's own.

use std::time::{Duration, SystemTime};

use onceward::core::key::Key;
use onceward::sql::sqlite::rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use onceward::sql::sqlite::{Inbox, Outbox, STATEMENTS, WriteBoundary};
use onceward::sql::{Dialect, EnqueueError, Message, VERSION, ddl};

/// A database with the tables.
fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    connection
}

/// Does something in a transaction, and commits.
fn committed<T>(connection: &mut Connection, act: impl FnOnce(&Transaction<'_>) -> T) -> T {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let done = act(&tx);
    tx.commit().unwrap();
    done
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn the_script_can_be_run_again_and_keeps_what_is_there() {
    let mut connection = database();
    assert!(committed(&mut connection, |tx| Inbox::new("bills").first(tx, "evt_1").unwrap()));
    connection.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    assert!(!committed(&mut connection, |tx| Inbox::new("bills").first(tx, "evt_1").unwrap()));
    let version = "SELECT version FROM onceward_installed";
    let installed = |connection: &Connection| -> i32 {
        connection.query_row(version, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(installed(&connection), VERSION);
    // An earlier one is brought up to this one, and a later one is not brought down.
    for (before, after) in [(0, VERSION), (VERSION + 1, VERSION + 1)] {
        connection.execute("UPDATE onceward_installed SET version = ?1", [before]).unwrap();
        connection.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
        assert_eq!(installed(&connection), after);
    }
}

#[test]
fn each_statement_that_is_printed_is_one() {
    let connection = database();
    for statement in STATEMENTS {
        connection.prepare(statement.sql).unwrap();
        assert!(ddl(Dialect::Sqlite).contains(&format!("\n-- {}: ", statement.name)));
    }
}

#[test]
fn a_key_is_the_first_once_for_each_consumer() {
    let mut connection = database();
    let (bills, mails) = (Inbox::new("bills"), Inbox::new("mails"));
    committed(&mut connection, |tx| {
        assert!(bills.first(tx, "evt_1").unwrap());
        assert!(!bills.first(tx, "evt_1").unwrap());
        assert!(mails.first(tx, "evt_1").unwrap());
        assert!(bills.first(tx, "evt_2").unwrap());
    });
    assert!(!committed(&mut connection, |tx| bills.first(tx, "evt_1").unwrap()));
}

#[test]
fn what_is_rolled_back_was_not_handled() {
    let mut connection = database();
    let inbox = Inbox::new("bills");
    let tx = connection.transaction().unwrap();
    assert!(inbox.first(&tx, "evt_1").unwrap());
    assert!(inbox.newest(&tx, "order/1", 7).unwrap());
    Outbox::new().add(&tx, &Message::new("pay").unwrap()).unwrap();
    tx.rollback().unwrap();
    assert_eq!(count(&connection, "onceward_outbox"), 0);
    committed(&mut connection, |tx| {
        assert!(inbox.first(tx, "evt_1").unwrap());
        assert!(inbox.newest(tx, "order/1", 7).unwrap());
    });
}

#[test]
fn two_with_one_key_follow_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.db");
    let inbox = Inbox::new("bills");
    let mut one = Connection::open(&path).unwrap();
    one.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    let first = one.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    assert!(inbox.first(&first, "evt_1").unwrap());
    // Without patience the other is told that somebody writes.
    let mut other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let refused = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    // With some it waits, and then sees what the first one did.
    other.busy_timeout(Duration::from_mins(1)).unwrap();
    let (begun, waits) = std::sync::mpsc::channel();
    let second = std::thread::spawn(move || {
        begun.send(()).unwrap();
        committed(&mut other, |tx| Inbox::new("bills").first(tx, "evt_1").unwrap())
    });
    waits.recv().unwrap();
    first.commit().unwrap();
    assert!(!second.join().unwrap());
}

#[test]
fn an_older_state_that_comes_late_is_not_applied() {
    let mut connection = database();
    let inbox = Inbox::new("bills");
    let seen: Vec<bool> = committed(&mut connection, |tx| {
        [3, 3, 1, 4, -1, i64::MAX, 5]
            .map(|version| inbox.newest(tx, "order/1", version).unwrap())
            .to_vec()
    });
    assert_eq!(seen, [true, false, false, true, false, true, false]);
    // A message's key and a subject of the same name are two things.
    assert!(committed(&mut connection, |tx| inbox.first(tx, "order/1").unwrap()));
}

#[test]
fn the_write_boundary_says_who_may_write() {
    let mut connection = database();
    let boundary = WriteBoundary::new("account");
    committed(&mut connection, |tx| {
        assert_eq!(boundary.version(tx, "a").unwrap(), None);
        assert!(!boundary.compare_and_swap(tx, "a", Some(1)).unwrap());
        assert!(boundary.compare_and_swap(tx, "a", None).unwrap());
        assert!(!boundary.compare_and_swap(tx, "a", None).unwrap());
        assert!(boundary.compare_and_swap(tx, "a", Some(1)).unwrap());
        assert!(!boundary.compare_and_swap(tx, "a", Some(1)).unwrap());
        assert_eq!(boundary.version(tx, "a").unwrap(), Some(2));

        assert!(boundary.first_write(tx, "b").unwrap());
        assert!(!boundary.first_write(tx, "b").unwrap());
        assert_eq!(boundary.last_write(tx, "b").unwrap(), 2);
        assert_eq!(boundary.last_write(tx, "c").unwrap(), 1);
        assert!(!boundary.first_write(tx, "c").unwrap());
        assert!(!boundary.apply_if_newer(tx, "c", 1).unwrap());
        assert!(boundary.apply_if_newer(tx, "c", 9).unwrap());
    });
}

#[test]
fn names_that_say_nothing_are_refused_and_named() {
    let mut connection = database();
    let long = "k".repeat(1025);
    for (consumer, key, named) in
        [("", "evt_1", "consumer_has"), ("bills", "", "key_has"), ("bills", &long, "key_has")]
    {
        let tx = connection.transaction().unwrap();
        let refused = Inbox::new(consumer).first(&tx, key).unwrap_err().to_string();
        assert!(refused.contains(named), "{refused}");
        let refused = WriteBoundary::new(consumer).last_write(&tx, key).unwrap_err().to_string();
        assert!(refused.contains("_has_1_to_1024_bytes"), "{refused}");
    }
}

#[test]
fn a_message_is_in_the_table_as_it_will_leave() {
    let mut connection = database();
    let message = Message::new("pay").unwrap().key(Key::new("order-1").unwrap());
    let message = message.json(&serde_json::json!({"amount": 5})).path("/v1/charges?a=b").unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let message = message.subject("order/1").sequence(4).not_before(at).method("PUT").unwrap();
    let outbox = Outbox::new();
    let (id, again) = committed(&mut connection, |tx| {
        (outbox.add(tx, &message).unwrap(), outbox.add(tx, &message).unwrap())
    });
    assert_eq!(id, again);
    let row: String = connection
        .query_row(
            "SELECT key || ' ' || route || ' ' || method || ' ' || path || ' ' || headers || ' ' \
             || CAST(body AS TEXT) || ' ' || typeof(body) || ' ' || subject || ' ' || sequence \
             || ' ' || not_before FROM onceward_outbox WHERE id = ?1",
            [id],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        row,
        "order-1 pay PUT /v1/charges?a=b {\"content-type\":\"application/json\"} \
         {\"amount\":5} blob order/1 4 1700000000123"
    );
    let other = message.json(&serde_json::json!({"amount": 6}));
    let refused = committed(&mut connection, |tx| outbox.add(tx, &other).unwrap_err());
    assert!(matches!(refused, EnqueueError::AnotherRequest(key) if key.as_str() == "order-1"));
    // Without a key each is a request of its own.
    let plain = Message::new("pay").unwrap();
    committed(&mut connection, |tx| {
        assert_ne!(outbox.add(tx, &plain).unwrap(), outbox.add(tx, &plain).unwrap());
    });
}

#[test]
fn ids_are_never_given_twice() {
    let mut connection = database();
    let plain = Message::new("pay").unwrap();
    let first = committed(&mut connection, |tx| Outbox::new().add(tx, &plain).unwrap());
    connection.execute("DELETE FROM onceward_outbox", []).unwrap();
    let second = committed(&mut connection, |tx| Outbox::new().add(tx, &plain).unwrap());
    assert!(second > first);
}

#[test]
fn what_is_forgotten_is_the_first_again() {
    let mut connection = database();
    let (bills, mails) = (Inbox::new("bills"), Inbox::new("mails"));
    committed(&mut connection, |tx| {
        for inbox in [&bills, &mails] {
            assert!(inbox.first(tx, "evt_1").unwrap());
            assert!(inbox.first(tx, "evt_2").unwrap());
        }
        assert!(bills.newest(tx, "order/1", 7).unwrap());
    });
    let old = "UPDATE onceward_inbox SET processed_at = 1000 WHERE key = 'evt_1'";
    connection.execute(old, []).unwrap();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    committed(&mut connection, |tx| {
        assert_eq!(bills.forget(tx, at(1)).unwrap(), 0);
        // A time that is still to come would forget all.
        assert_eq!(bills.forget(tx, at(99_999_999_999)).unwrap(), 0);
        assert_eq!(bills.forget(tx, at(2)).unwrap(), 1);
        assert!(bills.first(tx, "evt_1").unwrap());
        assert!(!bills.first(tx, "evt_2").unwrap());
        assert!(!mails.first(tx, "evt_1").unwrap());
        assert!(!bills.newest(tx, "order/1", 7).unwrap());
    });
}

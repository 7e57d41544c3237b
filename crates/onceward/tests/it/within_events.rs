//! The same 10,000 events delivered three times, shuffled, to consumers that are killed again and
//! again: each is handled once, and of each subject the newest version stays.
//!
//! Three consumers at a time, each of them a process that gets all events in an order of its own,
//! some at once in one transaction. It says what it has committed; what it had not said when it was
//! killed is delivered once more. Nothing in the tables of the effects keeps a double out but the
//! inbox.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onceward::sql::sqlite::rusqlite::{Connection, TransactionBehavior, params};
use onceward::sql::{Dialect, ddl, postgres as own, sqlite};
use onceward_proof::chance::Chance;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use crate::postgres;

const EVENTS: usize = 10_000;
/// Each subject has as many events as versions.
const SUBJECTS: usize = 500;

const CONSUMERS: u64 = 3;
/// Handled in one transaction.
const TOGETHER: usize = 25;
/// A process has committed fewer transactions than this when it is killed.
const LIFE_MAX: u64 = 60;

/// One event, as a provider would send it.
struct Event(usize);

impl Event {
    fn id(&self) -> String {
        format!("evt_{}", self.0)
    }

    fn subject(&self) -> String {
        format!("order/{}", self.0 % SUBJECTS)
    }

    /// From 1; the newest is [`EVENTS`] by [`SUBJECTS`].
    fn version(&self) -> i64 {
        (self.0 / SUBJECTS) as i64 + 1
    }
}

/// The order in which a consumer gets the events.
fn shuffled(seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..EVENTS).collect();
    let mut chance = Chance(seed);
    for at in (1..EVENTS).rev() {
        order.swap(at, chance.below(at as u64 + 1) as usize);
    }
    order
}

/// Those from `from` on that a consumer handles together, by id: two transactions that both want
/// several keys take them in one order.
fn group(order: &[usize], from: usize) -> Vec<Event> {
    let end = EVENTS.min(from + TOGETHER);
    let mut group: Vec<Event> = order[from..end].iter().map(|&event| Event(event)).collect();
    group.sort_by_key(Event::id);
    group
}

const TABLES: &str = "CREATE TABLE effect (event text NOT NULL);
    CREATE TABLE thing (subject text PRIMARY KEY, version bigint NOT NULL, event text NOT NULL);";

/// Names the database to the process of a consumer.
const PLACE: &str = "TEST_EVENTS_PLACE";
const SEED: &str = "TEST_EVENTS_SEED";
const FROM: &str = "TEST_EVENTS_FROM";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A life of a consumer. Where no other test started it, it has nothing to do.
#[test]
fn a_consumer_lives_until_it_is_killed() {
    let (Some(place), Some(seed), Some(from)) = (variable(PLACE), variable(SEED), variable(FROM))
    else {
        return;
    };
    let (order, from) = (shuffled(seed.parse().unwrap()), from.parse().unwrap());
    if let Some(file) = place.strip_prefix("sqlite:") {
        consume_sqlite(Path::new(file), &order, from);
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(consume_postgres(&place, &order, from));
    }
}

/// Tells whoever delivers what is committed.
fn acknowledge(until: usize) {
    eprintln!("acknowledged {until}");
}

async fn consume_postgres(url: &str, order: &[usize], mut from: usize) {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    while from < EVENTS {
        let events = group(order, from);
        match handle_postgres(&mut client, &events).await {
            Ok(()) => {
                from += events.len();
                acknowledge(from);
            }
            // Two waited for one another: one of them begins again.
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn handle_postgres(client: &mut Client, events: &[Event]) -> Result<(), Error> {
    let inbox = own::Inbox::new("orders");
    let tx = client.transaction().await?;
    let ids: Vec<String> = events.iter().map(Event::id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let first = inbox.first_of(&tx, &ids).await?;
    let mut events: Vec<&Event> =
        events.iter().filter(|event| first.contains(&event.id())).collect();
    events.sort_by_key(|event| event.subject());
    for event in events {
        let (id, subject, version) = (event.id(), event.subject(), event.version());
        tx.execute("INSERT INTO effect VALUES ($1)", &[&id]).await?;
        if inbox.newest(&tx, &subject, version).await? {
            let set = "INSERT INTO thing VALUES ($1, $2, $3) ON CONFLICT (subject) \
                       DO UPDATE SET version = excluded.version, event = excluded.event";
            tx.execute(set, &[&subject, &version, &id]).await?;
        }
    }
    tx.commit().await
}

fn open(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.pragma_update(None, "synchronous", "normal").unwrap();
    connection
}

fn consume_sqlite(file: &Path, order: &[usize], mut from: usize) {
    let mut connection = open(file);
    let inbox = sqlite::Inbox::new("orders");
    while from < EVENTS {
        let events = group(order, from);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        for event in &events {
            let (id, subject, version) = (event.id(), event.subject(), event.version());
            if !inbox.first(&tx, &id).unwrap() {
                continue;
            }
            tx.execute("INSERT INTO effect VALUES (?1)", [&id]).unwrap();
            if inbox.newest(&tx, &subject, version).unwrap() {
                let set = "INSERT OR REPLACE INTO thing VALUES (?1, ?2, ?3)";
                tx.execute(set, params![subject, version, id]).unwrap();
            }
        }
        tx.commit().unwrap();
        from += events.len();
        acknowledge(from);
    }
}

/// Starts a life of a consumer.
fn start(place: &str, seed: u64, from: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "within_events::a_consumer_lives_until_it_is_killed", "--nocapture"])
        .env(PLACE, place)
        .env(SEED, seed.to_string())
        .env(FROM, from.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Delivers all events to one consumer, however often it dies; says how often it did.
fn deliver(place: &str, seed: u64) -> usize {
    let mut chance = Chance(seed ^ 0x6b69_6c6c);
    let (mut acknowledged, mut kills) = (0, 0);
    while acknowledged < EVENTS {
        let mut child = start(place, seed, acknowledged);
        let life = chance.below(LIFE_MAX);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let mut commits = 0;
        for line in lines.map_while(Result::ok) {
            let Some(until) = line.strip_prefix("acknowledged ") else {
                // It says nothing else but why it fails.
                said.push(line);
                continue;
            };
            let until = until.parse().unwrap();
            commits += 1;
            let dies = commits > life && until < EVENTS;
            if dies {
                // With SIGKILL, and with the next events in hand.
                child.kill().unwrap();
            }
            // Or it died before it could say what it had committed.
            if !dies || chance.percent(50) {
                acknowledged = until;
            }
            if dies {
                break;
            }
        }
        let ended = child.wait().unwrap();
        kills += usize::from(ended.code().is_none());
        assert!(ended.success() || said.is_empty(), "{}", said.join("\n"));
    }
    kills
}

/// Delivers all events to all consumers at a time, and says how often one of them was killed.
fn deliver_to_all(place: &str) -> usize {
    let seed = variable("TEST_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(42);
    std::thread::scope(|scope| {
        let deliver = |n| scope.spawn(move || deliver(place, seed + n));
        let consumers: Vec<_> = (0..CONSUMERS).map(deliver).collect();
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum()
    })
}

/// Fewer would show little: a life is 30 of the 400 transactions that a consumer has, on average.
const KILLS_MIN: usize = 15;

/// What has to be counted in the tables at the end: all effects, different effects, and subjects
/// that stand at their newest event.
fn counts() -> [(String, usize); 4] {
    let (newest, versions) = (EVENTS - SUBJECTS, EVENTS / SUBJECTS);
    let stands = format!(
        "SELECT count(*) FROM thing WHERE version = {versions} \
         AND event = 'evt_' || ({newest} + CAST(substr(subject, 7) AS integer))"
    );
    [
        ("SELECT count(*) FROM effect".to_owned(), EVENTS),
        ("SELECT count(DISTINCT event) FROM effect".to_owned(), EVENTS),
        ("SELECT count(*) FROM thing".to_owned(), SUBJECTS),
        (stands, SUBJECTS),
    ]
}

#[test]
fn each_event_is_handled_once_and_the_newest_wins_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.db");
    let connection = open(&file);
    connection.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    connection.execute_batch(TABLES).unwrap();
    let kills = deliver_to_all(&format!("sqlite:{}", file.display()));
    assert!(kills >= KILLS_MIN, "{kills} kills");
    for (sql, expected) in counts() {
        let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, expected as i64, "{sql}");
    }
}

#[test]
fn each_event_is_handled_once_and_the_newest_wins_on_postgres() {
    let Some(server) = postgres::server() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = runtime.block_on(async {
        let url = server.database().await;
        postgres::run(&url, &ddl(Dialect::Postgres)).await;
        postgres::run(&url, TABLES).await;
        url
    });
    let kills = deliver_to_all(&url);
    assert!(kills >= KILLS_MIN, "{kills} kills");
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        for (sql, expected) in counts() {
            let count: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
            assert_eq!(count, expected as i64, "{sql}");
        }
    });
}

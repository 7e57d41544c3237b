//! An application commits fifty transactions at once, in any order, while the gateway that relays its
//! outbox is killed again and again: what was committed is done once, each subject's in its order, and
//! nothing that was rolled back ever arrives.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onceward::sql::{Dialect, ddl};
use onceward_proof::chance::Chance;
use onceward_proof::figures::{Figures, number, seed, tell};
use tokio::task::JoinSet;

use crate::crash_world::{Gateway, World, until};
use crate::nodes_server::Database;
use crate::outbox_tables::{postgres, sqlite};

/// Who commits at once.
const WRITERS: u64 = 50;

/// What their rows are about.
const SUBJECTS: u64 = 8;

/// Rows of an ordered subject, and those of none.
const ROUTES: &str = r#"
[routes.ordered]
upstream = "http://AUDITOR/keyed"
effects = "keyed"
order = "subject"
timeout = "5s"
retry = { attempts_max = 1000, horizon = "1h", base = "10ms", floor = "5ms", cap = "100ms", factor = 2.0 }
breaker = { open = "50ms", open_max = "200ms" }

[outbox.app]
database = "DATABASE"
poll = "50ms"
batch_max = 20
"#;

/// What a transaction is to write, and what became of it.
struct Plan {
    /// Past counting upwards, so that each key says its place: `subject.n.writer.round`.
    name: String,
    subject: Option<u64>,
    commits: bool,
    /// Before it takes its turn, and after it has written.
    pauses: [Duration; 2],
}

impl Plan {
    fn new(writer: u64, round: u64, chance: &mut Chance) -> Self {
        let subject = chance.below(SUBJECTS + 2);
        // A few run for long: what others commit meanwhile must not pass them by unseen.
        let is_long = chance.below(10) == 0;
        let pause = |chance: &mut Chance, max| Duration::from_micros(chance.below(max));
        let first = if is_long { 1_500_000 } else { 60_000 };
        Self {
            name: format!("{writer}.{round}"),
            subject: (subject < SUBJECTS).then_some(subject),
            commits: chance.below(100) < 80,
            pauses: [pause(chance, first), pause(chance, 15_000)],
        }
    }

    fn key(&self, n: i64) -> String {
        match self.subject {
            Some(subject) => format!("s{subject}.{n}.{}", self.name),
            None => format!("none.0.{}", self.name),
        }
    }

    /// The row, as both databases take it.
    fn insert(&self, table: &str, n: i64) -> String {
        let key = self.key(n);
        let (route, subject) = match self.subject {
            Some(subject) => ("ordered", format!("'s{subject}'")),
            None => ("keyed", "NULL".to_owned()),
        };
        format!(
            "INSERT INTO {table} (key, route, path, headers, body, subject) VALUES \
             ('{key}', '{route}', '/chaos', '{{\"content-type\": \"application/json\"}}', \
             '{{\"post\": \"{key}\"}}', {subject})"
        )
    }
}

/// Subjects that count what was committed about them, and a table for what has nothing to do with it.
const SUBJECT_TABLES: &str = "CREATE TABLE subject (name integer PRIMARY KEY, n integer NOT NULL); \
    CREATE TABLE noise (name text);";

fn subjects() -> String {
    let rows: Vec<_> = (0..SUBJECTS).map(|subject| format!("({subject}, 0)")).collect();
    format!("INSERT INTO subject VALUES {}", rows.join(", "))
}

/// The keys that one writer committed.
async fn write_postgres(url: String, writer: u64, rounds: u64, seed: u64) -> Vec<String> {
    let (client, mut chance) = (postgres(&url).await, Chance(seed ^ (writer + 1)));
    let mut committed = Vec::new();
    for round in 0..rounds {
        let plan = Plan::new(writer, round, &mut chance);
        client.batch_execute("BEGIN").await.unwrap();
        if chance.below(2) == 0 {
            // Its transaction has an id from now on, however long it waits for its turn.
            client.batch_execute("INSERT INTO noise VALUES ('x')").await.unwrap();
        }
        tokio::time::sleep(plan.pauses[0]).await;
        let n = match plan.subject {
            None => 0,
            Some(subject) => {
                let sql =
                    format!("UPDATE subject SET n = n + 1 WHERE name = {subject} RETURNING n");
                i64::from(client.query_one(&sql, &[]).await.unwrap().get::<_, i32>(0))
            }
        };
        client.batch_execute(&plan.insert("onceward.outbox", n)).await.unwrap();
        tokio::time::sleep(plan.pauses[1]).await;
        client.batch_execute(if plan.commits { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        if plan.commits {
            committed.push(plan.key(n));
        }
    }
    committed
}

/// The same; here one transaction writes at a time, and the others wait for it.
fn write_sqlite(path: &Path, writer: u64, rounds: u64, seed: u64) -> Vec<String> {
    let (db, mut chance) = (sqlite(path), Chance(seed ^ (writer + 1)));
    let mut committed = Vec::new();
    for round in 0..rounds {
        let plan = Plan::new(writer, round, &mut chance);
        std::thread::sleep(plan.pauses[0]);
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let n = plan.subject.map_or(0, |subject| {
            let sql = format!("UPDATE subject SET n = n + 1 WHERE name = {subject} RETURNING n");
            db.query_row(&sql, [], |row| row.get(0)).unwrap()
        });
        db.execute_batch(&plan.insert("onceward_outbox", n)).unwrap();
        std::thread::sleep(plan.pauses[1] / 5);
        db.execute_batch(if plan.commits { "COMMIT" } else { "ROLLBACK" }).unwrap();
        if plan.commits {
            committed.push(plan.key(n));
        }
    }
    committed
}

/// Waits until nothing is open any more. What waited for its turn when its process ended may be looked
/// at again only after a minute or so.
async fn all_done(gateway: &Gateway) {
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let counts = gateway.get("/v1/stats").await["operations"].clone();
        let open = ["pending", "pending_held", "delivering", "in_doubt", "dead_letters"];
        if open.iter().all(|standing| counts[standing] == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "{counts}\n{}", gateway.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kills the gateway again and again while `writers` write, until all is done; then looks at what
/// arrived.
async fn relay_through_kills(
    figures: &'static str,
    world: &World,
    mut writers: JoinSet<Vec<String>>,
    rows_left: impl AsyncFn() -> i64,
    seed: u64,
) {
    let mut told = Figures::of(figures, seed);
    let (mut chance, mut kills) = (Chance(seed), 0);
    let mut committed = BTreeSet::new();
    while !writers.is_empty() || kills < 8 {
        let mut gateway = world.start().await;
        tokio::time::sleep(Duration::from_millis(20 + chance.below(400))).await;
        gateway.kill();
        kills += 1;
        while let Some(done) = writers.try_join_next() {
            committed.extend(done.unwrap());
        }
    }
    let gateway = world.start().await;
    until("every row to be taken", async || (rows_left().await == 0).then_some(())).await;
    all_done(&gateway).await;
    let arrived = world.auditor.arrived();
    let mut doubled = 0;
    for key in &committed {
        let effects = world.auditor.effects("keyed", key);
        assert_eq!(effects, 1, "{key} was committed, and done {effects} times\n{}", gateway.said());
        doubled += u64::from(world.auditor.arrived_with(key).len() > 1);
    }
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for arrived in &arrived {
        assert!(committed.contains(&arrived.key), "{} was rolled back", arrived.key);
        let (subject, rest) = arrived.key.split_once('.').unwrap();
        let n: i64 = rest.split('.').next().unwrap().parse().unwrap();
        let before = newest.insert(subject, n).unwrap_or(0);
        assert!(before <= n, "{subject}: {n} arrived after {before}");
    }
    let operations = gateway.operations().await;
    assert_eq!(operations.len(), committed.len(), "a row is one operation");
    let shown = gateway.get("/v1/outbox").await;
    let outbox = &shown["data"][0];
    assert_eq!((&outbox["state"], &outbox["parked"]), (&"reading".into(), &0.into()), "{outbox}");
    told.count("kills", kills);
    told.count("committed", committed.len() as u64);
    told.count("arrived", arrived.len() as u64);
    told.count("arrived_again", doubled);
    told.tell(0);
    assert!(committed.len() as u64 > 2 * WRITERS && doubled > 0, "too tame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fifty_writers_commit_lands_once_and_in_order_though_its_relay_is_killed() {
    let Some(url) = Database::shared().map(|app| app.url()) else { return };
    let (seed, rounds) = (seed(), number("TEST_ROUNDS", 10));
    tell(&format!("TEST_SEED={seed} TEST_ROUNDS={rounds}"));
    let client = postgres(&url).await;
    for sql in [&ddl(Dialect::Postgres), SUBJECT_TABLES, &subjects()] {
        client.batch_execute(sql).await.unwrap();
    }
    let world = World::with(seed, &ROUTES.replace("DATABASE", &url)).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_postgres(url.clone(), writer, rounds, seed));
    }
    let rows_left = async || {
        client.query_one("SELECT count(*) FROM onceward.outbox", &[]).await.unwrap().get(0)
    };
    relay_through_kills("outbox-postgres", &world, writers, rows_left, seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fifty_writers_commit_to_sqlite_lands_once_and_in_order_though_its_relay_is_killed() {
    let (seed, rounds) = (seed(), number("TEST_ROUNDS", 10));
    tell(&format!("TEST_SEED={seed} TEST_ROUNDS={rounds}"));
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("app.db");
    let db = sqlite(&path);
    for sql in [&ddl(Dialect::Sqlite), SUBJECT_TABLES, &subjects()] {
        db.execute_batch(sql).unwrap();
    }
    let database = format!("sqlite:{}", path.display());
    let world = World::with(seed, &ROUTES.replace("DATABASE", &database)).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let path = path.clone();
        writers.spawn_blocking(move || write_sqlite(&path, writer, rounds, seed));
    }
    let db = tokio::sync::Mutex::new(db);
    let rows_left = async || {
        let db = db.lock().await;
        db.query_row("SELECT count(*) FROM onceward_outbox", [], |row| row.get(0)).unwrap()
    };
    relay_through_kills("outbox-sqlite", &world, writers, rows_left, seed).await;
}

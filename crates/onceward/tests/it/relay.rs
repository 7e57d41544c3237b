//! Reading outbox tables: which rows come, in which order, and what becomes of them.

use std::time::Duration;

use onceward::relay::{After, Ask, Columns, Database, Row, Source, Table};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::postgres;

/// A table with a column of each kind that a row can be marked by.
const COLUMNS: &str = "payload text, about text, goes text, taken_bool boolean, taken_ms bigint";

/// All that is there.
const ALL: Ask<'static> =
    Ask { max: 100, body_bytes_max: 100, but_ids: &[], but_routes: &[], but_subjects: &[] };

fn columns() -> Columns {
    let named = |name: &str| Some(name.to_owned());
    Columns {
        id: "id".to_owned(),
        order: None,
        key: None,
        route: named("goes"),
        method: None,
        path: None,
        headers: None,
        body: "payload".to_owned(),
        subject: named("about"),
        sequence: None,
        not_before: None,
        created_at: None,
    }
}

/// An application's table `t`, and how it is written to.
enum App {
    Postgres(Client, String),
    Sqlite(Connection, TempDir),
}

impl App {
    async fn all() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("app.db")).unwrap();
        let mut all = vec![Self::Sqlite(db, folder)];
        if let Some(server) = postgres::server() {
            let url = server.database().await;
            all.push(Self::Postgres(connect(&url).await, url));
        }
        for app in &all {
            let id = match app {
                Self::Postgres(..) => "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                Self::Sqlite(..) => "id INTEGER PRIMARY KEY AUTOINCREMENT",
            };
            app.run(&format!("CREATE TABLE t ({id}, {COLUMNS})")).await;
        }
        all
    }

    async fn run(&self, sql: &str) {
        match self {
            Self::Postgres(client, _) => client.batch_execute(sql).await.unwrap(),
            Self::Sqlite(db, _) => db.execute_batch(sql).unwrap(),
        }
    }

    fn table(&self, columns: Columns, after: After) -> Table {
        let database = match self {
            Self::Postgres(_, url) => Database::Postgres { url: url.clone(), ca_file: None },
            Self::Sqlite(_, folder) => Database::Sqlite(folder.path().join("app.db")),
        };
        Table { database, name: "t".to_owned(), columns, after }
    }

    async fn open(&self, after: After) -> Source {
        Source::open(&self.table(columns(), after)).await.unwrap().unwrap()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn ids(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

#[tokio::test]
async fn rows_come_in_the_order_of_their_numbers_and_no_more_than_were_asked_for() {
    for app in App::all().await {
        for n in 1..=12 {
            app.run(&format!("INSERT INTO t (payload, about) VALUES ('p{n}', 'a')")).await;
        }
        let source = app.open(After::Delete).await;
        let all = source.read(ALL).await.unwrap();
        // Neither as texts are ordered nor as they lie in the table.
        assert_eq!(ids(&all), (1..=12).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(
            (all[8].body.as_deref(), all[8].subject.as_deref()),
            (Some(&b"p9"[..]), Some("a"))
        );
        let some = source.read(Ask { max: 3, ..ALL }).await.unwrap();
        assert_eq!(ids(&some), ["1", "2", "3"]);
        let order = Some("about".to_owned());
        app.run(
            "UPDATE t SET about = 'first' WHERE id = 11; UPDATE t SET about = 'b' WHERE id <> 11",
        )
        .await;
        drop(source);
        let by_another = app.table(Columns { order, ..columns() }, After::Delete);
        let source = opened(&by_another).await;
        let some = source.read(Ask { max: 2, ..ALL }).await.unwrap();
        assert_eq!(ids(&some), ["1", "2"], "b goes before first");
        let but_subjects = ["b".to_owned()];
        let rest = source.read(Ask { but_subjects: &but_subjects, ..ALL }).await.unwrap();
        assert_eq!(ids(&rest), ["11"]);
    }
}

/// Opens it once the one who has it has let go.
async fn opened(table: &Table) -> Source {
    loop {
        if let Some(source) = Source::open(table).await.unwrap() {
            return source;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_passed_over_and_what_is_too_large_is_left_out() {
    for app in App::all().await {
        app.run(
            "INSERT INTO t (payload, goes) VALUES ('a', 'crm'), ('b', NULL), ('c', 'pay'), (NULL, 'pay')",
        )
        .await;
        let source = app.open(After::Delete).await;
        let (ids_of, routes) = (["2".to_owned()], ["crm".to_owned()]);
        let ask = Ask { but_ids: &ids_of, but_routes: &routes, ..ALL };
        let rows = source.read(ask).await.unwrap();
        assert_eq!(ids(&rows), ["3", "4"]);
        assert_eq!(rows[1].body.as_deref(), Some(&b""[..]), "a body that is nothing is empty");
        let rows = source.read(Ask { body_bytes_max: 0, ..ALL }).await.unwrap();
        assert_eq!((rows[0].body.clone(), rows[0].body_bytes), (None, 1));
        let there = source.still_there(&["3".to_owned(), "7".to_owned()]).await.unwrap();
        assert_eq!(there, ["3"]);
    }
}

#[tokio::test]
async fn rows_that_were_taken_are_not_read_again() {
    for app in App::all().await {
        for (after, mark) in [
            (After::Mark("taken_bool".into()), "taken_bool"),
            (After::Mark("taken_ms".into()), "taken_ms > 1000000000000"),
            (After::Delete, ""),
        ] {
            app.run("INSERT INTO t (payload) VALUES ('a'), ('b')").await;
            let source = opened(&app.table(columns(), after)).await;
            let rows = ids(&source.read(ALL).await.unwrap());
            source.settle(&rows[..1]).await.unwrap();
            let left = source.read(ALL).await.unwrap();
            assert_eq!(ids(&left), rows[1..], "{mark}");
            if !mark.is_empty() {
                app.run(&format!("DELETE FROM t WHERE {mark}")).await;
            }
            app.run("DELETE FROM t").await;
            drop(source);
        }
    }
}

#[tokio::test]
async fn a_row_whose_transaction_commits_late_is_read_all_the_same() {
    for app in App::all().await {
        let App::Postgres(client, url) = &app else { continue };
        let late = connect(url).await;
        late.batch_execute("BEGIN; INSERT INTO t (payload) VALUES ('late')").await.unwrap();
        client.batch_execute("INSERT INTO t (payload) VALUES ('soon')").await.unwrap();
        let source = app.open(After::Delete).await;
        let rows = source.read(ALL).await.unwrap();
        assert_eq!(ids(&rows), ["2"]);
        source.settle(&ids(&rows)).await.unwrap();
        late.batch_execute("COMMIT").await.unwrap();
        let rows = source.read(ALL).await.unwrap();
        assert_eq!(
            (ids(&rows), rows[0].body.as_deref()),
            (vec!["1".to_owned()], Some(&b"late"[..]))
        );
    }
}

#[tokio::test]
async fn one_reader_has_a_table_until_it_is_gone_and_is_told_when_there_may_be_more() {
    for app in App::all().await {
        let App::Postgres(client, _) = &app else { continue };
        let table = app.table(columns(), After::Delete);
        let first = Source::open(&table).await.unwrap().unwrap();
        assert!(Source::open(&table).await.unwrap().is_none());
        client.batch_execute("NOTIFY onceward_outbox").await.unwrap();
        tokio::time::timeout(Duration::from_mins(1), first.told()).await.unwrap();
        drop(first);
        opened(&table).await;
    }
}

#[tokio::test]
async fn times_that_never_come_keep_no_other_row_from_being_read() {
    for app in App::all().await {
        let App::Postgres(client, _) = &app else { continue };
        client
            .batch_execute(
                "ALTER TABLE t ADD at timestamptz, ADD until timestamptz; \
                 INSERT INTO t (at, until) VALUES ('-infinity', 'infinity'), ('infinity', NULL), \
                 (now() - interval '1 hour', to_timestamp(1.5))",
            )
            .await
            .unwrap();
        let (created_at, not_before) = (Some("at".to_owned()), Some("until".to_owned()));
        let columns = Columns { created_at, not_before, ..columns() };
        let source = Source::open(&app.table(columns, After::Delete)).await.unwrap().unwrap();
        let rows = source.read(ALL).await.unwrap();
        let times: Vec<_> = rows.iter().map(|row| row.not_before).collect();
        assert_eq!(times, [Some(f64::INFINITY), None, Some(1.5)]);
        assert_eq!(rows[1].age, Some(Duration::ZERO));
        let hour = Duration::from_hours(1);
        assert!(rows[2].age.unwrap().abs_diff(hour) < Duration::from_mins(1), "{:?}", rows[2].age);
        client.batch_execute("ALTER TABLE t ADD made numeric DEFAULT 'NaN'").await.unwrap();
        // The table has one reader at a time.
        drop(source);
        let columns = Columns { created_at: Some("made".to_owned()), ..self::columns() };
        let rows = opened(&app.table(columns, After::Delete)).await.read(ALL).await.unwrap();
        assert!(rows.len() == 3 && rows.iter().all(|row| row.age.is_none()), "{rows:?}");
    }
}

#[tokio::test]
async fn ids_that_come_again_are_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, payload, about, goes, taken INTEGER)",
    )
    .unwrap();
    let table = |after| Table {
        database: Database::Sqlite(path.clone()),
        name: "t".to_owned(),
        columns: columns(),
        after,
    };
    let refused = Source::open(&table(After::Delete)).await.unwrap_err();
    assert!(refused.contains("AUTOINCREMENT"), "{refused}");
    assert!(Source::open(&table(After::Mark("taken".into()))).await.is_ok());
    let gone = Database::Sqlite(folder.path().join("none.db"));
    let refused =
        Source::open(&Table { database: gone, ..table(After::Delete) }).await.unwrap_err();
    assert!(refused.contains("none.db") && !folder.path().join("none.db").exists(), "{refused}");
}

//! The plans of the statements that calls wait for: by index, and of no day but those concerned, in
//! a ledger that is new, that has grown since the plans were made, and that has been analysed.

use tokio_postgres::SimpleQueryMessage;

use super::batch::{FREE, KNOWN, STORED, WRITE, WRITE_MADE, WRITE_MADE_OVER, WRITE_OVER};
use super::days::{self, day_of};
use super::link::{Address, Link};
use super::list::{
    COUNTS, COUNTS_OF, LAST, LAST_OPEN, MADE, MANY_WAIT, OLDEST_IN_DOUBT, OPEN, PASSING,
    PASSING_OPEN, WAITING,
};
use super::schema::migrate;
use super::session::BEAT;
use super::sweep::REST_OF_DAYS;
use super::take::{DUE, LANES};
use super::{BODY, FIND, FIND_KEY, PostgresOptions};
use crate::clock::{Clock as _, SystemClock};

/// Which partitions of operations and bodies a statement has to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    /// Those of today alone.
    Today,
    /// Whatever may hold what is not done: an index tells that there is nothing.
    All,
}

/// A statement, what it is asked with, and where it has to look. `TODAY` is the number of today,
/// `ID` is a known operation of it, `NEXT` one long after that and `NEAR` one shortly before that.
struct Hot {
    name: &'static str,
    sql: &'static str,
    with: &'static str,
    days: Days,
}

const fn hot(name: &'static str, sql: &'static str, with: &'static str, days: Days) -> Hot {
    Hot { name, sql, with, days }
}

/// What a write is asked with, and what more is found by its ids or put in the place of others.
macro_rules! written {
    ($($more:literal),*) => {
        concat!(
            "'{\"\\\\x01\"}', '{NEW}', '{1}', '{1}', '{1}', '{NULL}', '{1}', '{\"\\\\x01\"}', \
             '{ID,NEXT}', '{2,2}', '{3,3}', '{NULL,NULL}', '{NULL,NULL}', '{\"\\\\x01\",\"\\\\x01\"}', \
             '{NULL,NULL}', '{NULL,NULL}', 'ID', 'NEXT', \
             '{NEW,ID}', '{TODAY,TODAY}', '{1000000000,1000000001}', '{\"\\\\x01\",\"\\\\x01\"}'"
            $(, ", ", $more)*
        )
    };
}

const HOT: [Hot; 25] = [
    hot("write", WRITE, written!(), Days::Today),
    hot(
        "write of what is found by its ids",
        WRITE_MADE,
        written!("'{NEW}', '{to}', '{ada}'"),
        Days::Today,
    ),
    hot("write over", WRITE_OVER, written!("'{ID}', '{TODAY}', '{1}', TODAY, TODAY"), Days::Today),
    hot(
        "write over of what is found by its ids",
        WRITE_MADE_OVER,
        written!("'{NEW}', '{to}', '{ada}'", "'{ID}', '{TODAY}', '{1}', TODAY, TODAY"),
        Days::Today,
    ),
    hot("known", KNOWN, "ARRAY[sha256('k1'::bytea)]", Days::Today),
    hot(
        "free",
        FREE,
        "ARRAY[sha256('k1'::bytea)], '00000000-0000-0000-0000-000000000000'",
        Days::Today,
    ),
    hot("stored", STORED, "'{ID}'", Days::Today),
    hot("find", FIND, "'ID'", Days::Today),
    hot("find by key", FIND_KEY, "sha256('k1'::bytea)", Days::Today),
    hot("body", BODY, "TODAY, 1", Days::Today),
    hot("list", OPEN, "'NEXT', 500, '{1,2}'", Days::All),
    hot("list of what waits", WAITING, "'NEXT', 500, '{0,6}'", Days::All),
    hot("counts", COUNTS, "20001", Days::All),
    hot("counts of a tenant", COUNTS_OF, "20001, 't'", Days::All),
    hot(
        "list that passes over",
        PASSING,
        "'NEXT', 51, 'NEAR', '{3,7}', 2, '\\x01', '\\x02', 'ID'",
        Days::Today,
    ),
    hot("last of a stretch", LAST, "'NEXT', 499", Days::All),
    hot(
        "list of what is open that passes over",
        PASSING_OPEN,
        "'NEXT', 51, 'NEAR', '{1,2}', 2, '\\x01', '\\x02'",
        Days::Today,
    ),
    hot("last of a stretch of what is open", LAST_OPEN, "'NEXT', 499, '{1,2}'", Days::All),
    hot("many wait", MANY_WAIT, "20000", Days::All),
    hot("list by what was made", MADE, "'NEXT', 500, 'm1', NULL", Days::All),
    hot("oldest in doubt", OLDEST_IN_DOUBT, "NULL, 1", Days::All),
    hot("due", DUE, "1, 1, 64, 1", Days::All),
    hot("lanes", LANES, "1", Days::All),
    hot("beat", BEAT, "1, 15, 500, 1", Days::All),
    hot("rest", REST_OF_DAYS, "'ID', 256", Days::All),
];

/// Days before today of which there are operations.
const BEFORE: i32 = 5;

fn uuid(day: i32, n: u32) -> String {
    let millis = format!("{:012x}", i64::from(day) * 86_400_000);
    format!("{}-{}-0000-0000-{n:012x}", &millis[..8], &millis[8..])
}

/// Puts 3000 operations with their keys and bodies into each of the days, few of them open.
fn fill(today: i32) -> String {
    let day = |day: i32| {
        let first = uuid(day, 0);
        let first = &first[..24];
        let key = if day == today { "'k' || n" } else { "'k' || n || '-' || DAY" };
        format!(
            "INSERT INTO op SELECT ('{first}' || lpad(to_hex(n), 12, '0'))::uuid, 1, \
             CASE WHEN n % 500 = 0 THEN 0 WHEN n % 700 = 0 THEN 1 ELSE 3 END, 1, \
             CASE WHEN n % 500 = 0 THEN n END, CASE WHEN n % 700 = 0 THEN 1 END, 1, 1, true, \
             '\\x00' FROM generate_series(1, 3000) n; \
             INSERT INTO key SELECT sha256(({key})::bytea), \
             ('{first}' || lpad(to_hex(n), 12, '0'))::uuid FROM generate_series(1, 3000) n; \
             INSERT INTO made SELECT 'm' || n % 1000, 'name', \
             ('{first}' || lpad(to_hex(n), 12, '0'))::uuid FROM generate_series(1, 3000) n; \
             INSERT INTO body SELECT DAY, n, '\\x00' FROM generate_series(1, 3000) n;"
        )
        .replace("DAY", &day.to_string())
    };
    (today - BEFORE..=today).map(day).collect()
}

/// The lines that `sql` answers with.
async fn lines(link: &Link, sql: &str) -> Vec<String> {
    let answer = link.client.simple_query(sql).await;
    let messages = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.map(str::to_owned).collect()
}

const TABLES: [&str; 3] = ["op_", "key_", "body_"];

/// The partition that was looked into, where a line of a plan says so.
fn looked_into(line: &str) -> Option<&str> {
    let table = line.split_once(" on ")?.1.split_whitespace().next()?;
    // What a bitmap is made of is an index; its table has a line of its own.
    let is_look = line.contains("Scan")
        && !["Bitmap Index", "never executed"].iter().any(|other| line.contains(other));
    TABLES.iter().any(|ours| is_look && table.starts_with(ours)).then_some(table)
}

/// Rows that an index may lead to in vain.
const IN_VAIN_MAX: u32 = 100;

/// The lines of a plan that should not be there: a table or an index is read from end to end, rows are
/// compared each with each, a day is looked into that is not concerned, or a second part of the keys.
fn faults(plan: &[String], days: Days, today: i32) -> Vec<&String> {
    let is_whole =
        |line: &String| TABLES.iter().any(|table| line.contains(&format!("Seq Scan on {table}")));
    let is_concerned = |table: &str| {
        let today = format!("_{today}");
        // The rest is small, and whatever has no day is there.
        let names = ["_rest", &today];
        days == Days::All
            || table.starts_with("key_")
            || names.iter().any(|name| table.ends_with(name))
    };
    let is_needless = |line: &String| looked_into(line).is_some_and(|table| !is_concerned(table));
    let is_key = |line: &&String| looked_into(line).is_some_and(|table| table.starts_with("key_"));
    let keys = plan.iter().filter(is_key).skip(1);
    let is_all_with_all = |line: &String| line.contains("Join Filter: ((op.id = ");
    let is_in_vain = |line: &String| {
        let rows = line.trim().strip_prefix("Rows Removed by Filter: ");
        rows.is_some_and(|rows| rows.parse().is_ok_and(|rows: u32| rows > IN_VAIN_MAX))
    };
    let is_fault = |line: &&String| {
        is_whole(line) || is_needless(line) || is_all_with_all(line) || is_in_vain(line)
    };
    plan.iter().filter(is_fault).chain(keys).collect()
}

async fn judge(link: &Link, today: i32, ledger: &str) {
    for (place, Hot { name, with, days, .. }) in HOT.iter().enumerate() {
        let with = with
            .replace("NEW", &uuid(today, 9999))
            .replace("NEXT", &uuid(today, 2999))
            .replace("NEAR", &uuid(today, 2950))
            .replace("ID", &uuid(today, 1))
            .replace("TODAY", &today.to_string());
        let call = if with.is_empty() { String::new() } else { format!("({with})") };
        let explain = format!(
            "BEGIN; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE hot_{place}{call}; \
             ROLLBACK"
        );
        let plan = lines(link, &explain).await;
        let faults = faults(&plan, *days, today);
        assert!(faults.is_empty(), "{name}, {ledger}: {faults:#?}\nof {plan:#?}");
        assert!(plan.iter().any(|line| line.contains("Index")), "{name}, {ledger}: {plan:#?}");
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "never silently")]
async fn the_statements_that_calls_wait_for_go_by_indexes_to_the_days_concerned() {
    let Ok(server) = std::env::var("TEST_POSTGRES") else {
        println!("skipped: TEST_POSTGRES names no server; `cargo xtask test` starts one");
        return;
    };
    let open = async |url: String| {
        let address = Address::new(&PostgresOptions { url, ca_file: None }).unwrap();
        address.open().await.unwrap()
    };
    let name = format!("plans_{}", std::process::id());
    let make = format!("CREATE DATABASE {name}");
    open(server.clone()).await.client.batch_execute(&make).await.unwrap();
    let link = open(format!("{server} dbname={name}")).await;
    migrate(&link).await.unwrap();
    let today = day_of(SystemClock.now());
    for day in today - BEFORE..=today {
        days::make(&link, day).await.unwrap();
    }
    // What is kept longest is planned once, while the ledger is empty.
    for (place, hot) in HOT.iter().enumerate() {
        let prepare = format!("PREPARE hot_{place} AS {}", hot.sql);
        link.client.batch_execute(&prepare).await.unwrap();
    }
    judge(&link, today, "new").await;
    link.client.batch_execute(&fill(today)).await.unwrap();
    judge(&link, today, "grown since").await;
    link.client.batch_execute("ANALYZE").await.unwrap();
    judge(&link, today, "analysed").await;
    link.client.batch_execute("SET plan_cache_mode = force_custom_plan").await.unwrap();
    judge(&link, today, "analysed, each with a plan of its own").await;
}

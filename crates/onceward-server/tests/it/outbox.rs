//! Outboxes: what a row becomes, what is parked, and what waits.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use onceward::sql::sqlite::rusqlite::Connection;
use onceward::sql::{Dialect, ddl};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash_world;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;
use crate::outbox_tables::{postgres, sqlite};
use crate::world::{Gateway, Upstream, World, route, until};

/// The one outbox, as the API shows it.
fn shown(gateway: &Gateway) -> Value {
    gateway.run(&["outbox", "--json"]).json()[0].clone()
}

fn until_outbox(gateway: &Gateway, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, || Some(shown(gateway)).filter(|outbox| is_so(outbox)))
}

fn rows_in(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM onceward_outbox", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_row_becomes_an_operation_with_all_that_it_says_and_leaves_its_table() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    world.write(
        "onceward.toml",
        &format!("{}[outbox.app]\ndatabase = \"sqlite:app.db\"\n", route("crm", upstream.address)),
    );
    let gateway = world.serve();
    db.execute_batch(
        "INSERT INTO onceward_outbox (key, route, method, path, headers, body, subject, sequence, not_before) \
         VALUES ('order-1', 'crm', 'PUT', '/contacts/7?x=1', \
         '{\"authorization\": \"Bearer t\", \"accept\": [\"a/b\", \"c/d\"], \"onceward-label\": \"first\"}', \
         x'7b7d', 'contact-7', 3, 1000)",
    )
    .unwrap();
    let done = gateway.until_state("order-1", "done");
    assert_eq!((&done["method"], &done["path"]), (&json!("PUT"), &json!("/contacts/7?x=1")));
    assert_eq!((&done["route"], &done["label"]), (&json!("crm"), &json!("first")));
    assert_eq!(done["subject"], json!({"name": "contact-7", "sequence": 3}));
    assert_eq!((upstream.calls(), upstream.authorization().as_deref()), (1, Some("Bearer t")));
    assert_eq!(done["via"], "outbox/app", "{done}");
    let found = gateway.call("GET", "/v1/keys/outbox%2Fapp/order-1", &[], "").json();
    assert_eq!(found["id"], done["id"]);
    until("the row is gone", || (rows_in(&db) == 0).then_some(()));
    let outbox = until_outbox(&gateway, "it has caught up", |outbox| outbox["lag_seconds"] == 0.0);
    assert_eq!((&outbox["state"], &outbox["remembered"]), (&json!("reading"), &json!(1)));
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    for line in [
        "onceward_outbox_rows_total{outbox=\"app\",result=\"remembered\"} 1",
        "onceward_outbox_lag_seconds{outbox=\"app\"} 0",
        "onceward_outbox_reading{outbox=\"app\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn a_row_that_a_caller_has_under_way_stays_until_that_one_is_through_or_has_failed() {
    let (world, upstream) = (World::new(), Upstream::answering(None));
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    let outbox = "[outbox.app]\ndatabase = \"sqlite:app.db\"\nscope = \"orders\"\n";
    let crm = route("crm", upstream.address);
    world.write("onceward.toml", &format!("{crm}scope = \"orders\"\n{outbox}"));
    let gateway = world.serve();
    let key = [("idempotency-key", "order-1")];
    std::thread::scope(|threads| {
        let call = threads.spawn(|| gateway.call("POST", "/to/crm/", &key, ""));
        until("it is under way", || (upstream.calls() == 1).then_some(()));
        db.execute_batch("INSERT INTO onceward_outbox (key, route) VALUES ('order-1', 'crm')")
            .unwrap();
        until_outbox(&gateway, "it waits", |outbox| outbox["lag_seconds"].as_f64() > Some(1.5));
        assert_eq!(rows_in(&db), 1);
        upstream.set(429);
        assert_eq!(call.join().unwrap().status, 429);
    });
    upstream.set(201);
    gateway.until_state("order-1", "done");
    until("the row is gone", || (rows_in(&db) == 0).then_some(()));
}

#[test]
fn a_row_that_can_never_become_a_call_is_parked_and_told_and_keeps_nobody_waiting() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    let config = format!(
        "{}[outbox.app]\ndatabase = \"sqlite:app.db\"\nbatch_max = 2\n",
        route("crm", upstream.address)
    );
    world.write("onceward.toml", &config);
    let insert = |key: &str, route: &str, more: &str, values: &str| {
        db.execute_batch(&format!(
            "INSERT INTO onceward_outbox (key, route{more}) VALUES ('{key}', '{route}'{values})"
        ))
        .unwrap();
    };
    for (key, route, more, values) in [
        ("path", "crm", ", path", ", 'no slash'"),
        ("headers", "crm", ", headers", ", '[1]'"),
        ("header", "crm", ", headers", ", '{\"a b\": \"c\"}'"),
        ("option", "crm", ", headers", ", '{\"onceward-timeout\": \"soon\"}'"),
        ("reads", "crm", ", method", ", 'GET'"),
        ("large", "crm", ", body", ", zeroblob(2000000)"),
        ("counts", "crm", ", sequence", ", 7"),
        ("later", "crm", ", not_before", ", 9e300"),
        ("unknown", "crn", "", ""),
        ("address", "http://127.0.0.1:1", "", ""),
        ("", "crm", "", ""),
        ("good", "crm", "", ""),
    ] {
        insert(key, route, more, values);
    }
    let gateway = world.serve();
    gateway.until_state("good", "done");
    let outbox = until_outbox(&gateway, "the others are parked", |outbox| outbox["parked"] == 11);
    assert_eq!((&outbox["remembered"], &outbox["state"]), (&json!(1), &json!("reading")));
    let parked = gateway.run(&["outbox", "app", "--json"]).json();
    let why = |key: &str| {
        let mut rows = parked["parked_rows"].as_array().unwrap().iter();
        let row = rows.find(|row| row["key"] == key).unwrap();
        format!("{}: {}", row["code"].as_str().unwrap(), row["why"].as_str().unwrap())
    };
    for (key, what) in [
        ("path", "request-invalid: \"no slash\""),
        ("headers", "no JSON object"),
        ("header", "\"a b\" is no header name"),
        ("option", "option-invalid: onceward-timeout"),
        ("reads", "only reads"),
        ("large", "body-too-large: Its body has 2000000 bytes"),
        ("counts", "within a subject"),
        ("later", "never comes"),
        ("unknown", "route-unknown: No route is called \"crn\""),
        ("address", "route-unknown"),
        ("", "key-invalid"),
    ] {
        assert!(why(key).contains(what), "{key}: {}", why(key));
    }
    assert!(gateway.log.until("is parked").contains("\"outbox\":\"app\""));
    let page = gateway.call("GET", "/outboxes", &[], "").text();
    assert!(page.contains("Parked rows") && page.contains("onceward_outbox"), "{page}");
    let table = gateway.run(&["outbox", "app"]).ok();
    assert_eq!(table.lines().count(), 11, "{table}");
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    assert!(metrics.contains("onceward_outbox_parked{outbox=\"app\"} 11"), "{metrics}");
    assert_eq!((rows_in(&db), upstream.calls()), (11, 1), "none of them is dropped");
    // A mended row is read again when somebody says so; one that is gone is forgotten.
    db.execute_batch(
        "UPDATE onceward_outbox SET path = '/mended' WHERE key = 'path'; \
         DELETE FROM onceward_outbox WHERE key = 'large'",
    )
    .unwrap();
    let id = parked["parked_rows"][0]["id"].as_str().unwrap();
    let asked = gateway.run(&["outbox", "app", "--retry", "--id", id, "--reason", "mended"]);
    assert_eq!(asked.ok().split('\t').next(), Some("1"));
    gateway.run(&["outbox", "app", "--retry", "--id", "none", "--reason", "r"]).failed(3);
    gateway.run(&["outbox", "nope"]).failed(3);
    gateway.until_state("path", "done");
    until_outbox(&gateway, "the others stay", |outbox| outbox["parked"] == 9);
    let audit = gateway.run(&["audit"]).ok();
    assert!(audit.contains("retried parked rows") && audit.contains("mended"), "{audit}");
    // A route that comes later takes what waited for it.
    world.write("onceward.toml", &format!("{config}{}", route("crn", upstream.address)));
    gateway.signal(Signal::HUP);
    gateway.until_state("unknown", "done");
    until_outbox(&gateway, "the others stay", |outbox| outbox["parked"] == 8);
}

#[test]
fn a_database_that_is_away_is_waited_for_and_how_long_is_told() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    world.write(
        "onceward.toml",
        &format!("{}[outbox.app]\ndatabase = \"sqlite:app.db\"\n", route("crm", upstream.address)),
    );
    let gateway = world.serve();
    gateway.log.until("the outbox waits, and its rows stay where they are");
    let outbox = until_outbox(&gateway, "it fails", |outbox| {
        outbox["lag_seconds"].as_f64().is_some_and(|lag| lag > 0.1)
    });
    assert_eq!(outbox["state"], "failing");
    assert!(outbox["last_error"].as_str().unwrap().contains("app.db"), "{outbox}");
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200, "calls are taken all the same");
    let db = sqlite(&world.path("app.db"));
    until_outbox(&gateway, "the table is missed", |outbox| {
        outbox["last_error"].as_str().is_some_and(|why| why.contains("no table onceward_outbox"))
    });
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    db.execute_batch("INSERT INTO onceward_outbox (key, route) VALUES ('k', 'crm')").unwrap();
    gateway.until_state("k", "done");
    assert_eq!(shown(&gateway)["state"], "reading");
}

#[test]
fn a_route_that_takes_no_more_holds_its_own_rows_and_no_others() {
    let (world, upstream) = (World::new(), Upstream::answering(None));
    let free = Upstream::answering(Some(201));
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    let full = route("full", upstream.address);
    world.write(
        "onceward.toml",
        &format!(
            "{full}concurrency_max = 1\nbacklog_max = 1\n{}\
             [outbox.app]\ndatabase = \"sqlite:app.db\"\nbatch_max = 2\n",
            route("free", free.address)
        ),
    );
    let gateway = world.serve();
    for n in 0..6 {
        db.execute_batch(&format!(
            "INSERT INTO onceward_outbox (key, route) VALUES ('full-{n}', 'full')"
        ))
        .unwrap();
    }
    db.execute_batch("INSERT INTO onceward_outbox (key, route) VALUES ('free', 'free')").unwrap();
    gateway.until_state("free", "done");
    let outbox = shown(&gateway);
    assert_eq!((&outbox["state"], &outbox["parked"]), (&json!("reading"), &json!(0)));
    until_outbox(&gateway, "rows are behind", |outbox| {
        outbox["lag_seconds"].as_f64().is_some_and(|lag| lag > 0.2)
    });
    upstream.set(201);
    for n in 0..6 {
        gateway.until_state(&format!("full-{n}"), "done");
    }
    assert_eq!(upstream.calls(), 6);
}

#[test]
fn an_event_that_comes_by_a_call_and_by_a_row_is_one_operation() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    let db = sqlite(&world.path("app.db"));
    db.execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    world.write(
        "onceward.toml",
        &format!(
            "{}scope = \"orders\"\n[outbox.app]\ndatabase = \"sqlite:app.db\"\nscope = \"orders\"\n",
            route("crm", upstream.address)
        ),
    );
    let gateway = world.serve();
    let first =
        gateway.call("POST", "/to/crm/o", &[("idempotency-key", "o-1")], "{\"by\": \"call\"}");
    assert_eq!(first.status, 201);
    db.execute_batch(
        "INSERT INTO onceward_outbox (key, route, path, body) VALUES ('o-1', 'crm', '/o', x'7b7d')",
    )
    .unwrap();
    let outbox = until_outbox(&gateway, "it is known", |outbox| outbox["duplicates"] == 1);
    assert_eq!((&outbox["remembered"], &outbox["parked"]), (&json!(0), &json!(0)));
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn an_outbox_that_was_reconfigured_is_read_as_it_is_now() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(201)));
    for name in ["a.db", "b.db"] {
        sqlite(&world.path(name)).execute_batch(&ddl(Dialect::Sqlite)).unwrap();
    }
    let config = |database: &str| {
        format!(
            "{}[outbox.app]\ndatabase = \"sqlite:{database}\"\n",
            route("crm", upstream.address)
        )
    };
    world.write("onceward.toml", &config("a.db"));
    let gateway = world.serve();
    let insert = |name: &str, key: &str| {
        let sql = format!("INSERT INTO onceward_outbox (key, route) VALUES ('{key}', 'crm')");
        sqlite(&world.path(name)).execute_batch(&sql).unwrap();
    };
    insert("a.db", "a");
    gateway.until_state("a", "done");
    world.write("onceward.toml", &config("b.db"));
    gateway.signal(Signal::HUP);
    insert("b.db", "b");
    gateway.until_state("b", "done");
    insert("a.db", "never");
    world.write("onceward.toml", &route("crm", upstream.address));
    gateway.signal(Signal::HUP);
    until("none is read", || {
        let all = gateway.run(&["outbox", "--json"]).json();
        all.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert_eq!(upstream.calls(), 2);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapped_table_is_delivered_to_its_address_and_its_rows_are_marked() {
    let Some(url) = Database::shared().map(|app| app.url()) else { return };
    let app = postgres(&url).await;
    app.batch_execute(
        "CREATE TABLE outboxevent (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), \
         aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb, \
         seq bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), \
         sent timestamptz)",
    )
    .await
    .unwrap();
    let outbox = format!(
        "[outbox.events]\ndatabase = {url:?}\ntable = \"outboxevent\"\norder_by = \"seq\"\n\
         columns = {{ body = \"payload\", subject = \"aggregateid\", created_at = \"at\", processed_at = \"sent\" }}\n\
         after = \"mark\"\ndeliver = \"http://AUDITOR/keyed/in\"\neffects = \"keyed\"\npoll = \"20s\"\n"
    );
    let world = crash_world::World::with(1, &outbox).await;
    let mut gateway = world.start().await;
    crash_world::until("the outbox is read", async || {
        let shown = gateway.get("/v1/outbox/events").await;
        (shown["state"] == "reading").then_some(())
    })
    .await;
    let insert = |n: i32| {
        format!(
            "INSERT INTO outboxevent (aggregatetype, aggregateid, type, payload) \
             VALUES ('order', 'order-{}', 'placed', '{{\"post\": \"x\", \"n\": {n}}}')",
            n % 3
        )
    };
    for n in 0..9 {
        app.batch_execute(&insert(n)).await.unwrap();
    }
    // A hint wakes it long before it looks by itself.
    app.batch_execute("NOTIFY onceward_outbox").await.unwrap();
    crash_world::until("all rows are marked", async || {
        let sql = "SELECT count(*) FROM outboxevent WHERE sent IS NOT NULL";
        let marked: i64 = app.query_one(sql, &[]).await.unwrap().get(0);
        (marked == 9).then_some(())
    })
    .await;
    gateway.quiet().await;
    let arrived = world.auditor.arrived();
    assert_eq!(arrived.len(), 9);
    let ids = app.query("SELECT id::text FROM outboxevent ORDER BY seq", &[]).await.unwrap();
    for id in ids {
        let id: String = id.get(0);
        assert_eq!(world.auditor.effects("keyed", &id), 1, "the id is the key");
    }
    assert!(arrived.iter().all(|arrived| arrived.path == "/keyed/in"), "{arrived:?}");
    let operation = &gateway.operations().await[0];
    assert_eq!(operation["route"], "outbox/events", "{operation}");
    assert!(gateway.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_table_lacks_is_said() {
    let Some(url) = Database::shared().map(|app| app.url()) else { return };
    let app = postgres(&url).await;
    app.batch_execute("CREATE TABLE t (id uuid, payload text, at text)").await.unwrap();
    for (more, why) in [
        ("table = \"u\"\ncolumns = { body = \"payload\" }", "there is no table u"),
        ("table = \"t\"\ncolumns = { body = \"paylaod\" }", "no column \"paylaod\""),
        ("table = \"t\"\ncolumns = { body = \"payload\" }", "order_by"),
        (
            "table = \"t\"\norder_by = \"id\"\ncolumns = { body = \"payload\", created_at = \"at\" }",
            "holds text, which is no time",
        ),
    ] {
        let outbox = format!("[outbox.x]\ndatabase = {url:?}\nto = \"keyed\"\n{more}\n");
        let world = crash_world::World::with(1, &outbox).await;
        let gateway = world.start().await;
        crash_world::until(why, async || {
            let shown = gateway.get("/v1/outbox/x").await;
            shown["last_error"].as_str()?.contains(why).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_nodes_one_reads_and_another_goes_on_when_it_is_gone() {
    let Some(ledger) = Database::shared() else { return };
    let Some(url) = Database::shared().map(|app| app.url()) else { return };
    let app = postgres(&url).await;
    app.batch_execute(&ddl(Dialect::Postgres)).await.unwrap();
    let outbox = format!("[outbox.app]\ndatabase = {url:?}\npoll = \"50ms\"\n");
    let mut cluster = Cluster::of(&[ledger.url(), ledger.url()], 1, &outbox).await;
    for node in 0..2 {
        let started = cluster.launch(node).await;
        cluster.nodes.push(started);
    }
    let state = async |node: usize| {
        let shown = cluster.nodes[node].get("/v1/outbox/app").await;
        shown["state"].as_str().unwrap_or_default().to_owned()
    };
    let reader = crash_world::until("one reads, the other stands by", async || {
        match (state(0).await.as_str(), state(1).await.as_str()) {
            ("reading", "standby") => Some(0),
            ("standby", "reading") => Some(1),
            _ => None,
        }
    })
    .await;
    let auditor = cluster.auditor.clone();
    let insert = async |key: &str| {
        let sql = format!("INSERT INTO onceward.outbox (key, route) VALUES ('{key}', 'keyed')");
        app.batch_execute(&sql).await.unwrap();
        crash_world::until(key, async || (auditor.effects("keyed", key) == 1).then_some(())).await;
    };
    insert("before").await;
    let other = 1 - reader;
    cluster.nodes[reader].kill();
    insert("after").await;
    let shown = cluster.nodes[other].get("/v1/outbox/app").await;
    assert_eq!(shown["state"], "reading", "{shown}");
}

//! Nodes that share a ledger, with nothing going wrong: what one of them knows holds at the others.

use std::time::Duration;

use serde_json::Value;

use crate::crash_world::until;
use crate::nodes_server::Database;
use crate::nodes_world::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_at_another_node_joins_and_gets_the_same_bytes() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::start(&vec![database.url(); 2], 1).await;
    let [one, other] = &cluster.nodes[..] else { return };
    let ask = |node: &crate::crash_world::Gateway| {
        let address = node.address;
        tokio::spawn(async move {
            let headers = [("idempotency-key", "joined"), ("content-type", "application/json")];
            let mut line = onceward_proof::line::Line::connect(address).await?;
            line.ask("POST", "/to/once/gate/things", &headers, b"{}").await
        })
    };
    let first = ask(one);
    until("the attempt to arrive", async || (cluster.auditor.arrivals() > 0).then_some(())).await;
    let second = ask(other);
    let path = "/v1/keys/once/joined";
    until("the duplicate to be counted", async || {
        (other.get(path).await["duplicates"]["count"].as_u64() > Some(0)).then_some(())
    })
    .await;
    cluster.auditor.open_gate();
    let first = first.await.expect("a caller").expect("an answer");
    let second = second.await.expect("a caller").expect("an answer");
    assert_eq!((first.status(), second.status()), (201, 201), "{first:?} {second:?}");
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("idempotent-replayed"), Some("false"));
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(cluster.auditor.arrivals(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_key_that_one_node_made_rotated_or_revoked_is_so_at_the_others() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::start(&vec![database.url(); 2], 1).await;
    let [one, other] = &cluster.nodes[..] else { return };
    let json = ("content-type", "application/json");
    let made = one.line().await.ask("POST", "/v1/access", &[json], b"{\"name\":\"ada\"}").await;
    let made: Value = made.expect("an answer").json();
    let bearer = format!("Bearer {}", made["key"].as_str().expect("a key"));
    let with_key = [("authorization", bearer.as_str())];
    let status = async |headers: &[(&str, &str)]| {
        let answer = other.line().await.ask("GET", "/v1/operations", headers, &[]).await;
        answer.expect("an answer").status()
    };
    until("the other to want a key", async || (status(&[]).await == 401).then_some(())).await;
    assert_eq!(status(&with_key).await, 200);
    // A second one stays, so that the gateway does not stand open again.
    let headers = [json, with_key[0]];
    let second = one.line().await.ask("POST", "/v1/access", &headers, b"{\"name\":\"bo\"}").await;
    assert_eq!(second.expect("an answer").status(), 201);
    let wanted = br#"{"name": "cy", "roles": ["send"]}"#;
    let sender = one.line().await.ask("POST", "/v1/access", &headers, wanted).await;
    let sender: Value = sender.expect("an answer").json();
    let senders = format!("Bearer {}", sender["key"].as_str().expect("a key"));
    let as_sender = [("authorization", senders.as_str())];
    until("the other to know its role", async || (status(&as_sender).await == 403).then_some(()))
        .await;
    let path = format!("/v1/access/{}/rotate", sender["prefix"].as_str().expect("a prefix"));
    let rotated = other.line().await.ask("POST", &path, &headers, br#"{"overlap": "0s"}"#).await;
    assert_eq!(rotated.expect("an answer").status(), 201);
    until("the one to know that it was rotated", async || {
        let answer = one.line().await.ask("GET", "/v1/operations", &as_sender, &[]).await;
        (answer.expect("an answer").status() == 401).then_some(())
    })
    .await;
    let path = format!("/v1/access/{}", made["prefix"].as_str().expect("a prefix"));
    // A server that is away for a moment is a 503, and may have revoked it all the same.
    until("it to be revoked", async || {
        let revoked = one.line().await.ask("DELETE", &path, &with_key, &[]).await;
        let status = revoked.expect("an answer").status();
        assert!(matches!(status, 200 | 401 | 503), "{status}");
        (status != 503).then_some(())
    })
    .await;
    until("the other to refuse it", async || (status(&with_key).await == 401).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_one_node_holds_at_the_others_and_ends_with_its_key_at_all_of_them() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::start(&vec![database.url(); 2], 1).await;
    let [one, other] = &cluster.nodes[..] else { return };
    let json = ("content-type", "application/json");
    let mut made = Vec::new();
    // A second one stays, so that the gateway does not stand open again.
    for name in ["ada", "bo"] {
        let bearer = made.first().map_or_else(String::new, |key: &Value| key["key"].to_string());
        let bearer = format!("Bearer {}", bearer.trim_matches('"'));
        let headers = [json, ("onceward-authorization", bearer.as_str())];
        let headers = if made.is_empty() { &headers[..1] } else { &headers };
        let document = format!("{{\"name\": \"{name}\"}}");
        let key = one.line().await.ask("POST", "/v1/access", headers, document.as_bytes()).await;
        made.push(key.expect("an answer").json());
    }
    let key = made[0]["key"].as_str().expect("a key");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let sent = format!("key={key}");
    let answer = one.line().await.ask("POST", "/login", &[form], sent.as_bytes()).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 303, "{answer:?}");
    let cookie = answer.header("set-cookie").expect("a cookie").split(';').next();
    let session = [("accept", "text/html"), ("cookie", cookie.expect("a cookie"))];
    let look = async |path: &str| {
        let answer = other.line().await.ask("GET", path, &session, &[]).await;
        answer.expect("an answer")
    };
    // However early it comes there, a browser is led back to where it was.
    let login = look("/login?next=%2Fdead").await;
    assert_eq!((login.status(), login.header("location")), (303, Some("/dead")));
    assert_eq!(look("/dead").await.status(), 200);
    let path = format!("/v1/access/{}", made[0]["prefix"].as_str().expect("a prefix"));
    let bearer = format!("Bearer {}", made[1]["key"].as_str().expect("a key"));
    let headers = [json, ("onceward-authorization", bearer.as_str())];
    let revoked = one.line().await.ask("DELETE", &path, &headers, b"{}").await;
    assert_eq!(revoked.expect("an answer").status(), 200);
    until("the other to know no such session", async || {
        (look("/dead").await.status() == 303).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_on_an_empty_database_migrate_it_once() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::of(&vec![database.url(); 3], 1, "").await;
    let started = tokio::join!(cluster.started(0), cluster.started(1), cluster.started(2));
    for node in [&started.0, &started.1, &started.2] {
        let answer = node.call("/once/things", "together", b"{}").await.expect("an answer");
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
    assert_eq!(cluster.auditor.arrivals(), 1);
    assert_eq!(database.sql("SELECT max(version) = count(*) FROM migration"), "t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_holds_no_more_connections_than_its_page_says() {
    let Some(database) = Database::shared() else { return };
    let cluster = Cluster::start(&vec![database.url(); 2], 1).await;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cluster.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let told = page.split("a node holds up to ").nth(1).and_then(|rest| rest.split(' ').next());
    let told: u32 = told.and_then(|told| told.parse().ok()).expect("a number");
    let load = cluster.load(8, Duration::from_secs(30));
    until("batches to be written", async || (cluster.auditor.arrivals() > 100).then_some(())).await;
    let held = database.sql(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = 'onceward' AND datname = current_database()",
    );
    load.end().await;
    let held: u32 = held.parse().expect("a count");
    assert!((1..=2 * told).contains(&held), "two hold {held}, and {told} are told of one");
}

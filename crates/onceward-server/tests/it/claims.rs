//! Claims over HTTP: what workers in any language see, one key at a time and many at once, and with
//! a gateway that is killed under them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{seed, tell};
use serde_json::{Value, json};

use crate::world::{Gateway, Response, World, call, until};

fn post(gateway: &Gateway, path: &str, body: &Value) -> Response {
    gateway.call("POST", &format!("/v1/claims/{path}"), &[], &body.to_string())
}

#[track_caller]
fn status(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["status"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(response: &Response, status: u16, code: &str) -> Value {
    let problem = response.json();
    assert_eq!((response.status, &problem["code"]), (status, &json!(code)), "{problem}");
    problem
}

#[track_caller]
fn fence(response: &Response) -> u64 {
    response.json()["fence"].as_u64().unwrap_or_else(|| panic!("{}", response.text()))
}

#[test]
fn what_the_file_says_of_claims_is_shown_before_it_is_trusted() {
    let world = World::new();
    world.write("onceward.toml", "[claims.mails]\neffects = \"idempotent\"\nlease = \"1m\"\n");
    let shown = world.run(&["check", "--json"]).json();
    assert_eq!(shown["claims"][0]["scope"], "mails");
    assert_eq!(shown["claims"][0]["effects"], "idempotent");
    assert_eq!(shown["claims"][0]["lease"], "1m");
    assert!(world.run(&["check"]).ok().contains("mails"));
}

#[test]
fn a_worker_begins_completes_and_every_other_gets_the_same_bytes() {
    let world = World::new();
    let gateway = world.serve();
    let begin =
        json!({"lease": "30s", "fingerprint": "to anna", "holder": "worker-1", "nonce": "a"});
    let first = post(&gateway, "mails/welcome%2F42/begin", &begin);
    assert_eq!(status(&first), "acquired");
    assert!(first.header("onceward-operation").is_some_and(|id| id.starts_with("op_")));
    assert_eq!(fence(&post(&gateway, "mails/welcome%2F42/begin", &begin)), fence(&first));

    let busy = post(&gateway, "mails/welcome%2F42/begin", &json!({}));
    assert_eq!(status(&busy), "busy");
    let told = busy.json();
    assert!((1..=30_000).contains(&told["retry_after_ms"].as_u64().unwrap()), "{told}");
    assert!((1..=30).contains(&busy.header("retry-after").unwrap().parse().unwrap()));
    assert_eq!((&told["holder"], &told["fence"]), (&json!("worker-1"), &Value::Null));
    let other = json!({"fingerprint": {"to": "ben"}});
    let mismatch =
        refused(&post(&gateway, "mails/welcome%2F42/begin", &other), 409, "key-mismatch");
    assert_eq!(mismatch["differs"], json!(["fingerprint"]));
    let shown = gateway.call("GET", "/v1/claims/mails/welcome%2F42", &[], "").json();
    assert_eq!((&shown["status"], &shown["fence"]), (&json!("busy"), &first.json()["fence"]));

    let renewed = post(
        &gateway,
        "mails/welcome%2F42/renew",
        &json!({"fence": fence(&first), "lease": "50m"}),
    );
    assert_eq!((status(&renewed), fence(&renewed)), ("acquired".into(), fence(&first)));
    assert!(renewed.json()["lease_until"].as_str() > first.json()["lease_until"].as_str());

    // As it was written, not as it would be written again.
    let written = r#"{"id":  "m-1", "cost": 1.50, "n": 12345678901234567890123}"#;
    let complete = format!("{{\"fence\": {}, \"outcome\": {written}}}", fence(&first));
    let path = "/v1/claims/mails/welcome%2F42/complete";
    for _ in 0..2 {
        let completed = gateway.call("POST", path, &[], &complete);
        assert_eq!(status(&completed), "done");
    }
    for _ in 0..2 {
        let done = post(&gateway, "mails/welcome%2F42/begin", &begin);
        assert_eq!(status(&done), "done");
        assert!(done.text().contains(&format!("\"outcome\":{written}")), "{}", done.text());
        assert_eq!(done.json()["ok"], true);
    }
    let other = json!({"fence": fence(&first), "outcome": "another"});
    refused(&post(&gateway, "mails/welcome%2F42/complete", &other), 409, "fence-stale");
    let late = json!({"fence": fence(&first)});
    refused(&post(&gateway, "mails/welcome%2F42/release", &late), 409, "fence-stale");
    refused(&post(&gateway, "mails/welcome%2F42/renew", &late), 409, "fence-stale");
    refused(&gateway.call("GET", "/v1/claims/mails/nobody", &[], ""), 404, "not-found");
    refused(&post(&gateway, "mails/nobody/complete", &late), 404, "not-found");

    let counted = gateway.call("GET", "/metrics", &[], "").text();
    for line in [
        "onceward_claims_total{event=\"begun\"} 1",
        "onceward_claims_total{event=\"done\"} 1",
        "onceward_claims_total{event=\"told\"} 2",
        "onceward_claims_total{event=\"busy\"} 1",
        "onceward_claims_total{event=\"stale\"} 3",
    ] {
        assert!(counted.contains(line), "{line}\n{counted}");
    }
}

#[test]
fn an_outcome_can_be_any_bytes_and_need_not_be_a_success() {
    let world = World::new();
    let gateway = world.serve();
    let first = post(&gateway, "s/k/begin", &json!({}));
    let complete = json!({
        "fence": fence(&first), "outcome_base64": "AP8=", "content_type": "image/x-dot", "ok": false,
    });
    assert_eq!(status(&post(&gateway, "s/k/complete", &complete)), "done");
    let done = post(&gateway, "s/k/begin", &json!({})).json();
    for (member, value) in [
        ("status", json!("done")),
        ("ok", json!(false)),
        ("outcome_base64", json!("AP8=")),
        ("content_type", json!("image/x-dot")),
        ("outcome", Value::Null),
    ] {
        assert_eq!(done[member], value, "{member}");
    }
    let first = post(&gateway, "s/none/begin", &json!({}));
    post(&gateway, "s/none/complete", &json!({"fence": fence(&first)}));
    let done = post(&gateway, "s/none/begin", &json!({})).text();
    assert!(done.contains("\"outcome\":null"), "{done}");
}

#[test]
fn what_cannot_be_read_is_refused_and_says_why() {
    let world = World::new();
    world.write("onceward.toml", "[claims.strict]\nfingerprint = \"required\"\n");
    let gateway = world.serve();
    for (path, body, words) in [
        ("s/k/begin", json!({"lease": "soon"}), "lease"),
        ("s/k/begin", json!({"leash": "30s"}), "leash"),
        ("s/k/begin", json!({"effects": "none"}), "effects"),
        ("s/k/begin", json!({"holder": "x".repeat(2000)}), "holder"),
        ("s/k/begin", json!({"fingerprint": "x".repeat(2000)}), "digest"),
        ("s/k/complete", json!({}), "fence"),
        ("s/k/complete", json!({"fence": 1, "outcome": 1, "outcome_base64": ""}), "not both"),
        ("s/k/complete", json!({"fence": 1, "outcome_base64": "*"}), "base64"),
        (
            "s/k/release",
            json!({"fence": 1, "may_have_executed": true, "retry_after": "1s"}),
            "retry",
        ),
        ("s/begin", json!({"claims": []}), "between 1 and 1000"),
        ("s/complete", json!({"claims": [], "holder": "x"}), "holder belongs to begin"),
        ("strict/k/begin", json!({}), "fingerprint"),
        ("%20/k/begin", json!({}), "scope"),
    ] {
        let problem = refused(&post(&gateway, path, &body), 400, "request-invalid");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{words}: {problem}");
    }
    refused(&post(&gateway, "s/k/forget", &json!({})), 404, "not-found");
    refused(&post(&gateway, "s/forget", &json!({})), 404, "not-found");
    refused(&post(&gateway, "s/a%20%20/begin", &json!({})), 400, "key-invalid");
}

#[test]
fn whoever_waits_is_told_as_soon_as_it_is_done() {
    let world = World::new();
    let gateway = world.serve();
    let first = post(&gateway, "s/k/begin", &json!({}));
    let address = gateway.address;
    let waiting = std::thread::spawn(move || {
        call(address, "POST", "/v1/claims/s/k/begin", &[], r#"{"wait": "60s"}"#).unwrap()
    });
    let complete = json!({"fence": fence(&first), "outcome": 1});
    post(&gateway, "s/k/complete", &complete);
    let told = waiting.join().unwrap();
    assert_eq!((status(&told), &told.json()["outcome"]), ("done".into(), &json!(1)));
}

#[test]
fn many_at_once_are_told_in_order_and_share_their_durable_writes() {
    let world = World::new();
    let gateway = world.serve();
    let commits = || {
        let stats = gateway.call("GET", "/v1/stats", &[], "").json();
        stats["ledger"]["commits"].as_u64().unwrap()
    };
    let before = commits();
    let keys: Vec<_> = (0..1000).map(|n| format!("m-{n}")).collect();
    let claims: Vec<_> = keys.iter().map(|key| json!({"key": key})).collect();
    let many = json!({"claims": claims, "lease": "1m", "holder": "batch", "effects": "idempotent"});
    let begun = post(&gateway, "mails/begin", &many).json();
    let begun = begun["data"].as_array().unwrap();
    for (key, told) in keys.iter().zip(begun) {
        assert_eq!((&told["key"], &told["status"]), (&json!(key), &json!("acquired")));
        assert_eq!((&told["holder"], &told["effects"]), (&json!("batch"), &json!("idempotent")));
    }
    let complete: Vec<_> = begun
        .iter()
        .map(|told| json!({"key": told["key"], "fence": told["fence"], "outcome": told["key"]}))
        .collect();
    let done = post(&gateway, "mails/complete", &json!({"claims": complete})).json();
    let is_done = |told: &Value| told["status"] == "done";
    assert!(done["data"].as_array().unwrap().iter().all(is_done), "{done}");
    let cost = commits() - before;
    assert!(cost <= 100, "{cost} durable writes for 2,000 words");

    // What is wrong with one is told of that one.
    let mixed =
        json!({"claims": [{"key": "m-1"}, {"key": ""}, {"key": "new", "fingerprint": "a"}]});
    let told = post(&gateway, "mails/begin", &mixed).json();
    assert_eq!(
        (&told["data"][0]["status"], &told["data"][0]["outcome"]),
        (&json!("done"), &json!("m-1"))
    );
    assert_eq!(told["data"][1]["problem"]["code"], "key-invalid");
    assert_eq!(told["data"][2]["status"], "acquired");
    let fence = &told["data"][2]["fence"];
    let renew = json!({"claims": [{"key": "new", "fence": fence}, {"key": "m-1", "fence": 1}], "lease": "9m"});
    let told = post(&gateway, "mails/renew", &renew).json();
    assert_eq!(told["data"][0]["status"], "acquired");
    assert_eq!(told["data"][1]["problem"]["code"], "fence-stale");
    let release = json!({"claims": [{"key": "new", "fence": fence, "reason": "later"}]});
    let told = post(&gateway, "mails/release", &release).json();
    assert_eq!(told["data"][0]["status"], "released");
    let too_many = json!({"claims": vec![json!({"key": "k"}); 1001]});
    refused(&post(&gateway, "mails/begin", &too_many), 400, "request-invalid");
}

#[test]
fn a_person_sees_who_has_it_in_hand_and_resolves_what_nobody_knows() {
    let world = World::new();
    let gateway = world.serve();
    let begin = json!({"lease": "200ms", "holder": "worker-7"});
    let first = post(&gateway, "mails/k/begin", &begin);
    let id = first.json()["operation"].as_str().unwrap().to_owned();
    let listed = gateway.run(&["ls", "--kind", "claim", "--scope", "mails"]).ok();
    assert!(listed.contains("mails") && listed.contains("CLAIM"), "{listed}");
    assert_eq!(gateway.run(&["ls", "--kind", "call", "--json"]).json(), json!([]));
    // Nobody begins it, and it is seen.
    gateway.until_state("k", "in_doubt");
    let page = gateway.call("GET", "/in-doubt", &[("accept", "text/html")], "").text();
    assert!(page.contains("mails/k"), "{page}");
    let story = gateway.run(&["show", &id]).ok();
    for words in ["worker-7", "CLAIM mails/k on mails", "onceward resolve", "In doubt"] {
        assert!(story.contains(words), "{words}\n{story}");
    }
    assert_eq!(status(&post(&gateway, "mails/k/begin", &json!({}))), "in_doubt");
    for act in ["redeliver", "cancel"] {
        let said = gateway.run(&[act, &id, "--reason", "so"]).failed(1);
        assert!(said.contains("claim"), "{said}");
    }
    let resolve = ["resolve", &id, "--reason", "the mail is there", "--as", "done"];
    gateway.run(&[&resolve[..], &["--status", "200", "--body", "{\"found\":1}"]].concat()).ok();
    let done = post(&gateway, "mails/k/begin", &json!({}));
    assert_eq!((status(&done), &done.json()["outcome"]), ("done".into(), &json!({"found": 1})));

    let first = post(&gateway, "mails/n/begin", &json!({}));
    let unknown =
        json!({"fence": fence(&first), "may_have_executed": true, "reason": "it timed out"});
    let told = post(&gateway, "mails/n/release", &unknown);
    assert_eq!(status(&told), "in_doubt");
    let id = told.json()["operation"].as_str().unwrap().to_owned();
    gateway.run(&["resolve", &id, "--as", "not-sent", "--reason", "no mail there"]).ok();
    let second = post(&gateway, "mails/n/begin", &json!({"lease": "1h"}));
    assert_eq!(status(&second), "acquired");
    assert!(fence(&second) > fence(&first));
    post(&gateway, "mails/n/complete", &json!({"fence": fence(&second)}));
    let drop = json!({"reason": "sent to the wrong one", "then": "refuse"});
    let dropped = gateway.call("DELETE", "/v1/claims/mails/n", &[], &drop.to_string());
    assert_eq!(dropped.status, 200, "{}", dropped.text());
    refused(&post(&gateway, "mails/n/begin", &json!({})), 410, "key-invalidated");
}

#[test]
fn a_restored_ledger_lets_nobody_begin_and_whoever_began_say_how_it_ended() {
    let world = World::new();
    let gateway = world.serve();
    let first = post(&gateway, "s/k/begin", &json!({"lease": "1h"}));
    let made = gateway.run(&["access", "create", "worker"]).ok();
    let key = made.split_whitespace().find(|word| word.starts_with("ow_")).unwrap().to_owned();
    refused(&post(&gateway, "s/k/begin", &json!({})), 401, "unauthenticated");
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    gateway.kill();
    std::fs::write(world.path("onceward-data/quarantine"), "").unwrap();
    let gateway = world.serve();
    for path in ["/v1/claims/s/other/begin", "/v1/claims/s/other/%62egin"] {
        let begun = gateway.call("POST", path, &headers, "{}");
        refused(&begun, 503, "quarantine");
    }
    let begun = gateway.call("POST", "/v1/claims/s/begin", &headers, r#"{"claims":[{"key":"a"}]}"#);
    refused(&begun, 503, "quarantine");
    let complete = json!({"fence": fence(&first), "outcome": 1}).to_string();
    let done = gateway.call("POST", "/v1/claims/s/k/complete", &headers, &complete);
    assert_eq!(status(&done), "done");
}

/// Asks until somebody answers: a gateway that was killed comes back.
fn ask(address: SocketAddr, path: &str, body: &Value) -> Response {
    until("the gateway answers", || {
        let asked = call(address, "POST", path, &[], &body.to_string()).ok()?;
        (asked.status != 503).then_some(asked)
    })
}

/// What workers did to keys, as they see it.
#[derive(Default)]
struct Seen {
    /// Who has a key in hand.
    in_hand: BTreeMap<String, usize>,
    /// With what it was completed.
    done: BTreeMap<String, String>,
    /// Times that a key was begun.
    begun: BTreeMap<String, u64>,
}

/// One worker takes key after key through all of the gateway's lives.
fn work(worker: usize, address: SocketAddr, keys: usize, known: &Mutex<Seen>, mut chance: Chance) {
    for n in 0..keys {
        let key = format!("k{}", (n + worker * 7) % keys);
        let path = |verb: &str| format!("/v1/claims/crash/{key}/{verb}");
        loop {
            let nonce = format!("{worker}-{}", chance.next());
            let words = json!({"lease": "1h", "wait": "1s", "nonce": nonce});
            let begun = ask(address, &path("begin"), &words);
            let fence = match status(&begun).as_str() {
                "acquired" => fence(&begun),
                "busy" => continue,
                "done" => {
                    let outcome = begun.json()["outcome"].as_str().unwrap().to_owned();
                    assert_eq!(known.lock().unwrap().done.get(&key), Some(&outcome), "{key}");
                    break;
                }
                other => panic!("{key} is {other}: {}", begun.text()),
            };
            {
                let mut known = known.lock().unwrap();
                let before = known.in_hand.insert(key.clone(), worker);
                assert_eq!(before, None, "{key}: two have it in hand");
                assert_eq!(known.done.get(&key), None, "{key}: begun though it is done");
                *known.begun.entry(key.clone()).or_default() += 1;
            }
            std::thread::sleep(Duration::from_millis(chance.below(12)));
            let gives_back = chance.percent(30);
            let outcome = format!("{key} by {worker}");
            {
                let mut known = known.lock().unwrap();
                known.in_hand.remove(&key);
                if !gives_back {
                    known.done.insert(key.clone(), outcome.clone());
                }
            }
            let (verb, word) = if gives_back {
                ("release", json!({"fence": fence}))
            } else {
                ("complete", json!({"fence": fence, "outcome": outcome}))
            };
            let said = ask(address, &path(verb), &word);
            if gives_back && said.status == 409 {
                // It was heard the first time, its answer was lost, and another has begun since.
                assert_eq!(said.json()["code"], "fence-stale");
                continue;
            }
            assert_eq!(said.status, 200, "{key}: {}", said.text());
        }
    }
}

#[test]
fn killed_under_its_workers_it_gives_nothing_to_two_and_takes_every_completion() {
    const WORKERS: usize = 8;
    const KEYS: usize = 120;
    let seed = seed();
    tell(&format!("TEST_SEED={seed}"));
    let mut chance = Chance(seed);
    let world = World::new();
    let mut gateway = world.serve();
    let address = gateway.address;
    let listen = address.to_string();
    let (known, ended) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (known, chance) = (Arc::clone(&known), Chance(seed ^ (worker as u64 + 1)));
            std::thread::spawn(move || work(worker, address, KEYS, &known, chance))
        })
        .collect();
    let all = {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let broken = workers.into_iter().filter_map(|worker| worker.join().err()).count();
            ended.store(true, Ordering::Release);
            broken
        })
    };
    let mut kills = 0;
    while !ended.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(30 + chance.below(250)));
        gateway.kill();
        kills += 1;
        gateway = world.serve_at(&listen);
    }
    assert_eq!(all.join().unwrap(), 0, "a worker broke");
    let known = known.lock().unwrap();
    assert_eq!((known.done.len(), known.in_hand.len()), (KEYS, 0));
    for (key, outcome) in &known.done {
        let told = post(&gateway, &format!("crash/{key}/begin"), &json!({})).json();
        assert_eq!((&told["status"], &told["outcome"]), (&json!("done"), &json!(outcome)));
        assert_eq!(
            told["attempt"].as_u64(),
            known.begun.get(key).copied(),
            "{key}: as often as begun"
        );
    }
    assert!(kills >= 3, "{kills} kills prove little");
    tell(&format!("{kills} kills, {} begins", known.begun.values().sum::<u64>()));
}

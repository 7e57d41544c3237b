//! Events of the real gateway: published by the API and the command line, delivered signed, looked at,
//! tried and recovered; and killed at any moment, it loses none and doubles none.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::webhook;
use onceward_proof::figures::number;
use serde_json::{Value, json};

use crate::callbacks::{Hooks, SECRET, SECRET_BYTES};
use crate::postgres;
use crate::world::{Gateway, Response, World, call, until};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn world() -> World {
    world_on(None)
}

/// A world that lets its gateway reach loopback, on a ledger in PostgreSQL where one is given.
fn world_on(database: Option<&str>) -> World {
    let world = World::new();
    let store = database.map(|url| format!("store = \"{url}\"\n")).unwrap_or_default();
    world.write("onceward.toml", &format!("{store}[egress]\nallow = [\"127.0.0.0/8\"]\n"));
    world
}

fn post(gateway: &Gateway, path: &str, document: &Value) -> Response {
    gateway.call("POST", path, &JSON, &document.to_string())
}

fn made(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.json()
}

fn url_of(hooks: &Hooks) -> String {
    format!("http://{}/hooks", hooks.address)
}

fn secret_of(subscription: &Value) -> Vec<u8> {
    STANDARD
        .decode(subscription["secret"].as_str().unwrap().strip_prefix("whsec_").unwrap())
        .unwrap()
}

#[test]
fn an_event_is_published_delivered_signed_and_looked_at() {
    let (world, hooks) = (world(), Hooks::start());
    let gateway = world.serve();
    let wanted = json!({
        "url": url_of(&hooks), "types": ["order.*"], "secret": SECRET,
        "filter": {"json": {"/data/amount": {"gt": 100}}},
        "headers": {"X-Tenant-Token": "canary-token"}, "description": "billing",
    });
    let subscription = made(&post(&gateway, "/v1/subscriptions", &wanted), 201);
    assert_eq!(
        (&subscription["secret"], &subscription["state"]),
        (&json!(SECRET), &json!("active"))
    );
    let id = subscription["id"].as_str().unwrap();
    assert!(id.starts_with("sub_"), "{id}");
    let shown = gateway.call("GET", &format!("/v1/subscriptions/{id}"), &[], "");
    assert!(!shown.text().contains("canary-token") && !shown.text().contains("whsec_"));
    assert_eq!(shown.json()["headers"], json!(["x-tenant-token"]));
    let event = json!({"type": "order.paid", "key": "paid-1", "subject": "order-1", "data": {"amount": 250}});
    let published = post(&gateway, "/v1/events", &event);
    let event_id = made(&published, 202)["id"].as_str().unwrap().to_owned();
    assert_eq!(published.header("location"), Some(format!("/v1/events/{event_id}").as_str()));
    let again = made(&post(&gateway, "/v1/events", &event), 202);
    assert_eq!((&again["id"], &again["duplicate"]), (&json!(event_id), &json!(true)));
    let mut other = event.clone();
    other["data"]["amount"] = json!(251);
    assert_eq!(made(&post(&gateway, "/v1/events", &other), 409)["code"], "key-mismatch");
    made(&post(&gateway, "/v1/events", &json!({"type": "order.paid", "data": {"amount": 1}})), 202);
    made(
        &post(&gateway, "/v1/events", &json!({"type": "user.made", "data": {"amount": 999}})),
        202,
    );
    let told = until("it is told", || hooks.told().into_iter().next());
    let body: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((&body["type"], &body["data"]), (&json!("order.paid"), &json!({"amount": 250})));
    assert_eq!(
        (&told.headers["webhook-id"], told.headers["x-tenant-token"].as_str()),
        (&event_id, "canary-token")
    );
    let seconds = told.headers["webhook-timestamp"].parse().unwrap();
    let signed = webhook::sign(&SECRET_BYTES, &event_id, seconds, &told.body);
    assert_eq!(told.headers["webhook-signature"], signed);
    until("its delivery is done", || {
        let story = gateway.call("GET", &format!("/v1/events/{event_id}"), &[], "").json();
        (story["deliveries"] == json!({"done": 1}) && story["state"] == "done").then_some(())
    });
    let listed = gateway.call("GET", "/v1/events?type=order.paid&limit=1", &[], "").json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    let path = format!("/v1/operations?parent={event_id}");
    let delivery = gateway.call("GET", &path, &[], "").json()["data"][0].clone();
    assert_eq!(
        (&delivery["kind"], &delivery["route"]),
        (&json!("delivery"), &subscription["route"])
    );
    let path = format!("/v1/operations/{}/request", delivery["id"].as_str().unwrap());
    let request = gateway.call("GET", &path, &[], "").json();
    assert_eq!(
        request["body"].as_str().unwrap().as_bytes(),
        told.body,
        "people see the whole of it"
    );
    assert_eq!(hooks.told().len(), 1, "what nobody wants goes nowhere");
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let world = world();
    let gateway = world.serve();
    for (document, words) in [
        (json!({}), "where the events go"),
        (json!({"url": "ftp://a.example/"}), "http"),
        (json!({"url": "http://169.254.169.254/"}), "169.254"),
        (json!({"to": "no-such-route/x"}), "no-such-route"),
        (json!({"url": "http://127.0.0.1:1/", "types": ["a b"]}), "order.*"),
        (json!({"url": "http://127.0.0.1:1/", "filter": {"status": 200}}), "no status"),
        (json!({"url": "http://127.0.0.1:1/", "secret": "whsec_c2hvcnQ="}), "24 to 64"),
        (json!({"url": "http://127.0.0.1:1/", "headers": {"webhook-id": "x"}}), "webhook-id"),
        (json!({"url": "http://127.0.0.1:1/", "retry": ["1y"]}), "retry"),
        (json!({"url": "http://127.0.0.1:1/", "to": "a/b"}), "not both"),
    ] {
        let refused = post(&gateway, "/v1/subscriptions", &document);
        assert!((400..500).contains(&refused.status), "{document}: {}", refused.text());
        assert!(refused.text().contains(words), "{document}: {}", refused.text());
    }
    for document in [json!({"type": "a b"}), json!({"type": "a", "unknown": 1}), json!({"data": 1})]
    {
        assert_eq!(post(&gateway, "/v1/events", &document).status, 400, "{document}");
    }
    let cloud = [("content-type", "application/cloudevents+json")];
    let no_source = json!({"specversion": "1.0", "id": "1", "type": "a"}).to_string();
    let refused = gateway.call("POST", "/v1/events", &cloud, &no_source);
    assert!(refused.status == 400 && refused.text().contains("source"), "{}", refused.text());
    assert_eq!(gateway.call("GET", "/v1/subscriptions/sub_none", &[], "").status, 404);
    assert_eq!(
        gateway.call("GET", "/v1/events/op_01kb2n9f5nep3b8m6wq6r9t2vx", &[], "").status,
        404
    );
}

#[test]
fn the_command_line_subscribes_publishes_tries_rotates_recovers_and_ends() {
    let (world, hooks) = (world(), Hooks::start());
    let gateway = world.serve();
    let run = |arguments: &[&str]| gateway.run(arguments).ok();
    let subscription = gateway
        .run(&["subscriptions", "create", &url_of(&hooks), "--type", "order.*", "--json"])
        .json();
    let id = subscription["id"].as_str().unwrap();
    assert!(run(&["subscriptions", "ls"]).contains(id));
    run(&["subscriptions", "test", id, "--data", r#"{"n": 1}"#]);
    let told = until("the test is told", || hooks.told().into_iter().next());
    assert_eq!(told.headers["webhook-signature"], {
        let seconds = told.headers["webhook-timestamp"].parse().unwrap();
        webhook::sign(&secret_of(&subscription), &told.headers["webhook-id"], seconds, &told.body)
    });
    let rotated = gateway.run(&["subscriptions", "rotate", id, "--overlap", "1h", "--json"]).json();
    assert_ne!(rotated["secret"], subscription["secret"]);
    run(&["subscriptions", "pause", id, "--reason", "maintenance"]);
    let published = run(&["publish", "order.paid", "--data", "{}", "--key", "k-1"]);
    assert_eq!(run(&["publish", "order.paid", "--data", "{}", "--key", "k-1"]), published);
    until("it waits", || {
        let waiting = gateway.run(&["ls", "--parent", published.trim(), "--json"]).json();
        (waiting[0]["state"] == "pending").then_some(())
    });
    assert_eq!(hooks.told().len(), 1, "a paused one gets nothing");
    assert!(run(&["subscriptions", "show", id]).contains("maintenance"));
    run(&["subscriptions", "resume", id, "--reason", "it is back"]);
    let told = until("it is told", || hooks.told().into_iter().nth(1));
    assert_eq!(told.headers["webhook-signature"].split(' ').count(), 2, "both secrets sign");
    run(&["subscriptions", "change", id, "--disable"]);
    run(&["publish", "order.paid", "--key", "k-2"]);
    run(&["subscriptions", "change", id, "--enable", "--description", "billing"]);
    let recover =
        ["subscriptions", "recover", id, "missed", "--since", "1h", "--reason", "r", "--json"];
    // What was published before is fanned out by then, or goes to it as to any.
    until("what was missed is told", || {
        gateway.run(&recover).ok();
        (hooks.told().len() == 3).then_some(())
    });
    assert_eq!(gateway.run(&recover).json()["born"], 0);
    let failed =
        ["subscriptions", "recover", id, "failed", "--since", "1h", "--reason", "r", "--json"];
    assert_eq!(gateway.run(&failed).json()["matched"], 0);
    run(&["subscriptions", "end", id, "--reason", "over"]);
    gateway.run(&["subscriptions", "show", id]).failed(3);
    let audit = run(&["audit"]);
    for deed in [
        "subscribed",
        "rotated a subscription",
        "paused",
        "changed a subscription",
        "ended a subscription",
    ] {
        assert!(audit.contains(deed), "{deed}: {audit}");
    }
}

#[test]
fn subscriptions_and_what_waits_for_them_outlive_a_restart_and_a_reload() {
    let (world, hooks) = (world(), Hooks::start());
    let gateway = world.serve();
    let wanted = json!({"url": url_of(&hooks), "retry": ["100ms"]});
    let subscription = made(&post(&gateway, "/v1/subscriptions", &wanted), 201);
    let id = subscription["id"].as_str().unwrap();
    let reason = json!({"reason": "r"});
    made(&post(&gateway, &format!("/v1/subscriptions/{id}/pause"), &reason), 200);
    made(&post(&gateway, "/v1/events", &json!({"type": "a.b", "key": "k"})), 202);
    until("it waits", || {
        let waiting = gateway.run(&["ls", "--kind", "delivery", "--json"]).json();
        (waiting[0]["state"] == "pending").then_some(())
    });
    gateway.kill();
    let gateway = world.serve();
    gateway.signal(rustix::process::Signal::HUP);
    gateway.log.until("the routes were read again");
    let shown = gateway.call("GET", &format!("/v1/subscriptions/{id}"), &[], "").json();
    assert_eq!((&shown["state"], &shown["paused"]["reason"]), (&json!("paused"), &json!("r")));
    made(&post(&gateway, &format!("/v1/subscriptions/{id}/resume"), &reason), 200);
    until("it is told", || hooks.told().into_iter().next());
}

/// A number that follows from another.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Publishes under keys of this round until the gateway is gone; tells which were acknowledged.
fn publish_until_gone(gateway: &Gateway, round: u64, thread: u64, stop: &AtomicBool) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for count in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let number = round * 1_000_000 + thread * 10_000 + count;
        let kind = if number % 3 == 0 { "user.made" } else { "order.paid" };
        let event = json!({"type": kind, "key": format!("k-{number}"), "data": {"number": number}});
        match call(gateway.address, "POST", "/v1/events", &JSON, &event.to_string()) {
            Ok(answer) if answer.status == 202 => acknowledged.push(number),
            Ok(answer) => panic!("{}", answer.text()),
            Err(_) => break,
        }
    }
    acknowledged
}

fn killed_at_any_moment(world: &World) {
    let rounds = number("TEST_KILLS", 8);
    let mut seed = number("TEST_SEED", 20_261_127);
    let hooks = [Hooks::start(), Hooks::start(), Hooks::start()];
    let gateway = world.serve();
    let retry = json!(["100ms", "100ms", "200ms", "500ms", "1s", "2s", "5s", "5s", "10s"]);
    let filters = [
        json!({"types": ["order.*"]}),
        json!({}),
        json!({"filter": {"json": {"/data/number": {"gte": 2_000_000}}}}),
    ];
    let mut routes = Vec::new();
    for (hook, filter) in hooks.iter().zip(&filters) {
        let mut wanted = filter.clone();
        wanted["url"] = json!(url_of(hook));
        wanted["retry"] = retry.clone();
        routes.push(made(&post(&gateway, "/v1/subscriptions", &wanted), 201)["route"].clone());
    }
    gateway.kill();
    let mut acknowledged = Vec::new();
    for round in 1..=rounds {
        let gateway = world.serve();
        let stop = AtomicBool::new(false);
        let published: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let publish = |thread| {
                let (gateway, stop) = (&gateway, &stop);
                scope.spawn(move || publish_until_gone(gateway, round, thread, stop))
            };
            let threads: Vec<_> = (0..3).map(publish).collect();
            // When it is killed is drawn: what is under way then is what is tested.
            std::thread::sleep(Duration::from_millis(20 + next(&mut seed) % 400));
            gateway.signal(rustix::process::Signal::KILL);
            stop.store(true, Ordering::Release);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        acknowledged.extend(published.into_iter().flatten());
        gateway.ended();
    }
    assert!(acknowledged.len() as u64 > rounds, "something was published: {}", acknowledged.len());
    let gateway = world.serve();
    let is_wanted = |place: usize, number: u64| match place {
        0 => number % 3 != 0,
        1 => true,
        _ => number >= 2_000_000,
    };
    let had = |hooks: &Hooks| -> BTreeMap<String, u64> {
        let of = |told: &crate::callbacks::Told| {
            let body: Value = serde_json::from_slice(&told.body).unwrap();
            (told.headers["webhook-id"].clone(), body["data"]["number"].as_u64().unwrap())
        };
        hooks.told().iter().map(of).collect()
    };
    for (place, hook) in hooks.iter().enumerate() {
        let wanted: BTreeSet<u64> =
            acknowledged.iter().copied().filter(|number| is_wanted(place, *number)).collect();
        let what = format!("receiver {place} has all {} that were acknowledged", wanted.len());
        until(&what, || {
            let had: BTreeSet<u64> = had(hook).into_values().collect();
            wanted.is_subset(&had).then_some(())
        });
        // By the id that it dedupes by, it has each event once, and none that it does not want.
        let (by_id, mut numbers) = (had(hook), BTreeSet::new());
        for number in by_id.into_values() {
            assert!(is_wanted(place, number), "{number} went to receiver {place}");
            assert!(numbers.insert(number), "{number} came under two ids to receiver {place}");
        }
    }
    until("nothing waits any more", || {
        let open = "/v1/operations?kind=delivery&state=pending";
        let waiting = gateway.call("GET", open, &[], "").json();
        let under_way = gateway.call("GET", "/v1/operations?state=delivering", &[], "").json();
        let none = |list: &Value| list["data"].as_array().is_some_and(Vec::is_empty);
        (none(&waiting) && none(&under_way)).then_some(())
    });
    let mut pairs = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/operations?kind=delivery&limit=1000&cursor={cursor}");
        let page = gateway.call("GET", &path, &[], "").json();
        for delivery in page["data"].as_array().unwrap() {
            let pair = (delivery["parent"].to_string(), delivery["route"].to_string());
            assert!(pairs.insert(pair), "born twice: {delivery}");
            assert_eq!(delivery["state"], "done", "{delivery}");
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = next.to_owned();
    }
    let wanted = acknowledged.iter().flat_map(|number| (0..3).map(move |place| (place, *number)));
    let wanted = wanted.filter(|(place, number)| is_wanted(*place, *number)).count();
    assert!(pairs.len() >= wanted, "{} deliveries, and {wanted} wanted", pairs.len());
}

#[test]
fn killed_at_any_moment_each_event_reaches_each_who_wants_it_on_disk() {
    killed_at_any_moment(&world());
}

#[test]
fn killed_at_any_moment_each_event_reaches_each_who_wants_it_on_postgres() {
    let Some(database) = postgres::database() else { return };
    killed_at_any_moment(&world_on(Some(&database)));
}

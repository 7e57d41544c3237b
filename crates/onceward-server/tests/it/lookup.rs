//! Doubts from outside: the upstream is asked, again where a person wants it, and a provider's list
//! resolves many.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::world::{Gateway, World, until};

/// An upstream whose POSTs fail without a word, and whose GETs answer as it is told.
#[derive(Clone)]
struct Orders {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Orders {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let orders = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new((503, String::new()))),
            asked: Arc::default(),
        };
        let answering = orders.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A caller that goes away is no matter of the upstream's.
                drop(answering.take(stream));
            }
        });
        orders
    }

    fn take(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first)?;
        while reader.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        reader.read_exact(&mut vec![0; length])?;
        let (status, body) = if first.starts_with("GET") {
            self.asked.lock().unwrap().push(first.trim_end().to_owned());
            self.answer.lock().unwrap().clone()
        } else {
            (500, "oh".to_owned())
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: {length}\r\n"
        );
        reader.into_inner().write_all(format!("{head}\r\n{body}").as_bytes())
    }

    fn say(&self, status: u16, body: &Value) {
        *self.answer.lock().unwrap() = (status, body.to_string());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(orders: &Orders, more: &str) -> (World, Gateway) {
    let world = World::new();
    world.write(
        "onceward.toml",
        &format!(
            "store = \"sqlite:d/l.db\"\n[routes.shop]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n{more}",
            orders.address
        ),
    );
    let gateway = world.serve();
    (world, gateway)
}

const LOOKUP: &str = "lookup = { get = \"/orders?ref={key}\", found = { json = { \"/items/0/id\" = { exists = true } } }, settle = \"1h\" }\n";

fn order(gateway: &Gateway, key: &str) -> Value {
    gateway.call("POST", "/to/shop/orders", &[("idempotency-key", key)], "{}");
    gateway.until_state(key, "in_doubt")
}

#[test]
fn a_person_looks_again_and_a_duplicate_is_told_how_it_is_known() {
    let orders = Orders::start();
    let (_world, gateway) = serve(&orders, LOOKUP);
    let id = order(&gateway, "k")["id"].as_str().unwrap().to_owned();
    let looked = until("it was asked at once", || {
        let shown = gateway.call("GET", &format!("/v1/operations/{id}"), &[], "").json();
        Some(shown["looks"].clone()).filter(|looks| looks["made"] == 1)
    });
    assert!(looked["next"].is_string(), "{looked}");
    assert_eq!(orders.asked()[0], "GET /orders?ref=k HTTP/1.1");
    let told = gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "k")], "{}").json();
    assert_eq!((&told["code"], &told["advice"]), (&json!("outcome-unknown"), &json!("wait")));
    let story = gateway.run(&["show", &id]).ok();
    assert!(story.contains("the upstream once, next"), "{story}");
    let page = gateway.call("GET", &format!("/operations/{id}"), &[], "").text();
    assert!(
        page.contains("Look again") && page.contains("Asked <strong>1</strong> time"),
        "{page}"
    );
    orders.say(200, &json!({"items": []}));
    let shown = gateway.run(&["lookup", &id, "--json"]).json();
    assert_eq!((&shown["finding"], &shown["state"]), (&json!("absent"), &json!("in_doubt")));
    orders.say(200, &json!({"items": [{"id": 7}]}));
    let line = gateway.run(&["lookup", &id]).ok();
    assert!(line.ends_with("found\tdone\n"), "{line}");
    let told = gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "k")], "{}").json();
    assert_eq!(
        (&told["code"], &told["source"]),
        (&json!("response-not-retained"), &json!("lookup"))
    );
    assert!(
        told["evidence"]
            .as_str()
            .unwrap()
            .contains("GET /orders?ref={key} answered 200, found\nGET /orders?ref=k: {"),
        "{told}"
    );
    gateway.run(&["lookup", &id]).failed(1);
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    assert!(metrics.contains("onceward_lookups_total{finding=\"found\"} 1"), "{metrics}");
}

#[test]
fn all_of_a_route_are_looked_for_and_the_page_has_a_button() {
    let orders = Orders::start();
    let (_world, gateway) = serve(&orders, LOOKUP);
    let id = order(&gateway, "a")["id"].as_str().unwrap().to_owned();
    order(&gateway, "b");
    until("both were asked at once", || (orders.asked().len() == 2).then_some(()));
    orders.say(404, &json!({}));
    let button = gateway.call(
        "POST",
        &format!("/operations/{id}/lookup"),
        &[("content-type", "application/x-www-form-urlencoded")],
        "",
    );
    assert_eq!((button.status, orders.asked().len()), (303, 3));
    orders.say(200, &json!({"items": [{"id": 7}]}));
    let tally = gateway.run(&["lookup", "--route", "shop", "--json"]).json();
    assert_eq!((&tally["found"], &tally["left"]), (&json!(2), &json!(0)));
    gateway.until_state("b", "done");
    assert_eq!(gateway.call("POST", "/v1/routes/nothing/lookup", &[], "").status, 404);
}

#[test]
fn a_call_is_explained_with_what_would_be_asked_of_its_upstream() {
    let orders = Orders::start();
    let (_world, gateway) = serve(&orders, LOOKUP);
    let shown = gateway.run(&["explain", "shop/orders", "--key", "k 1", "--json"]).json();
    assert_eq!(shown["lookup"]["asks"], "/orders?ref=k%201");
    assert_eq!(shown["lookup"]["settle"], "1h");
    assert!(orders.asked().is_empty());
    let checked = gateway.run(&["check"]).ok();
    assert!(checked.contains("the upstream is asked"), "{checked}");
}

#[test]
fn a_list_resolves_the_doubts_of_a_route_once_a_plan_was_seen() {
    let orders = Orders::start();
    let (world, gateway) = serve(&orders, "");
    for key in ["a", "b", "c"] {
        order(&gateway, key);
    }
    world.write("list.csv", "ref,amount\na,\"1,00\"\nz,2\n");
    let list = [
        "resolve",
        "--from",
        "list.csv",
        "--match",
        "/ref",
        "--route",
        "shop",
        "--reason",
        "the bank's list",
    ];
    let plan = gateway.run(&[&list[..], &["--dry-run", "--json"]].concat()).json();
    assert_eq!((&plan["listed"]["count"], &plan["absent"]["count"]), (&json!(1), &json!(2)));
    assert_eq!((&plan["resolved"], &plan["dry_run"]), (&json!(0), &json!(true)));
    gateway.until_state("a", "in_doubt");
    let run = gateway.run(&list).ok();
    assert!(run.contains("listed\t1\n") && run.contains("resolved\t1\n"), "{run}");
    let done = gateway.until_state("a", "done");
    let reason = done["acts"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the bank's list\n") && reason.contains("1,00"), "{reason}");
    gateway.run(&[&list[..], &["--absent", "not-sent"]].concat()).failed(2);
    let absent =
        [&list[..], &["--absent", "not-sent", "--as-of", "2020-01-01T00:00:00Z", "--json"]]
            .concat();
    let run = gateway.run(&absent).json();
    assert_eq!((&run["recent"]["count"], &run["resolved"]), (&json!(2), &json!(0)));
    for document in [
        json!({"route": "shop", "items": [], "match": "ref", "reason": "r"}),
        json!({"route": "shop", "items": [], "match": "/ref", "reason": " "}),
        json!({"route": "shop", "items": [], "match": "/ref", "reason": "r", "absent": "not-sent"}),
        json!({"route": "shop", "items": [], "match": "/ref", "reason": "r", "found": {"oh": 1}}),
    ] {
        let refused = gateway.call(
            "POST",
            "/v1/resolve",
            &[("content-type", "application/json")],
            &document.to_string(),
        );
        assert_eq!(refused.status, 400, "{document}: {refused:?}");
    }
}

#[test]
fn a_route_is_held_against_its_providers_list() {
    let orders = Orders::start();
    orders.say(200, &json!({"data": [{"key": "stranger"}]}));
    let reconcile =
        "reconcile = { get = \"/orders?since={since_unix}\", items = \"/data\", key = \"/key\" }\n";
    let (_world, gateway) = serve(&orders, reconcile);
    let report = until("a report", || {
        let answer = gateway.call("GET", "/v1/routes/shop/reconcile", &[], "");
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&report["listed"], &report["unknown"]["first"]), (&json!(1), &json!(["stranger"])));
    assert_eq!((&report["missing"]["count"], &report["complete"]), (&json!(0), &json!(true)));
    gateway.log.until("reconciled: not all agrees");
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    let gauge = "onceward_reconcile_differences{route=\"shop\",kind=\"unknown\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
}

#[test]
fn a_held_call_outside_its_routes_hours_is_told_when_to_come_back() {
    let orders = Orders::start();
    // A minute that is not now, whenever now is.
    let minute = (jiff::Timestamp::now().as_second() / 60 + 720).rem_euclid(1440);
    let at = |minute: i64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let hours = format!("hours = \"{}-{}\"\n", at(minute), at(minute + 1));
    let (_world, gateway) = serve(&orders, &hours);
    let told = gateway.call("POST", "/to/shop/orders", &[("idempotency-key", "k")], "{}");
    assert_eq!((told.status, &told.json()["code"]), (503, &json!("outside-hours")));
    assert!(told.header("retry-after").unwrap().parse::<u64>().unwrap() > 3600);
    let accepted = [("idempotency-key", "k"), ("prefer", "respond-async")];
    assert_eq!(gateway.call("POST", "/to/shop/orders", &accepted, "{}").status, 202);
    assert!(gateway.until_state("k", "pending")["due_at"].is_string());
}

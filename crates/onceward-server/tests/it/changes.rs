//! What changes, followed over the API: a stream that hints, and the causes of dead letters.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use crate::tenants_world::{ask, make, serve};
use crate::world::{Gateway, World, until};

/// A stream of events, as it comes.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(gateway: &Gateway, key: &str, query: &str) -> Self {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        let authorisation = if key.is_empty() {
            String::new()
        } else {
            format!("Onceward-Authorization: Bearer {key}\r\n")
        };
        let host = gateway.address;
        write!(stream, "GET /v1/changes{query} HTTP/1.1\r\nHost: {host}\r\n{authorisation}\r\n")
            .unwrap();
        let mut stream = Self(BufReader::new(stream));
        let head = stream.line().unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream.until("data: ");
        stream
    }

    /// The next line; nothing once it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then_some(line)
    }

    /// The rest of the next line that begins so.
    fn until(&mut self, begin: &str) -> String {
        loop {
            let line = self.line().expect("the stream goes on");
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.to_owned();
            }
        }
    }

    /// The next operations that changed.
    fn changed(&mut self) -> Vec<Value> {
        let event: Value = serde_json::from_str(&self.until("data: ")).unwrap();
        event["data"].as_array().unwrap().clone()
    }

    /// Reads to its end.
    fn ends(mut self) {
        while self.line().is_some() {}
    }
}

#[test]
fn what_changes_is_told_at_once_and_only_where_its_tenant_and_its_route_may_be_seen() {
    let world = World::new();
    let gateway = serve(&world, "", "");
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let confined = make(&gateway, "acme", "confined", &["--route", "careful", "--role", "read"]);
    let mut all = Stream::open(&gateway, &acme, "");
    let others = Stream::open(&gateway, &bolt, "");
    let unreached = Stream::open(&gateway, &confined, "");
    let mut of_route = Stream::open(&gateway, &acme, "?route=careful");

    let call = |key: &str, path: &str| ask(&gateway, key, &format!("POST {path}"), "{}");
    assert_eq!(call(&acme, "/to/shared/orders").status, 201);
    let mut seen = all.changed();
    // What came and was done within a moment is told once, as it is then.
    until("it is done", || {
        if seen.last()?["state"] == "done" {
            return Some(());
        }
        seen = all.changed();
        None
    });
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["route"], "shared");
    assert!(seen[0]["id"].as_str().unwrap().starts_with("op_"));
    assert_eq!(call(&acme, "/to/careful/orders").status, 201);
    assert_eq!(of_route.changed()[0]["route"], "careful");
    // Each is told of one of its own, which came last, and of none before.
    assert_eq!(call(&bolt, "/to/bolt-only/orders").status, 201);
    assert_eq!(call(&acme, "/to/careful/orders").status, 201);
    for (mut stream, own) in [(others, "bolt-only"), (unreached, "careful")] {
        let mut told = Vec::new();
        while !told.iter().any(|change: &Value| change["route"] == own) {
            told.extend(stream.changed());
        }
        assert!(told.iter().all(|change| change["route"] == own), "{told:?}");
    }
    let refused = ask(&gateway, &bolt, "GET /v1/changes?tenant=acme", "");
    assert_eq!(refused.status, 403, "{}", refused.text());
    let wrong = ask(&gateway, &acme, "GET /v1/changes?for=301", "");
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

#[test]
fn no_more_follow_than_may_and_whoever_does_holds_no_stop_up() {
    let world = World::new();
    let gateway = world.serve();
    let mut all: Vec<Stream> = (0..64).map(|_| Stream::open(&gateway, "", "")).collect();
    let one_more = gateway.call("GET", "/v1/changes", &[], "");
    assert_eq!((one_more.status, one_more.json()["code"].as_str()), (503, Some("limit")));
    all.truncate(3);
    until("there is room again", || {
        (gateway.call("GET", "/v1/changes?for=1", &[], "").status == 200).then_some(())
    });
    gateway.signal(Signal::TERM);
    for stream in all {
        stream.ends();
    }
    assert!(gateway.ended().success());
}

#[test]
fn dead_letters_are_told_by_cause_the_commonest_first_and_each_cause_finds_its_own() {
    let world = World::new();
    world.write("onceward.toml", "demo = true\n[routes.away]\nupstream = \"http://127.0.0.1:1\"\nbreaker = false\nretry = { attempts_max = 1 }\n");
    let gateway = world.serve();
    for (key, path) in [
        ("order-1", "/to/demo/orders?script=404"),
        ("order-2", "/to/demo/orders?script=404"),
        ("mail-1", "/to/demo/mails?script=422"),
        ("away-1", "/to/away/contacts"),
    ] {
        let headers = [("Idempotency-Key", key), ("Prefer", "respond-async")];
        assert_eq!(gateway.call("POST", path, &headers, "{}").status, 202);
    }
    let groups = until("all four are dead", || {
        let groups = gateway.call("GET", "/v1/dead-letters/groups", &[], "").json();
        (groups["looked_at"] == 4).then_some(groups)
    });
    assert_eq!((&groups["exact"], &groups["left_out"]), (&Value::Bool(true), &Value::from(0)));
    let data = groups["data"].as_array().unwrap();
    let of = |n: usize, name: &str| data[n][name].clone();
    assert_eq!(
        (of(0, "count"), of(0, "status"), of(0, "reason")),
        (2.into(), 404.into(), "refused".into())
    );
    assert_eq!(data.len(), 3);
    let away = data.iter().find(|group| group["route"] == "away").unwrap();
    assert!(away["status"].is_null(), "{away}");
    let error = away["error"].as_str().unwrap();
    assert!(error.contains("127.0.0.1:1"), "{error}");

    let found = |query: &str| {
        let page =
            gateway.call("GET", &format!("/v1/operations?state=dead_letter&{query}"), &[], "");
        let data = page.json()["data"].as_array().unwrap().clone();
        data.iter().map(|it| it["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("reason=refused&status=404"), ["order-2", "order-1"]);
    assert_eq!(found("error=127.0.0.1:1"), ["away-1"]);
    assert_eq!(found("no_error=true").len(), 3);
    assert_eq!(found("no_status=true"), ["away-1"]);
    assert_eq!(found("error_is=127.0.0.1:1"), [""; 0]);
    let query = Serializer::new(String::new()).append_pair("error_is", error).finish();
    assert_eq!(found(&query), ["away-1"]);
    assert_eq!(found("reason=cancelled"), [""; 0]);
    assert_eq!(found("after=1h").len(), 4);
    assert_eq!(found("before=1h"), [""; 0]);
    let wrong = gateway.call("GET", "/v1/operations?reason=bored", &[], "");
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    let page = gateway.call("GET", "/dead", &[("Accept", "text/html")], "").text();
    assert!(page.contains("Redeliver all") && page.contains("status=404"), "{page}");
}

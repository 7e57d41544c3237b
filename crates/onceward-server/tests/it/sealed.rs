//! What the real gateway keeps sealed: nothing of a body, a header or a secret is in any file of a ledger or
//! of its backup, nor in any table; and what is sealed is replayed, whatever its length.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use onceward::core::hex;
use rustix::process::Signal;
use serde_json::json;

use crate::nodes_server::Database;
use crate::world::{Gateway, Response, World, is_in_a_file, read_head, until};

/// An upstream that answers with as much as it is asked for, and canaries in it.
pub(crate) fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let Ok((first, headers)) = read_head(&mut reader) else { continue };
            let of = |name: &str| {
                let line = headers.iter().find(|(other, _)| other == name);
                line.and_then(|(_, value)| value.parse::<usize>().ok())
            };
            let mut body = vec![0; of("content-length").unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let status = if first.contains("/refused") { 403 } else { 201 };
            let answer = "canary-answer ".repeat(of("x-times").unwrap_or(1));
            // A gateway that was killed hears no answer.
            let _ = reader.into_inner().write_all(
                format!(
                    "HTTP/1.1 {status} As Told\r\nlocation: /canary-location\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
                    answer.len()
                )
                .as_bytes(),
            );
        }
    });
    address
}

pub(crate) fn config(upstream: SocketAddr) -> String {
    format!(
        "[routes.a]\nupstream = \"http://{upstream}\"\neffects = \"idempotent\"\nbreaker = false\n\
         set_headers = {{ x-ours = \"canary-ours\" }}\n\
         [sources.hook]\nverify = {{ scheme = \"github\", secret = \"canary-secret\" }}\nto = \"a\"\n"
    )
}

pub(crate) fn ask(gateway: &Gateway, key: &str, times: &str) -> Response {
    let headers = [
        ("idempotency-key", key),
        ("authorization", "Bearer canary-credential"),
        ("x-note", "canary-header"),
        ("x-times", times),
        ("content-type", "application/json"),
    ];
    gateway.call("POST", "/to/a/orders", &headers, "{\"card\": \"canary-request\"}")
}

/// Has all that is kept in it: an operation, one that failed, a claim, a webhook that was refused.
fn fill(gateway: &Gateway) -> Response {
    let first = ask(gateway, "small", "1");
    assert_eq!((first.status, first.text().as_str()), (201, "canary-answer "), "{first:?}");
    let headers = [("idempotency-key", "refused"), ("content-type", "text/plain")];
    assert_eq!(gateway.call("POST", "/to/a/refused", &headers, "canary-refused").status, 403);
    let begun = gateway.call("POST", "/v1/claims/s/k/begin", &[], "{\"nonce\":\"canary-nonce\"}");
    let fence = &begun.json()["fence"];
    let outcome = json!({"fence": fence, "outcome": {"of": "canary-outcome"}});
    let done = gateway.call("POST", "/v1/claims/s/k/complete", &[], &outcome.to_string());
    assert_eq!(done.status, 200, "{}", done.text());
    let unsigned = [("x-github-delivery", "1"), ("x-canary", "canary-webhook-header")];
    let refused = gateway.call("POST", "/in/hook", &unsigned, "canary-webhook");
    assert_eq!(refused.status, 400, "{refused:?}");
    until("it was kept", || {
        let rejects = gateway.run(&["sources", "hook", "--json"]).json();
        rejects.to_string().contains("canary-webhook-header").then_some(())
    });
    first
}

/// All that was kept is told still.
fn is_told(gateway: &Gateway, first: &Response) {
    let again = ask(gateway, "small", "1");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("location"), Some("/canary-location"));
    let claim = gateway.call("GET", "/v1/claims/s/k", &[], "");
    assert!(claim.text().contains("canary-outcome"), "{}", claim.text());
    let id = again.header("onceward-operation").unwrap();
    let evidence = gateway.call("GET", &format!("/v1/operations/{id}/evidence"), &[], "").text();
    assert!(evidence.contains("canary-answer") && !evidence.contains("canary-credential"));
}

#[test]
fn no_file_of_a_ledger_or_its_backup_holds_a_body_a_header_or_a_secret() {
    let world = World::new();
    world.write("onceward.toml", &config(upstream()));
    let gateway = world.serve();
    let first = fill(&gateway);
    is_told(&gateway, &first);
    gateway.run(&["backup", "copy"]).ok();
    for folder in ["onceward-data", "copy"] {
        assert!(!is_in_a_file(&world.path(folder), "canary"), "{folder}");
        assert!(is_in_a_file(&world.path(folder), "/orders"), "it would be found: {folder}");
    }
    gateway.kill();
    let gateway = world.serve();
    is_told(&gateway, &first);
    gateway.signal(Signal::TERM);
    gateway.ended();
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
    world.run(&["check", "--ledger"]).ok();
    let place = World::new();
    place.write("onceward.toml", &config(upstream()));
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    let restored = place.serve();
    restored.run(&["restore", "--release"]).ok();
    is_told(&restored, &first);
}

#[test]
fn no_table_holds_a_body_a_header_or_a_secret_nor_does_what_is_moved_there() {
    let Some(database) = Database::shared() else { return };
    let world = World::new();
    let routes = config(upstream());
    world.write("onceward.toml", &routes);
    let gateway = world.serve();
    let first = fill(&gateway);
    gateway.signal(Signal::TERM);
    gateway.ended();
    world.run(&["migrate-store", "--to", &database.url()]).ok();
    world.write("onceward.toml", &format!("store = \"{}\"\n{routes}", database.url()));
    let gateway = world.serve();
    is_told(&gateway, &first);
    ask(&gateway, "shared", "1");
    let holds = |words: &str| {
        let tables = database.sql(
            "SELECT oid::regclass FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        );
        let digits = hex::encode(words.as_bytes());
        let in_it = |table: &&str| {
            let rows = database.sql(&format!(
                "SELECT count(*) FROM {table} AS it WHERE it::text LIKE '%{words}%' OR it::text LIKE '%{digits}%'"
            ));
            rows != "0"
        };
        tables.lines().filter(in_it).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(holds("canary"), Vec::<String>::new());
    assert_ne!(holds("/orders"), Vec::<String>::new(), "it would be found");
}

#[test]
fn a_large_answer_is_read_piece_by_piece_from_where_it_lies_sealed() {
    let world = World::new();
    world.write("onceward.toml", &config(upstream()));
    let gateway = world.serve();
    // Around a piece of 64 KiB, and many of them.
    for times in ["4681", "4682", "18725", "18726", "200000"] {
        let key = format!("times-{times}");
        let first = ask(&gateway, &key, times);
        assert_eq!(first.body.len(), 14 * times.parse::<usize>().unwrap());
        let again = ask(&gateway, &key, times);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert!(again.body == first.body, "{times}: {} bytes", again.body.len());
    }
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn without_a_file_credentials_alone_are_sealed_and_that_is_said() {
    let world = World::new();
    let said = world.run(&["check"]).ok();
    assert!(said.contains("credentials alone") && said.contains("seal_bodies = true"), "{said}");
    let gateway = world.serve();
    gateway.log.until("seal_bodies = true seals them");
    gateway.run(&["send", "demo/orders", "--key", "k", "--body", "plain-as-day"]).ok();
    assert!(is_in_a_file(&world.path("onceward-data"), "plain-as-day"));
    drop(gateway);
    let gateway = world.serve_in(&[("ONCEWARD_SEAL_BODIES", "true")]);
    gateway.run(&["send", "demo/orders", "--key", "k", "--body", "plain-as-day"]).ok();
    gateway.run(&["send", "demo/orders", "--key", "later", "--body", "canary"]).ok();
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn a_route_may_say_otherwise() {
    let (world, to) = (World::new(), upstream());
    let plain = config(to).replace("[routes.a]\n", "[routes.a]\nseal_bodies = false\n");
    world.write("onceward.toml", &plain);
    let shown = world.run(&["check", "--json"]).json();
    assert_eq!(shown["seal_bodies"], true);
    let gateway = world.serve();
    let first = ask(&gateway, "plain", "1");
    assert!(is_in_a_file(&world.path("onceward-data"), "canary-request"));
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary-credential"));
    // Both stay readable when it is sealed from then on.
    world.write("onceward.toml", &config(to));
    gateway.signal(Signal::HUP);
    gateway.log.until("the routes were read again");
    let again = ask(&gateway, "plain", "1");
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
}

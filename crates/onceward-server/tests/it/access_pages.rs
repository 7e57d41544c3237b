//! Access keys in web pages: what they may ask, from where, and what a browser is told of it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::browser_world::Browser;
use crate::world::{Gateway, Response, Upstream, World, read_head, route, until};

const SHOP: &str = "https://shop.example";
const ELSEWHERE: &str = "https://evil.example";

fn make(gateway: &Gateway, options: &[&str]) -> Value {
    gateway.run(&[&["access", "create", "--json"], options].concat()).json()
}

fn bearer(made: &Value) -> String {
    format!("Bearer {}", made["key"].as_str().unwrap())
}

/// What a page at `origin` asks with this key.
fn from(
    gateway: &Gateway,
    origin: &str,
    key: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Response {
    let headers = [
        ("origin", origin),
        ("sec-fetch-site", "cross-site"),
        ("authorization", key),
        ("idempotency-key", "order-1"),
        ("content-type", "application/json"),
    ];
    gateway.call(method, path, &headers, body)
}

fn preflight(gateway: &Gateway, origin: &str, path: &str) -> Response {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,idempotency-key,x-of-the-upstream"),
    ];
    gateway.call("OPTIONS", path, &headers, "")
}

/// The members of a list in a header.
fn list(answer: &Response, name: &str) -> Vec<String> {
    let lines = answer.headers.iter().filter(|(known, _)| known == name);
    lines.flat_map(|(_, line)| line.split(',')).map(|it| it.trim().to_ascii_lowercase()).collect()
}

#[test]
fn a_page_sends_with_a_key_of_its_own_and_reads_what_became_of_it() {
    let world = World::new();
    let gateway = world.serve();
    let key = bearer(&make(&gateway, &["shop", "--browser", "--origin", SHOP, "--route", "demo"]));
    let sent = from(&gateway, SHOP, &key, "POST", "/to/demo/orders", "{}");
    assert_eq!(sent.status, 201, "{}", sent.text());
    assert_eq!(sent.header("access-control-allow-origin"), Some(SHOP));
    assert_eq!(sent.header("access-control-allow-credentials"), None);
    assert!(list(&sent, "vary").contains(&"origin".to_owned()));
    let readable = list(&sent, "access-control-expose-headers");
    for name in [
        "idempotency-key",
        "idempotent-replayed",
        "onceward-operation",
        "onceward-advice",
        "retry-after",
    ] {
        assert!(readable.contains(&name.to_owned()), "{name}: {readable:?}");
    }
    let id = sent.header("onceward-operation").unwrap();
    let again = from(&gateway, SHOP, &key, "POST", "/to/demo/orders", "{}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let call = json!({"to": "demo/orders", "key": "order-2", "body": {}}).to_string();
    for (method, path, body) in [
        ("POST", "/v1/operations".to_owned(), &*call),
        ("GET", format!("/v1/operations/{id}"), ""),
        ("GET", format!("/v1/operations/{id}/response"), ""),
        ("GET", "/v1/keys/demo/order-1".to_owned(), ""),
    ] {
        // The key stands in the document, too.
        let headers =
            [("origin", SHOP), ("authorization", &*key), ("content-type", "application/json")];
        let answer = gateway.call(method, &path, &headers, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP), "{method} {path}");
    }
    let mismatch = from(&gateway, SHOP, &key, "POST", "/to/demo/orders", "[]");
    assert_eq!(
        (mismatch.status, mismatch.header("access-control-allow-origin")),
        (409, Some(SHOP))
    );
}

#[test]
fn a_key_of_pages_is_refused_from_anywhere_else_and_for_anything_else() {
    let world = World::new();
    let gateway = world.serve();
    let shop = bearer(&make(&gateway, &["shop", "--browser", "--origin", SHOP]));
    let other =
        bearer(&make(&gateway, &["other", "--browser", "--origin", "https://other.example"]));
    let plain = bearer(&make(&gateway, &["plain", "--role", "send"]));
    for (origin, key) in [
        (ELSEWHERE, &shop),
        ("null", &shop),
        ("https://shop.example.evil.example", &shop),
        ("http://shop.example", &shop),
        (SHOP, &other),
        (SHOP, &plain),
        (ELSEWHERE, &plain),
    ] {
        let refused = from(&gateway, origin, key, "POST", "/to/demo/orders", "{}");
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (403, &json!("forbidden")),
            "{origin}"
        );
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
    }
    let refused = gateway.call("POST", "/to/demo/orders", &[("authorization", &shop)], "{}");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        refused.status == 403 && detail.contains(SHOP) && detail.contains("--browser"),
        "{detail}"
    );
    assert_eq!(
        gateway
            .call("GET", "/v1/operations", &[("authorization", &plain), ("origin", SHOP)], "")
            .status,
        403
    );
    for (method, path) in [
        ("GET", "/v1/operations"),
        ("POST", "/v1/explain"),
        ("POST", "/v1/claims/s/k/begin"),
        ("GET", "/v1/access"),
        ("GET", "/metrics"),
        ("GET", "/"),
    ] {
        let refused = from(&gateway, SHOP, &shop, method, path, "{}");
        assert_eq!(refused.status, 403, "{method} {path}");
        let is_read = refused.header("access-control-allow-origin").is_some();
        assert_eq!(is_read, path == "/v1/operations", "{method} {path}");
    }
    let effects = gateway.call("GET", "/to/demo/effects", &[("authorization", &plain)], "");
    assert_eq!(effects.json()["count"], 0, "a refused call has sent nothing");
}

#[test]
fn a_preflight_is_answered_for_the_origins_of_live_keys_and_for_no_others() {
    let world = World::new();
    let gateway = world.serve();
    assert_eq!(preflight(&gateway, SHOP, "/to/demo/orders").status, 403, "no key names it");
    let made = make(&gateway, &["shop", "--browser", "--origin", SHOP]);
    for (path, methods) in [
        ("/to/demo/orders", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("/v1/operations", "POST"),
        ("/v1/operations/op_01kb2n9f5nep3b8m6wq6r9t2vx", "GET, HEAD"),
        ("/v1/keys/demo/order-1", "GET, HEAD"),
    ] {
        let answer = preflight(&gateway, SHOP, path);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP), "{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), Some(methods), "{path}");
        assert_eq!(answer.header("access-control-max-age"), Some("600"), "{path}");
        let allowed = list(&answer, "access-control-allow-headers");
        for name in [
            "authorization",
            "onceward-authorization",
            "idempotency-key",
            "prefer",
            "onceward-label",
            "onceward-subject",
        ] {
            assert!(allowed.contains(&name.to_owned()), "{path}: {name}");
        }
        assert_eq!(
            allowed.contains(&"x-of-the-upstream".to_owned()),
            path.starts_with("/to/"),
            "{path}"
        );
        assert!(!allowed.contains(&"*".to_owned()));
        let vary = list(&answer, "vary");
        for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
            assert!(vary.contains(&name.to_owned()), "{path}: {vary:?}");
        }
    }
    for (origin, path) in
        [(ELSEWHERE, "/to/demo/orders"), (SHOP, "/v1/access"), (SHOP, "/v1/claims/s/k/begin")]
    {
        let refused = preflight(&gateway, origin, path);
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin} {path}");
        assert!(refused.status >= 400, "{origin} {path}");
    }
    let renewed = gateway
        .run(&["access", "rotate", made["prefix"].as_str().unwrap(), "--overlap", "0s", "--json"])
        .json();
    assert_eq!(renewed["origins"], json!([SHOP]), "a key that is rotated stays one of pages");
    assert_eq!(preflight(&gateway, SHOP, "/to/demo/orders").status, 204);
    let stale = from(&gateway, SHOP, &bearer(&made), "POST", "/to/demo/orders", "{}");
    assert_eq!((stale.status, stale.header("access-control-allow-origin")), (401, Some(SHOP)));
    gateway.run(&["access", "revoke", renewed["prefix"].as_str().unwrap()]).ok();
    assert_ne!(preflight(&gateway, SHOP, "/to/demo/orders").status, 204, "no live key names it");
}

#[test]
fn a_key_of_pages_only_sends_and_its_origins_are_origins() {
    let world = World::new();
    let gateway = world.serve();
    for wrong in [
        json!({"name": "a", "origins": ["https://shop.example/pay"]}),
        json!({"name": "a", "origins": ["*"]}),
        json!({"name": "a", "origins": [SHOP], "roles": ["send", "read"]}),
        json!({"name": "a", "origins": vec![SHOP; 17]}),
    ] {
        let headers = [("content-type", "application/json")];
        let refused = gateway.call("POST", "/v1/access", &headers, &wrong.to_string());
        assert_eq!(refused.status, 400, "{wrong}");
    }
    gateway.run(&["access", "create", "a", "--browser"]).failed(2);
    gateway.run(&["access", "create", "a", "--origin", SHOP]).failed(2);
    let made = make(
        &gateway,
        &["shop", "--browser", "--origin", "https://Shop.Example/,http://localhost:3000"],
    );
    assert_eq!(made["origins"], json!([SHOP, "http://localhost:3000"]));
    assert_eq!(made["roles"], json!(["send"]));
    assert!(gateway.run(&["access", "ls"]).ok().contains(SHOP));
    let audit = gateway.run(&["audit", "--json"]).ok();
    assert!(audit.contains(SHOP), "{audit}");
}

#[test]
fn what_an_upstream_says_to_pages_does_not_open_more_than_the_key_does() {
    let upstream = Upstream::answering(Some(200));
    let world = World::new();
    world.write("onceward.toml", &route("crm", upstream.address));
    let gateway = world.serve();
    let key = bearer(&make(&gateway, &["shop", "--browser", "--origin", SHOP]));
    let sent = from(&gateway, SHOP, &key, "POST", "/to/crm/orders", "{}");
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (200, Some(SHOP)));
    assert_eq!(upstream.authorization(), None, "our key goes to no upstream");
}

/// A page of nothing, at an origin of its own.
fn page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            // A browser that goes away is no matter of the page's.
            if read_head(&mut reader).is_ok() {
                let page = "<!doctype html><title>shop</title>";
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
                    page.len()
                );
                drop(reader.into_inner().write_all(format!("{head}{page}").as_bytes()));
            }
        }
    });
    address
}

#[test]
fn a_real_browser_lets_the_page_of_the_key_send_and_read_and_no_other_page() {
    let world = World::new();
    let gateway = world.serve();
    let (shop, elsewhere) = (page(), page());
    let origin = format!("http://{shop}");
    let key = bearer(&make(&gateway, &["shop", "--browser", "--origin", &origin]));
    let browser = Browser::start();
    let ask = |at: SocketAddr| {
        browser.open(&format!("http://{at}/"));
        let request = json!({"method": "POST", "body": "{}", "headers": {
            "Authorization": key, "Idempotency-Key": "order-1", "Content-Type": "application/json", "X-Own": "1",
        }});
        let url = format!("http://{}/to/demo/orders", gateway.address);
        browser.evaluate(&format!(
            "fetch({url:?}, {request}).then(async it => window.said = [it.status, it.headers.get('Onceward-State'), \
             await it.json()], why => window.said = String(why)), 0"
        ));
        until("the page has its answer", || {
            Some(browser.evaluate("window.said || null")).filter(|said| !said.is_null())
        })
    };
    assert_eq!(ask(shop), json!([201, "done", {"charged": true, "order": 1}]));
    let refused = ask(elsewhere);
    assert!(refused.as_str().is_some_and(|why| why.contains("Failed to fetch")), "{refused}");
    assert_eq!(ask(shop)[0], 201, "a replay");
}

//! A guard: an API that knows nothing of idempotency gets the contract, and its callers change nothing.

use std::net::SocketAddr;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::guard_world::{Crud, PAGE, guard_of};
use crate::world::{Response, World, call, until};

const ALICE: (&str, &str) = ("authorization", "Bearer alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob");

fn ask(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    call(at, method, path, headers, body).expect("an answer")
}

/// An order with this key.
fn order(at: SocketAddr, key: &str, headers: &[(&str, &str)]) -> Response {
    let json = ("content-type", "application/json");
    let headers = [&[("idempotency-key", key), json], headers].concat();
    ask(at, "POST", "/orders", &headers, &format!("{{\"ref\":\"{key}\"}}"))
}

fn is_replay(answer: &Response) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[test]
fn a_plain_api_fails_the_contract_bare_and_keeps_every_must_of_it_behind_a_guard() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard("window = \"2s\""));
    let gateway = world.serve();
    let verify = |at: SocketAddr, more: &[&str]| {
        let count = format!("GET http://{}/orders?ref={{marker}}", crud.address);
        let url = format!("http://{at}/orders");
        let how = ["verify", &url, "--count", &count, "--profile", "onceward", "--json"];
        let ended = world.run(&[&how[..], more].concat());
        let found: Value = serde_json::from_str(&ended.out).unwrap_or_default();
        (ended.code, found)
    };
    let guard = guard_of(&gateway, "orders");
    let ((bare, without), (guarded, with)) = thread::scope(|scope| {
        let bare = scope.spawn(|| verify(crud.address, &[]));
        let guarded = verify(guard, &["--window", "2s"]);
        (bare.join().expect("a verdict"), guarded)
    });
    assert_eq!((bare, without["verdict"].as_str()), (Some(5), Some("violation")), "{without:#}");
    assert_eq!((guarded, with["verdict"].as_str()), (Some(0), Some("pass")), "{with:#}");
    let musts = |found: &Value, check: &str| found["checks"]["must"][check].as_u64();
    assert!(musts(&without, "broken") > Some(0), "{without:#}");
    assert_eq!(musts(&with, "broken"), Some(0), "{with:#}");
    assert!(musts(&with, "held") > Some(20), "{with:#}");
}

#[test]
fn nothing_of_ours_exists_at_a_guard_and_its_callers_need_no_key_of_ours() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    gateway.run(&["access", "create", "first"]).ok();
    let guard = guard_of(&gateway, "orders");
    assert_eq!(
        gateway.call("GET", "/v1/operations", &[], "").status,
        401,
        "but at the main listener"
    );
    for path in ["/", "/healthz", "/readyz", "/metrics", "/v1/operations", "/to/orders/x", "/in/x"]
    {
        let answer = ask(guard, "GET", path, &[], "");
        assert_eq!((answer.status, &answer.json()["api"]), (404, &Value::from(path)));
        let made = ask(guard, "POST", path, &[("origin", PAGE), ("host", "api.example")], "{}");
        assert_eq!((made.status, &made.json()["api"]), (404, &Value::from(path)));
    }
    let of_theirs = [("authorization", "Bearer ow_of_their_own"), ("onceward-nonsense", "1")];
    ask(guard, "GET", "/of/theirs", &of_theirs, "");
    let heard = crud.heard("GET /of/theirs").pop().expect("it was asked");
    assert_eq!(heard.header("authorization"), Some("Bearer ow_of_their_own"));
    assert_eq!(heard.header("onceward-nonsense"), None);
    let page = gateway.run(&["ls", "--json"]).json();
    assert_eq!(page.as_array().map(Vec::len), Some(0), "what has no key leaves no record");
}

#[test]
fn the_upstream_is_told_of_the_way_and_so_is_the_caller() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let spoofed = [
        ("host", "api.example"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("via", "1.1 before"),
        ("accept-encoding", "br"),
        ("prefer", "respond-async, return=minimal"),
    ];
    let answer = order(guard, "told", &spoofed);
    assert_eq!((answer.status, answer.header("via")), (201, Some("1.1 onceward")));
    ask(guard, "GET", "/orders/1", &spoofed, "");
    for (what, coding) in [("POST /orders", "identity"), ("GET /orders/1", "br")] {
        let heard = crud.heard(what).pop().expect("it was asked");
        let said = |name: &str| heard.header(name).map(str::to_owned);
        let way = "for=127.0.0.1;host=\"api.example\";proto=http";
        assert_eq!(said("forwarded").as_deref(), Some(way), "{what}");
        assert_eq!(said("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{what}");
        assert_eq!(said("x-forwarded-host").as_deref(), Some("api.example"), "{what}");
        assert_eq!(said("via").as_deref(), Some("1.1 before, 1.1 onceward"), "{what}");
        assert_eq!(said("accept-encoding").as_deref(), Some(coding), "{what}");
        assert_eq!(said("prefer").as_deref(), Some("respond-async, return=minimal"), "{what}");
        assert_eq!(said("host"), Some(crud.address.to_string()), "{what}");
    }
    let again = order(guard, "told", &[]);
    assert_eq!((again.header("via"), is_replay(&again)), (Some("1.1 onceward"), true));
    let refused = ask(guard, "POST", "/orders", &[("idempotency-key", "")], "{}");
    assert_eq!((refused.status, refused.header("via")), (400, None), "that one is ours");
}

#[test]
fn the_upstream_gets_the_callers_host_where_that_is_wanted() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard("upstream_host = \"caller\""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    order(guard, "hosted", &[("host", "api.example:8080")]);
    ask(guard, "GET", "/orders/1", &[("host", "api.example:8080")], "");
    for what in ["POST /orders", "GET /orders/1"] {
        let heard = crud.heard(what).pop().expect("it was asked");
        assert_eq!(heard.header("host"), Some("api.example:8080"), "{what}");
    }
}

#[test]
fn one_caller_is_never_answered_what_another_was() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let first = order(guard, "same", &[ALICE]);
    let other = order(guard, "same", &[BOB]);
    assert_eq!((first.status, other.status, crud.made()), (201, 201, 2));
    assert!(!is_replay(&other));
    let again = order(guard, "same", &[ALICE]);
    assert!(is_replay(&again) && again.body == first.body);
    let nobody = order(guard, "same", &[]);
    assert_eq!((is_replay(&nobody), crud.made()), (false, 3), "who has no credential is another");
    let kept = gateway.run(&["ls", "--key", "same", "--json"]).json();
    assert!(!kept.to_string().contains("Bearer"), "{kept}");
    gateway.kill();
    let gateway = world.serve();
    let again = order(guard_of(&gateway, "orders"), "same", &[ALICE]);
    assert!(is_replay(&again) && again.body == first.body, "after a crash too");
}

#[test]
fn a_proxy_before_the_guard_names_the_callers() {
    let (world, crud) = (World::new(), Crud::start());
    let lines = "principal = { header = \"X-User\" }\ntrust_forwarded = [\"127.0.0.1/32\"]";
    world.write("onceward.toml", &crud.guard(lines));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let before = ("x-forwarded-for", "203.0.113.7");
    let first = order(guard, "mine", &[("x-user", "alice"), ALICE, before]);
    let again = order(guard, "mine", &[("x-user", "alice"), ("authorization", "Bearer renewed")]);
    assert_eq!((first.status, is_replay(&again), crud.made()), (201, true, 1));
    let other = order(guard, "mine", &[("x-user", "bob"), ALICE]);
    assert_eq!((is_replay(&other), crud.made()), (false, 2));
    let heard = crud.heard("POST /orders");
    assert_eq!(heard[0].header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    let kept = gateway.run(&["ls", "--key", "mine", "--json"]).json();
    let named: Vec<_> = kept.as_array().expect("two").iter().map(|it| &it["principal"]).collect();
    assert_eq!(named, ["header:bob", "header:alice"]);
}

#[test]
fn what_a_stranger_claims_to_be_is_not_believed() {
    let (world, crud) = (World::new(), Crud::start());
    let lines = "principal = { header = \"X-User\" }\ntrust_forwarded = [\"10.0.0.0/8\"]";
    world.write("onceward.toml", &crud.guard(lines));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let alice = ("x-user", "alice");
    order(guard, "claimed", &[alice, ALICE]);
    let liar = order(guard, "claimed", &[alice, BOB]);
    assert!(!is_replay(&liar), "of another: {liar:?}");
    assert_eq!(crud.made(), 2);
    assert!(crud.heard("POST /orders").iter().all(|heard| heard.header("x-user").is_none()));
}

#[test]
fn a_guard_that_is_killed_in_the_middle_of_an_order_does_not_send_it_again() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    crud.hold(true);
    let caller = thread::spawn(move || {
        call(guard, "POST", "/orders", &[("idempotency-key", "cut")], "{\"ref\":\"cut\"}")
    });
    until("the call is under way", || (!crud.heard("POST /orders").is_empty()).then_some(()));
    gateway.kill();
    assert!(!caller.join().is_ok_and(|answer| answer.is_ok()), "nobody was answered");
    crud.hold(false);
    let gateway = world.serve();
    let body = "{\"ref\":\"cut\"}";
    let again =
        ask(guard_of(&gateway, "orders"), "POST", "/orders", &[("idempotency-key", "cut")], body);
    assert_eq!((again.status, &again.json()["code"]), (409, &"outcome-unknown".into()));
    assert_eq!(crud.heard("POST /orders").len(), 1);
}

/// A token that says who it is of, and that nobody has signed.
fn token(claims: &str) -> String {
    use base64::Engine as _;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("Bearer {}.{}.x", part("{\"alg\":\"none\"}"), part(claims))
}

#[test]
fn what_is_remembered_is_told_only_after_the_upstream_had_its_word() {
    let (world, crud) = (World::new(), Crud::start());
    let lines = "principal = { bearer = \"sub\" }\nreauthorize = { get = \"/me?for=orders\" }";
    world.write("onceward.toml", &crud.guard(lines));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let (old, new) = (token(r#"{"sub":"alice","n":1}"#), token(r#"{"sub":"alice","n":2}"#));
    let forged = token(r#"{"sub":"alice","n":3}"#);
    let first = order(guard, "mine", &[("authorization", &old)]);
    assert_eq!(
        (first.status, crud.heard("GET /me?for=orders").len()),
        (201, 0),
        "it was sent itself"
    );
    let cookie = ("cookie", "session=mallory");
    let again = order(guard, "mine", &[("authorization", &new), cookie]);
    assert!(is_replay(&again) && again.body == first.body, "{again:?}");
    let asked = crud.heard("GET /me?for=orders").pop().expect("it was asked");
    assert_eq!(asked.header("authorization"), Some(&*new));
    assert_eq!(asked.header("cookie"), None, "another credential says nothing of this one");
    assert_eq!(asked.header("idempotency-key"), None);
    assert_eq!(asked.header("x-forwarded-method"), Some("POST"));
    assert_eq!(asked.header("x-forwarded-uri"), Some("/orders"));
    crud.revoke(&forged);
    let refused = order(guard, "mine", &[("authorization", &forged)]);
    assert_eq!((refused.status, refused.text().as_str()), (401, "{\"error\":\"who are you?\"}"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert!(!is_replay(&refused) && refused.header("onceward-operation").is_none(), "{refused:?}");
    let json = [("idempotency-key", "mine"), ("authorization", &*forged)];
    let mismatch = ask(guard, "POST", "/orders", &json, "{\"ref\":\"other\"}");
    assert_eq!(mismatch.status, 401, "not even that the key was used");
    crud.say_of_me(500);
    let unsure = order(guard, "mine", &[("authorization", &old)]);
    assert_eq!((unsure.status, &unsure.json()["code"]), (503, &"reauthorize-failed".into()));
    assert_eq!(unsure.header("onceward-advice"), Some("same-key"));
    crud.say_of_me(403);
    assert_eq!(order(guard, "mine", &[("authorization", &old)]).status, 403);
    crud.say_of_me(204);
    assert!(is_replay(&order(guard, "mine", &[("authorization", &old)])));
    assert_eq!(crud.made(), 1);
}

#[test]
fn whoever_waits_for_anothers_call_is_asked_for_as_well() {
    let (world, crud) = (World::new(), Crud::start());
    let lines = "principal = { bearer = \"sub\" }\nreauthorize = { get = \"/me\" }";
    world.write("onceward.toml", &crud.guard(lines));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    crud.hold(true);
    let (real, forged) = (token(r#"{"sub":"alice"}"#), token(r#"{"sub":"alice","n":1}"#));
    let with = |token: &str| {
        let token = token.to_owned();
        thread::spawn(move || order(guard, "race", &[("authorization", &token)]))
    };
    let first = with(&real);
    until("it is under way", || (!crud.heard("POST /orders").is_empty()).then_some(()));
    crud.revoke(&forged);
    let (honest, liar) = (with(&real), with(&forged));
    until("both are counted", || {
        let found = gateway.run(&["ls", "--key", "race", "--json"]).json();
        let id = found[0]["id"].as_str()?.to_owned();
        let shown = gateway.run(&["show", &id, "--json"]).json();
        (shown["duplicates"]["count"] == 2).then_some(())
    });
    crud.hold(false);
    let [first, honest, liar] =
        [first, honest, liar].map(|caller| caller.join().expect("an answer"));
    assert_eq!((first.status, honest.status, liar.status), (201, 201, 401));
    assert!(is_replay(&honest) && honest.body == first.body && liar.body != first.body);
    assert_eq!(crud.made(), 1);
}

#[test]
fn each_method_and_path_has_its_own_rule() {
    let (world, crud) = (World::new(), Crud::start());
    let rules = r#"
        held = { base = "10ms", floor = "1ms", cap = "20ms" }
        [[routes.orders.rules]]
        match = "PUT /orders/*"
        effects = "idempotent"
        key.missing = "make"
        [[routes.orders.rules]]
        match = "DELETE /orders/*"
        key.missing = "require"
        [[routes.orders.rules]]
        match = "POST /orders"
        key = { json = "/request_id", headers = ["Idempotency-Key", "X-Once"] }
        fingerprint = { ignore = ["/sent_at"] }
    "#;
    world.write("onceward.toml", &crud.guard(rules));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let post = |headers: &[(&str, &str)], body: &str| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        ask(guard, "POST", "/orders", &headers, body)
    };
    let in_body = r#"{"ref":"a","request_id":"r1","sent_at":1}"#;
    let first = post(&[], in_body);
    let again = post(&[], &in_body.replace(":1}", ":2}"));
    assert_eq!((first.status, is_replay(&again), crud.made()), (201, true, 1), "by a pointer");
    let changed = post(&[], &in_body.replace("\"a\"", "\"b\""));
    assert_eq!((changed.status, &changed.json()["code"]), (409, &"key-mismatch".into()));
    assert!(changed.json().get("instance").is_none(), "no path of ours: {}", changed.text());
    post(&[("x-once", "h1")], "{\"ref\":\"b\"}");
    assert!(is_replay(&post(&[("x-once", "h1")], "{\"ref\":\"b\"}")), "by another header");
    assert_eq!(post(&[], "{\"ref\":\"c\"}").header("onceward-operation"), None, "none: it passes");
    assert_eq!(crud.made(), 3);
    crud.fail(1, 503);
    let put = ask(guard, "PUT", "/orders/7", &[], "{}");
    assert_eq!((put.status, put.header("onceward-attempts")), (200, Some("2")), "sent again");
    assert_eq!(put.header("onceward-key-made"), Some("true"));
    let delete = ask(guard, "DELETE", "/orders/7", &[], "");
    assert_eq!((delete.status, &delete.json()["code"]), (400, &"key-required".into()));
    crud.fail(1, 503);
    let doubt = post(&[("x-once", "h2")], "{\"ref\":\"d\"}");
    assert_eq!((doubt.status, doubt.header("onceward-state")), (503, Some("in_doubt")));
    assert_eq!(post(&[("x-once", "h2")], "{\"ref\":\"d\"}").status, 409);
    assert_eq!(crud.made(), 3, "what may have been done is not sent again");
}

#[test]
fn a_page_can_read_what_the_upstream_lets_it_read_and_what_is_ours_beside_it() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let (page, evil) = (("origin", PAGE), ("origin", "https://evil.example"));
    let asks = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type, idempotency-key"),
    ];
    let preflight = ask(guard, "OPTIONS", "/orders", &asks, "");
    let allowed: Vec<_> = preflight
        .headers
        .iter()
        .filter(|(name, _)| name == "access-control-allow-headers")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(
        (preflight.status, allowed.join(", ").as_str()),
        (204, "content-type, idempotency-key")
    );
    let first = order(guard, "page", &[page]);
    let exposed = |answer: &Response| {
        answer.header("access-control-expose-headers").unwrap_or_default().to_owned()
    };
    assert!(exposed(&first).contains("idempotent-replayed"), "{first:?}");
    let replay = order(guard, "page", &[page]);
    let refused =
        ask(guard, "POST", "/orders", &[("idempotency-key", "page"), page], "{\"ref\":\"x\"}");
    assert_eq!((is_replay(&replay), refused.status), (true, 409));
    for answer in [&replay, &refused] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert!(exposed(answer).contains("onceward-operation"), "{answer:?}");
    }
    assert!(exposed(&replay).contains("location"), "{replay:?}");
    let foreign = order(guard, "page", &[evil]);
    assert!(is_replay(&foreign), "that is the callers' matter; to read it is the page's");
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[test]
fn a_caller_may_ask_of_us_what_the_guard_allows() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard("options = [\"respond-async\", \"label\"]"));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let asks = [
        ("prefer", "respond-async"),
        ("onceward-label", "mine"),
        ("onceward-callback", "https://evil.example/told"),
        ("onceward-delay", "1h"),
    ];
    let taken = order(guard, "later", &asks);
    assert_eq!((taken.status, taken.header("location")), (202, None), "{taken:?}");
    let done = gateway.until_state("later", "done");
    assert_eq!((&done["label"], &done["callback"]), (&Value::from("mine"), &Value::Null));
    assert!(is_replay(&order(guard, "later", &[])));
    assert_eq!(crud.heard("POST /orders")[0].header("prefer"), None, "it was for us");
}

#[test]
fn a_host_on_the_main_listener_is_a_guard_too() {
    let (world, crud) = (World::new(), Crud::start());
    let text = crud.guard("").replace("listen = \"127.0.0.1:0\"", "host = \"orders.example\"");
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    gateway.run(&["access", "create", "first"]).ok();
    let host = ("host", "orders.example:7077");
    let first = order(gateway.address, "hosted", &[host]);
    let again = order(gateway.address, "hosted", &[host]);
    assert_eq!((first.status, is_replay(&again), crud.made()), (201, true, 1));
    let healthz = ask(gateway.address, "GET", "/healthz", &[host], "");
    assert_eq!(healthz.json()["api"], "/healthz");
    assert_eq!(gateway.call("GET", "/healthz", &[], "").text(), "ok\n");
    assert_eq!(gateway.call("POST", "/orders", &[], "{}").status, 401);
}

#[test]
fn a_call_that_takes_longer_than_its_caller_waits_goes_on() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard("answer_max = \"200ms\""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    crud.hold(true);
    let early = order(guard, "long", &[]);
    assert_eq!((early.status, &early.json()["code"]), (504, &"still-working".into()));
    assert_eq!(early.header("location"), None);
    crud.hold(false);
    gateway.until_state("long", "done");
    assert_eq!((order(guard, "long", &[]).status, crud.made()), (201, 1));
}

#[test]
fn told_to_read_again_guards_come_and_go_and_what_cannot_be_changes_nothing() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let read_again = |text: &str, words: &str| {
        world.write("onceward.toml", text);
        gateway.signal(Signal::HUP);
        gateway.log.until(words);
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("its address");
    let other = |listen: &str| {
        let route = format!(
            "[routes.other]\nlisten = \"{listen}\"\nupstream = \"http://{}\"\n",
            crud.address
        );
        crud.guard("principal = { cookie = \"s\" }") + &route
    };
    read_again(&other(&taken.1.to_string()), "kept as it was: [routes.other] cannot listen on");
    assert_eq!(ask(guard, "GET", "/x", &[], "").status, 404, "the first goes on");
    read_again(&other("127.0.0.1:0"), "the routes were read again");
    let second = guard_of(&gateway, "other");
    assert_eq!(ask(second, "GET", "/x", &[], "").status, 404);
    let cookie = ("cookie", "s=1; visits=1");
    order(guard, "new", &[cookie]);
    assert!(
        is_replay(&order(guard, "new", &[("cookie", "s=1; visits=2")])),
        "the new principal holds"
    );
    let routes = gateway.run(&["routes", "--json"]).json();
    assert_eq!(routes[1]["listen"][0], "127.0.0.1:0", "{routes}");
    let gone = other("127.0.0.1:0").replace("listen = \"127.0.0.1:0\"\nupstream", "upstream");
    read_again(&gone.replace("principal = { cookie = \"s\" }", ""), "listens here no more");
    until("nobody else is let in", || call(second, "GET", "/x", &[], "").is_err().then_some(()));
}

#[test]
fn told_to_stop_a_guard_lets_what_is_under_way_end() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    crud.hold(true);
    let caller = thread::spawn(move || order(guard, "held", &[]));
    until("the call is under way", || (!crud.heard("POST /orders").is_empty()).then_some(()));
    gateway.signal(Signal::TERM);
    gateway.log.until("draining");
    until("nobody else is let in", || call(guard, "GET", "/x", &[], "").is_err().then_some(()));
    crud.hold(false);
    assert_eq!(caller.join().expect("an answer").status, 201);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn a_page_elsewhere_cannot_use_credentials_of_ours_through_a_guard_that_lends_them() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard("set_headers = { Authorization = \"Bearer ours\" }"));
    let gateway = world.serve();
    let guard = guard_of(&gateway, "orders");
    let evil = order(guard, "posted", &[("origin", "https://evil.example")]);
    assert_eq!((evil.status, &evil.json()["code"]), (403, &"forbidden".into()));
    assert_eq!((order(guard, "posted", &[]).status, crud.made()), (201, 1));
    assert_eq!(crud.heard("POST /orders")[0].header("authorization"), Some("Bearer ours"));
}

#[test]
fn check_and_routes_show_where_a_guard_listens() {
    let (world, crud) = (World::new(), Crud::start());
    world.write("onceward.toml", &crud.guard(""));
    let checked = world.run(&["check"]).ok();
    assert!(checked.contains("127.0.0.1:0") && checked.contains("no principal"), "{checked}");
    let checked = world.run(&["check", "--json"]).json();
    assert_eq!(checked["guards"][0]["route"], "orders", "{checked}");
    let gateway = world.serve();
    let routes = gateway.run(&["routes"]).ok();
    assert!(routes.contains("127.0.0.1:0"), "{routes}");
    let tls = "tls = { cert_file = \"no.pem\", key_file = \"no.pem\" }";
    world.write("onceward.toml", &crud.guard(tls));
    assert!(world.run(&["check"]).ok().contains("no.pem"), "what cannot be read is warned of");
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0"]).failed(78);
    assert!(refused.contains("[routes.orders]") && refused.contains("help: "), "{refused}");
}

#[test]
fn while_the_ledger_is_away_a_guards_callers_are_told_to_come_back() {
    let (world, crud) = (World::new(), Crud::start());
    let nowhere = "store = \"postgres://nobody@127.0.0.1:1/nowhere\"\n";
    world.write("onceward.toml", &format!("{nowhere}{}", crud.guard("")));
    let (serving, _, err) = world.start(&["serve", "--listen", "127.0.0.1:0"]);
    let line: Value = serde_json::from_str(&err.until("a guard listens")).unwrap_or_default();
    let guard: SocketAddr =
        line["address"].as_str().unwrap_or_default().parse().expect("an address");
    let answer = order(guard, "early", &[]);
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"ledger-unavailable".into()));
    assert!(answer.header("retry-after").is_some() && crud.made() == 0);
    serving.signal(Signal::TERM);
    serving.ended();
}

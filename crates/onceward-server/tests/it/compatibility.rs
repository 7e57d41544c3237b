//! Headers of other products: taken where they mean the same, refused where not, and the upstream's where nobody said.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::Value;

use crate::callbacks::Hooks;
use crate::world::{Gateway, Response, World, route, until};

/// What an upstream has to see so that `Hooks` takes note of it.
const SEEN: (&str, &str) = ("webhook-id", "m");

fn post(gateway: &Gateway, route: &str, headers: &[(&str, &str)]) -> Response {
    gateway.call("POST", &format!("/to/{route}/x"), &[headers, &[SEEN]].concat(), "{\"user\":7}")
}

fn operation(response: &Response) -> Value {
    serde_json::from_str(&response.text()).unwrap()
}

#[test]
fn what_callers_of_qstash_write_is_taken_where_it_means_the_same() {
    let (world, hooks) = (World::new(), Hooks::start());
    let own = "[routes.own]\ncompatibility = []\n".to_owned();
    let rest = route("own", hooks.address).replace("[routes.own]\n", &own);
    let text = format!("compatibility = [\"upstash\"]\n{}{rest}", route("app", hooks.address));
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let said = [
        ("upstash-deduplication-id", "welcome 7"),
        ("upstash-retries", "3"),
        ("upstash-delay", "1d"),
        ("upstash-label", "mails"),
        ("upstash-forward-x-tenant", "acme"),
    ];
    let first = post(&gateway, "app", &said);
    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(first.header("onceward-key-made"), None, "its caller brought a key");
    let made = operation(&first);
    assert_eq!((&made["key"], &made["label"]), (&"welcome 7".into(), &"mails".into()), "{made}");
    assert_eq!((&made["state"], &made["mode"]), (&"pending".into(), &"accepted".into()), "{made}");
    let again = post(&gateway, "app", &said);
    assert_eq!(again.header("onceward-operation"), first.header("onceward-operation"));
    // What waits for nothing goes on, without what was asked of us and with what was to be forwarded.
    let soon = [("upstash-deduplication-id", "soon"), ("upstash-forward-x-tenant", "acme")];
    assert_eq!(post(&gateway, "app", &soon).status, 202);
    let told = until("it is delivered", || hooks.told().first().cloned());
    assert_eq!(told.headers["x-tenant"], "acme");
    assert_eq!(told.headers["idempotency-key"], "soon");
    assert!(!told.headers.keys().any(|name| name.starts_with("upstash-")), "{:?}", told.headers);
    // Another body under the same id is another message.
    let other = gateway.call("POST", "/to/app/x", &[soon[0], SEEN], "{\"user\":8}");
    assert_eq!((other.status, &other.json()["code"]), (409, &"key-mismatch".into()));
    // A document has members of its own, and what it is not heeded for does not go on.
    let call = r#"{"to": "app/x", "key": "d", "headers": {"Upstash-Delay": "1d"}}"#;
    let json = [("content-type", "application/json")];
    let refused = gateway.call("POST", "/v1/operations", &json, call);
    assert_eq!((refused.status, &refused.json()["code"]), (400, &Value::from("option-invalid")));
    for wrong in [("upstash-cron", "* * * * *"), ("upstash-callback", "https://a.example/")] {
        let refused = post(&gateway, "app", &[wrong]);
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (400, &"option-invalid".into()),
            "{wrong:?}"
        );
    }
    let twice =
        post(&gateway, "app", &[("idempotency-key", "a"), ("upstash-deduplication-id", "a")]);
    assert_eq!(twice.status, 400);
    // Where a route says that they are its upstream's, they go on as they are.
    let passed = post(&gateway, "own", &[("idempotency-key", "k"), ("upstash-retries", "3")]);
    assert_eq!(passed.status, 204);
    let told = hooks.told();
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].headers["upstash-retries"], "3");
}

#[test]
fn a_guard_takes_none_of_them_and_what_is_not_known_is_no_configuration() {
    let world = World::new();
    let guard = "[routes.g]\nupstream = \"http://127.0.0.1:9\"\nlisten = \"127.0.0.1:0\"\ncompatibility = [\"upstash\"]\n";
    world.write("onceward.toml", guard);
    assert!(world.run(&["check"]).failed(78).contains("take compatibility out"));
    world.write("onceward.toml", "compatibility = [\"qstash\"]\n");
    assert!(world.run(&["check"]).failed(78).contains("write \"upstash\""));
}

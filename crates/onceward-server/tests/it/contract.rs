//! Versions of what callers are promised, and what callers of a route are told.

use serde_json::json;

use crate::world::{Upstream, World, route};

#[test]
fn a_version_is_answered_where_it_is_asked_for_or_a_key_is_pinned_to_it() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    world.write("onceward.toml", &route("a", upstream.address));
    let gateway = world.serve();
    let key = [("idempotency-key", "k-1")];
    let plain = gateway.call("POST", "/to/a/x", &key, "{}");
    assert_eq!((plain.status, plain.header("onceward-contract")), (201, None));
    let asked = [key[0], ("onceward-contract", "2026-11")];
    let told = gateway.call("POST", "/to/a/x", &asked, "{}");
    assert_eq!((told.status, told.header("onceward-contract")), (201, Some("2026-11")));
    assert_eq!(told.header("idempotent-replayed"), Some("true"), "it is no part of the request");
    let read = gateway.call("GET", "/v1/routes", &[asked[1]], "");
    assert_eq!(read.header("onceward-contract"), Some("2026-11"));
    for path in ["/to/a/x", "/v1/explain"] {
        let other = [("idempotency-key", "k-2"), ("onceward-contract", "2020-01")];
        let refused = gateway.call("POST", path, &other, "{}");
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("option-invalid")));
        assert!(refused.text().contains("2026-11"), "{}", refused.text());
    }
    assert!(gateway.run(&["ls", "--key", "k-2", "--json"]).json().as_array().unwrap().is_empty());
    let wrong = gateway.run(&["access", "create", "shop", "--contract", "2020-01"]);
    assert!(wrong.failed(1).contains("2026-11"));
    let made = gateway.run(&["access", "create", "shop", "--contract", "2026-11", "--json"]).json();
    assert_eq!(made["contract"], "2026-11");
    let rotated = gateway.run(&["access", "rotate", made["prefix"].as_str().unwrap(), "--json"]);
    let rotated = rotated.json();
    assert_eq!(rotated["contract"], "2026-11", "it goes on with the next key");
    for key in [&made["key"], &rotated["key"]] {
        let bearer = format!("Bearer {}", key.as_str().unwrap());
        let pinned = [("onceward-authorization", bearer.as_str())];
        let answer = gateway.call("GET", "/v1/routes", &pinned, "");
        assert_eq!(answer.header("onceward-contract"), Some("2026-11"));
    }
}

#[test]
fn callers_of_a_route_are_told_how_to_retry_it() {
    let world = World::new();
    let text = "[routes.pay]\nupstream = \"https://pay.example\"\neffects = \"non-idempotent\"\nwindow = \"7d\"\n\
        key = { headers = [\"PayPal-Request-Id\"], missing = \"require\", time = \"require\", refuse = [\"test.*\"] }\nmismatch_status = 422\nnot_processed = [503]\n\
        [[routes.pay.rules]]\nmatch = \"POST /safe/**\"\neffects = \"idempotent\"\n\
        [[routes.pay.rules]]\nmatch = \"POST /keyed/**\"\neffects = \"keyed\"\n\
        [sources.github]\nverify = { scheme = \"github\", secret = \"s\" }\ndeliver = \"https://hook.example\"\n\
        [routes.other]\nupstream = \"https://other.example\"\n";
    world.write("onceward.toml", text);
    let gateway = world.serve();
    let answer = gateway.call("GET", "/v1/routes/pay/contract", &[], "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let contract = answer.json();
    let policy = &contract["policy"];
    assert_eq!((&contract["contract"], &policy["window"]), (&json!("2026-11"), &json!("7d")));
    assert_eq!(policy["key"]["headers"], json!(["paypal-request-id"]));
    assert_eq!(policy["key"]["missing"], "require");
    assert_eq!(policy["effects"]["POST"], "non-idempotent");
    assert_eq!(policy["in_doubt"]["happens"], true);
    let has = |word: &str, status: u16| {
        policy["statuses"][word].as_array().unwrap().contains(&json!(status))
    };
    assert!(has("not_processed", 503) && has("ambiguous", 500) && has("final", 404));
    assert_eq!(policy["key"]["refused"], json!(["test.*"]));
    assert_eq!(policy["key"]["time"], "require");
    let happens = |rule: usize| &contract["rules"][rule]["policy"]["in_doubt"]["happens"];
    assert_eq!((happens(0), happens(1)), (&json!(false), &json!(true)), "upstreams forget keys");
    let mismatch = contract["problems"].as_array().unwrap();
    let mismatch = mismatch.iter().find(|problem| problem["code"] == "key-mismatch").unwrap();
    assert_eq!((&mismatch["status"], &mismatch["statuses_beside"]), (&json!(422), &json!([])));
    assert!(!answer.text().contains("pay.example"), "where it goes is the operator's");
    // No caller can name the route of a source.
    for none in ["none", "source%2Fgithub", "events%2Ffan-out"] {
        for path in [format!("/v1/routes/{none}/contract"), format!("/contract/{none}")] {
            let refused = gateway.call("GET", &path, &[], "");
            assert_eq!((refused.status, &refused.json()["code"]), (404, &json!("route-unknown")));
        }
    }
    let page = gateway.call("GET", "/contract/pay", &[("accept", "text/html")], "");
    assert_eq!(page.status, 200, "{}", page.text());
    for words in [
        "paypal-request-id",
        "7d",
        "UUIDv7",
        "not like test.*",
        "key-mismatch",
        "/safe/**",
        "outcome-unknown",
    ] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    // Who may only send is told, and of the routes alone that its key is for.
    let key = gateway
        .run(&["access", "create", "shop", "--role", "send", "--route", "pay", "--json"])
        .json();
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let shop = [("onceward-authorization", bearer.as_str())];
    assert_eq!(gateway.call("GET", "/v1/routes/pay/contract", &shop, "").status, 200);
    assert_eq!(gateway.call("GET", "/v1/routes/other/contract", &shop, "").status, 404);
    assert_eq!(gateway.call("GET", "/v1/routes/pay/contract", &[], "").status, 401);
}

//! What an access key may do: its roles against every endpoint, and the routes that it is confined to.

use serde_json::json;

use crate::world::{Gateway, Response, Upstream, World};

/// Every endpoint that is not open to all, under the role that alone opens it. Where `send` stands in
/// brackets it opens it too, for what is its own.
const ENDPOINTS: &[(&str, &str)] = &[
    (
        "send",
        "GET /to/demo/effects, POST /to/demo/orders, POST /v1/operations, POST /v1/explain,
         GET /v1/claims/s/k, POST /v1/claims/s/k, POST /v1/claims/s/k/begin, POST /v1/events,
         POST /v1/sagas",
    ),
    (
        "read",
        "GET /metrics, GET /v1/sagas, GET /sagas, GET /sagas/{id}, GET /v1/operations, GET /v1/approvals, GET /v1/claims, GET /v1/routes,
         GET /v1/routes/demo/advice, GET /v1/routes/demo/reconcile, GET /v1/bulk, GET /v1/bulk/b, GET /v1/filters,
         GET /v1/outbox, GET /v1/outbox/o, GET /v1/sources, GET /v1/sources/s, GET /v1/stats,
         GET /v1/duplicates, GET /v1/suspects, GET /v1/events, GET /v1/events/{id}, GET /v1/subscriptions,
         GET /v1/subscriptions/s, GET /events, GET /events/{id}, GET /subscriptions, GET /,
         GET /operations, GET /dead, GET /in-doubt, GET /bulk, GET /bulk/b, GET /operations/{id}, GET /sources,
         GET /upstreams, GET /outboxes, GET /keys, GET /duplicates, HEAD /v1/operations",
    ),
    ("read (send)", "GET /v1/operations/{id}, GET /v1/sagas/{id}, GET /v1/keys/demo/k"),
    ("payloads", "GET /v1/operations/{id}/evidence, GET /v1/sources/s/rejects"),
    ("payloads (send)", "GET /v1/operations/{id}/request, GET /v1/operations/{id}/response"),
    (
        "operate",
        "POST /v1/operations/{id}/redeliver, POST /v1/operations/{id}/resend,
         POST /v1/operations/{id}/retry, GET /operations/{id}/retry, POST /operations/{id}/retry,
         POST /v1/operations/{id}/cancel, POST /v1/operations/{id}/resolve,
         POST /v1/operations/{id}/lookup, DELETE /v1/keys/demo/k, POST /v1/keys/demo/k/extend,
         POST /v1/keys/demo/k/rotate, POST /v1/keys/revoke, DELETE /v1/claims/s/k,
         POST /v1/routes/demo/pause, POST /v1/routes/demo/resume, POST /v1/routes/demo/lookup,
         POST /v1/routes/demo/probe, POST /upstreams/demo/probe,
         POST /v1/sagas/{id}/pause, POST /v1/sagas/{id}/resume, POST /v1/sagas/{id}/retry,
         POST /v1/sagas/{id}/cancel, POST /v1/sagas/{id}/resolve, POST /sagas/{id}/pause,
         POST /sagas/{id}/resume, POST /sagas/{id}/retry, POST /sagas/{id}/cancel,
         POST /sagas/{id}/resolve, POST /v1/resolve, POST /v1/bulk, POST /v1/bulk/b/stop, POST /v1/outbox/o/retry, POST /bulk,
         GET /bulk/plan, POST /bulk/plan, POST /bulk/b/stop, POST /v1/filters,
         DELETE /v1/filters/f, POST /filters, POST /filters/delete, GET /operations/{id}/redeliver,
         POST /operations/{id}/redeliver, POST /operations/{id}/resend, GET /operations/{id}/cancel,
         POST /operations/{id}/cancel, GET /operations/{id}/resolve, POST /operations/{id}/resolve,
         GET /operations/{id}/forget, POST /operations/{id}/forget, GET /operations/{id}/lookup,
         POST /operations/{id}/lookup, POST /upstreams/demo/pause, POST /upstreams/demo/resume,
         POST /v1/subscriptions, POST /v1/subscriptions/s, DELETE /v1/subscriptions/s,
         POST /v1/subscriptions/s/pause, POST /v1/subscriptions/s/resume,
         POST /v1/subscriptions/s/rotate, POST /v1/subscriptions/s/test,
         POST /v1/subscriptions/s/recover, POST /subscriptions/s/pause,
         POST /subscriptions/s/resume, POST /subscriptions/s/recover, POST /subscriptions/s/test",
    ),
    (
        "admin",
        "GET /v1/audit, GET /v1/access, POST /v1/access, DELETE /v1/access/ow_x,
         POST /v1/access/ow_x/rotate, POST /v1/backup, POST /v1/release, GET /audit",
    ),
    // One role alone does not open it: it sends again, and shows what was sent.
    ("operate and payloads", "GET /operations/{id}/resend"),
    // It shows what became of it.
    ("send and read", "GET /send, POST /send"),
];

const ROLES: [&str; 5] = ["send", "read", "payloads", "operate", "admin"];

/// An operation that nobody made.
const NOBODYS: &str = "op_01kb2n9f5nep3b8m6wq6r9t2vx";

fn make(gateway: &Gateway, name: &str, options: &[&str]) -> String {
    gateway.run(&[&["access", "create", name], options].concat()).ok().trim().to_owned()
}

fn ask(gateway: &Gateway, key: &str, line: &str, body: &str) -> Response {
    let (method, path) = line.trim().split_once(' ').expect("a method and a path");
    let bearer = format!("Bearer {key}");
    let headers = [("onceward-authorization", &*bearer), ("content-type", "application/json")];
    gateway.call(method, path, &headers, body)
}

fn endpoints() -> impl Iterator<Item = (&'static str, String)> {
    ENDPOINTS.iter().flat_map(|(opens, lines)| {
        lines.split(',').map(|line| (*opens, line.trim().replace("{id}", NOBODYS)))
    })
}

#[test]
fn each_role_opens_its_endpoints_and_no_others() {
    let world = World::new();
    let gateway = world.serve();
    let keys = ROLES.map(|role| (role, make(&gateway, role, &["--role", role])));
    let two = make(&gateway, "two", &["--role", "operate", "--role", "payloads"]);
    let all = make(&gateway, "all", &[]);
    let revoked = make(&gateway, "revoked", &[]);
    gateway.run(&["access", "revoke", &revoked[..11]]).ok();
    let mut asked = 0;
    for (opens, line) in endpoints() {
        let bare =
            gateway.call(line.split(' ').next().unwrap(), line.split(' ').nth(1).unwrap(), &[], "");
        assert_eq!(bare.status, 401, "{line} without a key");
        assert_eq!(ask(&gateway, &revoked, &line, "").status, 401, "{line}, revoked");
        for (role, key) in &keys {
            let answer = ask(&gateway, key, &line, "{}");
            let (missing, is_alone) = (opens.split(' ').next().unwrap(), !opens.contains(" and "));
            let is_open = (missing == *role && is_alone)
                || (opens.contains("(send)") && *role == "send")
                // Who sees headers and bodies sees the rest.
                || (missing == "read" && *role == "payloads");
            if is_open {
                let status = answer.status;
                assert!(![401, 403, 405].contains(&status), "{line} as {role}: {status}");
            } else {
                assert_eq!(answer.status, 403, "{line} as {role}");
                if !line.starts_with("HEAD") {
                    let problem = answer.json();
                    assert_eq!(problem["code"], "forbidden", "{line} as {role}");
                    let detail = problem["detail"].as_str().unwrap();
                    assert!(detail.contains("needs the role "), "{line}: {detail}");
                    assert!(detail.contains(missing) || !is_alone, "{line}: {detail}");
                    assert!(detail.contains(&format!("of {role} has ")), "{line}: {detail}");
                }
            }
            asked += 1;
        }
        for key in [&all, &two] {
            let status = ask(&gateway, key, &line, "{}").status;
            let is_open = key == &all || opens == "operate and payloads";
            assert!(!is_open || ![401, 403, 405].contains(&status), "{line}: {status}");
        }
    }
    assert!(asked > 350, "{asked}");
}

#[test]
fn the_way_in_needs_no_key_and_what_is_nowhere_is_nowhere() {
    let world = World::new();
    let gateway = world.serve();
    let key = make(&gateway, "ada", &["--role", "send"]);
    for (path, status) in [("/login", 200), ("/style.css", 200), ("/", 401), ("/nowhere", 401)] {
        assert_eq!(gateway.call("GET", path, &[], "").status, status, "{path}");
    }
    assert_eq!(ask(&gateway, &key, "GET /style.css", "").status, 200);
    assert_eq!(ask(&gateway, &key, "GET /v1/nowhere", "").status, 404);
    let other = ask(&gateway, &key, "PUT /v1/operations", "");
    assert_eq!((other.status, other.header("allow")), (405, Some("GET,HEAD,POST")));
}

#[test]
fn who_may_only_send_sees_what_became_of_its_own_calls_and_of_no_others() {
    let world = World::new();
    let gateway = world.serve();
    let [ada, bo] = ["ada", "bo"].map(|name| make(&gateway, name, &["--role", "send"]));
    for key in [&ada, &bo] {
        gateway
            .run(&["--access-key", key, "send", "demo/orders", "--key", "same", "--body", "{}"])
            .ok();
    }
    let of = |key: &str| {
        let found = ask(&gateway, key, "GET /v1/keys/demo/same", "");
        assert_eq!(found.status, 200);
        found.json()["id"].as_str().unwrap().to_owned()
    };
    let (adas, bos) = (of(&ada), of(&bo));
    assert_ne!(adas, bos);
    for rest in ["", "/request", "/response"] {
        let own = format!("GET /v1/operations/{adas}{rest}");
        assert_eq!(ask(&gateway, &ada, &own, "").status, 200, "{own}");
        let [theirs, nobodys] = [&*bos, NOBODYS].map(|id| {
            let answer = ask(&gateway, &ada, &format!("GET /v1/operations/{id}{rest}"), "");
            assert_eq!(answer.status, 404, "{rest}");
            answer.json().to_string().replace(id, "ID")
        });
        assert_eq!(theirs, nobodys, "one that is another's is not told from one that is not there");
    }
    let elses = ask(&gateway, &ada, "GET /v1/keys/demo/same?principal=bo", "");
    assert_eq!(elses.status, 403);
    let own = ask(&gateway, &ada, "GET /v1/keys/demo/same?principal=ada", "");
    assert_eq!(own.json()["id"], adas);
}

#[test]
fn a_key_that_is_confined_to_routes_knows_no_other() {
    let world = World::new();
    let gateway = world.serve();
    let all = make(&gateway, "all", &[]);
    for route in ["demo", "demo-unsafe"] {
        let to = format!("{route}/orders");
        gateway.run(&["--access-key", &all, "send", &to, "--key", "k", "--body", "{}"]).ok();
    }
    let id = |route: &str| {
        let found = ask(&gateway, &all, &format!("GET /v1/keys/{route}/k"), "").json();
        found["id"].as_str().unwrap().to_owned()
    };
    let (inside, outside) = (id("demo"), id("demo-unsafe"));
    let key = make(&gateway, "ada", &["--route", "demo"]);
    assert_eq!(ask(&gateway, &key, "POST /to/demo/orders", "{}").status, 201);
    let alike = |line: &str, theirs: &str, nobodys: &str, body: &str| {
        let [theirs, nobodys] = [theirs, nobodys].map(|name| {
            let body = body.replace("NAME", name);
            let answer = ask(&gateway, &key, &line.replace("NAME", name), &body);
            assert_eq!(answer.status, 404, "{line} {name}: {}", answer.json());
            answer.json().to_string().replace(name, "NAME")
        });
        assert_eq!(theirs, nobodys, "{line}");
    };
    let reason = json!({"reason": "r"}).to_string();
    let to = json!({"to": "NAME/orders", "body": {}}).to_string();
    for (line, body) in [
        ("POST /to/NAME/orders", "{}"),
        ("GET /to/NAME/effects", ""),
        ("POST /v1/operations", &*to),
        ("POST /v1/explain", &*to),
        ("GET /v1/keys/NAME/k?principal=all", ""),
        ("DELETE /v1/keys/NAME/k", &*reason),
        ("GET /v1/routes/NAME/advice", ""),
        ("POST /v1/routes/NAME/pause", &*reason),
        ("POST /v1/routes/NAME/lookup", ""),
    ] {
        alike(line, "demo-unsafe", "nowhere", body);
    }
    for rest in ["", "/request", "/response", "/evidence"] {
        alike(&format!("GET /v1/operations/NAME{rest}"), &outside, NOBODYS, "");
        let own = format!("GET /v1/operations/{inside}{rest}");
        assert_eq!(ask(&gateway, &key, &own, "").status, 200, "{own}");
    }
    for act in ["redeliver", "resend", "cancel", "resolve", "lookup"] {
        alike(&format!("POST /v1/operations/NAME/{act}"), &outside, NOBODYS, &reason);
    }
    let shown = ask(&gateway, &key, "GET /v1/operations", "").json().to_string();
    assert!(shown.contains(&inside) && !shown.contains(&outside), "{shown}");
    let filtered = ask(&gateway, &key, "GET /v1/operations?route=demo-unsafe", "").json();
    assert_eq!(filtered["data"], json!([]));
    let routes = ask(&gateway, &key, "GET /v1/routes", "").json();
    assert_eq!(
        (routes["data"].as_array().unwrap().len(), &routes["data"][0]["name"]),
        (1, &json!("demo"))
    );
    assert_eq!(ask(&gateway, &key, "POST /v1/routes/demo/pause", &reason).status, 200);
    assert_eq!(ask(&gateway, &key, "POST /v1/routes/demo/resume", &reason).status, 200);
    for line in [
        "GET /metrics",
        "GET /v1/stats",
        "GET /v1/audit",
        "GET /v1/access",
        "POST /v1/access",
        "POST /v1/backup",
        "POST /v1/bulk",
        "POST /v1/resolve",
        "POST /v1/keys/revoke",
        "GET /",
        "GET /operations",
        "GET /v1/claims/s/k",
        "GET /v1/sources",
        "GET /v1/outbox",
    ] {
        let refused = ask(&gateway, &key, line, "{}");
        assert_eq!(refused.status, 403, "{line}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("confined"), "{detail}");
    }
}

#[test]
fn a_page_shows_and_offers_what_the_key_may() {
    let world = World::new();
    let gateway = world.serve();
    let [read, payloads, send] =
        ["read", "payloads", "send"].map(|role| make(&gateway, role, &["--role", role]));
    let body = json!({"secret": "in-the-body"}).to_string();
    gateway
        .run(&["--access-key", &send, "send", "demo/orders", "--key", "k", "--body", &body])
        .ok();
    let found = ask(&gateway, &read, "GET /v1/keys/demo/k?principal=send", "").json();
    assert!(!found.to_string().contains("in-the-body"));
    let page = format!("GET /operations/{}", found["id"].as_str().unwrap());
    for (key, sees) in [(&read, false), (&payloads, true)] {
        let page = ask(&gateway, key, &page, "");
        assert_eq!(page.status, 200);
        assert_eq!(page.text().contains("in-the-body"), sees);
        assert_eq!(page.text().contains("has not the role payloads"), !sees);
        assert!(!page.text().contains("<form"), "nothing is offered that would be refused");
    }
    let all = make(&gateway, "all", &[]);
    assert!(ask(&gateway, &all, &page, "").text().contains("<form"));
    let bearer = format!("Bearer {read}");
    let headers = [("authorization", &*bearer), ("accept", "text/html")];
    let refused = gateway.call("GET", "/audit", &headers, "");
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(refused.text().contains("needs the role admin"), "{}", refused.text());
}

#[test]
fn a_scope_that_routes_share_is_nobodys_own_and_a_route_out_of_reach_has_no_shape_of_its_own() {
    let world = World::new();
    let upstream = Upstream::answering(Some(201));
    let route = |name: &str, lines: &str| {
        format!("[routes.{name}]\nupstream = \"http://{}\"\n{lines}\n", upstream.address)
    };
    let config = [
        route("pay", "scope = \"shared\""),
        route("stripe", "error_shape = \"stripe\""),
        route("plain", ""),
    ];
    world.write("onceward.toml", &config.concat());
    let gateway = world.serve();
    let [ada, bo] = ["ada", "bo"].map(|name| make(&gateway, name, &["--role", "send"]));
    gateway.run(&["--access-key", &bo, "send", "pay/orders", "--key", "k", "--body", "{}"]).ok();
    let by_route = ask(&gateway, &ada, "GET /v1/keys/pay/k", "");
    assert_eq!(by_route.status, 200, "a call with it would be answered by what bo sent");
    for scope in ["scope%2Fshared", "source%2Fshared", "outbox%2Fshared"] {
        let line = format!("GET /v1/keys/{scope}/k");
        assert_eq!(ask(&gateway, &ada, &line, "").json()["code"], "route-unknown", "{line}");
    }
    let confined = make(&gateway, "cy", &["--route", "pay"]);
    let [stripe, plain, nowhere] = ["stripe", "plain", "nowhere"].map(|name| {
        let answer = ask(&gateway, &confined, &format!("POST /to/{name}/orders"), "{}");
        assert_eq!(answer.status, 404, "{name}");
        answer.text().replace(name, "NAME")
    });
    assert!(nowhere.contains("\"error\""), "{nowhere}");
    assert_eq!((&stripe, &plain), (&nowhere, &nowhere));
    assert_eq!(upstream.calls(), 1);
}

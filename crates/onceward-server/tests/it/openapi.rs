//! The document of the API against the API: a walk through all of it, with something of each kind in the
//! ledger. What every other test asks of the main listener is held against it as well.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::outbox_tables::sqlite;
use crate::world::{Gateway, Response, Upstream, World, document, route, until};

/// What this walk cannot see done: calls and webhooks answer as upstreams and sources say, a release
/// wants a ledger that was restored, a comparison comes on a schedule, and what is followed goes on.
const ELSEWHERE: [&str; 6] = [
    "receiveWebhook",
    "getHealth",
    "getReadiness",
    "getReconciliation",
    "release",
    "followChanges",
];

struct Walk<'a> {
    gateway: &'a Gateway,
    done: BTreeSet<&'static str>,
}

impl Walk<'_> {
    /// Asks, and is answered so.
    #[track_caller]
    fn ask(&mut self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.asked(method, path, &body.to_string());
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if let Some(said) = document::said(method, path).filter(|_| status < 300) {
            self.done.insert(said.id);
        }
        answer.json()
    }

    #[track_caller]
    fn asked(&self, method: &str, path: &str, body: &str) -> Response {
        let body = if method == "GET" { "" } else { body };
        self.gateway.call(method, path, &[("content-type", "application/json")], body)
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Value {
        self.ask(200, "GET", path, &Value::Null)
    }

    #[track_caller]
    fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask(200, "POST", path, body)
    }

    /// Sends a call by a document; tells the operation's id.
    fn send(&self, to: &str, key: &str, mode: &str) -> String {
        let call = json!({"to": to, "key": key, "mode": mode, "body": {"qty": 1}});
        let said = self.asked("POST", "/v1/operations", &call.to_string()).json();
        said["id"].as_str().or_else(|| said["operation"].as_str()).unwrap_or("").to_owned()
    }
}

fn world(world: &World) -> Gateway {
    let [well, never] = [200, 404].map(|status| Upstream::answering(Some(status)).address);
    let unclear = Upstream::answering(Some(500)).address;
    sqlite(&world.path("app.db"));
    let doubt = format!(
        "[routes.doubt]\nupstream = \"http://{unclear}\"\neffects = \"non-idempotent\"\nbreaker = false\n\
         [routes.doubt.lookup]\nget = \"/orders?ref={{key}}\"\nfound = {{ status = 200 }}\n\
         settle = \"1h\"\n"
    );
    let alerts = format!("[alerts.to.chat]\nslack = \"http://{well}/told\"\n");
    let (well, never) = (route("well", well), route("never", never));
    world.write(
        "onceward.toml",
        &format!(
            "{well}{never}{doubt}[sources.hooks]\nverify = {{ scheme = \"github\", secret = \"s3cret\" }}\n\
             to = \"well\"\n[outbox.app]\ndatabase = \"sqlite:app.db\"\nto = \"well\"\n\
             [claims.mails]\nlease = \"30s\"\n{alerts}"
        ),
    );
    world.serve()
}

#[test]
fn every_endpoint_answers_as_the_document_says() {
    let folder = World::new();
    let gateway = world(&folder);
    let mut walk = Walk { gateway: &gateway, done: BTreeSet::new() };
    operations(&mut walk);
    people(&mut walk);
    keys(&mut walk);
    claims(&mut walk);
    sagas(&mut walk);
    events(&mut walk);
    the_rest(&mut walk, &folder);
    let missing: Vec<_> = document::ids()
        .into_iter()
        .filter(|id| !walk.done.contains(id) && !ELSEWHERE.contains(id) && !id.ends_with("Through"))
        .collect();
    assert!(missing.is_empty(), "nobody has seen these done: {missing:?}");
}

#[test]
fn an_answer_that_the_document_does_not_tell_of_is_seen() {
    let judged = |status, kind: &str, body: &Value| {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        let answer = Response { status, headers, body: body.to_string().into_bytes() };
        std::panic::catch_unwind(|| document::hold("GET", "/v1/stats", &answer)).is_ok()
    };
    let json = "application/json";
    let well = json!({
        "operations": {"done": 1},
        "oldest_due": null,
        "oldest_in_doubt": null,
        "breakers_open": [],
        "keys": {"kept": 1, "expiring": 0, "tombstones": 0},
        "history": null,
        "ledger": {"bytes": 1, "commits": 1},
        "quarantined": false,
        "version": "1",
    });
    assert!(judged(200, json, &well));
    for (member, value) in [
        ("more", json!(1)),
        ("version", json!(1)),
        ("operations", json!({"done": "1"})),
        ("ledger", json!({"bytes": 1})),
        ("ledger", json!({"bytes": 1, "commits": 1, "more": 1})),
    ] {
        let mut other = well.clone();
        other[member] = value;
        assert!(!judged(200, json, &other), "{other}");
    }
    assert!(!judged(200, "text/plain", &well) && !judged(418, json, &well));
    let problem = |code: &str| json!({"type": "urn:onceward:problem:x", "title": "", "status": 403, "detail": "", "code": code, "advice": "wait"});
    let problem = |code: &str| judged(403, "application/problem+json", &problem(code));
    assert!(problem("forbidden") && !problem("limit") && !problem("nothing"));
}

fn operations(walk: &mut Walk<'_>) {
    let call =
        json!({"to": "well/orders?ref=1", "key": "k-1", "label": "first", "body": {"qty": 1}});
    let sent = walk.post("/v1/operations", &call);
    let id = sent["id"].as_str().unwrap().to_owned();
    assert_eq!(walk.post("/v1/operations", &call)["replayed"], true);
    walk.ask(
        202,
        "POST",
        "/v1/operations",
        &json!({"to": "well/a", "key": "k-2", "mode": "accepted"}),
    );
    walk.post("/v1/explain", &call);
    walk.post("/v1/explain", &json!({"to": "doubt/orders", "method": "GET"}));
    walk.post("/v1/explain", &json!({"to": "doubt/orders"}));
    for rest in ["", "/request", "/response", "/evidence"] {
        walk.get(&format!("/v1/operations/{id}{rest}"));
    }
    walk.get("/v1/operations?state=done&limit=1");
    walk.ask(400, "GET", "/v1/operations?nothing=1", &Value::Null);
    walk.ask(400, "GET", "/v1/operations/op_1", &Value::Null);
    walk.ask(400, "GET", "/v1/operations/%FF", &Value::Null);
    walk.ask(409, "POST", "/v1/operations", &json!({"to": "well/orders", "key": "k-1"}));
    walk.ask(404, "POST", "/v1/operations", &json!({"to": "nowhere/orders"}));
    for wrong in [
        json!({"to": "well", "mode": "later"}),
        json!({"to": "well", "label": "x".repeat(201)}),
        json!({"to": "well", "more": 1}),
        json!({"to": "well", "key": ""}),
        json!({}),
    ] {
        walk.ask(400, "POST", "/v1/operations", &wrong);
    }
    let plain =
        walk.gateway.call("POST", "/v1/operations", &[("content-type", "text/plain")], "{}");
    assert_eq!(
        (plain.status, &*plain.json()["code"].to_string()),
        (415, "\"media-type-unsupported\"")
    );
    let large = format!("{{\"to\": \"{}\"}}", "x".repeat(3 << 20));
    assert_eq!(walk.asked("POST", "/v1/operations", &large).status, 413);
}

fn people(walk: &mut Walk<'_>) {
    let because = json!({"reason": "it is a test"});
    let dead = walk.send("never/orders", "dead-1", "accepted");
    until("it is dead", || {
        Some(()).filter(|()| walk.get(&format!("/v1/operations/{dead}"))["state"] == "dead")
    });
    walk.post(&format!("/v1/operations/{dead}/redeliver"), &because);
    let resend = format!("/v1/operations/{dead}/resend");
    let changed = json!({"reason": "again", "path": "/else", "headers": {"x-a": "b", "x-c": null}});
    until("it has ended again", || {
        Some(()).filter(|()| walk.asked("POST", &resend, &changed.to_string()).status == 201)
    });
    walk.ask(201, "POST", &resend, &changed);
    let [first, second] = ["doubt-1", "doubt-2"].map(|key| walk.send("doubt/orders", key, "held"));
    walk.post(&format!("/v1/operations/{first}/lookup"), &json!({}));
    walk.post("/v1/routes/doubt/lookup", &json!({}));
    walk.get(&format!("/v1/operations/{first}"));
    let risk = walk.ask(409, "POST", &format!("/v1/operations/{first}/redeliver"), &because);
    assert_eq!(risk["code"], "risk-unaccepted");
    let list = json!({"route": "doubt", "items": [{"key": "doubt-2"}], "match": "/key", "reason": "their list", "dry_run": true});
    walk.post("/v1/resolve", &list);
    let done = json!({"as": "done", "reason": "they say so", "status": 201, "body": "{}"});
    walk.post(&format!("/v1/operations/{first}/resolve"), &done);
    walk.post(
        &format!("/v1/operations/{second}/resolve"),
        &json!({"as": "done", "reason": "they say so"}),
    );
    walk.ask(409, "POST", &format!("/v1/operations/{first}/resolve"), &done);
    let later =
        [("idempotency-key", "later-1"), ("onceward-delay", "1h"), ("prefer", "respond-async")];
    let later = walk.gateway.call("POST", "/to/well/orders", &later, "{}");
    let later = later.header("onceward-operation").unwrap().to_owned();
    walk.post(&format!("/v1/operations/{later}/retry"), &because);
    walk.post("/v1/routes/well/pause", &because);
    let waiting = walk.send("well/orders", "waits-1", "accepted");
    walk.get("/v1/routes");
    walk.post(&format!("/v1/operations/{waiting}/cancel"), &because);
    walk.post("/v1/routes/well/resume", &because);
    walk.post("/v1/routes/well/probe", &because);
    walk.ask(404, "POST", "/v1/routes/nowhere/pause", &because);
    walk.get("/v1/approvals");
    walk.get("/v1/audit?limit=3");
    let filter = json!({"route": "never", "state": "dead"});
    walk.post("/v1/bulk", &json!({"action": "redeliver", "filter": filter, "dry_run": true}));
    let bulk = json!({"action": "forget", "filter": filter, "reason": "all of them"});
    let bulk = walk.ask(202, "POST", "/v1/bulk", &bulk);
    let name = bulk["id"].as_str().unwrap().to_owned();
    walk.get("/v1/bulk");
    walk.get(&format!("/v1/bulk/{name}"));
    let stopped = walk.asked("POST", &format!("/v1/bulk/{name}/stop"), &because.to_string());
    assert!([200, 409].contains(&stopped.status), "{}", stopped.text());
    walk.done.insert("stopBulk");
    walk.ask(400, "POST", "/v1/bulk", &json!({"action": "redeliver", "filter": {}}));
    let named = json!({"action": "redeliver", "ids": [first, second], "reason": "these"});
    walk.ask(202, "POST", "/v1/bulk", &named);
    walk.post("/v1/filters", &json!({"name": "late", "query": "status=5xx&attempts_min=2"}));
    walk.get("/v1/filters");
    walk.get("/v1/operations?status=5xx&attempts_min=2");
    walk.ask(200, "DELETE", "/v1/filters/late", &json!({}));
    walk.ask(404, "DELETE", "/v1/filters/late", &json!({}));
}

fn keys(walk: &mut Walk<'_>) {
    let because = json!({"reason": "it is a test"});
    walk.get("/v1/keys/well/k-1");
    walk.ask(404, "GET", "/v1/keys/well/nobody", &Value::Null);
    walk.post("/v1/keys/well/k-1/extend", &json!({"reason": "longer", "window": "30d"}));
    walk.ask(400, "POST", "/v1/keys/well/k-1/extend", &because);
    walk.post("/v1/keys/well/k-1/rotate", &json!({"reason": "leaked", "to": "k-9"}));
    walk.ask(200, "DELETE", "/v1/keys/well/k-1", &because);
    walk.post("/v1/keys/revoke", &json!({"reason": "they left", "principal": "ada"}));
    let gone =
        json!({"to": "well/orders?ref=1", "key": "k-1", "label": "first", "body": {"qty": 1}});
    walk.ask(410, "POST", "/v1/operations", &gone);
}

fn sagas(walk: &mut Walk<'_>) {
    let undo = json!({"to": "never", "path": "/undo"});
    let steps = json!([
        {"name": "a", "to": "well", "compensate": undo},
        {"name": "b", "to": "never", "body": "{{steps.a.status}}"},
    ]);
    let asked = json!({"key": "saga-1", "label": "trip", "steps": steps});
    let id = walk.ask(202, "POST", "/v1/sagas", &asked)["id"].as_str().unwrap().to_owned();
    walk.post("/v1/sagas", &asked);
    walk.ask(409, "POST", "/v1/sagas", &json!({"key": "saga-1", "steps": [steps[0]]}));
    walk.ask(404, "POST", "/v1/sagas", &json!({"steps": [{"name": "a", "to": "no-route"}]}));
    let path = format!("/v1/sagas/{id}");
    let until_stuck = |walk: &mut Walk<'_>| {
        until("the saga is stuck", || (walk.get(&path)["state"] == "stuck").then_some(()));
    };
    let because = json!({"reason": "r"});
    for deed in ["retry", "cancel", "pause", "resume"] {
        until_stuck(walk);
        walk.post(&format!("{path}/{deed}"), &because);
    }
    until_stuck(walk);
    let word = json!({"reason": "r", "step": "a/undo", "as": "done"});
    walk.post(&format!("{path}/resolve"), &word);
    until("it is unwound", || (walk.get(&path)["state"] == "unwound").then_some(()));
    walk.ask(409, "POST", &format!("{path}/cancel"), &because);
    let listed = walk.get("/v1/sagas?limit=1");
    assert_eq!(listed["data"][0]["id"], json!(id));
    walk.get("/v1/sagas?state=stuck&label=trip");
}

fn claims(walk: &mut Walk<'_>) {
    let fence = |claim: &Value| claim["fence"].as_u64().unwrap();
    let first =
        walk.post("/v1/claims/mails/c-1/begin", &json!({"holder": "a", "fingerprint": "x"}));
    walk.post("/v1/claims/mails/c-1/begin", &json!({"fingerprint": "x"}));
    walk.ask(409, "POST", "/v1/claims/mails/c-1/begin", &json!({"fingerprint": "y"}));
    walk.get("/v1/claims/mails/c-1");
    walk.get("/v1/claims");
    walk.post("/v1/claims/mails/c-1/renew", &json!({"fence": fence(&first), "lease": "1m"}));
    walk.post(
        "/v1/claims/mails/c-1/complete",
        &json!({"fence": fence(&first), "outcome": {"n": [1]}}),
    );
    walk.post("/v1/claims/mails/c-1/begin", &json!({"fingerprint": "x"}));
    let second = walk.post("/v1/claims/mails/c-2/begin", &json!({}));
    walk.post(
        "/v1/claims/mails/c-2/release",
        &json!({"fence": fence(&second), "reason": "not now"}),
    );
    walk.ask(404, "GET", "/v1/claims/mails/nobody", &Value::Null);
    walk.ask(200, "DELETE", "/v1/claims/mails/c-1", &json!({"reason": "it is a test"}));
    let many = walk.post(
        "/v1/claims/mails/begin",
        &json!({"claims": [{"key": "m-1"}, {"key": "m-2"}, {"key": ""}]}),
    );
    let told = |n: usize| json!({"key": format!("m-{}", n + 1), "fence": fence(&many["data"][n])});
    walk.post("/v1/claims/mails/renew", &json!({"claims": [told(0), told(1)]}));
    walk.post("/v1/claims/mails/complete", &json!({"claims": [told(0)]}));
    walk.post("/v1/claims/mails/release", &json!({"claims": [told(1)]}));
    walk.ask(400, "POST", "/v1/claims/mails/begin", &json!({"claims": []}));
}

fn events(walk: &mut Walk<'_>) {
    let wanted = json!({"to": "well/hooks", "types": ["order.*"], "headers": {"X-A": "b"}});
    let made = walk.ask(201, "POST", "/v1/subscriptions", &wanted);
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    walk.get("/v1/subscriptions");
    walk.get(&path);
    let filter = json!({"filter": {"json": {"/data/n": {"gt": 1}}}, "retry": ["5s", "1h"]});
    walk.post(&path, &filter);
    walk.post(&path, &json!({"filter": null, "enabled": true}));
    let because = json!({"reason": "r"});
    walk.post(&format!("{path}/pause"), &because);
    let event = json!({"type": "order.paid", "key": "e-1", "subject": "o-1", "data": {"n": 1}});
    let published = walk.ask(202, "POST", "/v1/events", &event);
    assert_eq!(walk.ask(202, "POST", "/v1/events", &event)["duplicate"], true);
    walk.get("/v1/events?type=order.paid&limit=1");
    walk.get(&format!("/v1/events/{}", published["id"].as_str().unwrap()));
    walk.get(&path);
    walk.post(&format!("{path}/resume"), &because);
    walk.ask(201, "POST", &format!("{path}/rotate"), &json!({"overlap": "1h"}));
    walk.ask(202, "POST", &format!("{path}/test"), &json!({"data": [1]}));
    let missed = json!({"what": "missed", "since": "1h", "reason": "r"});
    walk.post(&format!("{path}/recover"), &missed);
    let failed = json!({"what": "failed", "since": "1h", "reason": "r"});
    walk.ask(202, "POST", &format!("{path}/recover"), &failed);
    walk.ask(200, "DELETE", &path, &because);
}

fn the_rest(walk: &mut Walk<'_>, folder: &World) {
    walk.get("/v1/routes/well/advice");
    walk.get("/v1/routes/well/contract");
    walk.ask(404, "GET", "/v1/routes/nowhere/contract", &Value::Null);
    walk.ask(404, "GET", "/v1/routes/well/reconcile", &Value::Null);
    walk.get("/v1/outbox");
    walk.get("/v1/outbox/app");
    walk.post("/v1/outbox/app/retry", &json!({"reason": "mended"}));
    walk.get("/v1/sources");
    walk.get("/v1/sources/hooks");
    walk.ask(404, "GET", "/v1/sources/nowhere", &Value::Null);
    assert_eq!(walk.asked("POST", "/in/hooks", "{}").status, 400);
    let rejects = walk.get("/v1/sources/hooks/rejects?limit=5");
    assert_eq!(rejects["data"].as_array().map(Vec::len), Some(1));
    walk.get("/v1/dead-letters/groups");
    walk.get("/v1/alerts");
    walk.post("/v1/alerts/test", &json!({"to": "chat"}));
    walk.ask(404, "POST", "/v1/alerts/test", &json!({"to": "nobody"}));
    walk.get("/v1/stats");
    for over in ["1h", "24h", "7d"] {
        walk.get(&format!("/v1/stats?over={over}"));
    }
    walk.ask(400, "GET", "/v1/stats?over=2h", &Value::Null);
    let seen = walk.get("/v1/duplicates?limit=1");
    let next = seen["next"].as_str().unwrap();
    walk.get(&format!("/v1/duplicates?cursor={next}"));
    let seen = walk.get("/v1/suspects?limit=1");
    assert_eq!(seen["data"].as_array().map(Vec::len), Some(1), "{seen}");
    let verified = walk.get("/v1/audit/verify");
    assert_eq!(verified["intact"], true);
    assert_eq!(walk.asked("GET", "/v1/audit/export?behind=0&limit=2", "").status, 200);
    walk.done.insert("exportAudit");
    let erased = walk.post("/v1/erase", &json!({"reason": "they asked", "subject": "nobody"}));
    assert_eq!(erased["operations"], 0);
    let both = json!({"reason": "they asked", "subject": "nobody", "saga": "op_00000000000000000000000000"});
    walk.ask(400, "POST", "/v1/erase", &both);
    walk.post("/v1/backup", &json!({"to": folder.path("backup")}));
    walk.ask(409, "POST", "/v1/release", &json!({}));
    let before = walk.get("/v1/rekey");
    let rekeyed = walk.post("/v1/rekey", &json!({"reason": "a copy was lost"}));
    assert_eq!(rekeyed["idle"], json!([before["current"]]));
    walk.post("/v1/rekey", &json!({"retire": true}));
    let openapi = walk.get("/v1/openapi.json");
    assert_eq!(openapi, walk.asked("GET", "/openapi.json", "").json());
    let printed = walk.gateway.run(&["openapi"]).json();
    assert_eq!(openapi, printed);
    let metrics = walk.asked("GET", "/metrics", "");
    assert_eq!(metrics.status, 200);
    walk.done.insert("getMetrics");
    for path in ["/healthz", "/readyz", "/metrics"] {
        let other = walk.asked("POST", path, "");
        assert_eq!((other.status, other.header("allow")), (405, Some("GET,HEAD")), "{path}");
    }
    // The last: from the first key on everybody needs one.
    let made = walk.ask(
        201,
        "POST",
        "/v1/access",
        &json!({"name": "ada", "routes": ["well"], "expires": "1d"}),
    );
    let (key, prefix) = (made["key"].as_str().unwrap(), made["prefix"].as_str().unwrap());
    walk.ask(401, "GET", "/v1/operations", &Value::Null);
    let operator = std::fs::read_to_string(folder.path("onceward-data/operator.key")).unwrap();
    let bearer = format!("Bearer {}", operator.trim());
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let admin =
        |method: &str, path: &str, body: &str| walk.gateway.call(method, path, &headers, body);
    assert_eq!(admin("GET", "/v1/access", "").status, 200);
    let rotated = admin("POST", &format!("/v1/access/{prefix}/rotate"), "{\"overlap\": \"0s\"}");
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    assert_eq!(admin("DELETE", &format!("/v1/access/{prefix}"), "").status, 200);
    let own = format!("Bearer {key}");
    let refused = walk.gateway.call("GET", "/v1/access", &[("authorization", &own)], "");
    assert_eq!(refused.status, 401, "it was revoked");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = walk.gateway.call("POST", "/login", &form, &format!("key={}", operator.trim()));
    assert_eq!(login.status, 303, "{}", login.text());
    let sessions = admin("GET", "/v1/sessions", "").json();
    let session = format!("/v1/sessions/{}", sessions["data"][0]["id"].as_str().unwrap());
    assert_eq!(admin("DELETE", &session, "{\"reason\": \"r\"}").status, 200);
    assert_eq!(admin("DELETE", &session, "").status, 404, "it has ended");
    walk.done.extend(["listAccessKeys", "rotateAccessKey", "revokeAccessKey"]);
    walk.done.extend(["listSessions", "endSession"]);
}

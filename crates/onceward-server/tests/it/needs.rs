//! What needs somebody, as people see it: on the overview, beside the ways, in the line of alerts and on the
//! pages that these lead to.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use crate::alerts_world::{QUICK, bury};
use crate::browser_world::Server;
use crate::callbacks::SECRET;
use crate::tenants_world::{ask, make};
use crate::world::{Upstream, World, until};

/// What a browser asks for.
const HTML: (&str, &str) = ("Accept", "text/html");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn page(server: &Server, path: &str) -> String {
    let answer = server.ask("GET", path, &[HTML], "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// Where nobody listens any more.
fn gone() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The words of the list of what needs somebody.
fn needs(page: &str) -> String {
    let list = page.split("id=\"needs\"").nth(1).unwrap_or_else(|| panic!("no list: {page}"));
    list.split("</ul>").next().unwrap().to_owned()
}

/// What stands beside the way to a page.
fn beside(page: &str, path: &str) -> String {
    let ways = page.split("id=\"ways\"").nth(1).unwrap();
    let way = ways.split(&format!("href=\"{path}\"")).nth(1).unwrap();
    let way = way.split("</a>").next().unwrap();
    let count = way.split("class=\"count").nth(1).unwrap_or_default();
    let count = count.split_once('>').map_or("", |(_, count)| count);
    count.split('<').next().unwrap_or_default().to_owned()
}

#[test]
fn nothing_needs_anybody_only_where_all_of_it_was_asked_and_is_well() {
    let gone = gone();
    let server = Server::with(&format!(
        "demo = true\n[egress]\nallow = [\"127.0.0.1/32\"]\n[sources.github]\nverify = {{ scheme = \"github\", secret = \"s3cret-of-github\" }}\n\
         deliver = \"http://{gone}/hooks\"\n[routes.quiet]\nupstream = \"http://{gone}\"\neffects = \"keyed\"\n"
    ));
    let sent = server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "order-1")], "{}");
    assert_eq!(sent.status, 201, "{}", sent.text());
    let calm = needs(&page(&server, "/"));
    assert!(calm.contains("Nothing needs anybody"), "{calm}");
    for asked in [
        "no upstream is held back for long",
        "nothing in doubt",
        "no dead letters",
        "no saga is stuck",
        "no webhook was refused in an hour",
    ] {
        assert!(calm.contains(asked), "{asked}: {calm}");
    }
    for nothing in ["outbox", "alert"] {
        assert!(!calm.contains(nothing), "what is not there was not asked: {calm}");
    }

    let refused = server.ask("POST", "/in/github", &[("x-github-delivery", "1")], "{}");
    assert_eq!(refused.status, 400, "{}", refused.text());
    let shown = page(&server, "/");
    let list = needs(&shown);
    assert!(list.contains("Source github</strong>: 1 webhook refused in an hour"), "{list}");
    assert!(list.contains("header missing") && list.contains("/sources#source-github"), "{list}");
    assert!(!list.contains("Nothing needs anybody"), "{list}");
    assert_eq!(beside(&shown, "/sources"), "1");

    let undo = json!({"path": "/flights?script=409"});
    let steps = json!([
        {"name": "flight", "to": "demo/flights", "compensate": undo},
        {"name": "car", "to": "demo/cars?script=422"},
    ]);
    let saga = json!({"key": "trip-1", "steps": steps}).to_string();
    assert_eq!(server.ask("POST", "/v1/sagas", &[JSON], &saga).status, 202);
    let shown = until("the saga is stuck", || {
        Some(page(&server, "/sagas")).filter(|shown| beside(shown, "/sagas") == "1")
    });
    assert!(!shown.contains("id=\"needs\""), "the list is the overview's alone");
    let list = needs(&page(&server, "/"));
    assert!(list.contains("1 saga is stuck</strong>"), "{list}");
    assert!(list.contains("href=\"/sagas?state=stuck\""), "{list}");

    let wanted = json!({"url": format!("http://{gone}/x"), "description": "the shop"}).to_string();
    let made = server.ask("POST", "/v1/subscriptions", &[JSON], &wanted);
    assert_eq!(made.status, 201, "{}", made.text());
    let event = json!({"type": "order.paid"}).to_string();
    server.ask("POST", "/v1/events", &[JSON], &event);
    let list = until("the receiver fails", || {
        Some(needs(&page(&server, "/")))
            .filter(|list| list.contains("the shop</bdi></strong> fails"))
    });
    assert!(list.contains("what is for it waits"), "{list}");
    let receiver = page(&server, "/subscriptions");
    for said in ["Last result", "of 1<", "Wait"] {
        assert!(receiver.contains(said), "{said}: {receiver}");
    }

    let why = json!({"reason": "a change of theirs"}).to_string();
    let paused = server.ask("POST", "/v1/routes/quiet/pause", &[JSON], &why);
    assert_eq!(paused.status, 200, "{}", paused.text());
    let list = needs(&page(&server, "/"));
    let line = list.split("Upstream quiet</strong>").nth(1).unwrap_or_else(|| panic!("{list}"));
    let line = line.split("</li>").next().unwrap();
    for said in ["paused by <bdi>local</bdi>", "a change of theirs", "Resume"] {
        assert!(line.contains(said), "{said}: {line}");
    }
    let place = |what: &str| list.find(what).unwrap_or_else(|| panic!("{what}: {list}"));
    assert!(place("saga is stuck") < place("Source github"), "the worst comes first: {list}");
    assert!(place("Source github") < place("Upstream quiet"), "what is meant comes last: {list}");
}

#[test]
fn alerts_are_a_line_on_other_pages_and_on_the_overview_part_of_what_they_speak_of() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(422)));
    let rules = "dead_letters = { above = 0, within = \"1h\" }\ndisk_low = false\n";
    world.write(
        "onceward.toml",
        &format!(
            "public_url = \"https://onceward.example/\"\n[alerts]\n{QUICK}{rules}\
             [alerts.to.down]\nwebhook = \"http://{}/told\"\nsecret = \"{}\"\ngroup = \"0s\"\n\
             [routes.crm]\nupstream = \"http://{}\"\neffects = \"idempotent\"\n\
             [routes.bills]\nupstream = \"http://{}\"\neffects = \"idempotent\"\n",
            gone(),
            SECRET,
            upstream.address,
            upstream.address
        ),
    );
    let server = Server::of(world);
    for (route, key) in [("crm", "k-1"), ("bills", "k-2")] {
        bury(server.gateway(), route, key);
    }
    let listed = until("both fire, and the receiver was tried", || {
        let listed = server.ask("GET", "/v1/alerts", &[], "").json();
        let all = listed["data"].as_array().unwrap();
        let is_tried = all.iter().all(|it| it["told"][0]["error"].is_string());
        (all.len() == 2 && is_tried).then_some(listed)
    });
    let told = &listed["data"][0]["told"][0];
    assert_eq!((&told["to"], &told["sent"]), (&json!("down"), &json!(false)), "{told}");
    assert_eq!(told["state"], "waiting", "it has reached nobody, and is tried again: {told}");
    assert!(told["operation"].as_str().unwrap().starts_with("op_"), "{told}");
    let runbook = "https://onceward.example/docs/on-call/OncewardDeadLetters";
    assert_eq!(listed["data"][0]["runbook"], runbook);
    let printed = server.gateway().run(&["alerts"]).ok();
    assert!(printed.contains("down (not reached: "), "{printed}");

    let overview = page(&server, "/");
    let list = needs(&overview);
    let line = list.split("2 dead letters</strong>").nth(1).unwrap().split("</li>").next().unwrap();
    assert!(line.contains("Alert, page") && line.contains(": bills, crm"), "{line}");
    assert!(list.contains("Alerts do not reach down</strong>: "), "{list}");
    let aside = |page: &str| {
        let aside = page.split("id=\"alerting\"").nth(1).unwrap();
        aside.split("</aside>").next().unwrap().to_owned()
    };
    assert!(!aside(&overview).contains("<a"), "it says each once: {overview}");
    for path in ["/operations", "/sagas", "/upstreams"] {
        let line = aside(&page(&server, path));
        assert_eq!(line.matches("<a").count(), 1, "{path}: {line}");
        for said in ["2 alerts", "to wake somebody", "dead letters × 2", "href=\"/alerts\""] {
            assert!(line.contains(said), "{path}, {said}: {line}");
        }
    }
    let alerts = page(&server, "/alerts");
    for said in [
        "1 operation of bills became dead letters within 1h",
        "/dead?route=crm",
        "does not know yet",
        "/docs/on-call/OncewardDeadLetters",
        "Read why in one of them",
    ] {
        assert!(alerts.contains(said), "{said}: {alerts}");
    }
    assert_eq!(beside(&alerts, "/alerts"), "2");
    let guide = page(&server, "/docs/on-call/OncewardDeadLetters");
    assert!(guide.contains("Before all of them are sent"), "{guide}");
    assert_eq!(server.ask("GET", "/docs/on-call/OncewardNothing", &[HTML], "").status, 404);
}

#[test]
fn whoever_may_only_read_is_shown_no_form_and_no_way_that_is_refused() {
    let world = World::new();
    world.write(
        "onceward.toml",
        &format!("[routes.shared]\nupstream = \"http://{}\"\neffects = \"idempotent\"\n", gone()),
    );
    let gateway = world.serve();
    let all = make(&gateway, "default", "ada", &[]);
    let reader = make(&gateway, "default", "eve", &["--role", "read"]);
    let wanted = json!({"to": "shared/hooks", "description": "the shop"}).to_string();
    assert_eq!(ask(&gateway, &all, "POST /v1/subscriptions", &wanted).status, 201);
    for (path, verb) in [("/upstreams", "pause"), ("/subscriptions", "recover")] {
        let [hers, theirs] =
            [&all, &reader].map(|key| ask(&gateway, key, &format!("GET {path}"), "").text());
        assert!(hers.contains(&format!("/{verb}\"")), "{path}: {hers}");
        assert!(!theirs.contains("method=\"post\""), "{path}: {theirs}");
        assert!(theirs.contains("needs the role operate"), "{path}: {theirs}");
        assert!(
            hers.contains("href=\"/audit\"") && !theirs.contains("href=\"/audit\""),
            "{theirs}"
        );
    }
}

#[test]
fn an_upstream_that_fails_is_told_so_though_calls_go_to_it() {
    let failing = Upstream::answering(Some(500));
    let server = Server::with(&format!(
        "demo = true\n[routes.crm]\nupstream = \"http://{}\"\neffects = \"idempotent\"\n\
         held = {{ attempts_max = 1 }}\nbreaker = false\n[routes.never]\nupstream = \"http://{}\"\neffects = \"keyed\"\n",
        failing.address, failing.address
    ));
    for (route, status) in [("crm", 500), ("demo", 201)] {
        let path = format!("/to/{route}/orders");
        let answer = server.ask("POST", &path, &[("Idempotency-Key", route)], "{}");
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let shown = page(&server, "/upstreams");
    let card = |name: &str| {
        let card = shown.split(&format!("id=\"upstream-{name}\"")).nth(1).unwrap();
        card.split("</header>").next().unwrap().to_owned()
    };
    assert!(card("crm").contains("fails 100 % of 1"), "{}", card("crm"));
    assert!(card("crm").contains("chip dead"), "{}", card("crm"));
    assert!(card("demo").contains("chip done"), "{}", card("demo"));
    assert!(card("never").contains("none went"), "{}", card("never"));
}

#[test]
fn refused_webhooks_are_told_by_reason_beside_those_that_were_taken() {
    let taking = Upstream::answering(Some(200));
    let server = Server::with(&format!(
        "[sources.any]\nverify = {{ scheme = \"none\" }}\nid = {{ header = \"x-id\" }}\ndeliver = \"http://{}/hooks\"\n\
         [sources.github]\nverify = {{ scheme = \"github\", secret = \"s3cret-of-github\" }}\ndeliver = \"http://{}/hooks\"\n",
        taking.address, taking.address
    ));
    let wrong = (
        "x-hub-signature-256",
        "sha256=0000000000000000000000000000000000000000000000000000000000000000",
    );
    for n in 0..3 {
        let id = n.to_string();
        let refused = server.ask("POST", "/in/github", &[("x-github-delivery", &id), wrong], "{}");
        assert_eq!(refused.status, 400, "{}", refused.text());
        let taken = server.ask("POST", "/in/any", &[("x-id", &id)], "{}");
        assert_eq!(taken.status, 200, "{}", taken.text());
    }
    server.ask("POST", "/in/github", &[("x-github-delivery", "9")], "{}");
    let shown = page(&server, "/sources");
    let card = |name: &str| {
        let card = shown.split(&format!("id=\"source-{name}\"")).nth(1).unwrap();
        card.split("</article>").next().unwrap().to_owned()
    };
    let github = card("github");
    for said in [
        "4 not taken",
        "none yet",
        "1 header missing, 3 signature mismatch",
        "3 webhooks</strong>, the last ",
        "the signature does not fit the secret",
    ] {
        assert!(github.contains(said), "{said}: {github}");
    }
    assert!(!github.contains("chip done"), "nothing is well there: {github}");
    let any = card("any");
    assert!(any.contains("3 in 24 hours, the last ") && any.contains("none of late"), "{any}");
}

#[test]
fn the_panel_of_blocked_duplicates_counts_what_the_pages_count() {
    let server = Server::start();
    for body in ["{}", "{}", "{\"other\": 1}"] {
        server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "order-1")], body);
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/grafana/onceward.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root).unwrap()).unwrap();
    let mut panels = dashboard["panels"].as_array().unwrap().iter();
    let panel = panels.find(|panel| panel["title"] == "Duplicates blocked, 24 h").unwrap();
    let expression = panel["targets"][0]["expr"].as_str().unwrap();
    let answers = expression.split("answer=~\"").nth(1).unwrap().split('"').next().unwrap();
    let metrics = server.ask("GET", "/metrics", &[], "").text();
    let of = |answer: &str| -> u64 {
        let name = format!("onceward_duplicates_total{{answer=\"{answer}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name}: {metrics}")).parse().unwrap()
    };
    let counted: u64 = answers.split('|').map(of).sum();
    let stats = server.ask("GET", "/v1/stats?over=24h", &[], "").json();
    assert_eq!(stats["history"]["total"]["blocked"], counted, "{stats}");
    assert_eq!((counted, of("mismatch")), (1, 1));
}

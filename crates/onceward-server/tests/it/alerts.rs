//! Alerts of our own: each begins and recovers, is told once whatever dies between, and its way is safe.

use std::collections::BTreeSet;
use std::time::Duration;

use onceward::webhook;
use rustix::process::Signal;
use serde_json::json;

use crate::alerts_world::{QUICK, Receiver, bury, notices, silent};
use crate::callbacks::SECRET_BYTES;
use crate::postgres;
use crate::tenants_world::{ask, make};
use crate::world::{Upstream, World, is_in_a_file, route, until};

/// Every rule fires at once, and counts within a second.
const AT_ONCE: &str = "in_doubt = { for = \"0s\" }\ndead_letters = { above = 0, within = \"1s\" }\n\
    breaker_open = { for = \"0s\" }\nbacklog_old = { above = \"0s\", for = \"0s\" }\n\
    late_duplicates = { within = \"1s\" }\ndisk_low = false\n";

/// Two alerts that stay for as long as a test takes.
const LASTING: &str = "dead_letters = { above = 0, within = \"1h\" }\ndisk_low = false\n";

#[test]
fn each_alert_begins_and_recovers_and_is_told_signed() {
    let (world, receiver) = (World::new(), Receiver::start(204));
    let (refusing, failing) = (Upstream::answering(Some(422)), Upstream::answering(Some(500)));
    let working = Upstream::answering(Some(201));
    let configuration = |alerts: &str| {
        format!(
            "public_url = \"https://onceward.example/\"\n[alerts]\n{QUICK}{alerts}{}{}{}{}\
             [routes.quiet]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n\
             [routes.brittle]\nupstream = \"http://{}\"\neffects = \"keyed\"\nheld = {{ attempts_max = 1 }}\n\
             breaker = {{ calls_min = 4, open = \"300ms\", open_max = \"300ms\", probes = 1 }}\n",
            receiver.webhook("oncall", ""),
            route("dying", refusing.address),
            route("paused", working.address),
            format_args!(
                "{}window = \"1s\"\ntombstone = \"1h\"\n",
                route("short", working.address)
            ),
            silent(),
            failing.address
        )
    };
    world.write("onceward.toml", &configuration(AT_ONCE));
    let gateway = world.serve();

    assert_eq!(gateway.call("POST", "/to/quiet/x", &[("idempotency-key", "q")], "{}").status, 504);
    let line = receiver.until_told("OncewardInDoubt", "firing");
    assert_eq!((&line["route"], &line["value"]), (&json!("quiet"), &json!(1)));
    assert_eq!(line["page"], "https://onceward.example/in-doubt?route=quiet");
    assert!(line["advice"].as_str().unwrap().contains("onceward resolve"), "{line}");
    let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
    assert_eq!(listed["data"][0]["name"], "OncewardInDoubt", "{listed}");
    assert_eq!(listed["data"][0]["told"][0]["to"], "oncall");
    let page = gateway.call("GET", "/alerts", &[("accept", "text/html")], "").text();
    assert!(page.contains("OncewardInDoubt") && page.contains("1 operation of quiet is in doubt"));
    let doubtful = gateway.run(&["ls", "--key", "q", "--json"]).json();
    let id = doubtful[0]["id"].as_str().unwrap();
    gateway.run(&["resolve", id, "--as", "done", "--reason", "they have it"]).ok();
    receiver.until_told("OncewardInDoubt", "recovered");

    bury(&gateway, "dying", "d-1");
    assert_eq!(receiver.until_told("OncewardDeadLetters", "firing")["route"], "dying");
    receiver.until_told("OncewardDeadLetters", "recovered");

    for n in 0..4 {
        let key = format!("b-{n}");
        gateway.call("POST", "/to/brittle/x", &[("idempotency-key", &key)], "{}");
    }
    let line = receiver.until_told("OncewardBreakerOpen", "firing");
    let port = gateway.address.port().to_string();
    assert!(line["node"].as_str().unwrap().ends_with(&port), "{line}");
    failing.set(201);
    // It is work that closes a breaker.
    let headers = [("idempotency-key", "b-late"), ("prefer", "respond-async")];
    assert_eq!(gateway.call("POST", "/to/brittle/x", &headers, "{}").status, 202);
    receiver.until_told("OncewardBreakerOpen", "recovered");

    gateway.run(&["pause", "paused", "--reason", "r"]).ok();
    let headers = [("idempotency-key", "w"), ("prefer", "respond-async")];
    assert_eq!(gateway.call("POST", "/to/paused/x", &headers, "{}").status, 202);
    assert_eq!(receiver.until_told("OncewardBacklogOld", "firing")["route"], "paused");
    gateway.run(&["resume", "paused", "--reason", "r"]).ok();
    receiver.until_told("OncewardBacklogOld", "recovered");

    let ask = || gateway.call("POST", "/to/short/x", &[("idempotency-key", "s")], "{}").status;
    assert_eq!(ask(), 201);
    until("its window is over", || (ask() == 410).then_some(()));
    let line = receiver.until_told("OncewardLateDuplicates", "firing");
    assert_eq!((&line["route"], &line["severity"]), (&json!("short"), &json!("ticket")));
    receiver.until_told("OncewardLateDuplicates", "recovered");

    let low = "in_doubt = false\ndisk_low = { below = \"1000000GiB\", for = \"0s\" }\n";
    world.write("onceward.toml", &configuration(low));
    gateway.signal(Signal::HUP);
    receiver.until_told("OncewardDiskLow", "firing");
    let enough = "in_doubt = false\ndisk_low = { below = \"1B\", for = \"0s\" }\n";
    world.write("onceward.toml", &configuration(enough));
    gateway.signal(Signal::HUP);
    receiver.until_told("OncewardDiskLow", "recovered");

    until("nothing fires", || {
        let listed = gateway.run(&["alerts", "--json"]).json();
        listed.as_array().unwrap().is_empty().then_some(())
    });
    for told in receiver.told() {
        let seconds = told.headers["webhook-timestamp"].parse().unwrap();
        let wanted = webhook::sign(&SECRET_BYTES, &told.headers["webhook-id"], seconds, &told.body);
        assert_eq!(told.headers["webhook-signature"], wanted);
        assert_eq!(
            (told.path.as_str(), &told.json()["type"]),
            ("/told", &json!("onceward.alerts"))
        );
    }
}

#[test]
fn an_alert_stands_however_many_came_into_doubt_after_it() {
    let (world, refusing) = (World::new(), Upstream::answering(Some(422)));
    let quiet = |name: &str| {
        format!(
            "[routes.{name}]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\nbreaker = false\n",
            silent()
        )
    };
    let text = format!(
        "[alerts]\n{QUICK}{AT_ONCE}{}{}{}",
        quiet("old"),
        quiet("many"),
        route("dying", refusing.address)
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let doubt = |route: &str, key: &str| {
        let key = [("idempotency-key", key)];
        assert_eq!(gateway.call("POST", &format!("/to/{route}/x"), &key, "{}").status, 504);
    };
    doubt("old", "first");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || (0..130).for_each(|n| doubt("many", &format!("{thread}-{n}"))));
        }
    });
    let fires = |wanted: &str| {
        let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
        listed["data"].as_array().unwrap().iter().any(|alert| alert["route"] == wanted)
    };
    // What begins and is over behind them shows that it was looked for long enough.
    bury(&gateway, "dying", "d");
    until("it fires", || fires("dying").then_some(()));
    until("it is over", || (!fires("dying")).then_some(()));
    let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
    assert!(fires("many") && fires("old"), "{listed:#}");
}

#[test]
fn what_begins_together_is_told_together_and_one_that_flaps_is_told_once() {
    let (world, receiver) = (World::new(), Receiver::start(204));
    let upstream = Upstream::answering(Some(422));
    let text = format!(
        "[alerts]\nevery = \"100ms\"\nrecover_after = \"1m\"\nlate_duplicates = false\ndisk_low = false\n\
         dead_letters = {{ above = 0, within = \"1s\" }}\n{}{}{}",
        receiver.webhook("oncall", "").replace("group = \"0s\"", "group = \"2s\""),
        route("a", upstream.address),
        route("b", upstream.address)
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    bury(&gateway, "a", "a-1");
    bury(&gateway, "b", "b-1");
    let told = until("it is told", || receiver.told().first().cloned());
    let wanted = ["a", "b"]
        .map(|route| ("OncewardDeadLetters".to_owned(), "firing".to_owned(), route.to_owned()));
    assert_eq!(told.alerts(), wanted);
    for n in 0..3 {
        let over = |gateway: &crate::world::Gateway| {
            let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
            listed["data"].as_array().unwrap().len()
        };
        assert_eq!(over(&gateway), 2, "it fires on while it flaps");
        std::thread::sleep(Duration::from_millis(1200));
        bury(&gateway, "a", &format!("a-again-{n}"));
    }
    assert_eq!(receiver.told().len(), 1);
    assert_eq!(notices(&gateway, "oncall").len(), 1);
}

#[test]
fn killed_at_any_moment_it_tells_of_an_alert_once_and_forgets_none() {
    let (world, receiver) = (World::new(), Receiver::start(204));
    let upstream = Upstream::answering(Some(422));
    let text = format!(
        "[alerts]\nevery = \"100ms\"\nrecover_after = \"1h\"\n{LASTING}{}{}",
        receiver.webhook("oncall", ""),
        route("a", upstream.address)
    );
    world.write("onceward.toml", &text);
    for round in 0..10_u64 {
        let gateway = world.serve();
        bury(&gateway, "a", &format!("k-{round}"));
        // Before it is looked at, while it is written, while it is sent, and after.
        std::thread::sleep(Duration::from_millis(round * 35));
        gateway.kill();
    }
    let gateway = world.serve();
    bury(&gateway, "a", "last");
    receiver.until_told("OncewardDeadLetters", "firing");
    until("all is noted", || {
        let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
        (listed["data"][0]["told"][0]["sent"] == true).then_some(())
    });
    let ids: BTreeSet<_> =
        receiver.told().iter().map(|told| told.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 1, "one notice, whoever sent it again: {ids:?}");
    let notices = notices(&gateway, "oncall");
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(
        (&notices[0]["effects"], &notices[0]["via"]),
        (&json!("keyed"), &json!("alerts/oncall"))
    );
}

#[test]
fn what_was_counted_before_a_clean_stop_is_told_after_it() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(422)));
    let text = |every: &str| {
        format!("[alerts]\nevery = \"{every}\"\n{LASTING}{}", route("a", upstream.address))
    };
    // It stops long before it looks.
    world.write("onceward.toml", &text("1m"));
    let gateway = world.serve();
    bury(&gateway, "a", "k-1");
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    world.write("onceward.toml", &text("100ms"));
    let gateway = world.serve();
    until("it fires", || {
        let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
        (listed["data"][0]["name"] == "OncewardDeadLetters").then_some(())
    });
}

#[test]
fn two_nodes_on_one_ledger_tell_of_an_alert_once_and_of_its_end_once() {
    let Some(ledger) = postgres::database() else { return };
    let (receiver, upstream) = (Receiver::start(204), Upstream::answering(Some(422)));
    let worlds = [World::new(), World::new()];
    let key = "7077".repeat(16);
    let environment = [("ONCEWARD_STORE", ledger.as_str()), ("ONCEWARD_MASTER_KEY", key.as_str())];
    let gateways = worlds.each_ref().map(|world| {
        let text = format!(
            "[alerts]\nevery = \"100ms\"\nrecover_after = \"1s\"\ndead_letters = {{ above = 1, within = \"6s\" }}\n\
             late_duplicates = false\n{}{}",
            receiver.webhook("oncall", ""),
            route("a", upstream.address)
        );
        world.write("onceward.toml", &text);
        world.serve_in(&environment)
    });
    // Neither sees more than the other: only together they are too many.
    for (n, gateway) in gateways.iter().enumerate() {
        bury(gateway, "a", &format!("k-{n}"));
    }
    receiver.until_told("OncewardDeadLetters", "firing");
    for gateway in &gateways {
        until("it knows", || {
            let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
            (listed["data"][0]["told"][0]["to"] == "oncall").then_some(())
        });
    }
    receiver.until_told("OncewardDeadLetters", "recovered");
    for gateway in &gateways {
        until("it knows that it is over", || {
            let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
            listed["data"].as_array().unwrap().is_empty().then_some(())
        });
    }
    let notices = notices(&gateways[0], "oncall");
    assert_eq!(notices.len(), 2, "{notices:?}");
}

#[test]
fn a_receiver_that_is_away_is_told_later_as_slack_takes_it_and_its_address_never_shows() {
    let (world, receiver) = (World::new(), Receiver::start(503));
    let upstream = Upstream::answering(Some(422));
    let text = format!(
        "[alerts]\n{QUICK}{LASTING}\n[alerts.to.chat]\nslack = {{ file = \"slack\" }}\ngroup = \"0s\"\n\
         retry = {{ attempts_max = 1000, base = \"50ms\", floor = \"10ms\", cap = \"100ms\" }}\n{}",
        route("a", upstream.address)
    );
    world.write("onceward.toml", &text);
    world.write("slack", &format!("http://{}/services/canary-7?t=canary-8\n", receiver.address));
    let gateway = world.serve();
    bury(&gateway, "a", "k-1");
    let waiting = until("it was tried", || {
        let notices = notices(&gateway, "chat");
        notices.into_iter().find(|it| {
            it["attempts_made"].as_u64() > Some(1)
                || it["attempts"].as_array().is_some_and(|it| it.len() > 1)
        })
    });
    assert_eq!(waiting["path"], "/", "{waiting}");
    let id = waiting["id"].as_str().unwrap();
    let shown = [
        gateway.run(&["show", id, "--json"]).ok(),
        gateway.run(&["routes", "--json"]).ok(),
        gateway.run(&["alerts", "--json"]).ok(),
        world.run(&["check", "--json"]).ok(),
        world.run(&["check"]).ok(),
        gateway.call("GET", "/upstreams", &[("accept", "text/html")], "").text(),
        gateway.call("GET", &format!("/operations/{id}"), &[("accept", "text/html")], "").text(),
        gateway.call("GET", "/metrics", &[], "").text(),
    ];
    assert!(shown[1].contains("alerts/chat"), "{}", shown[1]);
    receiver.set(200);
    let told = until("it is told", || receiver.told().first().cloned());
    assert_eq!(told.path, "/services/canary-7?t=canary-8");
    let document = told.json();
    assert_eq!(document["text"], "Onceward: 1 firing: OncewardDeadLetters");
    assert_eq!(document["blocks"][1]["type"], "section");
    let text = document["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(text.contains("1 operation of a became dead letters within 1h"), "{text}");
    for shown in shown {
        assert!(!shown.contains("canary"), "{shown}");
    }
    assert!(!gateway.log.has("canary"));
    drop(gateway);
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn a_test_says_whether_it_arrived() {
    let (world, receiver) = (World::new(), Receiver::start(204));
    let text = format!("[alerts]\n{QUICK}{}", receiver.webhook("oncall", ""));
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let said = gateway.run(&["alerts", "test", "oncall"]).ok();
    assert!(
        said.starts_with("oncall\twebhook\talert-1-") && said.trim().ends_with("done"),
        "{said}"
    );
    assert_eq!(receiver.told()[0].alerts()[0].1, "test");
    receiver.set(404);
    let said = gateway.run(&["alerts", "test", "oncall"]).failed(1);
    assert!(said.contains("404"), "{said}");
    gateway.run(&["alerts", "test", "nobody"]).failed(3);
    assert_eq!(gateway.run(&["alerts"]).ok(), "");
    let said = world.run(&["check"]).ok();
    assert!(said.contains("oncall") && said.contains("public_url"), "{said}");
}

#[test]
fn an_alert_is_its_tenants_and_whoever_runs_the_gateway_sees_all() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(422)));
    let [acmes, all] = [Receiver::start(204), Receiver::start(204)];
    let text = format!(
        "[alerts]\n{QUICK}{LASTING}{}{}{}{}key = {{ time = \"refuse-late\" }}\n",
        acmes.webhook("acmes", "tenant = \"acme\"\nalerts = [\"dead_letters\"]"),
        all.webhook("all", "alerts = [\"dead_letters\"]\nroutes = [\"a\"]"),
        route("a", upstream.address),
        route("timed", upstream.address)
    );
    world.write("onceward.toml", &text);
    let gateway = world.serve();
    let keys = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let of_default = make(&gateway, "default", "eve", &["--role", "read"]);
    for (tenant, key) in ["acme", "bolt"].into_iter().zip(&keys) {
        let body = json!({"to": "a/x", "key": tenant, "mode": "accepted"}).to_string();
        assert_eq!(ask(&gateway, key, "POST /v1/operations", &body).status, 202);
        gateway.until_state(tenant, "dead");
        until("whoever runs the gateway is told", || {
            let told = all.told();
            told.iter().any(|it| it.json()["data"]["alerts"][0]["tenant"] == tenant).then_some(())
        });
    }
    let seen = keys.each_ref().map(|key| {
        let page = ask(&gateway, key, "GET /alerts", "").text();
        assert!(
            page.contains("OncewardDeadLetters") && !page.contains("Nobody was told"),
            "{page}"
        );
        let listed = ask(&gateway, key, "GET /v1/alerts", "").json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
        assert!(listed["data"][0].get("told").is_none(), "receivers are the gateway's: {listed}");
        listed["data"][0]["tenant"].clone()
    });
    assert_eq!(seen, ["acme", "bolt"]);
    let listed = gateway.run(&["alerts", "--json"]).json();
    let told = |alert: &serde_json::Value| alert["told"].to_string().contains("\"to\":\"all\"");
    assert_eq!(listed.as_array().unwrap().iter().filter(|it| told(it)).count(), 2, "{listed}");
    let told: Vec<_> = acmes.told().iter().map(|it| it.json()["data"]["alerts"].clone()).collect();
    assert_eq!((told.len(), &told[0][0]["tenant"]), (1, &json!("acme")));
    // A key that is late by its own time is its caller's too, whoever else uses the route.
    let old = json!({"to": "timed/x", "key": "00e8d4a5-1000-7000-8000-000000000001"}).to_string();
    assert_eq!(ask(&gateway, &keys[0], "POST /v1/operations", &old).status, 410);
    let late = |key: &str| {
        let listed = ask(&gateway, key, "GET /v1/alerts", "").json();
        let mut all = listed["data"].as_array().unwrap().iter();
        all.any(|alert| alert["name"] == "OncewardLateDuplicates")
    };
    until("it is told to whose it is", || late(&keys[0]).then_some(()));
    assert!(!late(&keys[1]) && !late(&of_default));
    // A receiver is nobody's to call.
    for (line, status) in [("POST /to/alerts/all", 404), ("POST /to/alerts%2Fall/x", 404)] {
        assert_eq!(ask(&gateway, &keys[0], line, "{}").status, status, "{line}");
    }
}

#[test]
fn a_saga_that_only_a_person_can_lead_on_is_told_until_it_is() {
    let (world, receiver) = (World::new(), Receiver::start(204));
    let refusing = Upstream::answering(Some(422));
    let rules = "saga_stuck = { for = \"0s\" }\ndead_letters = false\ndisk_low = false\n";
    world.write(
        "onceward.toml",
        &format!(
            "public_url = \"https://onceward.example/\"\n[alerts]\n{QUICK}{rules}{}{}",
            receiver.webhook("oncall", ""),
            route("pay", refusing.address)
        ),
    );
    let gateway = world.serve();
    let saga = json!({"on_failure": "stop", "steps": [{"name": "a", "to": "pay/x"}]});
    world.write("saga.json", &saga.to_string());
    let id = gateway.run(&["saga", "start", "saga.json", "--json"]).json()["id"].clone();
    let line = receiver.until_told("OncewardSagaStuck", "firing");
    assert_eq!((&line["tenant"], &line["route"]), (&json!("default"), &json!(null)));
    assert_eq!(line["page"], "https://onceward.example/sagas?state=stuck");
    assert!(line["summary"].as_str().unwrap().starts_with("1 saga is stuck"), "{line}");
    gateway.run(&["saga", "cancel", id.as_str().unwrap(), "--reason", "r"]).ok();
    receiver.until_told("OncewardSagaStuck", "recovered");
}

//! What a person does over the API and the command line: with the risk named before, one by one or
//! many at once, and all of it in the audit.

use std::fmt::Write as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::tail::Terminal;
use crate::world::{Gateway, Response, Upstream, World, route, until};

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn post(gateway: &Gateway, path: &str, document: &Value) -> Response {
    gateway.call("POST", path, &[JSON], &document.to_string())
}

/// Dead letters with these keys: each is refused once, and would be taken then.
fn bury(gateway: &Gateway, keys: &[&str]) {
    for key in keys {
        gateway.run(&["send", "demo/orders?script=404,201", "--key", key, "--accepted"]).ok();
    }
    for key in keys {
        gateway.until_state(key, "dead");
    }
}

#[test]
fn a_risky_redelivery_names_its_risk_and_needs_the_word() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo-unsafe/pay?script=drop,201", "--key", "pay-1"]).failed(1);
    let doubt = gateway.until_state("pay-1", "in_doubt");
    assert_eq!(doubt["risk"]["name"], "unknown");
    let id = doubt["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}/redeliver");
    for document in [json!({"reason": "r"}), json!({"reason": "r", "risk": "window-over"})] {
        let refused = post(&gateway, &path, &document);
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("risk-unaccepted")));
        assert_eq!(refused.json()["risk"], "unknown");
    }
    assert_eq!(post(&gateway, &path, &json!({"reason": "r", "risk": "safe"})).status, 400);
    assert_eq!(gateway.call("GET", "/to/demo-unsafe/effects", &[], "").json()["calls"], 1);
    gateway.run(&["redeliver", id, "--accept-risk=unknown", "--reason", "twice is fine"]).ok();
    let done = gateway.until_state("pay-1", "done");
    assert_eq!(done["acts"][0]["reason"], "twice is fine (the risk is taken: unknown)");
    let again = post(&gateway, &path, &json!({"reason": "r", "risk": "accepted"}));
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("operation-conflict")));
    assert_eq!(gateway.run(&["show", id, "--json"]).json()["risk"]["name"], "done-already");
}

#[test]
fn what_is_resent_is_a_new_operation_and_both_name_each_other() {
    let world = World::new();
    let gateway = world.serve();
    gateway
        .run(&["send", "demo/orders?script=422", "--key", "o-1", "--body", "{\"n\":1}"])
        .failed(1);
    let parent = gateway.until_state("o-1", "done")["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/operations/{parent}/resend");
    let document = json!({"reason": "a typo", "path": "/orders", "body": {"n": 2}});
    let key = [JSON, ("idempotency-key", "edit-1")];
    let made = gateway.call("POST", &path, &key, &document.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let child = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), Some(format!("/v1/operations/{child}").as_str()));
    let again = gateway.call("POST", &path, &key, &document.to_string());
    assert_eq!(again.json()["id"], child.as_str(), "asked twice, made once");
    let done = gateway.until_state("edit-1", "done");
    assert_eq!((&done["parent"], &done["path"]), (&json!(parent), &json!("/orders")));
    assert_eq!(done["acts"][0]["deed"], "resent");
    let children = gateway.run(&["ls", "--parent", &parent, "--json"]).json();
    assert_eq!(children[0]["id"], child.as_str());
    let told = gateway.run(&["resend", &parent, "--path", "/orders", "--reason", "once more"]).ok();
    assert!(told.starts_with("op_") && !told.contains(&child), "{told}");
    let nowhere = json!({"reason": "r", "path": "orders"});
    assert_eq!(post(&gateway, &path, &nowhere).status, 400);
}

#[test]
fn what_may_have_been_done_is_asked_anew_by_no_edge_without_its_risk() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo-unsafe/pay?script=drop", "--key", "pay-1"]).failed(1);
    let id = gateway.until_state("pay-1", "in_doubt")["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/operations/{id}/resend");
    let refused = post(&gateway, &path, &json!({"reason": "r", "path": "/pay"}));
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("risk-unaccepted")));
    assert_eq!(refused.json()["risk"], "unknown");
    let html = ("accept", "text/html");
    let page = format!("/operations/{id}/resend");
    let form = gateway.call("GET", &page, &[html], "").text();
    assert!(form.contains("name=\"risk\" value=\"unknown\" required"), "{form}");
    let fields = "key=page-1&path=/pay&reason=r";
    assert_eq!(gateway.call("POST", &page, &[html, FORM], fields).status, 409);
    let said = gateway.run(&["resend", &id, "--path", "/pay", "--reason", "r"]).failed(1);
    assert!(said.contains("risk \"unknown\""), "{said}");
    assert_eq!(gateway.call("GET", "/to/demo-unsafe/effects", &[], "").json()["calls"], 1);

    let taken = format!("{fields}&risk=unknown");
    assert_eq!(gateway.call("POST", &page, &[html, FORM], &taken).status, 303);
    let document = json!({"reason": "r", "path": "/pay", "key": "api-1", "risk": "accepted"});
    assert_eq!(post(&gateway, &path, &document).status, 201);
    let by_name = ["resend", &id, "--path", "/pay", "--key", "cli-1", "--accept-risk=unknown"];
    gateway.run(&[&by_name[..], &["--reason", "r"]].concat()).ok();
    for key in ["page-1", "api-1", "cli-1"] {
        let born = gateway.until_state(key, "done");
        assert_eq!(born["acts"][0]["reason"], "r (the risk is taken: unknown)");
    }
}

#[test]
fn a_bulk_is_planned_runs_and_is_told_of() {
    let world = World::new();
    let gateway = world.serve();
    bury(&gateway, &["d-1", "d-2", "d-3"]);
    let filter = json!({"state": "dead", "route": "demo"});
    let dry = json!({"action": "redeliver", "filter": filter, "dry_run": true});
    let plan = post(&gateway, "/v1/bulk", &dry).json();
    let wanted = json!({"matched": 3, "by_risk": {"safe": 3}, "by_route": {"demo": 3}, "left_out": 0, "exact": true});
    assert_eq!(plan, wanted);
    let told = gateway.run(&["bulk", "redeliver", "--state", "dead", "--dry-run"]).ok();
    assert!(told.contains("matched\t3\n") && told.contains("risk\tsafe\t3\n"), "{told}");
    let risky = ["bulk", "redeliver", "--accept-risk", "--state", "dead", "--dry-run", "--json"];
    assert_eq!(gateway.run(&risky).json(), wanted);
    for wrong in [
        json!({"action": "redeliver", "filter": {}, "reason": "r"}),
        json!({"action": "redeliver", "filter": filter}),
        json!({"action": "resolve", "filter": filter, "reason": "r"}),
        json!({"action": "redeliver", "filter": filter, "reason": "r", "rate": 0}),
        json!({"action": "redeliver", "filter": filter, "reason": "r", "accept_risk": ["safe"]}),
    ] {
        assert_eq!(post(&gateway, "/v1/bulk", &wrong).status, 400, "{wrong}");
    }
    // Where nobody can be asked it has to be said that it is meant.
    let unsaid = gateway.run(&["bulk", "redeliver", "--state", "dead", "--reason", "r"]).failed(2);
    assert!(unsaid.contains("--dry-run") && unsaid.contains("--yes"), "{unsaid}");
    let told = gateway
        .run(&[
            "bulk",
            "redeliver",
            "--state",
            "dead",
            "--rate",
            "100",
            "--yes",
            "--reason",
            "it is back",
        ])
        .ok();
    assert!(told.starts_with("bulk_") && told.contains("\tdone\t3 of 3 done"), "{told}");
    let id = told.split('\t').next().unwrap();
    for key in ["d-1", "d-2", "d-3"] {
        let done = gateway.until_state(key, "done");
        assert_eq!(done["acts"][0]["reason"], format!("it is back [{id}]"));
    }
    let listed = gateway.call("GET", "/v1/bulk", &[], "").json();
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["done"]), (&json!(id), &json!(3)));
    gateway.run(&["bulk", "show", "bulk_01kb2n9f5nep3b8m6wq6r9t2vx"]).failed(3);
}

#[test]
fn a_bulk_at_a_terminal_shows_its_plan_and_asks() {
    let world = World::new();
    let gateway = world.serve();
    bury(&gateway, &["d-1", "d-2"]);
    let asked = |answer: &str| {
        let flags = ["bulk", "redeliver", "--state", "dead", "--rate", "100", "--reason", "r"];
        let mut terminal = Terminal::of(gateway.command(&flags), true);
        until("it asks", || terminal.written().contains("go on? [y/N]").then_some(()));
        assert!(terminal.written().contains("matched 2\r\nrisk safe 2\r\n"));
        terminal.type_in(answer);
        terminal
    };
    let refused = asked("n\n");
    until("it ends", || refused.written().contains("nothing was done").then_some(()));
    let bulks = gateway.call("GET", "/v1/bulk", &[], "").json();
    assert_eq!(bulks["data"], json!([]), "nothing but plans");
    let meant = asked("y\n");
    until("it is done", || meant.written().contains("2 of 2 done").then_some(()));
}

#[test]
fn a_bulk_is_stopped_and_a_watcher_that_is_interrupted_leaves_it_running() {
    let world = World::new();
    let gateway = world.serve();
    bury(&gateway, &["d-1", "d-2", "d-3", "d-4", "d-5", "d-6"]);
    let flags = ["bulk", "redeliver", "--state", "dead", "--rate", "1", "--yes", "--reason", "r"];
    let (watcher, _, said) = gateway.start(&flags);
    let line = said.until("match; Ctrl-C");
    let id = line.split(':').next().unwrap().to_owned();
    watcher.signal(Signal::INT);
    assert_eq!(watcher.ended().code(), Some(130));
    let running = gateway.run(&["bulk", "show", &id, "--json"]).json();
    assert_eq!(running["state"], "running");
    let ended = gateway.run(&["bulk", "stop", &id, "--reason", "enough", "--json"]).json();
    assert_eq!(ended["state"], "stopped");
    assert!(ended["done"].as_u64().unwrap() < 6, "{ended}");
}

#[test]
fn a_bulk_goes_on_after_its_gateway_was_killed() {
    let world = World::new();
    let upstream = Upstream::answering(Some(404));
    world.write("onceward.toml", &route("a", upstream.address));
    let gateway = world.serve();
    for n in 0..6 {
        gateway.run(&["send", "a/x", "--key", &format!("d-{n}"), "--accepted"]).ok();
    }
    for n in 0..6 {
        gateway.until_state(&format!("d-{n}"), "dead");
    }
    let flags = [
        "bulk",
        "redeliver",
        "--state",
        "dead",
        "--rate",
        "2",
        "--yes",
        "--reason",
        "r",
        "--detach",
    ];
    let told = gateway.run(&flags).ok();
    let id = told.split('\t').next().unwrap().to_owned();
    until("it has begun", || (upstream.calls() > 7).then_some(()));
    gateway.kill();
    let gateway = world.serve();
    let ended = until("it has ended", || {
        let shown = gateway.run(&["bulk", "show", &id, "--json"]).json();
        (shown["state"] == "done").then_some(shown)
    });
    assert_eq!((&ended["done"], &ended["failed"]), (&json!(6), &json!(0)));
    for n in 0..6 {
        let key = format!("d-{n}");
        let acts = gateway.run(&["ls", "--key", &key, "--json"]).json()[0]["acts"].clone();
        assert_eq!(acts.as_array().unwrap().len(), 1, "{key}: {acts}");
    }
}

#[test]
fn what_people_do_is_in_the_audit() {
    let world = World::new();
    let gateway = world.serve();
    bury(&gateway, &["d-1"]);
    let id = gateway.until_state("d-1", "dead")["id"].as_str().unwrap().to_owned();
    gateway.run(&["redeliver", &id, "--reason", "it is back"]).ok();
    post(&gateway, "/v1/routes/demo/pause", &json!({"reason": "a release"}));
    let made = gateway.run(&["access", "create", "ada", "--json"]).json();
    let prefix = made["prefix"].as_str().unwrap();
    gateway.run(&["access", "revoke", prefix]).ok();
    let told = gateway.run(&["audit"]).ok();
    let lines: Vec<Vec<&str>> =
        told.lines().map(|line| line.split('\t').skip(1).collect()).collect();
    let revoked = format!("ada ({prefix})");
    let wanted = [
        vec!["local", "revoked an access key", &revoked, "-"],
        vec!["local", "made an access key", "ada", "-"],
        vec!["local", "paused", "demo", "a release"],
        vec!["local", "redelivered", &id, "it is back"],
    ];
    assert_eq!(lines, wanted);
    assert!(!told.contains(made["key"].as_str().unwrap()));
    assert_eq!(gateway.run(&["audit", "--who", "ada", "--json"]).ok(), "[]\n");
    assert_eq!(gateway.run(&["audit", "--limit", "2"]).ok().lines().count(), 2);
    gateway.kill();
    let gateway = world.serve();
    assert_eq!(gateway.run(&["audit"]).ok(), told, "it outlives the process");
}

#[test]
fn the_pages_plan_a_bulk_and_show_how_far_it_is_without_a_script() {
    let world = World::new();
    let gateway = world.serve();
    bury(&gateway, &["d-1", "d-2"]);
    let html = ("accept", "text/html");
    let dead = gateway.call("GET", "/dead", &[html], "").text();
    assert!(dead.contains("href=\"/bulk/plan?state=dead_letter\""), "{dead}");
    let plan = gateway.call("GET", "/bulk/plan?state=dead_letter", &[html], "").text();
    assert!(plan.contains("2 operations"), "{plan}");
    let place = order(&gateway, &[html], &plan);
    assert!(place.starts_with("/bulk/bulk_"), "{place}");
    let shown = until("it is done", || {
        let page = gateway.call("GET", &place, &[html], "");
        page.text().contains("2 done, 0 dead again").then_some(page)
    });
    assert!(shown.text().contains("2 of 2 sent off"), "{}", shown.text());
    assert_eq!(shown.header("refresh"), None);
    let audit = gateway.call("GET", "/audit", &[html], "").text();
    assert!(audit.contains("began to redeliver in bulk") && audit.contains(&place), "{audit}");
    let id = gateway.until_state("d-1", "done")["id"].as_str().unwrap().to_owned();
    let edit = gateway.call("GET", &format!("/operations/{id}/resend"), &[html], "").text();
    let key = edit.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let fields = format!("key={key}&path=/orders&body=x&reason=anew");
    let path = format!("/operations/{id}/resend");
    let first = gateway.call("POST", &path, &[html, FORM], &fields);
    let again = gateway.call("POST", &path, &[html, FORM], &fields);
    assert_eq!(first.header("location"), again.header("location"), "a form sent twice");
    gateway.until_state(key, "done");
    let story = gateway.call("GET", &format!("/operations/{id}"), &[html], "").text();
    assert!(story.contains("Born of it:") && story.contains(key), "{story}");
}

/// Orders a bulk as a browser does, by the form on its plan.
fn order(gateway: &Gateway, headers: &[(&str, &str)], plan: &str) -> String {
    let (_, form) = plan.split_once("method=\"post\" action=\"").expect("a form");
    let action = form.split('"').next().expect("an action").replace("&amp;", "&");
    let headers = [headers, &[FORM]].concat();
    let begun = gateway.call("POST", &action, &headers, "rate=100&reason=it+is+back");
    assert_eq!(begun.status, 303, "{}", begun.text());
    begun.header("location").expect("a place").to_owned()
}

#[test]
fn a_bulk_ordered_on_a_page_touches_what_its_plan_showed_and_nothing_else() {
    let world = World::new();
    let gateway = world.serve();
    let ada = gateway.run(&["access", "create", "ada"]).ok().trim().to_owned();
    let dead = |to: &str, key: &str, flags: &[&str]| {
        let to = format!("{to}/orders?script=404");
        gateway.run(&[&["send", &to, "--key", key, "--accepted"], flags].concat()).ok();
        gateway.until_state(key, "dead");
    };
    dead("demo", "d-1", &["--subject", "contact-1"]);
    dead("demo", "d-2", &[]);
    dead("demo-unsafe", "d-3", &["--access-key", &ada]);
    let key = format!("Bearer {ada}");
    let headers = [("accept", "text/html"), ("onceward-authorization", key.as_str())];
    for (word, count) in [("subject=contact-1", 1), ("principal=ada", 1), ("scope=demo", 2)] {
        let path = format!("/bulk/plan?state=dead&{word}");
        let plan = gateway.call("GET", &path, &headers, "").text();
        assert!(plan.contains(&format!("<h2>{count} operation")), "{word}: {plan}");
        let place = order(&gateway, &headers, &plan);
        let page = until("it has ended", || {
            let page = gateway.call("GET", &place, &headers, "").text();
            page.contains("went through").then_some(page)
        });
        assert!(page.contains(&format!("{count} of {count} sent off")), "{word}: {page}");
        let shown = gateway.call("GET", &format!("/v1{place}"), &headers, "").json();
        let (name, value) = word.split_once('=').unwrap();
        assert_eq!(shown["filter"][name], value, "{shown}");
        for key in ["d-1", "d-2", "d-3"] {
            gateway.until_state(key, "dead");
        }
    }
}

#[test]
fn the_evidence_tells_everything_but_credentials_and_its_digest_holds() {
    let world = World::new();
    let gateway = world.serve();
    let call = |script: &str| {
        let headers = [
            ("idempotency-key", "e-1"),
            ("x-api-key", "canary-credential"),
            ("content-type", "application/json"),
        ];
        gateway.call("POST", &format!("/to/demo/orders?script={script}"), &headers, "{\"n\":1}")
    };
    assert_eq!(call("503,201").status, 201);
    assert_eq!(call("503,201").status, 201);
    let operation = until("the duplicate is counted", || {
        let shown = gateway.run(&["ls", "--key", "e-1", "--json"]).json();
        let id = shown[0]["id"].as_str().unwrap().to_owned();
        let shown = gateway.run(&["show", &id, "--json"]).json();
        (shown["duplicates"]["count"] == 1).then_some(shown)
    });
    let id = operation["id"].as_str().unwrap();
    gateway.run(&["show", id, "--evidence", "story.json"]).ok();
    let text = std::fs::read_to_string(world.path("story.json")).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let mut document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["request"]["body"], "{\"n\":1}");
    assert_eq!(document["operation"]["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(document["attempt_answers"][0]["answer"]["status"], 503);
    assert_eq!(document["outcome_answer"]["status"], 201);
    assert_eq!(document["operation"]["duplicates"]["count"], 1);
    assert_eq!(document["policy_now"]["effects"], "keyed");
    let digest = document.as_object_mut().unwrap().remove("sha256").unwrap();
    let canonical =
        onceward::core::fingerprint::canonical_json(document.to_string().as_bytes(), &[]).unwrap();
    let mut wanted = String::new();
    for byte in onceward::secret::sha256(&canonical) {
        write!(wanted, "{byte:02x}").unwrap();
    }
    assert_eq!(digest, wanted);
    let said = gateway.run(&["show", id, "--evidence", "story.json"]).failed(1);
    assert!(said.contains("not there yet"), "what is there stays: {said}");
    let printed = gateway.run(&["show", id, "--evidence", "-"]).json();
    assert_eq!(printed["operation"]["id"], id);
}

#[test]
fn an_operation_is_found_by_what_its_answer_made() {
    let world = World::new();
    let demo = world.serve();
    // An upstream whose answers have ids: another gateway's operations.
    let upstream = format!("http://{}", demo.address);
    let other = World::new();
    other.write(
        "onceward.toml",
        &format!(
            "[routes.a]\nupstream = \"{upstream}\"\nids = {{ operation = \"/id\", key = \"/key\" }}\n\
             [routes.b]\nupstream = \"{upstream}\"\n"
        ),
    );
    let gateway = other.serve();
    let document = json!({"to": "demo/orders", "key": "made-1", "body": {}}).to_string();
    let headers = [JSON, ("idempotency-key", "i-1")];
    let made = gateway.call("POST", "/to/a/v1/operations", &headers, &document);
    assert_eq!(made.status, 200, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for wanted in [id.clone(), format!("operation:{id}"), "key:made-1".to_owned()] {
        let found = gateway.run(&["ls", "--id", &wanted, "--json"]).json();
        assert_eq!(found[0]["key"], "i-1", "{wanted}");
        assert_eq!(found[0]["ids"], json!({"operation": id, "key": "made-1"}));
    }
    assert_eq!(gateway.run(&["ls", "--id", &format!("key:{id}")]).ok(), "");
    other.write(
        "bad.toml",
        &format!("[routes.a]\nupstream = \"{upstream}\"\nids = {{ a = \"id\" }}\n"),
    );
    let said = other.run(&["check", "--config", "bad.toml"]).failed(78);
    assert!(said.contains("JSON pointer"), "{said}");
}

//! The verbs, against the demo upstreams: what they print, where, and how they end.

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{World, until};

#[test]
fn what_cannot_be_read_exits_2() {
    let world = World::new();
    for arguments in [
        &["frobnicate"][..],
        &["ls", "--state", "settled"],
        &["redeliver", "op_1"],
        &["resolve", "op_1", "--as", "maybe", "--reason", "r"],
        &["send", "demo", "--body", "a", "--body-file", "b"],
        &["send", "demo", "--header", "no colon"],
        &["access", "create"],
        &["restore"],
        &["--url", "localhost:7077", "ls"],
        &["--url", "http://u:p@localhost", "ls"],
        &[],
    ] {
        world.run(arguments).failed(2);
    }
}

#[test]
fn help_and_version_and_completions_print() {
    let world = World::new();
    let help = world.run(&["--help"]).ok();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    let version = world.run(&["--version"]).ok();
    let document = world.run(&["--version", "--json"]).json();
    assert_eq!(version, format!("onceward {}\n", document["version"].as_str().unwrap_or_default()));
    assert!(document.get("commit").is_some() && document["contract"] == "2026-11", "{document}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).ok().contains("redeliver"), "{shell}");
    }
    world.run(&["man", "pages"]).ok();
    for (page, words) in
        [("onceward.1", "onceward\\-redeliver(1)"), ("onceward-serve.1", "Listen here")]
    {
        let page = std::fs::read_to_string(world.path("pages").join(page)).unwrap();
        assert!(page.starts_with(".ie") && page.contains(words), "{words}: {page}");
    }
    assert!(!world.path("pages/onceward-help.1").exists());
}

#[test]
fn a_gateway_that_is_not_there_is_named_with_the_mend() {
    let world = World::new();
    let said = world.run(&["--url", "http://127.0.0.1:1", "ls"]).failed(75);
    assert!(said.contains("http://127.0.0.1:1/") && said.contains("onceward serve"), "{said}");
}

#[test]
fn what_is_sent_lands_once_and_is_replayed() {
    let world = World::new();
    let gateway = world.serve();
    let arguments = [
        "send",
        "demo/orders?script=503,drop,201",
        "--key",
        "order-1",
        "--body",
        "{\"n\":1}",
        "--label",
        "first",
    ];
    let first = gateway.run(&arguments);
    assert!(first.err.contains("201 op_") && !first.err.contains("replayed"), "{first:?}");
    let again = gateway.run(&arguments);
    assert!(again.err.contains("201 op_") && again.err.contains("replayed"), "{again:?}");
    assert_eq!(first.ok(), again.ok());
    let effects = gateway.call("GET", "/to/demo/effects", &[], "").json();
    assert_eq!((&effects["count"], &effects["calls"]), (&Value::from(1), &Value::from(3)));
    let other = gateway.run(&[
        "send",
        "demo/orders?script=503,drop,201",
        "--key",
        "order-1",
        "--body",
        "{\"n\":2}",
    ]);
    assert!(other.failed(1).contains("body"), "a mismatch says what differs");
    let shown = gateway.run(&["send", "demo/orders", "--json"]).json();
    assert_eq!(
        (&shown["replayed"], &shown["response"]["status"]),
        (&Value::from(false), &Value::from(201))
    );
}

#[test]
fn without_a_key_one_is_made_and_shown() {
    let gateway = World::new();
    let gateway = gateway.serve();
    let first = gateway.run(&[
        "send",
        "demo/orders",
        "--header",
        "content-type: text/plain",
        "--body",
        "a",
    ]);
    let key = first.err.split_whitespace().nth(1).unwrap().to_owned();
    let sent = gateway.run(&[
        "send",
        "demo/orders",
        "--header",
        "content-type: text/plain",
        "--body",
        "a",
        "--key",
        &key,
    ]);
    assert!(sent.err.contains("replayed"), "{sent:?}");
}

#[test]
fn an_answer_that_is_not_ok_exits_1_and_its_body_is_still_the_data() {
    let world = World::new();
    let gateway = world.serve();
    let refused = gateway.run(&["send", "demo/orders?script=422", "--key", "bad"]);
    assert!(refused.out.contains("Unprocessable"), "{refused:?}");
    assert!(refused.failed(1).contains("error: the upstream answered 422"));
}

#[test]
fn a_body_comes_from_a_file_byte_for_byte() {
    let world = World::new();
    let gateway = world.serve();
    let bytes = [0, 159, 146, 150, b'\n'];
    std::fs::write(world.path("body"), bytes).unwrap();
    let shown = gateway.run(&["send", "demo/orders", "--body-file", "body", "--json"]).json();
    let id = shown["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}/request");
    assert_eq!(gateway.call("GET", &path, &[], "").json()["body_base64"], "AJ+Slgo=");
    gateway.run(&["send", "demo/orders", "--body-file", "missing"]).failed(1);
}

#[test]
fn lists_are_columns_or_one_array_and_an_empty_list_is_no_error() {
    let world = World::new();
    let gateway = world.serve();
    assert_eq!(gateway.run(&["ls"]).ok(), "");
    assert_eq!(gateway.run(&["ls", "--json"]).ok(), "[]\n");
    for n in 0..5 {
        let (key, label) = (format!("k-{n}"), format!("l-{}", n % 2));
        gateway.run(&["send", "demo/orders", "--key", &key, "--label", &label]).ok();
    }
    let count = |arguments: &[&str]| {
        let all = [&["ls", "--json"], arguments].concat();
        gateway.run(&all).json().as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 5);
    assert_eq!(count(&["--limit", "2"]), 2);
    assert_eq!(count(&["--label", "l-0"]), 3);
    assert_eq!(count(&["--key", "k-3"]), 1);
    assert_eq!(count(&["--state", "done", "--route", "demo", "--all"]), 5);
    assert_eq!(count(&["--state", "dead"]), 0);
    let columns = gateway.run(&["ls", "--limit", "1"]).ok();
    let columns: Vec<&str> = columns.trim_end().split('\t').collect();
    assert_eq!(&columns[1..7], ["done", "201", "POST", "demo", "/orders", "k-4"]);
    assert!(!columns[7].contains("ago"), "times are as they are where nobody looks");
}

#[test]
fn what_is_not_there_exits_3() {
    let world = World::new();
    let gateway = world.serve();
    let said = gateway.run(&["show", "op_01kb2n9f5nep3b8m6wq6r9t2vx"]).failed(3);
    assert!(said.starts_with("error: "), "{said}");
    gateway.run(&["forget", "demo", "no-such-key", "--reason", "r"]).failed(3);
    gateway.run(&["send", "nowhere/x"]).failed(3);
    gateway.run(&["access", "revoke", "ow_nothing_"]).failed(3);
}

#[test]
fn explain_tells_what_a_call_would_be_and_sends_nothing() {
    let world = World::new();
    let gateway = world.serve();
    let shown = gateway.run(&["explain", "demo-unsafe/pay", "--key", "k", "--body", "{}"]).ok();
    for words in ["key\tk\tgiven", "non-idempotent\tsaid", "no answer\tin doubt"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    assert_eq!(gateway.run(&["explain", "demo/pay", "--json"]).json()["effects"], "keyed");
    assert_eq!(
        gateway.run(&["explain", "demo/pay", "-m", "GET", "--json"]).json()["record"],
        false
    );
    assert_eq!(gateway.call("GET", "/to/demo-unsafe/effects", &[], "").json()["calls"], 0);
    assert_eq!(gateway.run(&["ls"]).ok(), "");
}

#[test]
fn in_doubt_is_resolved_and_duplicates_get_what_the_person_said() {
    let world = World::new();
    let gateway = world.serve();
    let send = ["send", "demo-unsafe/pay?script=drop", "--key", "pay-1"];
    let said = gateway.run(&send).failed(1);
    assert!(said.contains("onceward resolve op_"), "{said}");
    let operation = gateway.until_state("pay-1", "in_doubt");
    let id = operation["id"].as_str().unwrap();
    let story = gateway.run(&["show", id]).ok();
    assert!(
        story.contains("in_doubt")
            && story.contains("attempt 1")
            && story.contains("could do it twice"),
        "{story}"
    );
    let said = gateway.run(&["redeliver", id, "--reason", "r"]).failed(1);
    assert!(said.contains("resolved first"), "{said}");
    let told = gateway
        .run(&[
            "resolve",
            id,
            "--as",
            "done",
            "--status",
            "201",
            "--body",
            "{\"paid\":true}",
            "--reason",
            "seen at the bank",
        ])
        .ok();
    assert_eq!(told, format!("{id}\tdone\n"));
    assert_eq!(gateway.run(&send).ok(), "{\"paid\":true}");
    assert_eq!(gateway.run(&["show", id, "--response"]).ok(), "{\"paid\":true}");
    assert!(gateway.run(&["show", id]).ok().contains("seen at the bank"));
    assert_eq!(gateway.call("GET", "/to/demo-unsafe/effects", &[], "").json()["calls"], 1);
}

#[test]
fn resolved_as_not_sent_it_is_sent_again() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo-unsafe/pay?script=drop,201", "--key", "pay-2"]).failed(1);
    let id = gateway.until_state("pay-2", "in_doubt")["id"].as_str().unwrap().to_owned();
    gateway.run(&["resolve", &id, "--as", "not-sent", "--reason", "the bank has nothing"]).ok();
    let done = gateway.until_state("pay-2", "done");
    assert_eq!(done["outcome"]["status"], 201);
}

#[test]
fn dead_letters_are_redelivered_and_what_fails_of_several_is_said() {
    let world = World::new();
    let gateway = world.serve();
    for key in ["d-1", "d-2"] {
        gateway.run(&["send", "demo/orders?script=401,201", "--key", key, "--accepted"]).ok();
    }
    let ids = ["d-1", "d-2"]
        .map(|key| gateway.until_state(key, "dead")["id"].as_str().unwrap().to_owned());
    assert_eq!(
        gateway.run(&["ls", "--state", "dead_letter", "--json"]).json().as_array().unwrap().len(),
        2
    );
    let nobody = "op_01kb2n9f5nep3b8m6wq6r9t2vx";
    let ended =
        gateway.run(&["redeliver", &ids[0], nobody, &ids[1], "--reason", "the credential is back"]);
    assert_eq!(ended.out.lines().count(), 2, "{ended:?}");
    assert!(ended.failed(3).contains(nobody));
    for key in ["d-1", "d-2"] {
        let done = gateway.until_state(key, "done");
        assert_eq!(done["acts"][0]["reason"], "the credential is back");
    }
}

#[test]
fn pending_work_is_cancelled_and_its_key_is_gone() {
    let world = World::new();
    let gateway = world.serve();
    let sent = gateway
        .run(&["send", "demo/orders?script=503", "--key", "c-1", "--accepted", "--json"])
        .json();
    let id = sent["id"].as_str().unwrap();
    gateway.until_state("c-1", "pending");
    let shown = until("it is between two attempts", || {
        let ended = gateway.run(&["cancel", id, "--reason", "not wanted", "--json"]);
        (ended.code == Some(0)).then(|| ended.json())
    });
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&Value::from("dead"), &Value::from("cancelled"))
    );
    let said = gateway.run(&["send", "demo/orders?script=503", "--key", "c-1"]).failed(1);
    assert!(said.contains("not wanted"), "{said}");
}

#[test]
fn a_forgotten_key_is_refused_or_new() {
    let world = World::new();
    let gateway = world.serve();
    for (key, then) in [("f/1 ?", "refuse"), ("..", "new")] {
        gateway.run(&["send", "demo/orders", "--key", key]).ok();
        gateway.run(&["forget", "demo", key, "--then", then, "--reason", "a test went wrong"]).ok();
        let forgotten = gateway.run(&["ls", "--key", key, "--json"]).json();
        assert_eq!(forgotten[0]["forgotten"], then);
        assert!(forgotten[0]["retry"].as_str().unwrap().contains("dropped"));
        let again = gateway.run(&["send", "demo/orders", "--key", key]);
        if then == "refuse" {
            assert!(again.failed(1).contains("a test went wrong"));
        } else {
            assert!(!again.err.contains("replayed"), "{again:?}");
            again.ok();
        }
    }
}

#[test]
fn routes_are_listed() {
    let world = World::new();
    let gateway = world.serve();
    let names: Vec<Value> = gateway
        .run(&["routes", "--json"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].clone())
        .collect();
    assert_eq!(names, ["demo", "demo-unsafe"]);
    assert!(gateway.run(&["routes"]).ok().contains("demo-unsafe\thttp://"));
}

#[test]
fn a_tail_tells_what_comes_and_what_changes_until_it_is_interrupted() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo/orders", "--key", "before"]).ok();
    let (running, out, err) = gateway.start(&["tail", "--json", "--state", "done"]);
    err.until("following");
    gateway.run(&["send", "demo/orders?script=503,201", "--key", "after", "--accepted"]).ok();
    let line: Value = serde_json::from_str(&out.until("after")).unwrap();
    assert_eq!((&line["key"], &line["state"]), (&Value::from("after"), &Value::from("done")));
    assert!(!out.has("before"), "what was there is no news");
    running.signal(Signal::INT);
    assert_eq!(running.ended().code(), Some(130));
}

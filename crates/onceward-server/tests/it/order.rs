//! Flows and subjects at the edge: request options, what answers and pages say of them, and the verbs.

use crate::world::{Upstream, World, route, until};

/// Headers of a call about something.
fn about<'a>(key: &'a str, sequence: &'a str) -> [(&'a str, &'a str); 3] {
    [("idempotency-key", key), ("onceward-subject", "contact-1"), ("onceward-sequence", sequence)]
}

#[test]
fn an_older_version_is_answered_with_the_newer_one_and_never_sent() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(200)));
    world.write("onceward.toml", &route("crm", upstream.address));
    let gateway = world.serve();
    let newest = gateway.call("POST", "/to/crm/c", &about("v5", "5"), "5");
    assert_eq!((newest.status, newest.header("onceward-superseded-by")), (200, None));
    for replayed in ["false", "true"] {
        let old = gateway.call("POST", "/to/crm/c", &about("v4", "4"), "4");
        assert_eq!((old.status, old.text().as_str()), (204, ""));
        assert_eq!(old.header("idempotent-replayed"), Some(replayed));
        assert_eq!(old.header("onceward-superseded-by"), newest.header("onceward-operation"));
        assert_eq!(
            (old.header("onceward-state"), old.header("onceward-advice")),
            (Some("dead"), None)
        );
    }
    assert_eq!(upstream.calls(), 1);
    let found = gateway.run(&["ls", "--subject", "contact-1", "--json"]).json();
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
    assert_eq!((&found[0]["reason"], &found[0]["told"]), (&"superseded".into(), &true.into()));
    assert_eq!(found[0]["superseded_by"], found[1]["id"]);
    assert_eq!(found[1]["subject"]["sequence"], 5);
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    assert!(metrics.contains("\nonceward_superseded_total 1\n"), "{metrics}");
}

#[test]
fn what_waits_says_for_whom_and_what_keeps_others_waiting_says_for_how_many() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(400)));
    world.write(
        "onceward.toml",
        &format!("{}order = \"subject\"\n", route("crm", upstream.address)),
    );
    let gateway = world.serve();
    let send = |key: &str| {
        gateway
            .run(&[
                "send",
                "crm/c",
                "--key",
                key,
                "--accepted",
                "--subject",
                "s",
                "--flow-key",
                "f",
            ])
            .ok()
    };
    let first = send("a1").trim().to_owned();
    gateway.until_state("a1", "dead");
    let second = send("a2").trim().to_owned();
    let show = |id: &str| gateway.run(&["show", id, "--json"]).json();
    let shown = until("it waits", || Some(show(&second)).filter(|it| it["blocked_by"].is_string()));
    assert_eq!((&shown["blocked_by"], &shown["flow"]), (&first.as_str().into(), &"f".into()));
    assert_eq!(show(&first)["blocks"], 1);
    let page = |id: &str| gateway.call("GET", &format!("/operations/{id}"), &[], "").text();
    assert!(page(&second).contains("Waits for") && page(&first).contains("Keeps waiting"));
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn what_could_not_be_kept_is_refused_and_what_would_be_is_explained() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(200)));
    world.write("onceward.toml", &route("crm", upstream.address));
    let gateway = world.serve();
    for (name, value) in [
        ("onceward-sequence", "7"),
        ("onceward-flow-key", "two words"),
        ("onceward-flow-key", ""),
        ("onceward-subject", ""),
    ] {
        let refused = gateway.call("POST", "/to/crm/c", &[(name, value)], "x");
        assert_eq!((refused.status, &refused.json()["code"]), (400, &"option-invalid".into()));
    }
    for sequence in ["-1", "+1", "1.5", "one", "18446744073709551616"] {
        let refused = gateway.call("POST", "/to/crm/c", &about("k", sequence), "x");
        assert_eq!(refused.status, 400, "{sequence}");
    }
    assert_eq!(upstream.calls(), 0);
    let explained = gateway
        .run(&[
            "explain",
            "crm/c",
            "--subject",
            "s",
            "--sequence",
            "3",
            "--flow-key",
            "f",
            "--json",
        ])
        .json();
    assert_eq!((&explained["in_order"], &explained["mode"]), (&true.into(), &"accepted".into()));
    assert_eq!((&explained["subject"]["name"], &explained["flow"]), (&"s".into(), &"f".into()));
}

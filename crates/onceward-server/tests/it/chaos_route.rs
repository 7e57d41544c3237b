//! Faults on purpose on a route of one's own: refused unless they are wanted, each seen where it
//! has to be, and driven by `chaos --route`.

use serde_json::Value;

use crate::world::{Gateway, World};

/// A gateway whose demo upstreams stand for somebody's staging, and one before it with faults: each
/// with its world, whose folder has to outlive it.
fn staged(routes: &str) -> ((World, Gateway), (World, Gateway)) {
    let (theirs, ours) = (World::new(), World::new());
    let staging = theirs.serve();
    ours.write("onceward.toml", &routes.replace("STAGING", &staging.address.to_string()));
    let gateway = ours.serve_with(&["--allow-chaos"]);
    ((theirs, staging), (ours, gateway))
}

#[test]
fn faults_on_purpose_are_refused_unless_they_are_wanted() {
    let world = World::new();
    world.write(
        "onceward.toml",
        "listen = \"127.0.0.1:0\"\n[routes.pay]\nupstream = \"http://127.0.0.1:9\"\neffects = \"keyed\"\nchaos = { drop = 5 }\n",
    );
    for verb in ["serve", "check"] {
        let refused = world.run(&[verb]).failed(78);
        assert!(
            refused.contains("[routes.pay.chaos]") && refused.contains("--allow-chaos"),
            "{refused}"
        );
    }
    let checked = world.run(&["check", "--allow-chaos"]).ok();
    assert!(checked.contains("drop 5 %"), "{checked}");
    let _gateway = world.serve_with(&["--allow-chaos"]);
}

#[test]
fn each_fault_is_seen_in_the_attempt_the_log_and_the_metric() {
    let route = |fault: &str| {
        format!(
            "[routes.{fault}]\nupstream = \"http://STAGING/to/demo-unsafe\"\n\
             effects = \"non-idempotent\"\nbreaker = false\nchaos = {{ {fault} = 100, delay_for = \"10ms\" }}\n"
        )
    };
    let routes = ["refuse", "drop", "reset", "truncate", "delay"].map(route).concat();
    let routes = format!("listen = \"127.0.0.1:0\"\n{routes}");
    let ((_theirs, staging), (_ours, gateway)) = staged(&routes);
    let effects =
        || staging.call("GET", "/to/demo-unsafe/effects", &[], "").json()["count"].clone();
    for (n, (fault, state, ending, done)) in [
        ("refuse", "in_doubt", "answered", 0),
        ("drop", "in_doubt", "unanswered", 1),
        ("reset", "in_doubt", "unanswered", 1),
        ("truncate", "done", "truncated", 2),
        ("delay", "done", "answered", 3),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{n}");
        gateway.call("POST", &format!("/to/{fault}/orders"), &[("idempotency-key", &key)], "{}");
        let operation = gateway.until_state(&key, state);
        let attempts = operation["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{operation}");
        assert_eq!(attempts[0]["ending"], ending, "{operation}");
        assert!(attempts[0]["error"].as_str().unwrap().starts_with("chaos: "), "{operation}");
        assert_eq!(effects(), done, "{fault}");
        let line: Value =
            serde_json::from_str(&gateway.log.until(&format!("\"fault\":\"{fault}\""))).unwrap();
        assert_eq!((&line["key"], &line["attempt"]), (&key.into(), &1.into()), "{line}");
        let metrics = gateway.call("GET", "/metrics", &[], "").text();
        let metric = format!("onceward_chaos_faults_total{{fault=\"{fault}\"}} 1");
        assert!(metrics.contains(&metric), "{fault}: {metrics}");
    }
    // What passes without a record meets none.
    let probed = gateway.call("GET", "/to/truncate/effects", &[], "");
    assert_eq!((probed.status, &probed.json()["count"]), (200, &3.into()));
}

#[test]
fn a_route_is_driven_through_its_faults_and_its_effects_are_counted() {
    let ((_theirs, _staging), (ours, gateway)) = staged(
        "listen = \"127.0.0.1:0\"\n\
         [routes.pay]\nupstream = \"http://STAGING/to/demo\"\neffects = \"keyed\"\n\
         held = { attempts_max = 3, base = \"10ms\", floor = \"5ms\" }\nbreaker = false\n\
         chaos = { seed = 7, refuse = 10, drop = 10, reset = 10, truncate = 10, delay = 10, delay_for = \"10ms\" }\n\
         [routes.crm]\nupstream = \"http://STAGING/to/demo-unsafe\"\neffects = \"non-idempotent\"\nbreaker = false\n\
         chaos = { drop = 20, reset = 20 }\n\
         [routes.plain]\nupstream = \"http://STAGING/to/demo\"\neffects = \"keyed\"\n",
    );
    let drive = |route: &str, more: &[&str]| {
        let flags = ["chaos", "--route", route, "--posts", "40", "--path", "/orders", "--json"];
        gateway.run(&[&flags[..], more].concat())
    };
    let count = |report: &Value, name: &str| report[name].as_u64().unwrap();
    let keyed = drive("pay", &["--seed", "3", "--count", "GET /effects"]).json();
    assert_eq!((count(&keyed, "effects"), count(&keyed, "missing")), (40, 0), "{keyed}");
    assert_eq!((count(&keyed, "doubled"), count(&keyed, "differing")), (0, 0), "{keyed}");
    assert!(count(&keyed, "attempts") > 40 && count(&keyed, "replayed") > 60, "{keyed}");
    let met: u64 = keyed["faults"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert!(met > 5 && met == count(&keyed, "labelled"), "{keyed}");
    let refused = drive("pay", &["--seed", "3"]).failed(2);
    assert!(refused.contains("choose another seed"), "{refused}");

    let unsafe_one = drive("crm", &["--count", "GET /effects"]).json();
    let doubts = unsafe_one["in_doubt"].as_array().unwrap();
    assert!(!doubts.is_empty() && count(&unsafe_one, "effects") <= 40, "{unsafe_one}");
    assert!(
        doubts.iter().all(|one| one["why"].as_str().unwrap().contains("chaos: ")),
        "{unsafe_one}"
    );
    assert_eq!(count(&unsafe_one, "attempts"), 40, "{unsafe_one}");

    let refused = drive("plain", &[]).failed(2);
    assert!(refused.contains("--no-faults"), "{refused}");
    drive("plain", &["--no-faults"]).ok();
    drive("nobody", &[]).failed(3);
    let away = ours.run(&["chaos", "--route", "pay", "--url", "http://192.0.2.1:7077"]).failed(2);
    assert!(away.contains("--i-own-this"), "{away}");
}

#[test]
fn an_upstream_that_doubles_is_found() {
    // It dedupes nothing, and its route says that it does. No gateway stands before it.
    let (theirs, ours) = (World::new(), World::new());
    let staging = theirs.serve();
    let routes = staging.run(&["routes", "--json"]).json();
    let bare = routes.as_array().unwrap().iter().find(|one| one["name"] == "demo-unsafe").unwrap();
    ours.write(
        "onceward.toml",
        &format!(
            "listen = \"127.0.0.1:0\"\n[routes.liar]\nupstream = {}\neffects = \"keyed\"\n\
             held = {{ attempts_max = 3, base = \"10ms\", floor = \"5ms\" }}\nbreaker = false\nchaos = {{ drop = 50 }}\n",
            bare["upstream"]
        ),
    );
    let gateway = ours.serve_with(&["--allow-chaos"]);
    let flags = ["chaos", "--route", "liar", "--posts", "20", "--count", "GET /effects"];
    let found = gateway.run(&flags).failed(5);
    assert!(found.contains("the upstream counts"), "{found}");
}

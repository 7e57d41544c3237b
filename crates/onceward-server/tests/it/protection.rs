//! What stands before an upstream, as people meet it: problems, the API, the command line, the page
//! and the metrics.

use crate::browser_world::{Browser, Server};
use crate::world::{Upstream, World, until};

/// A route that opens its breaker soon, and is asked again soon after.
fn brittle(upstream: &Upstream) -> String {
    format!(
        "[routes.crm]\nupstream = \"http://{}\"\neffects = \"keyed\"\nheld = {{ attempts_max = 1 }}\n\
         breaker = {{ calls_min = 4, open = \"300ms\", open_max = \"300ms\", probes = 1 }}\n",
        upstream.address
    )
}

#[test]
fn a_failing_upstream_is_left_alone_and_what_was_accepted_comes_once_it_answers() {
    let upstream = Upstream::answering(Some(500));
    let world = World::new();
    world.write("onceward.toml", &brittle(&upstream));
    let gateway = world.serve();
    for n in 0..4 {
        let key = format!("k{n}");
        let answer = gateway.call("POST", "/to/crm/x", &[("idempotency-key", &key)], "{}");
        assert_eq!(answer.status, 500);
    }
    let refused = gateway.call("POST", "/to/crm/x", &[("idempotency-key", "held")], "{}");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"breaker-open".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("onceward-advice"), Some("same-key"));
    let headers = [("idempotency-key", "kept"), ("prefer", "respond-async")];
    assert_eq!(gateway.call("POST", "/to/crm/x", &headers, "{}").status, 202);
    let metrics = gateway.call("GET", "/metrics", &[], "").text();
    assert!(metrics.contains("onceward_breaker_opened_total{route=\"crm\"} 1"), "{metrics}");
    assert!(metrics.contains("onceward_breaker_state{route=\"crm\"}"), "{metrics}");
    upstream.set(201);
    gateway.until_state("kept", "done");
    until("it is closed", || {
        let routes = gateway.call("GET", "/v1/routes", &[], "").json();
        (routes["data"][0]["gate"]["breaker"] == "closed").then_some(())
    });
}

#[test]
fn a_paused_route_holds_what_comes_until_it_is_resumed_also_over_a_restart() {
    let upstream = Upstream::answering(Some(201));
    let world = World::new();
    world.write("onceward.toml", &brittle(&upstream));
    let gateway = world.serve();
    let paused = gateway.run(&["pause", "crm", "--reason", "they migrate"]).ok();
    assert_eq!(paused.trim(), "crm\tpaused");
    let refused = gateway.call("POST", "/to/crm/x", &[("idempotency-key", "held")], "{}");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"route-paused".into()));
    let headers = [("idempotency-key", "kept"), ("prefer", "respond-async")];
    assert_eq!(gateway.call("POST", "/to/crm/x", &headers, "{}").status, 202);
    gateway.kill();
    let gateway = world.serve();
    let routes = gateway.run(&["routes", "--json"]).json();
    assert_eq!(routes[0]["gate"]["held_by"], "paused");
    assert_eq!(routes[0]["gate"]["paused"]["reason"], "they migrate");
    assert_eq!(upstream.calls(), 0);
    gateway.run(&["resume", "crm", "--reason", "they are done"]).ok();
    gateway.until_state("kept", "done");
    gateway.run(&["resume", "crm", "--reason", "again"]).failed(3);
    gateway.run(&["pause", "no-such-route", "--reason", "why"]).failed(3);
}

#[test]
fn a_route_is_paused_and_resumed_on_the_page() {
    let server = Server::start();
    let browser = Browser::start();
    browser.open(&server.url("/upstreams"));
    browser.click("details:has(form[action='/upstreams/demo/pause']) summary");
    browser.fill("form[action='/upstreams/demo/pause'] [name=reason]", "for lunch");
    browser.click("form[action='/upstreams/demo/pause'] button");
    until("it is paused", || browser.text("main").contains("for lunch").then_some(()));
    let refused = server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "k")], "{}");
    assert_eq!(refused.status, 503);
    browser.click("details:has(form[action='/upstreams/demo/resume']) summary");
    browser.fill("form[action='/upstreams/demo/resume'] [name=reason]", "it was good");
    browser.click("form[action='/upstreams/demo/resume'] button");
    until("it flows", || (!browser.text("main").contains("for lunch")).then_some(()));
    assert_eq!(
        server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "k")], "{}").status,
        201
    );
    assert_eq!(browser.console(), Vec::<String>::new());
}

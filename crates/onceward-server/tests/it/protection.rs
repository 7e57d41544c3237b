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

/// A gateway on which the breaker of `crm` is open for an hour, and one accepted call waits for it.
fn stuck(upstream: &Upstream) -> Server {
    let world = World::new();
    world.write("onceward.toml", &brittle(upstream).replace("300ms", "1h"));
    let server = Server::of(world);
    for n in 0..4 {
        server.ask("POST", "/to/crm/x", &[("idempotency-key", &format!("k{n}"))], "{}");
    }
    let headers = [("idempotency-key", "kept"), ("prefer", "respond-async")];
    assert_eq!(server.ask("POST", "/to/crm/x", &headers, "{}").status, 202);
    server
}

#[test]
fn an_upstream_that_was_mended_while_its_breaker_is_open_is_asked_by_a_person() {
    let upstream = Upstream::answering(Some(500));
    let server = stuck(&upstream);
    let gateway = server.gateway();
    let gate = || gateway.run(&["routes", "--json"]).json()[0]["gate"].clone();
    let before = gate();
    assert_eq!((&before["breaker"], &before["probed"]), (&"open".into(), &().into()));
    let probe = || gateway.run(&["probe", "crm", "--reason", "they say it is mended"]).ok();
    assert_eq!(probe().trim(), "crm\tbreaker\t500");
    let after = gate();
    assert_eq!((&after["until"], &after["probed"]["status"]), (&before["until"], &500.into()));
    assert_eq!(upstream.calls(), 5, "one probe is enough");
    upstream.set(201);
    assert_eq!(probe().trim(), "crm\tflows\t201");
    gateway.until_state("kept", "done");
    let answer = gateway.call("POST", "/to/crm/x", &[("idempotency-key", "after")], "{}");
    assert_eq!(answer.status, 201);
    let audit = gateway.call("GET", "/v1/audit", &[], "").json();
    let told = ["deed", "about", "reason"].map(|of| audit["data"][0][of].clone());
    assert_eq!(told, ["probed", "crm", "they say it is mended"]);
    gateway.run(&["probe", "no-such-route", "--reason", "why"]).failed(3);
}

#[test]
fn an_open_breaker_is_asked_on_the_page_to_which_what_waits_leads() {
    let upstream = Upstream::answering(Some(500));
    let server = stuck(&upstream);
    let browser = Browser::start();
    let waits = server.operation_in("pending")["id"].as_str().unwrap().to_owned();
    browser.open(&server.url(&format!("/operations/{waits}")));
    browser.click_link("ask it now");
    let ask = |why: &str| {
        browser.click("details:has(form[action='/upstreams/crm/probe']) summary");
        browser.fill("form[action='/upstreams/crm/probe'] [name=reason]", why);
        browser.click("form[action='/upstreams/crm/probe'] button");
    };
    until("it is there", || browser.url().ends_with("/upstreams#upstream-crm").then_some(()));
    ask("is it well?");
    until("it is told", || browser.text("#upstream-crm").contains("last probe").then_some(()));
    let said = browser.text("#upstream-crm");
    assert!(said.contains("500 Internal Server Error") && said.contains("breaker open"), "{said}");
    upstream.set(201);
    ask("and now?");
    until("it flows", || (!browser.text("#upstream-crm").contains("breaker open")).then_some(()));
    let form = "document.querySelector(\"form[action$='/crm/probe']\")";
    assert_eq!(browser.evaluate(&format!("{form} === null")), true, "there is nothing to ask");
    assert_eq!(browser.console(), Vec::<String>::new());
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

//! Sessions of the pages: logging in by an access key, what a session may do, and what ends it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser_world::{Browser, Server};
use crate::world::{Gateway, Response, World, is_in_a_file, until};

const HTML: (&str, &str) = ("accept", "text/html");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Who has logged in: the cookie, as a browser sends it.
struct LoggedIn<'a> {
    gateway: &'a Gateway,
    cookie: String,
}

/// The cookie that an answer sets.
fn cookie_of(answer: &Response) -> Option<String> {
    let line = answer.header("set-cookie")?;
    line.split(';').next().map(str::to_owned)
}

fn try_key(gateway: &Gateway, key: &str, more: &[(&str, &str)]) -> Response {
    let headers = [&[HTML, FORM], more].concat();
    gateway.call("POST", "/login", &headers, &format!("key={key}&next=%2Fdead"))
}

impl<'a> LoggedIn<'a> {
    fn by(gateway: &'a Gateway, key: &str) -> Self {
        let answer = try_key(gateway, key, &[]);
        assert_eq!((answer.status, answer.header("location")), (303, Some("/dead")));
        Self { gateway, cookie: cookie_of(&answer).unwrap() }
    }

    fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Response {
        let headers = [&[HTML, ("cookie", self.cookie.as_str())], more].concat();
        self.gateway.call(method, path, &headers, body)
    }

    /// What forms of its pages carry.
    fn token(&self) -> String {
        let page = self.ask("GET", "/upstreams", &[], "").text();
        let token = page.split("name=\"token\" value=\"").nth(1).unwrap();
        token.split('"').next().unwrap().to_owned()
    }

    /// Whether the pages know who it is.
    fn is_in(&self) -> bool {
        self.ask("GET", "/dead", &[], "").status == 200
    }
}

fn key(gateway: &Gateway, name: &str, more: &[&str]) -> (String, String) {
    let made = gateway.run(&[&["access", "create", name, "--json"], more].concat()).json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("key"), text("prefix"))
}

fn deeds(gateway: &Gateway) -> Vec<(String, String)> {
    let notes = gateway.run(&["audit", "--json"]).json();
    let text = |note: &Value, name: &str| note[name].as_str().unwrap().to_owned();
    let notes = notes.as_array().unwrap().iter();
    notes.map(|note| (text(note, "who"), text(note, "deed"))).collect()
}

#[test]
fn a_person_logs_in_by_a_key_looks_acts_and_logs_out_without_a_script() {
    let server = Server::start();
    let (key, _) = key(server.gateway(), "ada", &[]);
    let browser = Browser::start();
    browser.open(&server.url("/dead?route=demo"));
    until("the login is shown", || browser.url().contains("/login?next=").then_some(()));
    browser.fill("[name=key]", "ow_wrong");
    browser.click("form button");
    assert!(browser.text("[role=alert]").contains("mistyped"));
    browser.fill("[name=key]", &key);
    browser.click("form button");
    until("it goes on", || browser.url().ends_with("/dead?route=demo").then_some(()));
    assert_eq!(browser.text(".viewer bdi"), "ada");
    assert_eq!(browser.evaluate("document.cookie"), "", "no script could read it");

    browser.open(&server.url("/upstreams"));
    browser.evaluate(
        "document.querySelector('form[action$=\"/demo/pause\"]').closest('details').open = true",
    );
    browser.fill("form[action='/upstreams/demo/pause'] [name=reason]", "a look");
    browser.click("form[action='/upstreams/demo/pause'] button");
    // To open a page now could cut the form off.
    until("it is paused", || browser.text("main").contains("by ada").then_some(()));
    browser.click(".viewer button");
    until("it is out", || browser.url().ends_with("/login?out=1").then_some(()));
    assert!(browser.text("[role=status]").contains("logged out"));
    browser.open(&server.url("/upstreams"));
    until("the login is shown", || browser.url().contains("/login?next=").then_some(()));
    let unexpected = browser.console().into_iter().filter(|line| !line.contains("401"));
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<String>::new());
    let deeds = deeds(server.gateway());
    for (who, deed) in
        [("ada", "logged in"), ("ada", "logged out"), ("(nobody)", "failed to log in")]
    {
        assert!(deeds.contains(&(who.to_owned(), deed.to_owned())), "{deed}: {deeds:?}");
    }
}

#[test]
fn a_browser_logs_in_and_acts_over_tls() {
    let (world, authority) = (World::new(), crate::guard_tls::Authority::new());
    crate::guard_tls::write(&world, &authority.sign_for("gateway", "localhost"));
    world.write(
        "onceward.toml",
        "demo = true\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n",
    );
    world.write("ca.pem", &authority.pem());
    let server = Server::of(world);
    let url = format!("https://localhost:{}", server.gateway().address.port());
    let verb = |arguments: &[&str]| {
        let there = ["--url", &url, "--ca-file", "ca.pem"];
        server.gateway().run(&[&there, arguments].concat())
    };
    let key = verb(&["access", "create", "ada"]).ok().trim().to_owned();
    let browser = Browser::start();
    browser.open(&format!("{url}/upstreams"));
    browser.fill("[name=key]", &key);
    browser.click("form button");
    until("it goes on", || browser.url().ends_with("/upstreams").then_some(()));
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.evaluate(protocol), "h2");
    browser.evaluate(
        "document.querySelector('form[action$=\"/demo/pause\"]').closest('details').open = true",
    );
    browser.fill("form[action='/upstreams/demo/pause'] [name=reason]", "a look");
    browser.click("form[action='/upstreams/demo/pause'] button");
    until("it is paused", || browser.text("main").contains("by ada").then_some(()));
    browser.click(".viewer button");
    until("it is out", || browser.url().ends_with("/login?out=1").then_some(()));
}

#[test]
fn a_session_does_what_its_key_may_and_only_by_forms_of_its_own_pages() {
    let world = World::new();
    let gateway = world.serve();
    let (all, _) = key(&gateway, "ada", &[]);
    let (read, _) = key(&gateway, "bo", &["--role", "read"]);
    let (ada, bo) = (LoggedIn::by(&gateway, &all), LoggedIn::by(&gateway, &read));
    assert!(ada.is_in() && bo.is_in());
    assert_eq!(bo.ask("GET", "/audit", &[], "").status, 403, "it needs admin");
    let pause = |who: &LoggedIn<'_>, more: &[(&str, &str)], token: &str| {
        let form = format!("reason=r&token={token}");
        who.ask("POST", "/upstreams/demo/pause", &[&[FORM], more].concat(), &form).status
    };
    let (own, other) = (ada.token(), bo.token());
    assert_ne!(own, other);
    assert_eq!(pause(&ada, &[], ""), 403);
    assert_eq!(pause(&ada, &[], &other), 403, "another session's");
    assert_eq!(pause(&ada, &[], &own[1..]), 403);
    assert_eq!(ada.ask("POST", "/upstreams/demo/pause", &[FORM], "reason=r").status, 403);
    for foreign in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "same-site")]
    {
        assert_eq!(pause(&ada, &[foreign], &own), 403, "{foreign:?}");
    }
    assert_eq!(pause(&bo, &[], &other), 403, "it needs operate");
    let paused = || gateway.run(&["routes", "--json"]).ok().contains("\"paused\":{");
    assert!(!paused());
    let here = format!("http://{}", gateway.address);
    assert_eq!(pause(&ada, &[("origin", &here), ("sec-fetch-site", "same-origin")], &own), 303);
    // A look at the API is one of the pages' links; a change of it, and a call, are for programs.
    assert_eq!(ada.ask("GET", "/v1/operations", &[], "").status, 200);
    let json = ("content-type", "application/json");
    assert_eq!(ada.ask("POST", "/v1/access", &[json], "{\"name\":\"eve\"}").status, 401);
    assert_eq!(ada.ask("DELETE", "/v1/operations", &[], "").status, 401);
    assert_eq!(ada.ask("POST", "/to/demo-unsafe/orders", &[], "{}").status, 401);
    assert_eq!(ada.ask("POST", "/logout", &[FORM], "").status, 403);
    assert!(ada.is_in());
}

#[test]
fn a_page_that_is_only_open_does_not_keep_its_session() {
    let server = Server::start();
    let (key, _) = key(server.gateway(), "ada", &[]);
    let used = || {
        let sessions = server.gateway().run(&["access", "sessions", "--json"]).json();
        sessions[0]["last_used_at"].as_str().unwrap().to_owned()
    };
    let send = |name: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("onceward-authorization", &*bearer), ("idempotency-key", name)];
        let answer = server.ask("POST", "/to/demo/orders", &headers, "{}");
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    send("order-1");
    let browser = Browser::start();
    browser.open(&server.url("/login?next=%2Foperations"));
    browser.fill("[name=key]", &key);
    browser.click("form button");
    until("it goes on", || browser.url().ends_with("/operations").then_some(()));
    until("all of the page is there", || {
        let style = "document.readyState === 'complete' && document.documentElement.classList.contains('scripted')";
        (browser.evaluate(style) == true).then_some(())
    });
    let before = used();
    let began = Instant::now();
    let mut count = 1;
    until("a use by now would be another", || {
        count += 1;
        send(&format!("order-{count}"));
        let new = format!("{} new", count - 1);
        until("the script read it", || browser.text(".announce").contains(&new).then_some(()));
        (began.elapsed() > Duration::from_secs(3)).then_some(())
    });
    assert_eq!(used(), before, "nobody looked");
    browser.click(".announce button");
    until("it is shown", || browser.text("#rows").contains("order-2").then_some(()));
    assert_ne!(used(), before, "somebody wanted to see it");
}

#[test]
fn what_ends_a_session_ends_it_at_once() {
    let world = World::new();
    let gateway = world.serve();
    let (ada, prefix) = key(&gateway, "ada", &[]);
    let (bo, _) = key(&gateway, "bo", &["--role", "read"]);
    let sessions =
        || gateway.run(&["access", "sessions", "--json"]).json().as_array().unwrap().clone();

    let one = LoggedIn::by(&gateway, &ada);
    let token = one.token();
    assert_eq!(one.ask("POST", "/logout", &[FORM], &format!("token={token}")).status, 303);
    assert!(!one.is_in(), "it is not the cookie alone that is gone");

    let two = LoggedIn::by(&gateway, &ada);
    let again = try_key(&gateway, &ada, &[("cookie", &two.cookie)]);
    assert_ne!(cookie_of(&again).unwrap(), two.cookie);
    assert!(!two.is_in(), "a login makes another, and ends the one before");

    let planted = "onceward=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let answer = try_key(&gateway, &ada, &[("cookie", planted)]);
    assert_ne!(
        cookie_of(&answer).unwrap(),
        planted,
        "nobody is given a session of another's making"
    );

    let three = LoggedIn::by(&gateway, &bo);
    let listed = sessions();
    assert_eq!(listed.len(), 3, "{listed:?}");
    let of_bo = listed.iter().find(|it| it["who"] == "bo").unwrap();
    assert_eq!(
        (&of_bo["by"], &of_bo["roles"][0], &of_bo["from"]),
        (&"key".into(), &"read".into(), &"127.0.0.1".into())
    );
    gateway.run(&["access", "revoke", of_bo["id"].as_str().unwrap()]).ok();
    assert!(!three.is_in());
    gateway.run(&["access", "revoke", "ses_nobody"]).failed(3);

    let four = LoggedIn::by(&gateway, &ada);
    gateway.run(&["access", "revoke", &prefix]).ok();
    assert!(!four.is_in() && sessions().is_empty(), "it ends with its key");
    let five = LoggedIn::by(&gateway, &bo);
    let denied = five.ask("GET", "/v1/sessions", &[], "");
    assert_eq!(denied.status, 403, "it needs admin");
}

#[test]
fn a_session_outlives_a_restart_and_the_ledger_has_no_cookie() {
    let world = World::new();
    let gateway = world.serve();
    let (ada, _) = key(&gateway, "ada", &[]);
    let operator = std::fs::read_to_string(gateway.path("onceward-data/operator.key")).unwrap();
    let one = LoggedIn::by(&gateway, &ada).cookie;
    let of_operator = LoggedIn::by(&gateway, operator.trim()).cookie;
    gateway.kill();
    let (_, token) = one.split_once('=').unwrap();
    assert!(!is_in_a_file(&world.path("onceward-data"), token));
    let gateway = world.serve();
    assert!(LoggedIn { gateway: &gateway, cookie: one }.is_in());
    let of_operator = LoggedIn { gateway: &gateway, cookie: of_operator };
    assert!(!of_operator.is_in(), "the operator's key is another now");
}

#[test]
fn who_tries_too_often_waits_and_the_audit_is_not_filled() {
    let world = World::new();
    let gateway = world.serve();
    let (ada, _) = key(&gateway, "ada", &[]);
    let statuses: Vec<_> = (0..5).map(|_| try_key(&gateway, "ow_guess", &[]).status).collect();
    assert_eq!(statuses, [401; 5]);
    let refused = try_key(&gateway, &ada, &[]);
    assert_eq!(refused.status, 429, "even with the right one");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    let failures = deeds(&gateway).into_iter().filter(|(_, deed)| deed == "failed to log in");
    assert_eq!(failures.count(), 5);
}

#[test]
fn a_key_that_only_sends_opens_no_page() {
    let world = World::new();
    let gateway = world.serve();
    let (shop, _) = key(&gateway, "shop", &["--role", "send"]);
    let refused = try_key(&gateway, &shop, &[]);
    assert_eq!((refused.status, cookie_of(&refused)), (401, None));
    assert!(refused.text().contains("only sends"), "{}", refused.text());
}

#[test]
fn cookies_of_ours_go_nowhere_else() {
    let world = World::new();
    let upstream = crate::guard_world::Crud::start();
    world.write("onceward.toml", &upstream.guard(""));
    let gateway = world.serve();
    let (ada, _) = key(&gateway, "ada", &[]);
    let session = LoggedIn::by(&gateway, &ada).cookie;
    let cookies = format!("theirs=1; {session}; __Host-onceward=x");
    let bearer = format!("Bearer {ada}");
    let headers = [("cookie", cookies.as_str()), ("onceward-authorization", &bearer)];
    assert_eq!(gateway.call("POST", "/to/orders/orders", &headers, "{\"ref\":\"a\"}").status, 201);
    let guard = crate::guard_world::guard_of(&gateway, "orders");
    let by_guard = crate::world::call(guard, "POST", "/orders", &headers[..1], "{\"ref\":\"b\"}");
    assert_eq!(by_guard.unwrap().status, 201);
    let heard = upstream.heard("POST /orders");
    assert_eq!(heard.len(), 2);
    for message in heard {
        assert_eq!(message.header("cookie"), Some("theirs=1"));
    }
}

#[test]
fn where_nobody_needs_a_key_nobody_logs_in() {
    let world = World::new();
    let gateway = world.serve();
    let login = gateway.call("GET", "/login?next=%2Fdead", &[HTML], "");
    assert_eq!((login.status, login.header("location")), (303, Some("/dead")));
    let page = gateway.call("GET", "/upstreams", &[HTML], "").text();
    assert!(!page.contains("Log out") && !page.contains("name=\"token\""));
    let rebound = gateway.call("GET", "/login", &[HTML, ("host", "evil.example")], "");
    assert_eq!(rebound.status, 403);
}

#[test]
fn a_listener_that_others_reach_by_a_proxy_needs_a_key_though_it_is_on_loopback() {
    let world = World::new();
    world.write("onceward.toml", "behind_proxy = true\ndemo = true\n");
    let gateway = world.serve();
    let key = gateway.log.until("shown this once").rsplit(' ').next().unwrap().to_owned();
    let host = ("host", "gateway.example");
    assert_eq!(gateway.call("GET", "/v1/operations", &[], "").status, 401);
    assert_eq!(try_key(&gateway, &key, &[host]).status, 303);
}

#[test]
fn behind_a_proxy_the_cookie_is_for_tls_alone_and_tries_are_the_callers() {
    let world = World::new();
    world.write("onceward.toml", "behind_proxy = true\ndemo = true\n");
    let gateway = world.serve_at("0.0.0.0:0");
    assert!(!gateway.log.has("speaks no TLS"), "a proxy does");
    let (ada, _) = key(&gateway, "ada", &[]);
    let host = ("host", "gateway.example");
    let from = |address| [host, ("x-forwarded-for", address)];
    let made = try_key(&gateway, &ada, &from("192.0.2.1"));
    let line = made.header("set-cookie").unwrap();
    assert!(line.starts_with("__Host-onceward=") && line.ends_with("; Secure"), "{line}");
    let cookie = cookie_of(&made).unwrap();
    let look = |cookie: &str| gateway.call("GET", "/dead", &[HTML, host, ("cookie", cookie)], "");
    assert_eq!(look(&cookie).status, 200);
    let bare = cookie.trim_start_matches("__Host-");
    assert_eq!(look(bare).status, 303, "anybody beside it could have set that");
    let listed = gateway.run(&["access", "sessions", "--json"]).json();
    assert_eq!(listed[0]["from"], "192.0.2.1");
    for _ in 0..6 {
        try_key(&gateway, "ow_guess", &from("198.51.100.7, 192.0.2.2"));
    }
    assert_eq!(try_key(&gateway, &ada, &from("192.0.2.2")).status, 429);
    assert_eq!(try_key(&gateway, &ada, &from("192.0.2.3")).status, 303);
}

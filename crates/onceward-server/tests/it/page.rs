//! The pages, as a person uses them, in a real browser; and what they answer to everybody else.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use serde_json::json;

use crate::browser_world::{Browser, Server};
use crate::world::until;

/// What a browser asks for.
const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml");

/// An accepted call whose first attempt is refused and whose second would succeed.
fn make_a_dead_letter(server: &Server, key: &str) -> String {
    let headers = [("Idempotency-Key", key), ("Prefer", "respond-async")];
    let answer = server.ask("POST", "/to/demo/orders?script=404,201", &headers, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    server.operation_in("dead")["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_dead_letter_is_redelivered_by_a_click_and_ends_done() {
    let server = Server::start();
    let id = make_a_dead_letter(&server, "order-1");
    let browser = Browser::start();

    browser.open(&server.url("/"));
    browser.click_link("order-1");
    assert!(browser.text(".chip").contains("dead"));
    browser.fill("form[action$='/redeliver'] [name=reason]", "the order was missing");
    browser.click("form[action$='/redeliver'] button");

    until("the page tells of it", || browser.url().ends_with("?told=1").then_some(()));
    until("the page shows it done", || {
        browser.open(&server.url(&format!("/operations/{id}?told=1")));
        (browser.text(".chip") == "done").then_some(())
    });
    assert!(browser.text(".notice").contains("the order was missing"));
    let operation = server.operation_in("done");
    assert_eq!(operation["acts"][0]["deed"], "redelivered");
    assert_eq!(operation["acts"][0]["who"], "local");
    assert_eq!(operation["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(server.ask("GET", "/to/demo/effects", &[], "").json()["count"], 1);
    browser.open(&server.url("/dead"));
    assert!(browser.text("main").contains("No dead letters."));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_in_doubt_is_resolved_by_hand_and_the_duplicate_gets_that_answer() {
    let server = Server::start();
    let call = || {
        let headers = [("Idempotency-Key", "pay-7")];
        server.ask("POST", "/to/demo-unsafe/charges?script=drop", &headers, "{}")
    };
    assert_eq!(call().status, 504);
    let browser = Browser::start();

    browser.open(&server.url("/in-doubt"));
    browser.click_link("Resolve");
    let form = "form:has([name=as][value=done])";
    browser.fill(&format!("{form} [name=status]"), "201");
    browser.fill(&format!("{form} [name=body]"), "{\"charge\": 7,\n \"paid\": true}");
    browser.fill(&format!("{form} [name=reason]"), "the bank shows charge 7");
    browser.click(&format!("{form} button"));

    until("the page tells of it", || browser.url().ends_with("?told=1").then_some(()));
    assert_eq!(browser.text(".chip"), "done");
    assert!(browser.text(".notice").contains("the bank shows charge 7"));
    let duplicate = call();
    assert_eq!((duplicate.status, duplicate.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(duplicate.text(), "{\"charge\": 7,\n \"paid\": true}");
    let effects = server.ask("GET", "/to/demo-unsafe/effects", &[], "").json();
    assert_eq!(effects, json!({"count": 1, "calls": 1}), "nothing was sent again");
}

#[test]
fn what_comes_from_outside_is_text_on_every_page() {
    let server = Server::start();
    let key = r#"\"><img src=x id=injected1>"#;
    let body = "<script id=injected2>window.injected = 1</script></code></pre><p id=injected3>";
    let headers = [
        ("Idempotency-Key", format!("\"{key}\"")),
        ("Prefer", "respond-async".to_owned()),
        ("Onceward-Label", "<b id=injected4>label</b>".to_owned()),
        ("X-Note", "<i id=injected5>'\"</i>".to_owned()),
        ("Content-Type", "text/html".to_owned()),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let path = "/to/demo/orders?script=404&x='id='injected6'onload='window.injected=1'";
    assert_eq!(server.ask("POST", path, &headers, body).status, 202);
    let id = server.operation_in("dead")["id"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    let story = server.url(&format!("/operations/{id}"));

    browser.open(&story);
    browser.click("details summary");
    browser.fill("form[action$='/forget'] [name=reason]", "\"><u id=injected7>why</u>");
    browser.click("form[action$='/forget'] button");
    until("the page tells of it", || browser.url().ends_with("?told=1").then_some(()));
    assert!(browser.text(".notice").contains("\"><u id=injected7>why</u>"));
    assert!(browser.text("main").contains(body), "the body is there, as text");

    let filter = "/operations?text=%22%3E%3Cimg%20src%3Dx%20id%3Dinjected8%3E";
    for path in ["/", "/dead", "/operations", filter, &format!("/operations/{id}?told=1")] {
        browser.open(&server.url(path));
        let injected = "document.querySelectorAll('[id^=injected]').length";
        assert_eq!(browser.evaluate(injected), 0, "{path}");
        assert_eq!(browser.evaluate("typeof window.injected"), "undefined", "{path}");
        let loaded = "performance.getEntriesByType('resource').map(r => new URL(r.name).pathname)";
        for own in browser.evaluate(loaded).as_array().unwrap() {
            let own = own.as_str().unwrap();
            let files = ["/style.css", "/script.js", "/icon.svg", "/v1/changes"];
            assert!(files.contains(&own) || path.starts_with(own), "{own}");
        }
    }
    assert_eq!(browser.console(), Vec::<String>::new(), "nothing even tried");

    // Its words come back in a problem's page too.
    let headers = [HTML, ("Content-Type", "application/x-www-form-urlencoded")];
    let form = "reason=x&as=%3Cscript%3E&status=%3Cscript%3E";
    let answer = server.ask("POST", &format!("/operations/{id}/resolve"), &headers, form);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("&lt;script&gt;") && !answer.text().contains("<script>"));
}

#[test]
fn every_page_fits_a_narrow_window() {
    let server = Server::start();
    let key = "k".repeat(200);
    let id = make_a_dead_letter(&server, &key);
    let headers = [("Idempotency-Key", "in-doubt-1")];
    server.ask("POST", "/to/demo-unsafe/charges?script=drop", &headers, "{}");
    let doubt = server.operation_in("in_doubt")["id"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    browser.set_width(360);
    // One that another was born of has its key beside its story.
    let line = format!("{doubt}; step={}", "s".repeat(60));
    server.ask("POST", "/to/demo/orders", &[("Onceward-Parent", &*line)], "{}");
    let stories = [format!("/operations/{id}"), format!("/operations/{doubt}")];
    let lists =
        ["/", "/dead", "/in-doubt", "/operations", "/bulk", "/events", "/sagas", "/send", "/nope"];
    for path in lists.into_iter().chain([&*stories[0], &*stories[1]]) {
        browser.open(&server.url(path));
        let width = browser.evaluate("document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{path} scrolls sideways");
    }
}

#[test]
fn a_body_is_shown_to_be_read_or_as_it_came_and_a_large_one_is_offered() {
    let server = Server::start();
    let key = [("Idempotency-Key", "order-1"), ("Content-Type", "application/json")];
    let body = r#"{"order":{"qty":1}}"#;
    assert_eq!(server.ask("POST", "/to/demo/orders", &key, body).status, 201);
    let id = server.operation_in("done")["id"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    browser.open(&server.url(&format!("/operations/{id}")));
    let shown = "document.querySelector('#text-request').textContent";
    assert_eq!(browser.evaluate(shown), "{\n  \"order\": {\n    \"qty\": 1\n  }\n}");
    browser.click("#body-request a[href^='?bodies=raw']");
    until("it is as it came", || (browser.evaluate(shown) == body).then_some(()));
    assert!(browser.url().ends_with("?bodies=raw#body-request"));
    let copied = "document.getElementById(document.querySelector('#body-request [data-copies]').dataset.copies).textContent";
    assert_eq!(browser.evaluate(copied), body);
    let large = format!("[\"{}\"]", "x".repeat(256 << 10));
    let key = [("Idempotency-Key", "order-2"), ("Content-Type", "application/json")];
    assert_eq!(server.ask("POST", "/to/demo/orders", &key, &large).status, 201);
    let operations = server.operations();
    let id = operations.iter().find(|it| it["key"] == "order-2").unwrap()["id"].as_str().unwrap();
    let page = server.ask("GET", &format!("/operations/{id}"), &[HTML], "").text();
    assert!(page.contains("257 kB: too much to show.") && page.len() < 100_000);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn only_a_form_of_our_own_with_a_reason_changes_anything() {
    let server = Server::start();
    let id = make_a_dead_letter(&server, "order-1");
    let path = format!("/operations/{id}/redeliver");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let post = |more: &[(&str, &str)], body: &str| {
        server.ask("POST", &path, &[&[HTML, form], more].concat(), body)
    };

    for foreign in
        [("Origin", "http://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")]
    {
        let answer = post(&[foreign], "reason=x");
        assert_eq!(answer.status, 403, "{foreign:?}");
        assert!(answer.text().contains("<h1>"), "a browser gets a page");
    }
    for without in ["", "reason=", "reason=+++"] {
        assert_eq!(post(&[], without).status, 400, "{without:?}");
    }
    assert_eq!(server.operation_in("dead")["acts"], json!([]));

    let cancel = path.replace("redeliver", "cancel");
    let conflict = server.ask("POST", &cancel, &[HTML, form], "reason=x");
    assert_eq!(conflict.status, 409);
    assert!(conflict.text().contains(&format!("href=\"/operations/{id}\"")), "{}", conflict.text());

    let done = post(&[("Origin", &server.url(""))], "reason=why");
    assert_eq!(done.status, 303);
    assert_eq!(done.header("location"), Some(format!("/operations/{id}?told=1").as_str()));
    assert_eq!(server.ask("GET", &path, &[HTML], "").status, 303, "opened by hand, it leads back");
}

#[test]
fn an_unknown_address_is_a_page_for_browsers_and_a_problem_for_others() {
    let server = Server::start();
    let page = server.ask("GET", "/nope", &[HTML], "");
    assert_eq!(page.status, 404);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let problem = server.ask("GET", "/nope", &[], "");
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem.json()["code"], "not-found");
    let method = server.ask("DELETE", "/v1/operations", &[], "");
    assert_eq!((method.status, method.json()["code"].as_str()), (405, Some("method-not-allowed")));
    for answer in [page, server.ask("GET", "/", &[HTML], "")] {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn a_list_goes_on_behind_its_older_link_and_keeps_its_filter() {
    let server = Server::start();
    for n in 1..=3 {
        let key = format!("order-{n}");
        server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", &key)], "{}");
    }
    let first = server.ask("GET", "/operations?route=demo&limit=2&state=&key=", &[HTML], "").text();
    assert!(first.contains("order-3") && first.contains("order-2") && !first.contains("order-1"));
    let older = first.split("class=\"older\" href=\"").nth(1).unwrap();
    let older = older.split('"').next().unwrap().replace("&amp;", "&");
    assert!(older.starts_with("/operations?route=demo&limit=2&cursor="), "{older}");
    let second = server.ask("GET", &older, &[HTML], "").text();
    assert!(second.contains("order-1") && !second.contains("order-2"));
    let none = server.ask("GET", "/operations?state=dead_letter", &[HTML], "").text();
    assert!(none.contains("Nothing matches this filter."));
}

#[test]
fn with_an_access_key_the_browser_is_led_to_the_login_and_an_act_by_key_bears_its_name() {
    let server = Server::start();
    let id = make_a_dead_letter(&server, "order-1");
    let made = server.ask(
        "POST",
        "/v1/access",
        &[("Content-Type", "application/json")],
        "{\"name\": \"ada\"}",
    );
    let made = made.json();
    let key = made["key"].as_str().unwrap();

    let refused = server.ask("GET", "/", &[HTML], "");
    assert_eq!((refused.status, refused.header("location")), (303, Some("/login")));
    let program = server.ask("GET", "/", &[], "");
    assert_eq!(program.status, 401);
    assert!(program.header("www-authenticate").unwrap().starts_with("Bearer"), "no browser asks");
    assert!(!program.text().contains("order-1"));

    let bearer = format!("Bearer {key}");
    let own = ("Authorization", bearer.as_str());
    assert!(server.ask("GET", "/", &[HTML, own], "").text().contains("order-1"));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let path = format!("/operations/{id}/redeliver");
    assert_eq!(server.ask("POST", &path, &[HTML, own, form], "reason=why").status, 303);
    let shown = server.ask("GET", &format!("/v1/operations/{id}"), &[own], "").json();
    assert_eq!(shown["acts"][0]["who"], "ada");
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let server = Server::start();
    for path in ["/style.css", "/script.js", "/docs.css", "/icon.svg"] {
        let first = server.ask("GET", path, &[], "");
        let tag = first.header("etag").unwrap().to_owned();
        assert_eq!((first.status, first.header("cache-control")), (200, Some("no-cache")));
        let again = server.ask("GET", path, &[("If-None-Match", &format!("\"other\", {tag}"))], "");
        assert_eq!((again.status, again.text()), (304, String::new()), "{path}");
        let another = server.ask("GET", path, &[("If-None-Match", "\"other\"")], "");
        assert_eq!((another.status, another.text()), (200, first.text()), "{path}");
    }
}

//! The pages with their script, in a real browser: they keep themselves up to date and keep what is being
//! read in its place, the keyboard leads through them, and nothing of that is needed.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use serde_json::{Value, json};

use crate::browser_world::{Browser, Server};
use crate::world::until;

const ACCEPTED: (&str, &str) = ("Prefer", "respond-async");

/// An accepted call with this key, whose attempts meet `script`.
pub(crate) fn accept(server: &Server, key: &str, script: &str) {
    let path = format!("/to/demo/orders?script={script}");
    let headers = [("Idempotency-Key", key), ACCEPTED];
    let answer = server.ask("POST", &path, &headers, r#"{"sku": "A-1", "qty": 2}"#);
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// The id of what has this key, once it is in this state.
pub(crate) fn until_is(server: &Server, key: &str, state: &str) -> String {
    until(&format!("{key} is {state}"), || {
        let path = format!("/v1/operations?key={key}");
        let page = server.ask("GET", &path, &[], "").json();
        let found = page["data"].get(0)?;
        (found["state"] == state).then(|| found["id"].as_str().unwrap().to_owned())
    })
}

pub(crate) fn dead_letter(server: &Server, key: &str, script: &str) -> String {
    accept(server, key, script);
    until_is(server, key, "dead")
}

/// Notes that this page is the one that was opened: whatever loads another loses it.
fn mark(browser: &Browser) {
    browser.evaluate("window.isSame = true");
}

fn is_marked(browser: &Browser) -> bool {
    browser.evaluate("window.isSame === true") == true
}

/// Waits until the script follows what changes: before that, what comes is no news.
pub(crate) fn until_live(browser: &Browser) {
    until("the script runs", || {
        (browser.evaluate("document.documentElement.classList.contains('scripted')") == true)
            .then_some(())
    });
}

pub(crate) fn until_true(browser: &Browser, expression: &str) {
    until(expression, || (browser.evaluate(expression) == true).then_some(()));
}

/// Everything that a page asked for, by its path; it panics where another host was asked.
fn asked(browser: &Browser) -> Vec<String> {
    let all = browser.evaluate(
        "performance.getEntriesByType('resource').map(r => [new URL(r.name).host === location.host, new URL(r.name).pathname])",
    );
    let own = |entry: &Value| {
        assert_eq!(entry[0], true, "{entry} is elsewhere");
        entry[1].as_str().unwrap().to_owned()
    };
    all.as_array().unwrap().iter().map(own).collect()
}

#[test]
fn a_dead_letter_is_found_by_its_cause_read_redelivered_and_seen_to_settle_without_a_reload() {
    let server = Server::start();
    dead_letter(&server, "order-1", "404,503,201");
    dead_letter(&server, "mail-1", "422");
    let browser = Browser::start();

    browser.open(&server.url("/dead"));
    let causes = browser.text("#causes");
    assert!(causes.contains("404 Not Found") && causes.contains("422"), "{causes}");
    browser.click("#causes tr:has(a[href*='status=404']) a[href^='/dead']");
    until_true(&browser, "location.search.includes('status=404')");
    let rows = browser.text("#rows");
    assert!(rows.contains("order-1") && !rows.contains("mail-1"), "{rows}");
    browser.click_link("order-1");
    let story = browser.text("#timeline");
    assert!(story.contains("Attempt 1") && story.contains("404 Not Found"), "{story}");
    assert!(story.contains("Dead: Refused by the upstream"), "{story}");
    browser.fill("form[action$='/redeliver'] [name=reason]", "the order is there now");
    browser.click("form[action$='/redeliver'] button");

    until("the page tells of it", || browser.url().ends_with("?told=1").then_some(()));
    mark(&browser);
    // Its second attempt met a 503, so it waits: the page says until when, and then how it ended.
    until("it is seen to settle", || (browser.text(".place .chip") == "done").then_some(()));
    assert!(is_marked(&browser), "no reload was needed");
    let story = browser.text("#timeline");
    for part in
        ["Redelivered by local", "503 Service Unavailable", "backoff", "201 Created", "Done"]
    {
        assert!(story.contains(part), "{part} in {story}");
    }
    assert!(browser.text("#ways").contains("Dead letters\n1"), "{}", browser.text("#ways"));
    assert_eq!(browser.console(), Vec::<String>::new());
    for path in asked(&browser) {
        let known = ["/style.css", "/script.js", "/icon.svg", "/v1/changes"];
        assert!(known.contains(&&*path) || path.starts_with("/operations/"), "{path}");
    }
}

#[test]
fn a_page_on_which_nothing_changes_by_itself_asks_nothing_by_itself() {
    let server = Server::start();
    dead_letter(&server, "order-1", "404");
    let browser = Browser::start();
    let asked_when_shown = |path: &str| {
        browser.open(&server.url(path));
        until_live(&browser);
        // As where it was hidden: it is followed, and read at once for what was missed.
        browser.evaluate(
            "(() => {
                window.asked = [];
                window.EventSource = class { constructor() { asked.push('stream'); } addEventListener() {} close() {} };
                const read = window.fetch;
                window.fetch = (...all) => { asked.push('page'); return read(...all); };
                dispatchEvent(new Event('pagehide'));
                document.dispatchEvent(new Event('visibilitychange'));
                setTimeout(() => { window.isLater = true; }, 1500);
            })()",
        );
        until_true(&browser, "window.isLater === true");
        browser.evaluate("asked.sort().join()").as_str().unwrap().to_owned()
    };
    assert_eq!(asked_when_shown("/operations"), "page,stream");
    for path in ["/keys", "/duplicates", "/docs", "/bulk/plan?state=dead_letter"] {
        assert_eq!(asked_when_shown(path), "", "{path}");
    }
}

#[test]
fn a_list_announces_what_is_new_and_keeps_its_place_until_it_is_asked_to_show_it() {
    let server = Server::start();
    for n in 0..30 {
        let key = format!("first-{n:02}");
        server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", &key)], "{}");
    }
    let browser = Browser::start();
    browser.open(&server.url("/operations"));
    until_live(&browser);
    browser.evaluate("document.querySelectorAll('#rows tbody a.key')[20].focus()");
    browser.evaluate("window.scrollTo(0, 600)");
    let place = "[document.activeElement.textContent, window.scrollY, document.querySelectorAll('#rows tbody tr').length, document.querySelector('#rows a.key').textContent].join()";
    let before = browser.evaluate(place);

    for n in 0..3 {
        let key = format!("second-{n}");
        server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", &key)], "{}");
    }
    until("they are announced", || browser.text("#rows .announce").contains("3 new").then_some(()));
    assert_eq!(browser.evaluate(place), before, "nothing moved");

    browser.press("n");
    until("they are shown", || browser.text("#rows tbody").contains("second-2").then_some(()));
    assert_eq!(browser.evaluate("document.querySelector('.announce').textContent"), "");
    assert_eq!(browser.evaluate("document.activeElement.textContent"), "second-2");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_keyboard_leads_through_a_list_to_the_form_that_redelivers() {
    let server = Server::start();
    dead_letter(&server, "order-1", "404,201");
    dead_letter(&server, "order-2", "404,201");
    let browser = Browser::start();
    browser.open(&server.url("/operations"));
    until_live(&browser);
    let focused = "document.activeElement.textContent";

    browser.press("j");
    assert_eq!(browser.evaluate(focused), "order-2");
    browser.press("j");
    assert_eq!(browser.evaluate(focused), "order-1");
    browser.press("k");
    assert_eq!(browser.evaluate(focused), "order-2");
    browser.press("?");
    until_true(&browser, "document.querySelector('dialog').open");
    browser.press("\u{e00c}");
    until_true(&browser, "!document.querySelector('dialog').open");
    browser.press("/");
    until_true(&browser, "document.activeElement.name === 'text'");
    browser.press("jj?");
    assert_eq!(browser.evaluate("document.activeElement.value"), "jj?", "a field takes letters");
    browser.press("\u{e00c}");
    browser.evaluate("document.querySelector('a.key').focus()");
    browser.press("r");
    until_true(&browser, "document.activeElement.name === 'reason'");
    assert!(browser.text("h1").contains("order-2"));
    browser.press("by keyboard\u{e007}");
    until("it was sent", || browser.url().ends_with("?told=1").then_some(()));
    until("it is done", || (browser.text(".place .chip") == "done").then_some(()));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_keyboard_leads_to_the_plan_of_a_cause_and_to_the_forms_of_what_is_in_doubt() {
    let server = Server::start();
    dead_letter(&server, "order-1", "404");
    let headers = [("Idempotency-Key", "order-2")];
    server.ask("POST", "/to/demo-unsafe/orders?script=drop", &headers, "{}");
    let id = until_is(&server, "order-2", "in_doubt");
    let browser = Browser::start();
    browser.open(&server.url("/dead"));
    until_live(&browser);
    browser.press("j");
    assert_eq!(browser.evaluate("document.activeElement.closest('#causes') !== null"), true);
    browser.press("r");
    until_true(&browser, "location.pathname === '/bulk/plan'");
    browser.open(&server.url("/in-doubt"));
    until_live(&browser);
    browser.press("j");
    browser.press("r");
    until_true(&browser, "document.activeElement.closest('#acts form') !== null");
    assert!(browser.url().ends_with(&format!("/operations/{id}#resolve")), "{}", browser.url());
    browser.press("\u{e00c}");
    browser.press("?");
    until_true(&browser, "document.querySelector('dialog').open");
    let box_of =
        "document.querySelector('dialog input[type=checkbox]').getBoundingClientRect().width < 40";
    assert_eq!(browser.evaluate(box_of), true, "a box to tick is no field");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_typed_folded_open_and_focused_stays_while_the_page_is_renewed() {
    let server = Server::start();
    let id = dead_letter(&server, "order-1", "503,404,201");
    let browser = Browser::start();
    browser.open(&server.url(&format!("/operations/{id}")));
    until_live(&browser);
    mark(&browser);
    browser.click("li[data-key='attempt 1'] summary");
    browser.fill("form[action$='/redeliver'] [name=reason]", "not yet sen");

    // Somebody else is quicker.
    let path = format!("/v1/operations/{id}/redeliver");
    let headers = [("Content-Type", "application/json")];
    server.ask("POST", &path, &headers, r#"{"reason": "another was quicker"}"#);
    until("it is shown", || (browser.text(".place .chip") == "done").then_some(()));
    assert!(browser.text("#timeline").contains("another was quicker"));
    let kept = "[document.activeElement.name, document.activeElement.value, document.querySelector(\"li[data-key='attempt 1'] details\").open].join()";
    assert_eq!(browser.evaluate(kept), "reason,not yet sen,true");
    assert!(is_marked(&browser));
}

#[test]
fn a_bulk_is_planned_from_a_cause_and_runs_with_its_progress_shown() {
    let server = Server::start();
    for n in 0..12 {
        accept(&server, &format!("order-{n:02}"), "404,201");
    }
    until("all are dead", || {
        let page = server.ask("GET", "/v1/dead-letters/groups", &[], "").json();
        (page["data"][0]["count"] == 12).then_some(())
    });
    let browser = Browser::start();
    browser.open(&server.url("/dead"));
    browser.click("#causes a.button");
    let plan = browser.text("main");
    assert!(plan.contains("12 operations") && plan.contains("nothing has been done"), "{plan}");
    browser.evaluate("document.querySelector('[name=rate]').value = '4'");
    browser.fill("[name=reason]", "the upstream is mended");
    browser.click("button.careful");

    until("it runs", || browser.text("h1").contains("Bulk").then_some(()));
    mark(&browser);
    until_true(
        &browser,
        "document.querySelector('progress').value > 0 && document.querySelector('progress').value < 12",
    );
    until("it is done", || {
        let said = browser.text("#bulk .notice");
        (said.contains("12 of 12 sent off") && said.contains("12 done, 0 dead again")).then_some(())
    });
    assert!(is_marked(&browser), "no reload was needed");
    browser.open(&server.url("/dead"));
    assert!(browser.text("main").contains("No dead letters."));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn light_or_dark_is_chosen_and_the_next_page_comes_in_it() {
    let server = Server::start();
    let browser = Browser::start();
    browser.open(&server.url("/dead"));
    until_live(&browser);
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.evaluate(ground);
    browser.evaluate("(s => { s.value = 'dark'; s.dispatchEvent(new Event('change')); })(document.querySelector('[data-theme-choice]'))");
    let dark = browser.evaluate(ground);
    assert_ne!(light, dark);
    // It comes so from the gateway, before any script has run.
    let cookie = [("Cookie", "onceward_theme=dark")];
    assert!(server.ask("GET", "/dead", &cookie, "").text().contains("data-theme=\"dark\""));
    browser.open(&server.url("/operations"));
    assert_eq!(browser.evaluate(ground), dark);
    assert_eq!(browser.evaluate("document.querySelector('[data-theme-choice]').value"), "dark");
}

/// Every page that has something to show, and some that have nothing.
fn pages(server: &Server) -> Vec<String> {
    let dead = dead_letter(server, "order-1", "404,201");
    let headers = [("Idempotency-Key", "charge-1")];
    server.ask("POST", "/to/demo-unsafe/charges?script=drop", &headers, "{}");
    let doubt = until_is(server, "charge-1", "in_doubt");
    server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "order-2")], r#"{"qty": 1}"#);
    let done = until_is(server, "order-2", "done");
    // The same under another key is a suspected double.
    server.ask("POST", "/to/demo/orders", &[("Idempotency-Key", "order-3")], r#"{"qty": 1}"#);
    let order = json!({"action": "redeliver", "filter": {"route": "no-route"}, "reason": "r"});
    let headers = [("Content-Type", "application/json")];
    let bulk = server.ask("POST", "/v1/bulk", &headers, &order.to_string()).json();
    let bulk = bulk["id"].as_str().unwrap();
    let wanted = json!({"to": "demo/hooks", "types": ["order.*"], "description": "billing"});
    server.ask("POST", "/v1/subscriptions", &headers, &wanted.to_string());
    let event = json!({"type": "order.paid", "subject": "order-1"});
    let event = server.ask("POST", "/v1/events", &headers, &event.to_string()).json();
    let event = event["id"].as_str().unwrap();
    let mut pages: Vec<String> = [
        "/",
        "/alerts",
        "/docs/on-call/OncewardSagaStuck",
        "/operations",
        "/operations?state=pending&status=404",
        "/dead",
        "/dead?status=404",
        "/in-doubt",
        "/bulk/plan?state=dead_letter",
        "/bulk/plan?action=resolve&state=in_doubt",
        "/bulk/plan?action=cancel&route=demo",
        "/operations?status=4xx",
        "/upstreams",
        "/send",
        "/sagas",
        "/sagas?state=stuck",
        "/sources",
        "/keys",
        "/duplicates",
        "/outboxes",
        "/events",
        "/subscriptions",
        "/audit",
        "/login",
        "/nowhere",
    ]
    .map(str::to_owned)
    .into();
    pages.extend([&dead, &doubt, &done].map(|id| format!("/operations/{id}")));
    pages.extend([format!("/operations/{dead}/resend"), format!("/bulk/{bulk}")]);
    // One that is stuck shows every form there is.
    let undo = json!({"path": "/flights?script=409"});
    let steps = json!([
        {"name": "flight", "to": "demo/flights", "compensate": undo},
        {"name": "car", "to": "demo/cars?script=422"},
    ]);
    let saga = json!({"key": "trip-1", "steps": steps}).to_string();
    let saga = server.ask("POST", "/v1/sagas", &headers, &saga).json();
    let saga = saga["id"].as_str().unwrap();
    until("the saga is stuck", || {
        let shown = server.ask("GET", &format!("/v1/sagas/{saga}"), &[], "").json();
        (shown["state"] == "stuck").then_some(())
    });
    pages.push(format!("/sagas/{saga}"));
    pages.push(format!("/events/{event}"));
    pages
}

#[test]
fn every_page_is_whole_without_scripts_and_its_forms_work() {
    let server = Server::start();
    let pages = pages(&server);
    let browser = Browser::start();
    browser.run_no_scripts();
    for path in &pages {
        browser.open(&server.url(path));
        assert_eq!(
            browser.evaluate("document.documentElement.classList.contains('scripted')"),
            false
        );
        assert!(!browser.text("h1").is_empty(), "{path}");
        let dead_ends = "[...document.querySelectorAll('.scripted-only')].filter(e => e.checkVisibility()).length";
        assert_eq!(browser.evaluate(dead_ends), 0, "{path} shows what does nothing");
        let size = server.ask("GET", path, &[("Accept", "text/html")], "").text().len();
        assert!(size < 100_000, "{path} has {size} bytes");
    }
    browser.open(&server.url("/dead"));
    browser.click_link("order-1");
    browser.fill("form[action$='/redeliver'] [name=reason]", "without scripts");
    browser.click("form[action$='/redeliver'] button");
    until("the page tells of it", || browser.url().ends_with("?told=1").then_some(()));
    assert!(browser.text(".notice").contains("without scripts"));
    assert_eq!(browser.text(".place .chip"), "done");
}

#[test]
fn everybody_can_use_every_wide_page_light_and_dark() {
    everybody_can_use_pages_of(1280);
}

#[test]
fn everybody_can_use_every_narrow_page_light_and_dark() {
    everybody_can_use_pages_of(360);
}

fn everybody_can_use_pages_of(width: u32) {
    let server = Server::start();
    let pages = pages(&server);
    let browser = Browser::start();
    let axe = Browser::axe();
    browser.set_width(width);
    let mut faults = Vec::new();
    for path in &pages {
        browser.prefer("light");
        browser.open(&server.url(path));
        faults.extend(browser.outside().iter().map(|fault| format!("{path}, {width}: {fault}")));
        browser.bring(&axe);
        // Of what is dark only the colours are other ones.
        for (scheme, rules) in [("light", &[][..]), ("dark", &["color-contrast"])] {
            browser.prefer(scheme);
            let found = browser.look(rules);
            faults.extend(found.iter().map(|fault| format!("{path}, {width}, {scheme}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn on_a_large_screen_no_page_is_wider_and_no_form_lies_outside() {
    let server = Server::start();
    let pages = pages(&server);
    let browser = Browser::start();
    browser.set_width(1440);
    let mut faults = Vec::new();
    for path in &pages {
        browser.open(&server.url(path));
        faults.extend(browser.outside().iter().map(|fault| format!("{path}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_form_nor_script_of_another_site_runs_in_a_page() {
    let server = Server::start();
    let answer = server.ask("GET", "/operations", &[], "");
    let policy = answer.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = answer.text();
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "{page}");
    let scripts: Vec<_> = page.split("<script").skip(1).collect();
    assert_eq!(scripts.len(), 1);
    assert!(scripts[0].starts_with(" type=\"module\" src=\"/script.js\"></script>"));
    let script = server.ask("GET", "/script.js", &[], "");
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    for foreign in ["http:", "https:", "eval(", "innerHTML"] {
        assert!(!script.text().contains(foreign), "{foreign}");
    }
}

//! What a person does to many from a list: rows that are selected with boxes or by keyboard, and all that
//! match; by a plan, and nothing else than it showed.

use serde_json::json;

use crate::browser_world::{Browser, Server};
use crate::page_live::{accept, dead_letter, until_is, until_live, until_true};
use crate::tenants_world::{ask, echo, make};
use crate::world::{World, until};

const HTML: (&str, &str) = ("Accept", "text/html");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn doubt(server: &Server, key: &str) -> String {
    let path = "/to/demo-unsafe/orders?script=drop,201";
    server.ask("POST", path, &[("Idempotency-Key", key)], "{}");
    until_is(server, key, "in_doubt")
}

fn box_of(id: &str) -> String {
    format!("input[name=op][value={id}]")
}

fn said(browser: &Browser) -> String {
    browser.text("form.many output")
}

#[test]
fn rows_are_selected_by_keyboard_and_by_box_and_they_alone_are_redelivered() {
    let server = Server::start();
    let ids = ["order-1", "order-2", "order-3", "order-4"]
        .map(|key| dead_letter(&server, key, "404,201"));
    let browser = Browser::start();
    let axe = Browser::axe();
    browser.open(&server.url("/dead"));
    until_live(&browser);
    let is_off = "document.querySelector('form.many button').disabled";
    assert_eq!((said(&browser).as_str(), browser.evaluate(is_off)), ("0 selected", true.into()));

    // The newest stands first; the cause above has no box.
    browser.press("jxj");
    assert_eq!(said(&browser), "0 selected");
    browser.press("x");
    assert_eq!(said(&browser), "1 selected");
    browser.press("jx");
    assert_eq!(said(&browser), "2 selected");
    browser.press("x");
    browser.click(&box_of(&ids[0]));
    assert_eq!((said(&browser).as_str(), browser.evaluate(is_off)), ("2 selected", false.into()));
    browser.bring(&axe);
    assert_eq!(browser.look(&[]), Vec::<String>::new());

    // The focus is in the box that was clicked.
    browser.press("r");
    until_true(&browser, "location.pathname === '/bulk/plan'");
    let plan = browser.text("main");
    assert!(plan.contains("2 operations") && plan.contains("nothing has been done"), "{plan}");
    assert!(plan.contains("order-1") && plan.contains("order-4"), "{plan}");
    assert!(!plan.contains("order-2") && !plan.contains("left out"), "{plan}");
    browser.bring(&axe);
    assert_eq!(browser.look(&[]), Vec::<String>::new());
    browser.fill("[name=reason]", "these two");
    browser.click("button.careful");
    until("they are done", || {
        browser.text("#bulk .notice").contains("2 done, 0 dead").then_some(())
    });
    for (id, state) in ids.iter().zip(["done", "dead", "dead", "done"]) {
        let shown = server.ask("GET", &format!("/v1/operations/{id}"), &[], "").json();
        assert_eq!(shown["state"], state, "{shown}");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_selected_stays_so_while_the_list_goes_on_and_all_of_a_page_is_selected_at_once() {
    let server = Server::start();
    let ids = [1, 2, 3, 4].map(|n| dead_letter(&server, &format!("order-{n}"), "404"));
    let browser = Browser::start();
    browser.open(&server.url("/operations"));
    until_live(&browser);
    browser.click(&box_of(&ids[1]));
    dead_letter(&server, "order-5", "404");
    until("it is announced", || browser.text("#rows .announce").contains("1 new").then_some(()));
    assert_eq!(said(&browser), "1 selected");
    browser.click(".announce button");
    until("it is shown", || browser.text("#rows tbody").contains("order-5").then_some(()));
    let is_checked = format!("document.querySelector('{}').checked", box_of(&ids[1]));
    assert_eq!((browser.evaluate(&is_checked), said(&browser)), (true.into(), "1 selected".into()));

    let whole = "document.querySelector('[data-all]')";
    assert_eq!(browser.evaluate(&format!("{whole}.indeterminate")), true);
    browser.click("[data-all]");
    assert_eq!(said(&browser), "5 selected");
    browser.click("[data-all]");
    assert_eq!(said(&browser), "0 selected");
    browser.click(&box_of(&ids[3]));
    let shift = format!(
        "document.querySelector('{}').dispatchEvent(new MouseEvent('click', {{bubbles: true, shiftKey: true}}))",
        box_of(&ids[1])
    );
    browser.evaluate(&shift);
    assert_eq!(said(&browser), "3 selected", "and what stands between");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_in_doubt_is_resolved_in_bulk_without_a_script() {
    let server = Server::start();
    let ids = ["charge-1", "charge-2", "charge-3"].map(|key| doubt(&server, key));
    let browser = Browser::start();
    browser.run_no_scripts();
    browser.open(&server.url("/in-doubt"));
    for id in &ids[..2] {
        browser.click(&box_of(id));
    }
    browser.click("form.many button");
    let plan = browser.text("main");
    assert!(plan.contains("Resolve what was selected") && plan.contains("2 operations"), "{plan}");
    browser.fill("form:has([value=not-sent]) [name=reason]", "the bank has none of them");
    browser.click("form:has([value=not-sent]) button");
    until("it runs", || browser.url().contains("/bulk/bulk_").then_some(()));
    for key in ["charge-1", "charge-2"] {
        until_is(&server, key, "done");
    }
    until_is(&server, "charge-3", "in_doubt");

    browser.open(&server.url("/in-doubt"));
    browser.click_link("Resolve all that match");
    browser.fill("form:has([value=done]) [name=reason]", "it is in the bank's list");
    browser.click("form:has([value=done]) button");
    until_is(&server, "charge-3", "done");
    let shown = server.ask("GET", &format!("/v1/operations/{}", ids[2]), &[], "").json();
    assert_eq!(shown["acts"][0]["deed"], "resolved_done", "{shown}");
}

#[test]
fn a_plan_leads_to_what_else_can_be_done_and_tells_what_it_is_not_for() {
    let server = Server::start();
    let dead = dead_letter(&server, "order-1", "404");
    accept(&server, "order-2", "503,503,503,503,503,503");
    let pending = until_is(&server, "order-2", "pending");
    let page = |path: &str| server.ask("GET", path, &[HTML], "").text();
    let plan = page("/bulk/plan?action=cancel&route=demo");
    assert!(plan.contains("<h2>1 operation</h2>") && plan.contains("answer 410"), "{plan}");
    for href in ["/bulk/plan?route=demo", "/bulk/plan?action=retry&amp;route=demo"] {
        assert!(plan.contains(&format!("href=\"{href}\"")), "{href}: {plan}");
    }
    assert!(plan.contains("action=\"/bulk?action=cancel&amp;route=demo\""), "{plan}");
    assert!(page("/bulk/plan?action=explode&route=demo").contains("`redeliver`, `retry`"));

    let fields = format!("op={dead}&op={pending}");
    let plan = server.ask("POST", "/bulk/plan?action=retry", &[HTML, FORM], &fields).text();
    assert!(plan.contains("<h2>1 operation</h2>") && plan.contains("1 of the 2"), "{plan}");
    assert!(plan.contains("waiting for its next attempt"), "{plan}");
    let none = server.ask("POST", "/bulk/plan", &[HTML, FORM], "");
    assert!(none.status == 400 && none.text().contains("Nothing was selected"), "{}", none.text());
}

#[test]
fn whoever_does_something_to_more_than_a_hundred_types_how_many_they_are() {
    let server = Server::start();
    for n in 0..101 {
        accept(&server, &format!("order-{n:03}"), "404");
    }
    until("all are dead", || {
        let page = server.ask("GET", "/v1/dead-letters/groups", &[], "").json();
        (page["data"][0]["count"] == 101).then_some(())
    });
    let few = "/bulk/plan?state=dead_letter&key=order-001";
    assert!(!server.ask("GET", few, &[HTML], "").text().contains("name=\"count\""));
    let plan = server.ask("GET", "/bulk/plan?state=dead_letter", &[HTML], "").text();
    assert!(plan.contains("pattern=\"101\"") && plan.contains("name=\"planned\""), "{plan}");
    let order = |count: &str| {
        let fields = format!("rate=1000&reason=all&planned=101&count={count}");
        server.ask("POST", "/bulk?state=dead_letter", &[HTML, FORM], &fields)
    };
    for wrong in ["", "100", "all"] {
        let refused = order(wrong);
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.text().contains("type 101"), "{}", refused.text());
    }
    let none = server.ask("GET", "/v1/bulk", &[], "").json();
    assert_eq!(none["data"], json!([]));
    assert_eq!(order("101").status, 303);
}

#[test]
fn the_api_acts_on_what_is_named_and_an_empty_list_is_never_all() {
    let server = Server::start();
    let ids = ["order-1", "order-2", "order-3"].map(|key| dead_letter(&server, key, "404,201"));
    let post = |document: &serde_json::Value| {
        server.ask("POST", "/v1/bulk", &[JSON], &document.to_string())
    };
    let named = |ids: serde_json::Value| json!({"action": "redeliver", "ids": ids, "reason": "r"});
    let many = vec![ids[0].clone(); 501];
    for wrong in [json!([]), json!(["order-1"]), json!(many), json!("all"), json!(null)] {
        let refused = post(&named(wrong.clone()));
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (400, &json!("request-invalid")),
            "{wrong}"
        );
        let among = json!({"action": "redeliver", "ids": wrong, "filter": {"state": "dead"}, "reason": "r"});
        assert_eq!(post(&among).status, 400, "{wrong}");
    }
    assert_eq!(post(&json!({"action": "redeliver", "reason": "r"})).status, 400);
    let mut narrowed = named(json!(ids));
    narrowed["filter"] = json!({"key": "order-2"});
    narrowed["dry_run"] = json!(true);
    assert_eq!(post(&narrowed).json()["matched"], 1);
    let begun = post(&named(json!([ids[0], ids[2], ids[0]]))).json();
    assert_eq!((&begun["matched"], &begun["selected"]), (&json!(2), &json!(2)), "{begun}");
    let path = format!("/v1/bulk/{}", begun["id"].as_str().unwrap());
    let shown = server.ask("GET", &path, &[], "").json();
    assert_eq!(shown["ids"], json!([ids[0], ids[2]]), "named twice it is one");
    until_is(&server, "order-1", "done");
    until_is(&server, "order-3", "done");
    until_is(&server, "order-2", "dead");
}

#[test]
fn what_is_another_tenants_is_not_acted_on_and_who_may_not_act_has_no_boxes() {
    let world = World::new();
    let upstream = echo();
    let shared =
        format!("[routes.shared]\nupstream = \"http://{upstream}\"\neffects = \"idempotent\"\n");
    world.write("onceward.toml", &shared);
    let gateway = world.serve();
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let bearer = format!("Bearer {acme}");
    let headers = [
        ("onceward-authorization", &*bearer),
        ("idempotency-key", "k"),
        ("prefer", "respond-async"),
    ];
    let sent = gateway.call("POST", "/to/shared/missing", &headers, "secret-of-acme");
    let id = sent.header("onceward-operation").unwrap().to_owned();
    until("it is dead", || {
        let shown = ask(&gateway, &acme, &format!("GET /v1/operations/{id}"), "").json();
        (shown["state"] == "dead").then_some(())
    });
    let order = json!({"action": "redeliver", "ids": [id], "dry_run": true}).to_string();
    for (key, matched) in [(&acme, 1), (&bolt, 0)] {
        let plan = ask(&gateway, key, "POST /v1/bulk", &order).json();
        assert_eq!(plan["matched"], matched, "{plan}");
        let plan = ask(&gateway, key, "POST /bulk/plan", &format!("op={id}")).text();
        assert_eq!(plan.contains(&format!("/operations/{id}")), matched == 1, "{plan}");
    }
    let reader = make(&gateway, "acme", "bea", &["--role", "read"]);
    let page = |key: &str| ask(&gateway, key, "GET /dead", "").text();
    assert!(page(&acme).contains("name=\"op\"") && page(&acme).contains("class=\"many\""));
    let read = page(&reader);
    assert!(
        read.contains(&id) && !read.contains("name=\"op\"") && !read.contains("\"many\""),
        "{read}"
    );
}

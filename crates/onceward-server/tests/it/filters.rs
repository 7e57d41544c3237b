//! Saved filters: named once, found again by whoever is of the tenant, and deleted.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use serde_json::{Value, json};

use crate::browser_world::{Browser, Server};
use crate::page_live::{dead_letter, until_live};
use crate::tenants_world::{ask, make};
use crate::world::{World, until};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const HTML: (&str, &str) = ("Accept", "text/html");

fn save(server: &Server, name: &str, query: &str) -> (u16, Value) {
    let wanted = json!({"name": name, "query": query}).to_string();
    let answer = server.ask("POST", "/v1/filters", &[JSON], &wanted);
    (answer.status, answer.json())
}

fn listed(server: &Server) -> Vec<(String, String)> {
    let all = server.ask("GET", "/v1/filters", &[], "").json();
    let text = |saved: &Value, member: &str| saved[member].as_str().unwrap().to_owned();
    let all = all["data"].as_array().unwrap().iter();
    all.map(|saved| (text(saved, "name"), text(saved, "query"))).collect()
}

#[test]
fn a_filter_is_saved_found_by_its_name_and_deleted_and_all_of_it_is_in_the_audit() {
    let server = Server::start();
    let (status, saved) = save(&server, "Late on demo", "status=5xx&route=demo&after=24h&limit=9");
    assert_eq!(status, 200, "{saved}");
    // In the order of the list's words; what is a place in a list is none of a filter.
    assert_eq!(saved["query"], "route=demo&status=5xx&after=24h");
    assert_eq!(saved["page"], "/operations?route=demo&status=5xx&after=24h");
    assert_eq!(server.ask("GET", saved["page"].as_str().unwrap(), &[HTML], "").status, 200);
    save(&server, "All dead", "state=dead");
    save(&server, "All dead", "state=dead&kind=call");
    let pair = |name: &str, query: &str| (name.to_owned(), query.to_owned());
    let late = pair("Late on demo", "route=demo&status=5xx&after=24h");
    assert_eq!(listed(&server), [pair("All dead", "state=dead&kind=call"), late.clone()]);

    for (name, query) in [
        ("", "state=dead"),
        ("a/b", "state=dead"),
        (".", "state=dead"),
        ("nothing", ""),
        ("nothing", "limit=3"),
        ("wrong", "state=lost"),
        ("wrong", "colour=red"),
        ("wrong", "status=5x"),
    ] {
        let (status, refused) = save(&server, name, query);
        assert_eq!((status, &refused["code"]), (400, &json!("request-invalid")), "{name} {query}");
    }
    let gone = server.ask("DELETE", "/v1/filters/All%20dead", &[], "");
    assert_eq!((gone.status, &gone.json()["deleted"]), (200, &json!("All dead")));
    assert_eq!(server.ask("DELETE", "/v1/filters/All%20dead", &[], "").status, 404);
    assert_eq!(listed(&server), [late]);
    let audit = server.ask("GET", "/v1/audit", &[], "").json();
    let deeds: Vec<_> = audit["data"].as_array().unwrap().iter().map(|it| &it["deed"]).collect();
    assert_eq!(deeds, ["deleted a filter", "saved a filter", "saved a filter", "saved a filter"]);
}

#[test]
fn the_list_saves_its_filter_leads_back_to_it_and_deletes_it() {
    let server = Server::start();
    dead_letter(&server, "order-1", "404");
    let browser = Browser::start();
    browser.open(&server.url("/operations"));
    until_live(&browser);
    assert_eq!(browser.evaluate("document.querySelector('.saved') === null"), true);
    browser.open(&server.url("/operations?state=dead_letter&status=4xx"));
    browser.click(".saved summary");
    browser.fill(".saved [name=name]", "Refused & buried");
    browser.click(".saved details button");
    until("it is saved", || {
        (browser.text(".saved [aria-current]") == "Refused & buried").then_some(())
    });
    assert!(browser.text("#rows").contains("order-1"));
    browser.open(&server.url("/operations"));
    browser.click_link("Refused & buried");
    until("it is opened", || browser.url().contains("status=4xx").then_some(()));
    browser.bring(&Browser::axe());
    assert_eq!(browser.look(&[]), Vec::<String>::new());
    browser.click(".saved > form button");
    until("it is gone", || listed(&server).is_empty().then_some(()));
    until("the filter stays", || browser.url().contains("status=4xx").then_some(()));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn on_the_page_no_filter_takes_the_place_of_another() {
    let server = Server::start();
    assert_eq!(save(&server, "late", "state=dead").0, 200);
    let form = [("Accept", "text/html"), ("Content-Type", "application/x-www-form-urlencoded")];
    let again =
        |query: &str| server.ask("POST", &format!("/filters?{query}"), &form, "name=late").status;
    assert_eq!(again("status=5xx"), 400);
    assert_eq!(listed(&server), [("late".to_owned(), "state=dead".to_owned())]);
    assert_eq!(again("state=dead"), 303, "it is that one");
}

#[test]
fn a_saved_filter_is_its_tenants_and_who_may_not_act_saves_none() {
    let world = World::new();
    let gateway = world.serve();
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let reader = make(&gateway, "acme", "bea", &["--role", "read"]);
    let wanted = json!({"name": "ours", "query": "label=secret"}).to_string();
    assert_eq!(ask(&gateway, &acme, "POST /v1/filters", &wanted).status, 200);
    for (key, is_seen) in [(&acme, true), (&reader, true), (&bolt, false)] {
        for line in ["GET /v1/filters", "GET /operations?state=dead"] {
            let answer = ask(&gateway, key, line, "");
            assert_eq!(answer.text().contains("label=secret"), is_seen, "{line}");
        }
    }
    assert_eq!(ask(&gateway, &bolt, "DELETE /v1/filters/ours", "").status, 404);
    assert_eq!(ask(&gateway, &reader, "POST /v1/filters", &wanted).status, 403);
    let page = ask(&gateway, &reader, "GET /operations?label=secret", "").text();
    assert!(!page.contains("/filters/delete"), "{page}");
    let page = ask(&gateway, &reader, "GET /operations?label=other", "").text();
    assert!(!page.contains("Save this filter"), "{page}");
}

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;
use crate::generated;

fn pages() -> Vec<(String, String)> {
    let base = Base { address: "http://127.0.0.1:7077".to_owned(), wants_key: true };
    let mut pages: Vec<_> =
        Part::all().map(|part| (part.place(), page(&part, &base).into_string())).collect();
    let problems = framed("Problems", "problems", &problems::content()).into_string();
    pages.push(("/docs/problems".to_owned(), problems));
    pages
}

/// What stands between `before` and the next quote, wherever that is.
fn all<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

fn ids() -> BTreeSet<&'static str> {
    let paths = document()["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|methods| methods.as_object().unwrap().values());
    operations.map(|operation| said(operation, "operationId")).collect()
}

#[test]
fn every_endpoint_of_the_document_is_on_a_page_once() {
    let pages = pages();
    for id in ids() {
        let anchor = format!("id=\"{id}\"");
        let found: usize = pages.iter().map(|(_, page)| page.matches(&anchor).count()).sum();
        assert_eq!(found, 1, "{id}");
    }
}

#[tokio::test]
async fn no_reference_between_the_pages_is_dead() {
    let mut pages = pages();
    pages.push(("/docs".to_owned(), index().await.0.into_string()));
    let elsewhere = ["/", "/operations", DOCUMENT, "/docs.css", "/style.css", "/icon.svg"];
    for (place, page) in &pages {
        let anchors: BTreeSet<_> = all(page, " id=\"").into_iter().collect();
        assert_eq!(anchors.len(), page.matches(" id=\"").count(), "{place}: an anchor twice");
        for link in all(page, "href=\"") {
            let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if to.is_empty() { place } else { to };
            let page = pages.iter().find(|(place, _)| place == to).map(|(_, page)| page);
            let is_there = elsewhere.contains(&to)
                || page.is_some_and(|page| {
                    anchor.is_empty() || page.contains(&format!(" id=\"{anchor}\""))
                });
            assert!(is_there, "{place} refers to {link}");
        }
    }
}

#[test]
fn every_code_is_told_of_with_what_it_means() {
    let pages = pages();
    let (_, problems) = pages.last().unwrap();
    for (code, _, _, title) in onceward::problem::Problem::all() {
        assert!(problems.contains(&format!("id=\"{code}\"")), "{code}");
        assert!(problems.contains(title), "{code}");
    }
}

/// Where the list of the codes stands on the page of files.
const BEGIN: &str = "<!-- codes: written by `cargo xtask docs` -->\n";
const END: &str = "<!-- end of codes -->\n";

#[test]
fn the_page_of_the_problems_has_them_all() {
    const PLACE: &str = "docs/problems.md";
    let page = generated::text(PLACE);
    let uses = problems::uses();
    let mut codes: Vec<_> = onceward::problem::Problem::all().collect();
    codes.sort_unstable_by_key(|(code, ..)| *code);
    let mut list = "| code | status | advice | |\n| --- | --- | --- | --- |\n".to_owned();
    for (code, status, advice, title) in &codes {
        let _ = writeln!(list, "| [`{code}`](#{code}) | {status} | `{advice}` | {title} |");
    }
    let mut wanted = generated::between(&page, BEGIN, END, &list);
    for (code, status, advice, title) in &codes {
        let heading = format!("\n## {code}\n\n");
        let (before, rest) = wanted.split_once(&heading).unwrap_or_else(|| {
            panic!("{PLACE} says nothing of {code}: add `## {code}`, when it comes and what to do")
        });
        // The paragraph below the heading is made of the table; the rest is written by hand.
        let (_, by_hand) = rest.split_once("\n\n").unwrap();
        let usual = status.to_string();
        let others = uses.get(code).into_iter().flat_map(|uses| &uses.statuses);
        let others: String =
            others.filter(|other| **other != usual).flat_map(|other| [" or ", other]).collect();
        wanted = format!(
            "{before}{heading}**{title}.** {usual}{others}, advice `{advice}`.\n\n{by_hand}"
        );
    }
    let headings = wanted.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(headings, codes.len(), "{PLACE} tells of a code that there is not");
    generated::hold(PLACE, &wanted);
}

#[test]
fn a_page_is_small_enough_for_a_phone_and_lets_nothing_run() {
    for (place, page) in pages() {
        assert!(page.len() < 110_000, "{place} has {} bytes", page.len());
        let page = page.replace("<script type=\"module\" src=\"/script.js\"></script>", "");
        for word in ["<script", "style=\"", " onclick", "http-equiv"] {
            assert!(!page.contains(word), "{place} has {word}");
        }
    }
}

#[test]
fn an_example_is_the_least_that_a_body_has_to_say() {
    let schema = |name: &str| example::of(&document()["components"]["schemas"][name]);
    assert_eq!(schema("Because"), serde_json::json!({"reason": "the provider asked for it"}));
    assert_eq!(schema("Renew"), serde_json::json!({"fence": 0}));
    assert_eq!(schema("Call")["to"], "demo/orders");
}

//! Every code that a refusal can have: what it means, what is left to do, and which endpoints may say so.

use std::collections::BTreeMap;

use maud::{Markup, html};
use onceward::problem::Problem;
use serde_json::Value;

use super::{Part, endpoint, followed, text};

/// The page for people who read files, which says when each comes.
const PAGE: &str = include_str!("../../../../../docs/problems.md");

/// Where more than so many may say it, naming them tells nothing.
const MANY: usize = 30;

/// What a code means, in a few words.
pub(super) fn title(code: &str) -> &'static str {
    Problem::all().find(|(known, ..)| *known == code).map_or("", |(.., title)| title)
}

/// When it comes and what is to be done: what the page of files says below the code's heading, each a
/// paragraph without its links. The first paragraph there is made of the table, as this page is.
fn said(code: &str) -> Vec<String> {
    let Some((_, rest)) = PAGE.split_once(&format!("\n## {code}\n")) else { return Vec::new() };
    let section = rest.split("\n## ").next().unwrap_or_default();
    section
        .split("\n\n")
        .skip(1)
        .map(|paragraph| text::unlinked(&paragraph.trim().replace('\n', " ")))
        .collect()
}

/// What is left to do, in a sentence.
fn advice(word: &str) -> &'static str {
    match word {
        "same-key" => "Ask again with the same key.",
        "wait" => "Wait, then ask again.",
        "new-key" => "A new intent needs a new key.",
        "fix-request" => "Asking again changes nothing; mend the request.",
        "escalate" => "Somebody has to look at it.",
        _ => "",
    }
}

/// By code: the statuses that it comes with, and the endpoints that may say it.
#[derive(Default)]
pub(super) struct Uses {
    pub(super) statuses: Vec<&'static str>,
    endpoints: Vec<(String, &'static str)>,
}

pub(super) fn uses() -> BTreeMap<&'static str, Uses> {
    let mut all: BTreeMap<&'static str, Uses> = BTreeMap::new();
    for part in Part::all() {
        for (id, operation) in endpoint::of(part.name).flat_map(endpoint::Told::named) {
            let place = format!("{}#{id}", part.place());
            for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                let codes = followed(answer)["x-onceward-codes"].as_array();
                for code in codes.into_iter().flatten().filter_map(Value::as_str) {
                    let of_code = all.entry(code).or_default();
                    if !of_code.statuses.contains(&status.as_str()) {
                        of_code.statuses.push(status);
                    }
                    if !of_code.endpoints.iter().any(|(_, known)| *known == id) {
                        of_code.endpoints.push((place.clone(), id));
                    }
                }
            }
        }
    }
    all
}

/// The page.
pub(super) fn content() -> Markup {
    let uses = uses();
    let mut codes: Vec<_> = Problem::all().collect();
    codes.sort_unstable_by_key(|(code, ..)| *code);
    html! {
        h1 { "Problems" }
        p.lead {
            "Every refusal is " code { "application/problem+json" } " (RFC 9457) with "
            code { "type: urn:onceward:problem:CODE" } " and an " code { "advice" }
            ". A refused request has sent nothing, except where the problem says that nobody can know."
        }
        nav aria-label="On this page" {
            ul.index { @for (code, .., title) in &codes {
                li { a href={ "#" (code) } { code { (code) } } " " span.soft { (title) } }
            } }
        }
        @for (code, status, word, title) in codes {
            section.card.endpoint {
                h2 id=(code) { code { (code) } }
                p { strong { (title) "." } }
                @for paragraph in said(code) { p { (text::line(&paragraph)) } }
                @let of_code = uses.get(code);
                @let others: Vec<_> = of_code.into_iter().flat_map(|uses| &uses.statuses)
                    .filter(|other| **other != status.to_string()).collect();
                p {
                    span.status.refused { (status) }
                    @for other in others { " or " span.status.refused { (other) } }
                    ", advice " code { (word) } ": " (advice(word))
                }
                @if let Some(uses) = of_code {
                    p.small {
                        "Said by "
                        @if uses.endpoints.len() > MANY {
                            "nearly every endpoint."
                        } @else {
                            @for (n, (place, id)) in uses.endpoints.iter().enumerate() {
                                @if n > 0 { ", " }
                                a href=(place) { (id) }
                            }
                            "."
                        }
                    }
                } @else {
                    p.small { "Said where no endpoint of the API is asked: on the pages, or by the listener itself." }
                }
            }
        }
    }
}

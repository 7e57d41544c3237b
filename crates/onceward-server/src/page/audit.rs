//! The audit: who did what, to what, when and why, and the head of its chain.

use maud::{Markup, html};
use onceward::core::hex;
use onceward::core::id::OperationId;
use onceward::{Note, Place};
use url::form_urlencoded::Serializer;

use super::frame::{Frame, Here, Html, heading, number, stacked};
use super::icons::Icon;
use super::words::{self, sign};
use crate::operator::Asked;
use crate::operator::audit::Which;
use crate::problem::Problem;
use crate::view::View;

pub(super) async fn show(node: View, Asked(which): Asked<Which>) -> Result<Html, Problem> {
    let found = which.notes(&node).await?;
    let frame = Frame::of(&node).await?;
    let is_first = which.cursor.as_deref().unwrap_or_default().is_empty();
    let is_filtered = !which.words().is_empty();
    let now = crate::shape::now();
    let content = html! {
        (heading("Audit", &html! {
            "Everything that people did, the newest first. Each names the digest of the one before it, so that none "
            "can be changed or left out without a trace."
        }, &at("/v1/audit", &which, None)))
        @if let Some(newest) = found.notes.first().filter(|_| is_first && !is_filtered) { (head(newest)) }
        (form(&which, is_filtered))
        @if found.notes.is_empty() {
            div.empty.card {
                @if is_filtered || !is_first { p { "Nothing matches this filter." } }
                @else {
                    p { strong { "Nobody did anything yet." } }
                    p { "What a person does here or by the command line is noted, with the reason that they give: "
                        "a redelivery, a pause, an access key." }
                }
            }
        } @else {
            (stacked("What people did", &html! {
                th.number { "Number" } th { "When" } th { "Who" } th { "What" } th { "To what" } th { "Why" }
            }, &html! { @for note in &found.notes { (row(note, now)) } }))
        }
        @if found.next.is_some() || !is_first {
            nav.pager aria-label="Older and newer" {
                @if !is_first { a href=(at("/audit", &which, None)) { "Newest" } }
                @if let Some(next) = found.next {
                    a.older href=(at("/audit", &which, Some(next))) rel="next" { "Older" }
                }
            }
        }
    };
    Ok(Html(frame.page(Here::Audit, "Audit", &content)))
}

/// The newest in the chain, for whoever notes it elsewhere and asks later whether it is still there.
fn head(newest: &Note) -> Markup {
    let Some(head) = newest.head else { return html! {} };
    html! {
        p.chain {
            span.soft { "The chain ends with number " strong { (number(head.number)) } ", digest " }
            code title=(hex::encode(&head.digest)) { (&hex::encode(&head.digest)[..16]) "…" }
            span.soft { ". Noted elsewhere, it shows later that nothing was taken away: "
                code { "onceward audit verify --expect " (head.number) ":…" } "; "
                a href="/v1/audit/verify" { "verify now" } }
        }
    }
}

fn form(which: &Which, is_filtered: bool) -> Markup {
    let value = |field: &Option<String>| field.clone().unwrap_or_default();
    html! {
        form.filter method="get" action="/audit" role="search" aria-label="Filter" {
            label { "Who" input name="who" value=(value(&which.who)) autocomplete="off" placeholder="ada"; }
            label { "To what" input name="about" value=(value(&which.about)) autocomplete="off" placeholder="op_… or a route"; }
            label { "From then on"
                input name="after" value=(value(&which.after)) autocomplete="off" placeholder="2026-01-31T12:00:00Z";
            }
            div.row { button { "Filter" } @if is_filtered { a href="/audit" { "Clear" } } }
        }
    }
}

fn at(path: &str, which: &Which, cursor: Option<Place>) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(which.words());
    if let Some(cursor) = cursor {
        query.append_pair("cursor", &cursor.to_string());
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn row(note: &Note, now: onceward::core::time::Timestamp) -> Markup {
    html! {
        tr {
            td.number data-label="Number" { @if let Some(head) = note.head { span title=(hex::encode(&head.digest)) { (head.number) } } }
            td.when data-label="When" { (words::time(note.at, now)) }
            td data-label="Who" { a.plain href={ "/audit?who=" (words::in_query(&note.who)) } { bdi { (note.who) } } }
            td data-label="What" {
                (note.deed.replace('_', " "))
                @if note.refused { " " (sign("doubt", Icon::Warning, "refused")) }
                @if let Some(number) = note.refuses { " (number " (number) ")" }
            }
            td.about data-label="To what" {
                @if note.about.parse::<OperationId>().is_ok() {
                    a href={ "/operations/" (note.about) } { code { (note.about) } }
                } @else if note.about.starts_with("bulk_") {
                    a href={ "/bulk/" (note.about) } { code { (note.about) } }
                } @else { bdi { (note.about) } }
            }
            td.says data-label="Why" { bdi { (note.reason) } }
        }
    }
}

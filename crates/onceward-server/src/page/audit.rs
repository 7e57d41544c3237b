//! The audit, as a plain list: who did what, when and why.

use maud::{Markup, html};
use onceward::core::id::OperationId;
use onceward::{Note, Place};
use url::form_urlencoded::Serializer;

use super::frame::{Frame, Here, Html, table};
use super::words;
use crate::operator::Asked;
use crate::operator::audit::Which;
use crate::problem::Problem;
use crate::view::View;

pub(super) async fn show(node: View, Asked(which): Asked<Which>) -> Result<Html, Problem> {
    let found = which.notes(&node).await?;
    let frame = Frame::of(&node).await?;
    let content = html! {
        h1 { "Audit" }
        p.lead { "Everything that people did, the newest first. Each names the digest of the one before it: "
            code { "onceward audit verify" } " tells whether all are there." }
        form.filter method="get" action="/audit" role="search" aria-label="Filter" {
            label { "Who"
                input name="who" value=(which.who.clone().unwrap_or_default()) autocomplete="off";
            }
            div.row { button { "Filter" } }
        }
        @if found.notes.is_empty() { p.empty.card { "Nobody did anything." } }
        @else {
            (table("What people did", &html! {
                th { "Number" } th { "When" } th { "Who" } th { "What" } th { "To what" } th { "Why" }
            }, &html! { @for note in &found.notes { (row(note)) } }))
        }
        @if let Some(next) = found.next {
            nav.pager aria-label="Older" { a.older href=(older(&which, next)) rel="next" { "Older" } }
        }
    };
    Ok(Html(frame.page(Here::Audit, "Audit", &content)))
}

fn older(which: &Which, next: Place) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in [("who", &which.who), ("after", &which.after)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            query.append_pair(name, value);
        }
    }
    query.append_pair("cursor", &next.to_string());
    format!("/audit?{}", query.finish())
}

fn row(note: &Note) -> Markup {
    html! {
        tr {
            td { @if let Some(head) = note.head { (head.number) } }
            td.when { (words::exact(note.at)) }
            td { bdi { (note.who) } }
            td { (note.deed.replace('_', " ")) @if note.refused { ", refused" }
                @if let Some(number) = note.refuses { " (number " (number) ")" } }
            td {
                @if note.about.parse::<OperationId>().is_ok() {
                    a href={ "/operations/" (note.about) } { code { (note.about) } }
                } @else if note.about.starts_with("bulk_") {
                    a href={ "/bulk/" (note.about) } { code { (note.about) } }
                } @else { bdi { (note.about) } }
            }
            td { bdi { (note.reason) } }
        }
    }
}

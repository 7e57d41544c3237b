//! The filter of a list, which lives in the URL, and the way to what is older.

use axum::extract::{FromRequestParts, Query};
use http::Uri;
use http::request::Parts;
use maud::{Markup, html};
use onceward::store::Page;
use url::form_urlencoded::{Serializer, parse};

use crate::operator::{Filter, cursor, invalid};
use crate::problem::Problem;
use crate::view::View;

/// What a list is asked for by a form, which sends the fields that are left empty too.
pub(super) struct Filtered(pub(super) Filter);

impl<S: Send + Sync> FromRequestParts<S> for Filtered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut said = Serializer::new(String::new());
        let words = parse(parts.uri.query().unwrap_or_default().as_bytes());
        said.extend_pairs(words.filter(|(_, value)| !value.is_empty()));
        let address = Uri::builder().path_and_query(format!("/?{}", said.finish())).build();
        let address = address.map_err(|error| invalid(error.to_string()))?;
        let read = Query::try_from_uri(&address);
        read.map(|Query(filter)| Self(filter)).map_err(|error| invalid(error.body_text()))
    }
}

/// The states that the filter offers, and their words.
const STATES: [(&str, &str); 8] = [
    ("", "any"),
    ("pending", "pending"),
    ("delivering", "delivering"),
    ("in_doubt", "in doubt"),
    ("done", "done"),
    ("dead_letter", "dead letter"),
    ("dead", "dead, caller told or not"),
    ("forgotten", "forgotten"),
];

/// Why something is dead, and its words.
const REASONS: [(&str, &str); 7] = [
    ("", "any"),
    ("refused", "refused"),
    ("exhausted", "attempts ran out"),
    ("unsent", "never sent"),
    ("cancelled", "cancelled"),
    ("owner_gone", "owner gone"),
    ("superseded", "superseded"),
];

/// The words that have a field always, and those that have one among more of them. The others have one
/// where they are set.
const FIELDS: [&str; 4] = ["text", "state", "route", "after"];
const MORE: [(&str, &str, &str); 7] = [
    ("key", "Key", "exactly"),
    ("subject", "Subject", "exactly"),
    ("label", "Label", "exactly"),
    ("status", "Last status", "503"),
    ("error", "Last error", "a part of its words"),
    ("principal", "Asked by", "a caller's name"),
    ("before", "Until", "1h, or 2026-01-31T12:00:00Z"),
];

/// What a list is narrowed to.
pub(super) fn narrowing<'a>(words: impl Iterator<Item = &'a (&'static str, String)>) -> Markup {
    html! {
        @for (name, value) in words {
            span.word {
                span.soft { (name.replace('_', " ")) }
                @if !name.starts_with("no_") { " " strong { bdi { (value) } } }
            } " "
        }
    }
}

/// The form: what it is told stands in the address afterwards.
pub(super) fn form(node: &View, filter: &Filter, is_filtered: bool) -> Markup {
    let words = filter.words();
    let value = |field: &str| {
        let said = words.iter().find(|(name, _)| *name == field);
        said.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let has_own = |name: &str| {
        FIELDS.contains(&name) || name == "reason" || MORE.iter().any(|(more, ..)| *more == name)
    };
    let has_more = words.iter().any(|(name, _)| !FIELDS.contains(name));
    html! {
        form.filter method="get" action="/operations" role="search" aria-label="Filter" {
            label.text { "Text"
                input type="search" name="text" value=(value("text")) autocomplete="off"
                    placeholder="in key, label, path, or an id";
            }
            label { "State" (choice("state", &STATES, &value("state"))) }
            label { "Route"
                input name="route" list="routes" value=(value("route")) autocomplete="off";
            }
            datalist #routes { @for route in node.routes() { option value=(route.name) {} } }
            label { "Since"
                input name="after" list="since" value=(value("after")) autocomplete="off"
                    placeholder="24h";
            }
            datalist #since { @for ago in ["15m", "1h", "24h", "7d"] { option value=(ago) {} } }
            div.row {
                button { "Filter" }
                @if is_filtered { a href="/operations" { "Clear" } }
            }
            details.further open[has_more] {
                summary { "More to filter by" }
                div.fields {
                    label { "Why dead" (choice("reason", &REASONS, &value("reason"))) }
                    @for (name, words, example) in MORE {
                        label { (words)
                            input name=(name) value=(value(name)) placeholder=(example)
                                inputmode=[(name == "status").then_some("numeric")] autocomplete="off";
                        }
                    }
                    @for (name, value) in words.iter().filter(|(name, _)| !has_own(name)) {
                        label { (name) input name=(name) value=(value); }
                    }
                }
            }
        }
    }
}

fn choice(name: &str, words: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        select name=(name) {
            @for (value, word) in words { option value=(value) selected[*value == chosen] { (word) } }
        }
    }
}

/// The links to what is newest and older.
pub(super) fn pager(path: &str, filter: &Filter, page: &Page) -> Markup {
    let older = cursor(page).map(|cursor| {
        let mut query = Serializer::new(String::new());
        // What a path fixes is not said twice.
        let is_said = |name: &str| name != "state" || path == "/operations";
        let words = filter.words().into_iter().filter(|(name, _)| is_said(name));
        let limit = filter.limit.map(|limit| ("limit", limit.to_string()));
        query.extend_pairs(words.chain(limit).chain([("cursor", cursor)]));
        format!("{path}?{}", query.finish())
    });
    let is_first = filter.cursor.as_deref().unwrap_or_default().is_empty();
    html! {
        @if older.is_some() || !is_first {
            nav.pager aria-label="Older and newer" {
                @if !is_first { a href=(path) { "Newest" } }
                @if let Some(older) = older { a.older href=(older) rel="next" { "Older" } }
            }
        }
    }
}

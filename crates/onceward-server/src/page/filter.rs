//! The filter of a list, which lives in the URL, and the way to what is older.

use axum::extract::FromRequestParts;
use http::request::Parts;
use maud::{Markup, html};
use onceward::store::Page;
use url::form_urlencoded::{Serializer, parse};

use crate::operator::{Filter, Statuses, cursor};
use crate::problem::Problem;
use crate::view::View;

/// What a list is asked for by a form, which sends the fields that are left empty too.
pub(super) struct Filtered(pub(super) Filter);

impl<S: Send + Sync> FromRequestParts<S> for Filtered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Filter::read(&said_in(parts)).map(Self)
    }
}

/// The words of an address that say something.
pub(super) fn said_in(parts: &Parts) -> Vec<(String, String)> {
    let words = parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
    words.filter(|(_, value)| !value.is_empty()).collect()
}

/// A word that cannot be, in a field of the form, and what that field takes.
pub(super) struct Wrong {
    name: &'static str,
    value: String,
    takes: &'static str,
}

/// The same of a list whose form is shown again where a field of it cannot be read: without those, and with
/// them.
pub(super) struct Tried(pub(super) Filter, pub(super) Vec<Wrong>);

impl<S: Send + Sync> FromRequestParts<S> for Tried {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut wrong = Vec::new();
        let mut words = said_in(parts);
        words.retain(|(name, value)| {
            let can_be =
                Filter::read(&[(name.clone(), value.clone())]).and_then(|it| it.query()).is_ok();
            let field = TAKES.iter().find(|(field, _)| field == name).filter(|_| !can_be);
            wrong.extend(field.map(|&(name, takes)| Wrong { name, value: value.clone(), takes }));
            field.is_none()
        });
        // What has no field to mend it is a problem.
        Ok(Self(Filter::read(&words)?, wrong))
    }
}

/// What is wrong with the form, over it.
pub(super) fn wrongs(wrong: &[Wrong]) -> Markup {
    html! {
        @for Wrong { name, value, takes } in wrong {
            p.notice.warn role="alert" {
                "Nothing was looked for: " strong { (label_of(name)) } " cannot be " q { bdi { (value) } } "; it takes " (takes) "."
            }
        }
    }
}

/// What a field is called on the form.
fn label_of(name: &str) -> &'static str {
    let more = MORE.iter().find(|(more, ..)| *more == name).map(|(_, label, _)| *label);
    more.unwrap_or(match name {
        "after" => "Since",
        "state" => "State",
        "kind" => "Kind",
        _ => "Why dead",
    })
}

/// The fields that do not take every text, and what they take.
static TAKES: [(&str, &str); 7] = [
    ("status", Statuses::TAKES),
    ("attempts_min", "a number, as 3"),
    ("after", "how long ago, as 24h, or a time, as 2026-01-31T12:00:00Z"),
    ("before", "how long ago, as 1h, or a time, as 2026-01-31T12:00:00Z"),
    ("state", "one of those that it offers"),
    ("kind", "one of those that it offers"),
    ("reason", "one of those that it offers"),
];

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

/// The kinds of operations that the filter offers, and their words.
const KINDS: [(&str, &str); 9] = [
    ("", "any"),
    ("call", "call"),
    ("unique", "call without a key"),
    ("claim", "claim"),
    ("event", "event"),
    ("delivery", "delivery of an event"),
    ("saga", "saga"),
    ("step", "step of a saga"),
    ("callback", "callback"),
];

/// The words that have a field always, and those that have one among more of them. The others have one
/// where they are set.
const FIELDS: [&str; 4] = ["text", "state", "route", "after"];
const MORE: [(&str, &str, &str); 8] = [
    ("key", "Key", "exactly"),
    ("subject", "Subject", "exactly"),
    ("label", "Label", "exactly"),
    ("status", "Last status", "503, or 5xx"),
    ("attempts_min", "Attempts, at least", "3"),
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
pub(super) fn form(node: &View, filter: &Filter, wrong: &[Wrong]) -> Markup {
    let is_filtered = filter.is_set() || !wrong.is_empty();
    let words = filter.words();
    let value = |field: &str| {
        let said = words.iter().find(|(name, _)| *name == field).map(|(_, value)| value);
        let tried = wrong.iter().find(|it| it.name == field).map(|it| &it.value);
        tried.or(said).cloned().unwrap_or_default()
    };
    let is_wrong = |field: &str| wrong.iter().any(|it| it.name == field).then_some("true");
    let has_own = |name: &str| {
        FIELDS.contains(&name)
            || ["reason", "kind"].contains(&name)
            || MORE.iter().any(|(more, ..)| *more == name)
    };
    let has_more = words.iter().any(|(name, _)| !FIELDS.contains(name))
        || wrong.iter().any(|it| !FIELDS.contains(&it.name));
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
                input name="after" list="since" value=(value("after")) autocomplete="off" aria-invalid=[is_wrong("after")]
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
                    label { "Kind" (choice("kind", &KINDS, &value("kind"))) }
                    label { "Why dead" (choice("reason", &REASONS, &value("reason"))) }
                    @for (name, words, example) in MORE {
                        label { (words)
                            input name=(name) value=(value(name)) placeholder=(example) aria-invalid=[is_wrong(name)]
                                inputmode=[(name == "attempts_min").then_some("numeric")] autocomplete="off";
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

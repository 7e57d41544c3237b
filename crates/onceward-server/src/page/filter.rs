//! The filter of a list, which lives in the URL, and the way to what is older.

use maud::{Markup, html};
use onceward::store::Page;
use url::form_urlencoded::Serializer;

use crate::operator::{Filter, cursor};
use crate::view::View;

/// The states that the filter offers, and their words.
const STATES: [(&str, &str); 8] = [
    ("", "any"),
    ("pending", "pending"),
    ("delivering", "delivering"),
    ("in_doubt", "in doubt"),
    ("done", "done"),
    ("dead_letter", "dead letter"),
    ("dead", "dead, told or not"),
    ("forgotten", "forgotten"),
];

/// The words that have a field always; the others have one where they are set.
const FIELDS: [&str; 4] = ["state", "route", "key", "text"];

/// The form: what it is told stands in the address afterwards.
pub(super) fn form(node: &View, filter: &Filter, is_filtered: bool) -> Markup {
    let value = |field: &Option<String>| field.clone().unwrap_or_default();
    let state = value(&filter.state);
    html! {
        form.filter method="get" action="/operations" role="search" aria-label="Filter" {
            label { "State"
                select name="state" {
                    @for (name, word) in STATES {
                        option value=(name) selected[name == state] { (word) }
                    }
                }
            }
            label { "Route"
                input name="route" list="routes" value=(value(&filter.route)) autocomplete="off";
            }
            datalist #routes {
                @for route in node.routes() { option value=(route.name) {} }
            }
            label { "Key" input name="key" value=(value(&filter.key)) autocomplete="off"; }
            label { "Text"
                input name="text" value=(value(&filter.text)) autocomplete="off"
                    placeholder="in key, label or path";
            }
            @for (name, value) in filter.words() {
                @if !FIELDS.contains(&name) { label { (name) input name=(name) value=(value); } }
            }
            div.row {
                button { "Filter" }
                @if is_filtered { a href="/operations" { "Clear" } }
            }
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

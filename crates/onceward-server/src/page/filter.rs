//! The filter of a list, which lives in the URL, and the way to what is older.

use maud::{Markup, html};
use onceward::store::Page;
use url::form_urlencoded::Serializer;

use crate::node::Node;
use crate::operator::{Filter, cursor};

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

/// How many of a filter's words have a field of their own; the others have one where they are set.
const SHOWN: usize = 5;

/// The form: what it is told stands in the address afterwards.
pub(super) fn form(node: &Node, filter: &Filter, is_filtered: bool) -> Markup {
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
                @for name in node.engine.routes().named.keys() { option value=(name) {} }
            }
            label { "Key" input name="key" value=(value(&filter.key)) autocomplete="off"; }
            label { "Text"
                input name="text" value=(value(&filter.text)) autocomplete="off"
                    placeholder="in key, label or path";
            }
            @for (name, value) in filter.words().into_iter().skip(SHOWN) {
                @if let Some(value) = value {
                    label { (name) input name=(name) value=(value); }
                }
            }
            @if let Some(label) = filter.label.as_deref().filter(|label| !label.is_empty()) {
                label { "Label" input name="label" value=(label); }
            }
            @if let Some(subject) = filter.subject.as_deref().filter(|subject| !subject.is_empty()) {
                label { "About" input name="subject" value=(subject); }
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
        let limit = filter.limit.map(|limit| limit.to_string());
        for (name, value) in words.chain([("limit", limit), ("cursor", Some(cursor))]) {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
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

//! The lists: what needs somebody, and everything; an empty one shows the line that fills it.

use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::operation::{Operation, State as Life};
use onceward::core::time::Timestamp;
use onceward::store::{Page, Standing};

use super::frame::{Frame, Here, Html, base_of};
use super::{bulk, filter, frame, words};
use crate::node::Node;
use crate::operator::{Asked, Filter};
use crate::problem::Problem;
use crate::view::View;

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    All,
    Dead,
    InDoubt,
}

/// What `filter` finds.
pub(super) async fn page_of(node: &View, filter: &Filter) -> Result<Page, Problem> {
    node.list(filter.query()?).await
}

/// `/operations`: the list alone.
pub(super) async fn operations(
    node: View,
    headers: HeaderMap,
    Asked(filter): Asked<Filter>,
) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let page = page_of(&node, &filter).await?;
    let content = html! {
        h1 { "Operations" }
        (list(&node, &headers, &filter, &page, crate::shape::now()))
    };
    Ok(Html(frame.page(Here::Operations, "Operations", &content)))
}

/// `/dead`: what died and nobody was told.
pub(super) async fn dead(
    node: View,
    headers: HeaderMap,
    Asked(filter): Asked<Filter>,
) -> Result<Html, Problem> {
    waiting(
        &node,
        &headers,
        filter,
        &Waiting {
            here: Here::Dead,
            table: Table::Dead,
            state: "dead_letter",
            standing: Standing::DeadLetter,
            path: "/dead",
            title: "Dead letters",
            lead: "Accepted operations that ended badly and that nobody was told about. \
               Open one to see why, and to redeliver it.",
            empty: Empty {
                what: "No dead letters.",
                lead: "This makes one, and redelivering it succeeds:",
                route: "demo",
                options: "-H 'Prefer: respond-async' -d '{}'",
                path: "orders?script=404,201",
            },
        },
    )
    .await
}

/// `/in-doubt`: what nobody knows the outcome of.
pub(super) async fn in_doubt(
    node: View,
    headers: HeaderMap,
    Asked(filter): Asked<Filter>,
) -> Result<Html, Problem> {
    waiting(&node, &headers, filter, &Waiting {
        here: Here::InDoubt,
        table: Table::InDoubt,
        state: "in_doubt",
        standing: Standing::InDoubt,
        path: "/in-doubt",
        title: "In doubt",
        lead: "Sent or begun, and nobody has said whether it was done. Look where it would show, then \
               resolve it: nothing does it again by itself.",
        empty: Empty {
            what: "Nothing is in doubt.",
            lead: "This makes one, an order whose answer is lost:",
            route: "demo-unsafe",
            options: "-d '{}'",
            path: "orders?script=drop",
        },
    })
    .await
}

/// A page of operations that wait for somebody.
struct Waiting {
    here: Here,
    table: Table,
    state: &'static str,
    standing: Standing,
    path: &'static str,
    title: &'static str,
    lead: &'static str,
    empty: Empty,
}

async fn waiting(
    node: &View,
    headers: &HeaderMap,
    filter: Filter,
    what: &Waiting,
) -> Result<Html, Problem> {
    let filter = Filter { state: Some(what.state.to_owned()), ..filter };
    let frame = Frame::of(node).await?;
    let page = page_of(node, &filter).await?;
    let content = html! {
        h1 { (what.title) }
        p.lead { (what.lead) }
        @if frame.count(&[what.standing]) == 0 { (what.empty.show(node, headers)) }
        @else {
            (found(what.table, &page, true, crate::shape::now()))
            @if what.table == Table::Dead { (bulk::link(&filter)) }
            (filter::pager(what.path, &filter, &page))
        }
    };
    Ok(Html(frame.page(what.here, what.title, &content)))
}

/// The filter form and what it finds.
fn list(node: &View, headers: &HeaderMap, filter: &Filter, page: &Page, now: Timestamp) -> Markup {
    let is_filtered = filter.is_set();
    let is_first = filter.cursor.as_deref().unwrap_or_default().is_empty();
    if page.operations.is_empty() && page.next.is_none() && !is_filtered && is_first {
        return nothing_yet(node, headers);
    }
    html! {
        (filter::form(node, filter, is_filtered))
        (found(Table::All, page, is_filtered, now))
        @if !page.operations.is_empty() { (bulk::link(filter)) }
        (filter::pager("/operations", filter, page))
    }
}

/// A ledger that is empty, and the line that makes its first row.
pub(super) fn nothing_yet(node: &Node, headers: &HeaderMap) -> Markup {
    Empty {
        what: "Nothing has come through yet.",
        lead: "This makes the first row; the upstream fails, then loses its answer, then answers:",
        route: "demo",
        options: "-H 'Idempotency-Key: order-1' -d '{}'",
        path: "orders?script=503,drop,201",
    }
    .show(node, headers)
}

/// A page's rows, or why there are none.
fn found(kind: Table, page: &Page, is_filtered: bool, now: Timestamp) -> Markup {
    html! {
        @if page.operations.is_empty() {
            p.empty.card {
                @if page.next.is_some() { "Nothing found so far." }
                @else if is_filtered { "Nothing matches this filter." }
                @else { "Nothing is older." }
            }
        } @else {
            (table(kind, &page.operations, now))
        }
    }
}

/// Operations, with the columns of `kind`.
pub(super) fn table(kind: Table, operations: &[Operation], now: Timestamp) -> Markup {
    let when = match kind {
        Table::All => "Came",
        Table::Dead => "Died",
        Table::InDoubt => "Sent",
    };
    let head = html! {
        @if kind == Table::All { th { "State" } }
        th { "Key" }
        @if kind == Table::Dead { th { "Reason" } }
        th { "Last answer" }
        th { "Route" }
        th.number { "Attempts" }
        th { (when) }
        @if kind == Table::InDoubt { th { span.unseen { "Resolve" } } }
    };
    let rows = html! { @for operation in operations { (row(kind, operation, now)) } };
    frame::table("Operations", &head, &rows)
}

fn row(kind: Table, operation: &Operation, now: Timestamp) -> Markup {
    let url = words::url_of(operation.id);
    let when = match kind {
        Table::All => operation.created_at,
        Table::Dead => operation.ended_at.unwrap_or(operation.created_at),
        Table::InDoubt => {
            operation.attempts.last().map_or(operation.created_at, |attempt| attempt.started_at)
        }
    };
    html! {
        tr {
            @if kind == Table::All { td { (words::chip(operation)) } }
            td.what {
                a.key href=(url) { (operation.key.as_str()) }
                span.request title=(operation.target) { (operation.method) " " (operation.target) }
                @if let Some(label) = &operation.label { span.label { (label) } }
            }
            @if kind == Table::Dead {
                td { @if let Life::Dead(why) = operation.state { (words::death(why)) } }
            }
            td.last { (words::last(operation)) }
            td.route { (words::place(operation)) }
            td.number { (operation.attempts_made()) }
            td.when { (words::time(when, now)) }
            @if kind == Table::InDoubt { td { a.button href={ (url) "#acts" } { "Resolve" } } }
        }
    }
}

/// An empty list teaches: the line that fills it, where the route of the line is there.
struct Empty {
    what: &'static str,
    lead: &'static str,
    route: &'static str,
    options: &'static str,
    path: &'static str,
}

impl Empty {
    fn show(&self, node: &Node, headers: &HeaderMap) -> Markup {
        let Self { what, lead, route, options, path } = self;
        let access = if node.access.is_needed() {
            " -H 'Onceward-Authorization: Bearer ow_YOUR-ACCESS-KEY'"
        } else {
            ""
        };
        let line = format!("curl{access} {options} '{}/to/{route}/{path}'", base_of(headers));
        html! {
            div.empty.card {
                p { strong { (what) } }
                @if node.engine.route(route).is_some() {
                    p { (lead) }
                    pre tabindex="0" { code { (line) } }
                }
            }
        }
    }
}

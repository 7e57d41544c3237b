//! The lists: what needs somebody, and everything; an empty one shows the line that fills it.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use onceward::BulkOrder;
use onceward::core::time::Timestamp;
use onceward::store::{Page, Standing};

use super::bulk::many;
use super::filter::{Filtered, Tried};
use super::frame::{Frame, Here, Html, base_of, heading};
use super::rows::Table;
use super::{bulk, filter, rows, saved};
use crate::node::Node;
use crate::operator::Filter;
use crate::problem::Problem;
use crate::view::View;

/// What `filter` finds.
pub(super) async fn page_of(node: &View, filter: &Filter) -> Result<Page, Problem> {
    node.list(filter.query()?).await
}

/// `/operations`: the list alone; or its form again, where a field of it cannot be read.
pub(super) async fn operations(
    node: View,
    headers: HeaderMap,
    Tried(filter, wrong): Tried,
) -> Result<Response, Problem> {
    let frame = Frame::of(&node).await?;
    if !wrong.is_empty() {
        let content = html! {
            (heading("Operations", &html! { "Everything that came, the newest first." }, "/v1/operations"))
            (filter::wrongs(&wrong))
            (filter::form(&node, &filter, &wrong))
        };
        let page = Html(frame.page(Here::Operations, "Operations", &content));
        return Ok((StatusCode::BAD_REQUEST, page).into_response());
    }
    let page = page_of(&node, &filter).await?;
    let written = filter.written();
    let json = format!("/v1/operations{}{written}", if written.is_empty() { "" } else { "?" });
    let running = bulk::running(&node).await?;
    let lead = html! { "Everything that came, the newest first. " a href="/bulk" { "Bulks" } };
    let content = html! {
        (heading("Operations", &lead, &json))
        (running)
        (saved::bar(&node, &node.saved_filters().await?, &filter))
        (list(&node, &headers, &filter, &page, crate::shape::now()))
    };
    Ok(Html(frame.page(Here::Operations, "Operations", &content)).into_response())
}

/// `/in-doubt`: what nobody knows the outcome of.
pub(super) async fn in_doubt(
    node: View,
    headers: HeaderMap,
    Filtered(filter): Filtered,
) -> Result<Html, Problem> {
    let filter = Filter { state: Some("in_doubt".to_owned()), ..filter };
    let frame = Frame::of(&node).await?;
    let page = page_of(&node, &filter).await?;
    let is_first = filter.cursor.as_deref().unwrap_or_default().is_empty();
    let empty = Empty {
        what: "Nothing is in doubt.",
        lead: "This makes one, an order whose answer is lost:",
        route: "demo-unsafe",
        options: "-d '{}'",
        path: "orders?script=drop",
    };
    let list = if frame.count(&[Standing::InDoubt]).is_none() {
        empty.show(&node, &headers)
    } else {
        found(&node, Table::InDoubt, &filter, &page, crate::shape::now())
    };
    let running = bulk::running(&node).await?;
    let lead = html! {
        "Sent or begun, and nobody has said whether it was done. Look where it would show, then resolve it: \
         nothing does it again by itself."
    };
    let content = html! {
        (heading("In doubt", &lead, "/v1/operations?state=in_doubt"))
        (running)
        (above(&node, &filter, &page))
        @if is_first { (rows::live("rows", &list)) } @else { (list) }
        (filter::pager("/in-doubt", &filter, &page))
    };
    Ok(Html(frame.page(Here::InDoubt, "In doubt", &content)))
}

/// The filter form and what it finds.
fn list(node: &View, headers: &HeaderMap, filter: &Filter, page: &Page, now: Timestamp) -> Markup {
    let is_filtered = filter.is_set();
    let is_first = filter.cursor.as_deref().unwrap_or_default().is_empty();
    if page.operations.is_empty() && page.next.is_none() && !is_filtered && is_first {
        return rows::live("rows", &nothing_yet(node, headers));
    }
    html! {
        (filter::form(node, filter, &[]))
        (above(node, filter, page))
        @let list = found(node, Table::All, filter, page, now);
        @if is_first { (rows::live("rows", &list)) } @else { (list) }
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

/// What can be done to many of a page's rows, or to all that match.
pub(super) fn above(node: &View, filter: &Filter, page: &Page) -> Markup {
    html! {
        @if !page.operations.is_empty() {
            (many::bar(many::acts(node, filter), filter, can_be_selected(page)))
        }
    }
}

/// Whether all rows can be selected at once: there are boxes only where they can.
fn can_be_selected(page: &Page) -> bool {
    page.operations.len() <= BulkOrder::SELECTED_MAX
}

/// A page's rows, or why there are none.
pub(super) fn found(
    node: &View,
    kind: Table,
    filter: &Filter,
    page: &Page,
    now: Timestamp,
) -> Markup {
    html! {
        @if page.operations.is_empty() {
            p.empty.card {
                @if page.next.is_some() { "Nothing found so far." }
                @else if filter.is_set() { "Nothing matches this filter." }
                @else { "Nothing is older." }
            }
        } @else {
            @if many::acts(node, filter).is_empty() || !can_be_selected(page) { (rows::table(node, kind, &page.operations, now)) }
            @else { (rows::selectable(node, kind, &page.operations, now)) }
        }
    }
}

/// An empty list teaches: the line that fills it, where the route of the line is there.
pub(super) struct Empty {
    pub(super) what: &'static str,
    pub(super) lead: &'static str,
    pub(super) route: &'static str,
    pub(super) options: &'static str,
    pub(super) path: &'static str,
}

impl Empty {
    pub(super) fn show(&self, node: &Node, headers: &HeaderMap) -> Markup {
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

//! `/keys`: what became of a key, and whether each route remembers keys for long enough.

use axum::extract::Extension;
use maud::{Markup, html};
use onceward::Refusal;
use onceward::core::advice::Fit;
use onceward::core::key::Key;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::Standing;
use onceward::tally::KeysAhead;
use serde::Deserialize;

use super::frame::{Frame, Here, Html, counted, heading, number, stacked};
use super::icons::Icon;
use super::words::{self, sign};
use crate::access::Caller;
use crate::operator::{Asked, Filter, WindowSaid, cursor, window_of};
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// Operations of one key, of as many callers, that are shown.
const FOUND_MAX: usize = 10;

/// Routes that get advice on a page.
const ROUTES_MAX: usize = 50;

/// Which key.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    route: Option<String>,
    key: Option<String>,
    principal: Option<String>,
    /// Heeded by the view.
    tenant: Option<String>,
}

pub(super) async fn show(
    node: View,
    Extension(caller): Extension<Caller>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().trim().to_owned();
    let (route, key, principal) = (text(&wanted.route), text(&wanted.key), text(&wanted.principal));
    let filter = Filter {
        tenant: wanted.tenant,
        route: Some(route.clone()),
        key: Some(key.clone()),
        principal: Some(principal.clone()),
        ..Filter::default()
    };
    let found = if key.is_empty() { None } else { Some(look_up(&node, &caller, filter).await?) };
    let routes = node.routes();
    let mut advice = Vec::new();
    for route in routes.iter().filter(|route| node.keeps(route)).take(ROUTES_MAX) {
        advice.push((
            route.name.as_str(),
            route.policy.tombstone,
            window_of(&node, &route.name).await?,
        ));
    }
    let keys = node.keys_ahead().await?;
    let json = if route.is_empty() || key.is_empty() {
        "/v1/operations".to_owned()
    } else {
        format!("/v1/operations?route={}&key={}", words::in_query(&route), words::in_query(&key))
    };
    let content = html! {
        (heading("Keys", &html! {
            "An idempotency key names one intended effect. Its answer is remembered for a window, and after that "
            "for a while that it was used."
        }, &json))
        (form(&node, &route, &key, &principal))
        @if let Some(found) = &found { (found.show(&node, &key)) }
        (remembered(&frame, keys))
        (windows(&advice, routes.len()))
    };
    Ok(Html(frame.page(Here::Keys, "Keys", &content)))
}

/// What is known of a key.
struct Found {
    /// One for each caller that has used it.
    operations: Vec<Operation>,
    /// The route and the caller that it was looked up for by itself, however far down the ledger.
    exactly: Option<(String, String)>,
    /// Where the list goes on, which reads so much of the ledger and no more.
    further: Option<String>,
}

async fn look_up(node: &View, caller: &Caller, filter: Filter) -> Result<Found, Problem> {
    let page = node.list(Filter { limit: Some(FOUND_MAX), ..filter.clone() }.query()?).await?;
    let further = cursor(&page);
    let further = further.map(|cursor| format!("/operations?{}&cursor={cursor}", filter.written()));
    let (mut operations, mut exactly) = (page.operations, None);
    let said = |field: Option<String>| field.filter(|said| !said.is_empty());
    let (route, principal) = (said(filter.route), said(filter.principal));
    if let (Some(route), Some(Ok(key))) = (route, filter.key.as_deref().map(Key::new)) {
        let principal = principal.unwrap_or_else(|| caller.principal.clone());
        match node.operation_of(&node.scope_of(&route, &principal), &key).await {
            Ok(own) if operations.iter().all(|it| it.id != own.id) => operations.insert(0, own),
            Ok(_) | Err(Refusal::NotFound) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        exactly = Some((route, principal));
    }
    Ok(Found { operations, exactly, further })
}

fn form(node: &View, route: &str, key: &str, principal: &str) -> Markup {
    html! {
        form.filter.card.lookup method="get" action="/keys" role="search" aria-label="Look up a key" {
            label { "Key" input name="key" value=(key) required autocomplete="off" spellcheck="false" placeholder="order-1"; }
            label { "Route, if you know it" input name="route" list="routes" value=(route) autocomplete="off"; }
            datalist #routes { @for route in node.routes() { option value=(route.name) {} } }
            label { "Asked by, if you know it" input name="principal" value=(principal) autocomplete="off"; }
            div.row { button { "Look it up" } }
        }
    }
}

impl Found {
    fn show(&self, node: &View, key: &str) -> Markup {
        let now = shape::now();
        html! {
            section #found aria-label="What was found" {
                @if self.operations.is_empty() {
                    div.empty.card {
                        p { (sign("told", Icon::Gone, "unknown")) " " bdi { code { (key) } } }
                        p { (self.nothing()) }
                    }
                }
                @for operation in &self.operations { (known(node, operation, now)) }
                @if let Some(further) = &self.further {
                    p { "Older operations were not looked at: " a href=(further) { "look further back" } "." }
                }
            }
        }
    }

    /// What it means that nothing was found: that it is new only where all was looked at.
    fn nothing(&self) -> Markup {
        html! {
            @match (&self.exactly, &self.further) {
                (Some((route, principal)), Some(_)) => {
                    "No call " (of(route, principal)) " is remembered with this key, and none of the newest operations "
                    "has it. An older one of another caller may: whether it was used is not known yet."
                }
                (None, Some(_)) => {
                    "None of the newest operations has this key. An older one may: whether it was used is not known yet. "
                    "With its route and who asked it is found at once, however old it is."
                }
                (Some((route, principal)), None) => {
                    "No operation has this key here: a call " (of(route, principal)) " with it would be new, and would be "
                    "sent. It may never have come, or its window and its tombstone are over."
                }
                (None, None) => {
                    "No operation has this key here: a call with it would be new, and would be sent, unless it is another "
                    "name of one, which is found with its route. It may never have come, or its window and its tombstone "
                    "are over."
                }
            }
        }
    }
}

fn of(route: &str, principal: &str) -> Markup {
    html! { "on " strong { (route) } @if !principal.is_empty() { " by " bdi { (principal) } } }
}

fn known(node: &View, operation: &Operation, now: Timestamp) -> Markup {
    let is_tombstone = Standing::of(operation) == Standing::Tombstone;
    let until = operation.key_expires_at();
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    html! {
        article.card {
            p { (words::chip(operation)) " " a.key href=(words::url_of(operation.id)) { bdi { (operation.key.as_str()) } } }
            p { (shape::advice(operation)) }
            dl.facts {
                (fact("Route", html! { (words::place(node, operation)) }))
                @if !operation.scope.principal.is_empty() {
                    (fact("Asked by", html! { bdi { (operation.scope.principal) } }))
                }
                (fact("Came", words::time(operation.created_at, now)))
                @if let Some(until) = until {
                    @if is_tombstone || until <= now { (fact("Its window ended", words::time(until, now))) }
                    @else { (fact("Its window ends", words::time(until, now))) }
                    (fact("Its mark as used ends", words::time(until.plus(operation.tombstone), now)))
                } @else { (fact("Its window", html! { "begins when it ends: what is unfinished never expires" })) }
            }
        }
    }
}

fn remembered(frame: &Frame, keys: KeysAhead) -> Markup {
    let open =
        frame.count(&[Standing::Pending, Standing::Held, Standing::Delivering, Standing::InDoubt]);
    let figure = |name: &str, count: String, note: &str| {
        html! { div.figure { span.name { (name) } span.number { (count) } span { (note) } } }
    };
    html! {
        h2 { "What is remembered" }
        div.figures {
            (figure("Unfinished", counted(open), "they never expire"))
            (figure("In their window", number(keys.kept), "a duplicate gets the answer"))
            (figure("Expiring", number(keys.expiring), "their window ends in 24 h"))
            (figure("Tombstones", number(keys.tombstones), "a duplicate is told it is late"))
        }
    }
}

/// A route, how long its tombstones stay, and what is to be said of its window.
type Advice<'a> = (&'a str, std::time::Duration, WindowSaid);

fn windows(advice: &[Advice<'_>], all: usize) -> Markup {
    html! {
        h2 { "Windows" }
        @if advice.is_empty() { p.empty.card { "No routes are configured." } }
        @else {
            (stacked("Windows of the routes", &html! {
                th { "Route" } th.number { "Window" } th.number { "Tombstone" } th.number { "Duplicates" }
                th.number { "Late" } th { "Fit" } th { "Advice" }
            }, &html! {
                @for (route, tombstone, said) in advice {
                    tr {
                        td.what { strong { (route) } }
                        td.number data-label="Window" { (words::duration(said.is)) }
                        td.number data-label="Tombstone" { (words::duration(*tombstone)) }
                        td.number data-label="Duplicates" { (number(said.advice.duplicates)) }
                        td.number.bad[said.advice.late > 0] data-label="Late" { (number(said.advice.late)) }
                        td data-label="Fit" { (fit(said.advice.fit)) }
                        td.says data-label="Advice" { (said.says) " "
                            a.small href={ "/v1/routes/" (words::in_path(route)) "/advice" } { "JSON" } }
                    }
                }
            }))
            @if all > ROUTES_MAX { p.soft.small { "Of the first " (ROUTES_MAX) " routes; " code { "onceward routes --advice" } " tells of each." } }
        }
    }
}

fn fit(fit: Fit) -> Markup {
    match fit {
        Fit::TooFew => sign("told", Icon::Gone, "too few to say"),
        Fit::Fits => sign("done", Icon::Done, "fits"),
        Fit::TooShort => sign("doubt", Icon::Warning, "too short"),
        Fit::Generous => sign("pending", Icon::Pending, "generous"),
    }
}

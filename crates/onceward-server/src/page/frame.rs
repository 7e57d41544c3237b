//! What stands around every page: its head, the way to the other pages with what waits there, and
//! a problem in words.

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use onceward::store::Standing;

use super::viewer;
use crate::operator::REASON_BYTES_MAX;
use crate::problem::Problem;
use crate::view::View;

/// A page.
pub(super) struct Html(pub(super) Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0.into_string()).into_response()
    }
}

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    Overview,
    Operations,
    Dead,
    InDoubt,
    Upstreams,
    Sources,
    Audit,
}

/// What every page shows of the ledger.
pub(super) struct Frame {
    counts: HashMap<Standing, u64>,
    quarantined: bool,
}

impl Frame {
    /// Counts what waits.
    pub(super) async fn of(node: &View) -> Result<Self, Problem> {
        Ok(Self { counts: node.counts().await?, quarantined: node.is_quarantined() })
    }

    /// How many operations stand here.
    pub(super) fn count(&self, standing: &[Standing]) -> u64 {
        standing.iter().filter_map(|standing| self.counts.get(standing)).sum()
    }

    /// The whole page.
    pub(super) fn page(&self, here: Here, title: &str, content: &Markup) -> Markup {
        let dead = self.count(&[Standing::DeadLetter]);
        let doubt = self.count(&[Standing::InDoubt]);
        let link = |to: Here, path: &str, name: &str, count: Option<u64>| {
            let alarms = count.is_some_and(|count| count > 0);
            let doubts = alarms && to == Here::InDoubt;
            html! {
                a href=(path) aria-current=[(here == to).then_some("page")] {
                    (name)
                    @if let Some(count) = count { " " span.count.alarm[alarms].doubt[doubts] { (count) } }
                }
            }
        };
        let top = html! {
            nav aria-label="Pages" {
                (link(Here::Overview, "/", "Overview", None))
                (link(Here::Dead, "/dead", "Dead letters", Some(dead)))
                (link(Here::InDoubt, "/in-doubt", "In doubt", Some(doubt)))
                (link(Here::Operations, "/operations", "Operations", None))
                (link(Here::Upstreams, "/upstreams", "Upstreams", None))
                (link(Here::Sources, "/sources", "Sources", None))
                (link(Here::Audit, "/audit", "Audit", None))
            }
        };
        let body = html! {
            @if self.quarantined {
                p.notice.warn role="status" {
                    "The ledger was restored and is in quarantine: nothing is sent until "
                    code { "onceward restore --release" } "."
                }
            }
            (content)
        };
        document(title, &top, &body)
    }
}

/// The field that every form has that changes anything.
pub(super) fn reason(label: &str) -> Markup {
    html! {
        (viewer::token())
        label { (label)
            input name="reason" required maxlength=(REASON_BYTES_MAX) autocomplete="off";
        }
    }
}

/// A table that scrolls by itself where it is wider than the page.
pub(super) fn table(label: &str, head: &Markup, rows: &Markup) -> Markup {
    html! {
        div.scroll.card tabindex="0" role="region" aria-label=(label) {
            table.list {
                thead { tr { (head) } }
                tbody { (rows) }
            }
        }
    }
}

/// The address that a caller reaches us at, as this request did.
pub(super) fn base_of(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let scheme = viewer::scheme();
    format!("{scheme}://{}", host.unwrap_or("127.0.0.1:7077"))
}

pub(super) fn document(title: &str, top: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Onceward" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" type="image/svg+xml" href="/icon.svg";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { (mark()) "Onceward" }
                    (top)
                    (viewer::shown())
                }
                main #main { (body) }
                footer { "Onceward " (env!("CARGO_PKG_VERSION")) " · " a href="/docs" { "API" } }
            }
        }
    }
}

/// Our own drawing, so it needs no escaping.
fn mark() -> Markup {
    PreEscaped(r#"<svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true"><circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M6.4 5.9 8.4 4.6V11.6" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/></svg>"#.to_owned())
}

/// A problem, as a page; the counts are left out, because the ledger itself may be the problem.
pub(super) fn problem(problem: &Problem) -> Markup {
    let advice = match problem.advice {
        "same-key" => "Try again.",
        "wait" => "Wait a little, then look again.",
        "escalate" => "Somebody has to look at it.",
        "new-key" => "A new intent needs a new key.",
        _ => "",
    };
    let top = html! {
        nav aria-label="Pages" {
            a href="/" { "Overview" }
            a href="/operations" { "Operations" }
        }
    };
    let body = html! {
        section.card.message {
            p.code { (problem.status) " " (problem.code) }
            h1 { (problem.title()) }
            p { (sentence(&problem.detail)) }
            @if !advice.is_empty() { p.soft { (advice) } }
            @if let Some(operation) = &problem.operation {
                p { a.button href=(super::words::url_of(operation.id)) { "Back to the operation" } }
            } @else {
                @if matches!(problem.code, "unauthenticated" | "login-refused") {
                    p { a.button href="/login" { "Log in" } }
                } @else {
                    p { a.button href="/" { "To the overview" } }
                }
            }
        }
    };
    document(problem.title(), &top, &body)
}

/// A detail of the engine's begins small and ends open.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

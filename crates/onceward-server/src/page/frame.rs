//! What stands around every page: its head, the way to the other pages with what waits there, and
//! a problem in words.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use onceward::store::{Counted, Query, Standing};

use super::icons::Icon;
use super::needs::Needs;
use super::{alerts, theme, viewer};
use crate::access::Roles;
use crate::alerts::Firing;
use crate::config::Outbox;
use crate::operator::REASON_BYTES_MAX;
use crate::outbox::Shown;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// A page.
pub(super) struct Html(pub(super) Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0.into_string()).into_response()
    }
}

/// Operations of one standing that are counted for a page: as many as a list looks at.
const COUNTED_MAX: u64 = Query::ROWS_MAX as u64;

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    Overview,
    Alerts,
    Operations,
    Dead,
    InDoubt,
    Sagas,
    Upstreams,
    Sources,
    Outboxes,
    Events,
    Subscriptions,
    Keys,
    Duplicates,
    Audit,
    Docs,
}

impl Here {
    /// Where it is, its icon, and what it is called.
    fn way(self) -> (&'static str, Icon, &'static str) {
        match self {
            Self::Overview => ("/", Icon::Overview, "Overview"),
            Self::Alerts => ("/alerts", Icon::Alerts, "Alerts"),
            Self::Operations => ("/operations", Icon::Operations, "Operations"),
            Self::Dead => ("/dead", Icon::Dead, "Dead letters"),
            Self::InDoubt => ("/in-doubt", Icon::Doubt, "In doubt"),
            Self::Sagas => ("/sagas", Icon::Sagas, "Sagas"),
            Self::Upstreams => ("/upstreams", Icon::Upstreams, "Upstreams"),
            Self::Sources => ("/sources", Icon::Sources, "Sources"),
            Self::Outboxes => ("/outboxes", Icon::Outboxes, "Outboxes"),
            Self::Events => ("/events", Icon::Events, "Events"),
            Self::Subscriptions => ("/subscriptions", Icon::Subscriptions, "Subscriptions"),
            Self::Keys => ("/keys", Icon::Keys, "Keys"),
            Self::Duplicates => ("/duplicates", Icon::Duplicates, "Duplicates"),
            Self::Audit => ("/audit", Icon::Audit, "Audit"),
            Self::Docs => ("/docs", Icon::Docs, "API docs"),
        }
    }
}

/// What every page shows of the ledger.
pub(super) struct Frame {
    counts: HashMap<Standing, Counted>,
    /// What needs somebody.
    pub(super) needs: Needs,
    /// The outboxes, as they stand.
    pub(super) outboxes: Vec<(Arc<Outbox>, Shown)>,
    sees_audit: bool,
    quarantined: bool,
    pub(super) alerts: Vec<Firing>,
}

impl Frame {
    /// Asks what waits, and what needs somebody.
    pub(super) async fn of(node: &View) -> Result<Self, Problem> {
        let mut frame = Self {
            counts: node.counts(COUNTED_MAX).await?,
            needs: Needs::default(),
            outboxes: node.outboxes(),
            sees_audit: node.may(Roles::ADMIN),
            quarantined: node.is_quarantined(),
            alerts: node.alerts(),
        };
        frame.needs = Needs::of(node, &frame, shape::now()).await?;
        Ok(frame)
    }

    /// How many operations stand here.
    pub(super) fn count(&self, standing: &[Standing]) -> Counted {
        standing.iter().filter_map(|standing| self.counts.get(standing)).copied().sum()
    }

    /// The whole page.
    pub(super) fn page(&self, here: Here, title: &str, content: &Markup) -> Markup {
        let body = html! {
            @if self.quarantined {
                p.notice.warn role="status" {
                    "The ledger was restored and is in quarantine: nothing is sent until "
                    code { "onceward restore --release" } "."
                }
            }
            (content)
        };
        document(title, Some(&self.ways(here)), &body)
    }

    /// The way to every page, with how much there needs somebody.
    fn ways(&self, here: Here) -> Ways {
        let way = |to: Here| way(to, Some(here), self.count_at(to));
        let pages = html! {
            (way(Here::Overview))
            (way(Here::Alerts))
            hr;
            (way(Here::Operations))
            (way(Here::Dead))
            (way(Here::InDoubt))
            (way(Here::Sagas))
            hr;
            (way(Here::Upstreams))
            (way(Here::Sources))
            @if !self.outboxes.is_empty() { (way(Here::Outboxes)) }
            hr;
            (way(Here::Events))
            (way(Here::Subscriptions))
            hr;
            (way(Here::Keys))
            (way(Here::Duplicates))
            @if self.sees_audit || here == Here::Audit { (way(Here::Audit)) }
            (way(Here::Docs))
        };
        // Where the ways are folded away, what needs somebody most is not.
        let alarms = html! {
            @for to in [Here::Dead, Here::InDoubt] {
                @if let Some(count) = self.count_at(to) {
                    a href=(to.way().0) { (to.way().1.show()) (count.show()) }
                }
            }
        };
        // The overview has each alert where it belongs, and the alerts' own page has them all.
        let alerts = if matches!(here, Here::Overview | Here::Alerts) {
            html! {}
        } else {
            alerts::line(&self.alerts)
        };
        Ways { pages, alarms, alerts }
    }

    /// How many at a page need somebody.
    fn count_at(&self, to: Here) -> Option<Count> {
        let what = match to {
            Here::Alerts => {
                let many = exactly(self.alerts.len() as u64);
                let count = Count { many, class: "dead", what: "firing" };
                return many.is_some().then_some(count);
            }
            Here::Dead => "dead letters",
            Here::InDoubt => "in doubt",
            Here::Sagas => "stuck",
            Here::Upstreams => "held back",
            Here::Sources => "refuse webhooks",
            Here::Outboxes => "need somebody",
            Here::Subscriptions => "fail or are paused",
            // How many there are of them says nothing of what they need.
            Here::Overview
            | Here::Operations
            | Here::Events
            | Here::Keys
            | Here::Duplicates
            | Here::Audit
            | Here::Docs => return None,
        };
        let (many, class) = self.needs.at(to)?;
        Some(Count { many, class, what })
    }
}

/// The way to the pages.
pub(super) struct Ways {
    pages: Markup,
    alarms: Markup,
    /// What fires, in a line.
    alerts: Markup,
}

impl Ways {
    /// Those that need no ledger.
    pub(super) fn few(here: Option<Here>) -> Self {
        let pages = html! {
            (way(Here::Overview, here, None))
            (way(Here::Alerts, here, None))
            (way(Here::Operations, here, None))
            (way(Here::Docs, here, None))
        };
        Self { pages, alarms: html! {}, alerts: html! {} }
    }
}

/// The way to a page, from the one that is shown.
fn way(to: Here, here: Option<Here>, count: Option<Count>) -> Markup {
    let (path, icon, name) = to.way();
    html! {
        a href=(path) aria-current=[(here == Some(to)).then_some("page")] {
            (icon.show()) span { (name) }
            @if let Some(count) = count { " " (count.show()) }
        }
    }
}

/// How many there are of something, beside a way there.
struct Count {
    many: Counted,
    class: &'static str,
    what: &'static str,
}

impl Count {
    fn show(&self) -> Markup {
        let Self { many, class, what } = self;
        html! { span.count.(class).some { (counted(*many)) span.unseen { " " (what) } } }
    }
}

/// What a page is about, and the call of the API that has its data.
pub(super) fn heading(title: &str, lead: &Markup, json: &str) -> Markup {
    html! {
        header.heading {
            div { h1 { (title) } p.lead { (lead) } }
            p.tools { a.quiet href=(json) { "As JSON" } }
        }
    }
}

/// A number as people read it: a thin space before each three digits.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The same of what may be more.
pub(super) fn counted(counted: Counted) -> String {
    let more = if counted.is_all { "" } else { "+" };
    number(counted.count) + more
}

/// What is counted to its end.
pub(super) fn exactly(count: u64) -> Counted {
    Counted { count, is_all: true }
}

/// A form that folds out of its button; of a page's one is open at a time.
pub(super) fn act(word: &str, path: &str, fields: &Markup, button: &str) -> Markup {
    html! {
        details.act name="act" {
            summary.quiet { (word) }
            form method="post" action=(path) {
                (fields)
                (reason("Why"))
                button { (button) }
            }
        }
    }
}

/// The field that every form has that changes anything.
pub(super) fn reason(label: &str) -> Markup {
    html! {
        (viewer::token())
        label { (label) span.soft { " (required)" }
            input name="reason" required maxlength=(REASON_BYTES_MAX) autocomplete="off";
        }
    }
}

/// A table that scrolls by itself where it is wider than the page.
pub(super) fn table(label: &str, head: &Markup, rows: &Markup) -> Markup {
    table_as("list", label, head, rows)
}

/// A table whose rows stand one cell below the other where it is narrow: each cell has its heading as
/// `data-label`, then.
pub(super) fn stacked(label: &str, head: &Markup, rows: &Markup) -> Markup {
    table_as("list stack", label, head, rows)
}

fn table_as(class: &str, label: &str, head: &Markup, rows: &Markup) -> Markup {
    html! {
        div.scroll.card tabindex="0" role="region" aria-label=(label) {
            table.(class) {
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

/// A document: the ways to other pages beside it, where there are any for who looks.
pub(super) fn document(title: &str, ways: Option<&Ways>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme::chosen()] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Onceward" }
                link rel="stylesheet" href="/style.css";
                script type="module" src="/script.js" {}
                link rel="icon" type="image/svg+xml" href="/icon.svg";
            }
            body.alone[ways.is_none()] {
                a.skip href="#main" { "Skip to the content" }
                (rail(ways))
                div.sheet {
                    @if let Some(ways) = ways {
                        aside.alerting #alerting data-live="all" aria-label="Alerts" { (ways.alerts) }
                    }
                    main #main data-now=(shape::now().as_millis()) { (body) }
                    footer { span { "Onceward " (env!("CARGO_PKG_VERSION")) } (tools()) }
                }
            }
        }
    }
}

/// What stands beside a page, and above it where that is narrow: there the ways are behind a button,
/// which needs no script.
fn rail(ways: Option<&Ways>) -> Markup {
    html! {
        div.rail {
            header.top {
                a.brand href="/" { (mark()) "Onceward" }
                @if let Some(ways) = ways {
                    span.alarms #alarms data-live="all" { (ways.alarms) }
                    button.menu type="button" popovertarget="pages" { (Icon::Menu.show()) span { "Menu" } }
                }
            }
            @if let Some(ways) = ways {
                nav #pages popover aria-label="Pages" {
                    div.ways #ways data-live="all" { (ways.pages) }
                    div.tools { (viewer::shown()) }
                }
            }
        }
    }
}

/// What only the script can do.
fn tools() -> Markup {
    let chosen = theme::chosen().unwrap_or_default();
    html! {
        div.tools.scripted-only {
            label { "Colours"
                select data-theme-choice autocomplete="off" {
                    @for (theme, name) in [("", "as the system"), ("light", "light"), ("dark", "dark")] {
                        option value=(theme) selected[theme == chosen] { (name) }
                    }
                }
            }
            button.quiet type="button" data-help { "Keyboard " kbd { "?" } }
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
    let ways = Ways::few(None);
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
    document(problem.title(), Some(&ways), &body)
}

/// A detail of the engine's begins small and ends open.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_in_threes_once_it_is_long() {
        for (given, shown) in
            [(0, "0"), (9999, "9999"), (10_000, "10 000"), (1_234_567, "1 234 567")]
        {
            assert_eq!(number(given).replace('\u{202f}', " "), shown);
        }
    }
}

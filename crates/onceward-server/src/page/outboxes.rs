//! `/outboxes`: tables whose rows become operations: how far behind they are, and what is parked.

use maud::{Markup, html};

use super::frame::{Frame, Here, Html, heading, number, table};
use super::icons::Icon;
use super::words::{self, sign};
use crate::config::Outbox;
use crate::outbox::{Parked, Shown, Stands, parked};
use crate::problem::Problem;
use crate::view::View;

/// Parked rows of each that are shown.
const PARKED_SHOWN: usize = 20;

pub(super) async fn show(node: View) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let mut cards = Vec::new();
    for (outbox, shown) in &frame.outboxes {
        let rows = match shown.parked_now {
            0 => Vec::new(),
            _ => parked(&**node.engine.store(), &outbox.name).await?,
        };
        cards.push(card(outbox, shown, &rows));
    }
    let content = html! {
        (heading("Outboxes", &html! {
            "Tables whose rows become operations: what was written in a transaction is sent once it is committed. "
            "A parked row can never become one."
        }, "/v1/outbox"))
        @if cards.is_empty() {
            div.empty.card {
                p { strong { "No outboxes are configured." } " One names a table and where its rows go:" }
                pre tabindex="0" { code { (EXAMPLE) } }
            }
        }
        @for card in &cards { (card) }
    };
    Ok(Html(frame.page(Here::Outboxes, "Outboxes", &content)))
}

const EXAMPLE: &str = "[outbox.app]
database = \"postgres://onceward:${APP_PASSWORD}@db/app?sslmode=require\"";

fn card(outbox: &Outbox, shown: &Shown, parked: &[Parked]) -> Markup {
    let now = crate::shape::now();
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    html! {
        article.card aria-label=(outbox.name) {
            header.heading {
                div {
                    h2 { (outbox.name) }
                    code.soft title=(outbox.table.database) { (outbox.table.name) }
                }
                div.tools { (reads(shown)) }
            }
            @if let Some((why, at)) = shown.error.as_ref().filter(|_| shown.stands == Stands::Failing) {
                p.notice.warn { (why) ", since " (words::time(*at, now)) }
            }
            dl.facts {
                (fact("Behind", html! { (behind(shown)) }))
                (fact("Read", html! { @match shown.read_at { Some(at) => (words::time(at, now)), None => "not yet" } }))
                (fact("Remembered", html! { (number(shown.counts.remembered)) }))
                (fact("Duplicates", html! { (number(shown.counts.duplicates)) }))
                (fact("Parked", html! { span.bad[shown.parked_now > 0] { (shown.parked_now) } }))
            }
            @if !parked.is_empty() { (rows(outbox, parked)) }
        }
    }
}

fn rows(outbox: &Outbox, parked: &[Parked]) -> Markup {
    html! {
        h3 { "Parked rows" }
        (table("Parked rows", &html! { th { "Row" } th { "Why" } th { "Key" } th { "Since" } }, &html! {
            @for row in parked.iter().take(PARKED_SHOWN) {
                tr {
                    td { code { bdi { (row.id) } } }
                    td.says { (sign("dead", Icon::Warning, &row.code)) " " (row.why) }
                    td { @if let Some(key) = &row.key { bdi { code { (key) } } } }
                    td.when { time datetime=(row.at) { (row.at) } }
                }
            }
        }))
        p.soft.small {
            @if parked.len() > PARKED_SHOWN { "And " (parked.len() - PARKED_SHOWN) " more. " }
            "Once the row or the configuration is mended: " code { "onceward outbox " (outbox.name) " --retry --reason …" }
        }
    }
}

fn reads(shown: &Shown) -> Markup {
    match shown.stands {
        Stands::Reading => sign("done", Icon::Done, "reads"),
        Stands::Standby => sign("told", Icon::Paused, "read by another node"),
        Stands::Starting => sign("told", Icon::Pending, "starts"),
        Stands::Failing => sign("dead", Icon::Dead, "cannot be read"),
    }
}

fn behind(shown: &Shown) -> String {
    shown.lag.map_or_else(|| "-".to_owned(), |lag| format!("{:.1} s", lag.as_secs_f64()))
}

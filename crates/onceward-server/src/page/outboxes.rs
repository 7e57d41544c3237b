//! Outboxes, as a part of the page about upstreams: how far behind they are, and what is parked.

use maud::{Markup, html};

use super::frame::table;
use crate::config::Outbox;
use crate::outbox::{Shown, Stands};
use crate::view::View;

/// Nothing where there are none.
pub(super) fn section(node: &View) -> Markup {
    let all = node.outboxes();
    html! {
        @if !all.is_empty() {
            h2 { "Outboxes" }
            p.lead {
                "Tables whose rows become operations. A parked row can never become one; "
                code { "onceward outbox NAME" } " says why."
            }
            (table("Outboxes", &html! {
                th { "Outbox" } th { "Read" } th.number { "Behind" }
                th.number { "Remembered" } th.number { "Parked" }
            }, &html! { @for (outbox, shown) in &all { (row(outbox, shown)) } }))
        }
    }
}

fn row(outbox: &Outbox, shown: &Shown) -> Markup {
    html! {
        tr {
            td.what {
                strong { (outbox.name) }
                span.request title=(outbox.table.database.to_string()) { (outbox.table.name) }
            }
            td { (read(shown)) }
            td.number { (behind(shown)) }
            td.number { (shown.counts.remembered) }
            td.number { (shown.parked_now) }
        }
    }
}

fn read(shown: &Shown) -> Markup {
    match shown.stands {
        Stands::Reading => html! { span.chip.done { "yes" } },
        Stands::Standby => html! { span.chip.told { "by another node" } },
        Stands::Starting => html! { span.chip.told { "not yet" } },
        Stands::Failing => html! {
            span.chip.dead { "no" }
            @if let Some((why, _)) = &shown.error { " " span.label { (why) } }
        },
    }
}

fn behind(shown: &Shown) -> String {
    shown.lag.map_or_else(|| "-".to_owned(), |lag| format!("{:.1} s", lag.as_secs_f64()))
}

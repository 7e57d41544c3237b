//! `/`: what is wrong, in ten seconds; what came to what; then what needs somebody, and the newest
//! operations. It is made of sums and of pages of a few, so that it costs the same whatever is in the
//! ledger.

use std::time::Duration;

use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::store::{Counted, Page, Standing};
use onceward::tally::{Counts, KeysAhead, Span, Stats};

use super::frame::{Frame, Here, Html, counted, number};
use super::icons::Icon;
use super::rows::{self, Table};
use super::stats::{self, Over, charts, spans};
use super::{lists, upstreams, words};
use crate::operator::{Asked, Filter};
use crate::problem::Problem;
use crate::view::View;

/// How many of what needs somebody it shows, how many of everything, and how many upstreams.
const NEWEST: usize = 5;
const RECENT: usize = 10;
const UPSTREAMS: usize = 5;

/// Accepted work that has been due for longer than this is behind.
const LATE: Duration = Duration::from_mins(1);

pub(super) async fn show(
    node: View,
    headers: HeaderMap,
    Asked(over): Asked<Over>,
) -> Result<Html, Problem> {
    let span = over.span(Span::Hour)?;
    let frame = Frame::of(&node).await?;
    let stats = node.stats(span).await?;
    let day = if span == Span::Day { stats.clone() } else { node.stats(Span::Day).await? };
    let now = crate::shape::now();
    let facts = Facts::of(&node, &frame, day.total, now).await?;
    let waiting = |state: &str| Filter {
        state: Some(state.to_owned()),
        limit: Some(NEWEST),
        ..Filter::default()
    };
    let dead = lists::page_of(&node, &waiting("dead_letter")).await?;
    let doubt = lists::page_of(&node, &waiting("in_doubt")).await?;
    let recent = Filter { limit: Some(RECENT), ..Filter::default() };
    let recent = lists::page_of(&node, &recent).await?;
    let is_empty = recent.operations.is_empty() && recent.next.is_none();
    let content = html! {
        h1.unseen { "Overview" }
        @if is_empty { (lists::nothing_yet(&node, &headers)) }
        div #now data-live="all" {
            @if !is_empty { (facts.needs(&node, now)) }
            (facts.figures())
        }
        (traffic(&stats))
        (upstreams::worst(&node, &stats, UPSTREAMS, now))
        (some(&node, "Dead letters", facts.dead, Table::Dead, &dead, now))
        (some(&node, "In doubt", facts.doubt, Table::InDoubt, &doubt, now))
        @if !is_empty {
            section {
                h2 { "Newest operations" }
                (rows::live("newest", &rows::table(&node, Table::All, &recent.operations, now)))
                p.more { a href="/operations" { "All operations" } }
            }
        }
    };
    Ok(Html(frame.page(Here::Overview, "Overview", &content)))
}

fn traffic(stats: &Stats) -> Markup {
    html! {
        section #traffic {
            header.heading.section {
                div { h2 { "What calls came to" } }
                div.tools {
                    (spans("/", stats.span))
                    a.quiet href={ "/v1/stats?over=" (stats.span.name()) } { "As JSON" }
                }
            }
            (charts(stats))
        }
    }
}

fn some(
    node: &View,
    title: &str,
    all: Counted,
    table: Table,
    page: &Page,
    now: Timestamp,
) -> Markup {
    let path = if table == Table::Dead { "/dead" } else { "/in-doubt" };
    let shown = page.operations.len();
    html! {
        @if shown > 0 {
            section {
                h2 { (title) }
                (rows::live(&path[1..], &rows::table(node, table, &page.operations, now)))
                @if all.count > shown as u64 || !all.is_all { p.more { a href=(path) { "All " (counted(all)) } } }
            }
        }
    }
}

/// What the ledger and the day say in single numbers.
struct Facts {
    /// The last 24 hours.
    day: Counts,
    dead: Counted,
    doubt: Counted,
    open: Counted,
    /// Since when what has been in doubt for longest came.
    doubt_since: Option<Timestamp>,
    keys: KeysAhead,
    /// For how long the accepted work that waits longest has been due.
    behind: Option<Duration>,
    open_breakers: u64,
}

impl Facts {
    async fn of(node: &View, frame: &Frame, day: Counts, now: Timestamp) -> Result<Self, Problem> {
        Ok(Self {
            day,
            dead: frame.count(&[Standing::DeadLetter]),
            doubt: frame.count(&[Standing::InDoubt]),
            open: frame.count(&[Standing::Pending, Standing::Held, Standing::Delivering]),
            doubt_since: node.oldest_in_doubt().await?.map(|oldest| oldest.created_at),
            keys: node.keys_ahead().await?,
            behind: node.oldest_due().await?.filter(|due| *due < now).map(|due| now.since(due)),
            open_breakers: node.open_breakers().len() as u64,
        })
    }

    fn late(&self) -> u64 {
        self.day.duplicates[Repeat::Late as usize]
    }

    /// What needs somebody, the worst first.
    fn needs(&self, node: &View, now: Timestamp) -> Markup {
        let Self { dead, doubt, .. } = *self;
        let (broken, mut held) = upstreams::needs(node, now);
        let mut lines = broken;
        if doubt.is_some() {
            let what = html! { strong { (counted(doubt)) " in doubt" }
            ": sent, and nobody has said whether it was done"
            @if let Some(since) = self.doubt_since { "; the oldest came " (words::time(since, now)) } };
            lines.push(need("doubt", Icon::Doubt, &what, "/in-doubt", "Resolve"));
        }
        if dead.is_some() {
            let what = html! { strong { (counted(dead)) @if dead.count == 1 && dead.is_all { " dead letter" } @else { " dead letters" } }
            ": ended badly, and nobody was told" };
            lines.push(need("dead", Icon::Dead, &what, "/dead", "Look why"));
        }
        if let Some(behind) = self.behind.filter(|behind| *behind > LATE) {
            let what = html! { strong { "Accepted work is behind" }
            ": the oldest has been due for " (words::duration(behind)) };
            lines.push(need(
                "doubt",
                Icon::Pending,
                &what,
                "/operations?state=pending",
                "See what waits",
            ));
        }
        let late = self.late();
        if late > 0 {
            let what = html! { strong { (number(late)) @if late == 1 { " late duplicate" } @else { " late duplicates" } }
            " in 24 hours: asked again after the window had ended" };
            lines.push(need("doubt", Icon::Keys, &what, "/keys", "Look at the windows"));
        }
        lines.append(&mut held);
        html! {
            ul.needs #needs aria-label="What needs somebody" {
                @for line in &lines { li { (line) } }
                @if lines.is_empty() {
                    li { p.done { (Icon::Done.show()) span { strong { "Nothing needs anybody" }
                        ": no dead letters, nothing in doubt, every upstream takes calls." } } }
                }
            }
        }
    }

    fn figures(&self) -> Markup {
        let day = &self.day;
        let blocked = day.blocked();
        let calls = day.operations + day.repeated();
        let share = (calls > 0).then(|| day.repeated() as f64 * 100.0 / calls as f64);
        let tombstones = format!("in 24 h; {} tombstones", number(self.keys.tombstones));
        let behind = match self.behind {
            Some(behind) => format!("oldest due for {}", words::duration(behind)),
            None if self.open.is_some() => "none is due".to_owned(),
            None => "nothing waits".to_owned(),
        };
        html! {
            div.figures #figures {
                a.figure.lead-figure href="/duplicates" {
                    span.name { (Icon::Duplicates.show()) "Duplicates blocked, 24 h" }
                    span.number { (number(blocked)) }
                    span {
                        @if let Some(share) = share { (stats::percent(share)) " of calls came again" }
                        @else { "no call came" }
                    }
                }
                (figure("", Icon::Done, "Delivered", all(day.done), "/operations?state=done", &recovered_of(day)))
                (figure("", Icon::Delivering, "Success after retry", all(day.recovered), "/operations?state=done", "24 h, no caller noticed"))
                (figure("doubt", Icon::Doubt, "In doubt", self.doubt, "/in-doubt", "now"))
                (figure("dead", Icon::Dead, "Dead letters", self.dead, "/dead", "now"))
                (figure("", Icon::Pending, "Backlog", self.open, "/operations?state=pending", &behind))
                (figure("dead", Icon::Open, "Open breakers", all(self.open_breakers), "/upstreams", "at this node"))
                (figure("", Icon::Keys, "Keys expiring", all(self.keys.expiring), "/keys", &tombstones))
                (figure("doubt", Icon::Warning, "Late duplicates", all(self.late()), "/duplicates?got=late", "24 h, after the window"))
            }
        }
    }
}

/// How large a part of what was delivered was so at the first attempt.
fn recovered_of(day: &Counts) -> String {
    if day.done == 0 {
        return "24 h".to_owned();
    }
    let first = (day.done - day.recovered.min(day.done)) as f64 * 100.0 / day.done as f64;
    format!("24 h, {} at first try", stats::percent(first))
}

fn all(count: u64) -> Counted {
    Counted { count, is_all: true }
}

fn figure(class: &str, icon: Icon, name: &str, many: Counted, path: &str, note: &str) -> Markup {
    html! {
        a.figure.(class).some[many.is_some()] href=(path) {
            span.name { (icon.show()) (name) }
            span.number { (counted(many)) }
            span { (note) }
        }
    }
}

/// A line of what needs somebody, and the way to where they act.
pub(super) fn need(class: &str, icon: Icon, what: &Markup, path: &str, act: &str) -> Markup {
    html! {
        a class=(class) href=(path) { (icon.show()) span { (what) "." } span.go { (act) } }
    }
}

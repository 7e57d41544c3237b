//! `/`: what is wrong, in ten seconds; what came to what; then what needs somebody, and the newest
//! operations. It is made of sums and of pages of a few, so that it costs the same whatever is in the
//! ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Extension;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::store::{Counted, Page, Standing};
use onceward::tally::{Counts, KeysAhead, Span, Stats};

use super::frame::{Frame, Here, Html, counted, exactly, number};
use super::icons::Icon;
use super::login::with_cookie;
use super::needs::{Need, Needs, Weight};
use super::rows::{self, Table};
use super::since::{self, Looks};
use super::stats::{self, Over, charts, spans};
use super::{lists, upstreams, words};
use crate::access::Arrival;
use crate::alerts::Firing;
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
    Extension(arrival): Extension<Arrival>,
    Asked(over): Asked<Over>,
) -> Result<Response, Problem> {
    let span = over.span(Span::Hour)?;
    let mut frame = Frame::of(&node).await?;
    let stats = node.stats(span).await?;
    let day = if span == Span::Day { stats.clone() } else { node.stats(Span::Day).await? };
    let now = crate::shape::now();
    let facts = Facts::of(&node, &frame, day.total.clone(), now).await?;
    facts.ask(&node, &mut frame.needs, now).await?;
    let looks = Looks::with(&arrival, now);
    let since = since::line(&node, looks, [&stats, &day], now).await?;
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
            @if !is_empty || frame.needs.is_some() || !frame.alerts.is_empty() { (frame.needs.show(&frame.alerts, now)) }
            (since)
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
    let page = Html(frame.page(Here::Overview, "Overview", &content)).into_response();
    let by_a_person = !arrival.is_by_itself;
    Ok(if by_a_person { with_cookie(page, looks.cookie(&arrival)) } else { page })
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
            keys: node.keys_ahead().await?,
            behind: node.oldest_due().await?.filter(|due| *due < now).map(|due| now.since(due)),
            open_breakers: node.open_breakers().len() as u64,
        })
    }

    fn late(&self) -> u64 {
        self.day.duplicates[Repeat::Late as usize]
    }

    /// What the overview asks beside what every page does.
    async fn ask(&self, node: &View, needs: &mut Needs, now: Timestamp) -> Result<(), Problem> {
        if let Some(oldest) = node.oldest_in_doubt().await? {
            let came = html! { "; the oldest came " (words::time(oldest.created_at, now)) };
            needs.add(Here::InDoubt, &came);
        }
        needs.ask("no accepted work is late", self.behind.filter(|it| *it > LATE).map(behind));
        needs.ask("no duplicate came after its window in 24 h", late(self.late()));
        // Whoever sees one tenant alone has no disk here.
        if let Some(free) = node.free().filter(|_| node.only().is_none()) {
            let low = Some(free).filter(|free| *free < node.alerts.low());
            needs.ask("there is room on the disk", low.map(disk));
        }
        if node.alerts.is_watching().1 && node.only().is_none() {
            let unreached = unreached(&node.alerts_told().await);
            let lines = unreached.iter().map(|(to, why)| unreached_need(to, why));
            needs.ask("every alert reached its receivers", lines);
        }
        Ok(())
    }

    fn figures(&self) -> Markup {
        let day = &self.day;
        let blocked = day.blocked();
        let calls = day.operations + day.repeated();
        let share = (calls > 0).then(|| day.repeated() as f64 * 100.0 / calls as f64);
        let tombstones = format!("in 24 h; {} tombstones", number(self.keys.tombstones));
        let behind = match self.behind {
            Some(behind) => {
                format!("wait or are under way; oldest due for {}", words::duration(behind))
            }
            None if self.open.is_some() => "wait or are under way; none is due".to_owned(),
            None => "nothing waits".to_owned(),
        };
        html! {
            div.figures #figures {
                a.figure.lead-figure href="/duplicates" {
                    span.name { (Icon::Duplicates.show()) "Duplicates blocked, 24 h" }
                    span.number { (number(blocked)) }
                    span {
                        @if let Some(share) = share {
                            "of " (number(day.repeated())) " that came again (" (stats::percent(share)) " of calls)"
                        } @else { "no call came" }
                    }
                }
                (figure("", Icon::Done, "Delivered", exactly(day.done), "/operations?state=done", &recovered_of(day)))
                (figure("", Icon::Delivering, "Success after retry", exactly(day.recovered), "/operations?state=done", "24 h, no caller noticed"))
                (figure("doubt", Icon::Doubt, "In doubt", self.doubt, "/in-doubt", "now"))
                (figure("dead", Icon::Dead, "Dead letters", self.dead, "/dead", "now"))
                (figure("", Icon::Pending, "Not ended", self.open, "/operations?state=pending", &behind))
                (figure("dead", Icon::Open, "Open breakers", exactly(self.open_breakers), "/upstreams", "at this node"))
                (figure("", Icon::Keys, "Keys expiring", exactly(self.keys.expiring), "/keys", &tombstones))
                (figure("doubt", Icon::Warning, "Late duplicates", exactly(self.late()), "/duplicates?got=late", "24 h, after the window"))
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

fn figure(class: &str, icon: Icon, name: &str, many: Counted, path: &str, note: &str) -> Markup {
    html! {
        a.figure.(class).some[many.is_some()] href=(path) {
            span.name { (icon.show()) (name) }
            span.number { (counted(many)) }
            span { (note) }
        }
    }
}

fn behind(late: Duration) -> Need {
    let what = html! { strong { "Accepted work is behind" }
    ": the oldest has been due for " (words::duration(late)) };
    let way = ("See what waits", "/operations?state=pending");
    Need::of(Here::Operations, Weight::Bad, Icon::Pending, what, way)
}

fn late(many: u64) -> Option<Need> {
    let what = html! { strong { (number(many)) @if many == 1 { " late duplicate" } @else { " late duplicates" } }
    " in 24 hours: asked again after the window had ended" };
    let way = ("Look at the windows", "/keys");
    Need::of(Here::Duplicates, Weight::Doubtful, Icon::Keys, what, way).of_many(exactly(many))
}

fn disk(free: u64) -> Need {
    let what = html! { strong { (number(free >> 20)) " MiB are left" }
    " where the ledger is: without room new work is refused" };
    let way = ("What to do", "/docs/on-call/OncewardDiskLow");
    Need::of(Here::Overview, Weight::Bad, Icon::Warning, what, way)
}

/// Receivers that do not have what they were to be told, each with the last reason.
fn unreached(firing: &[Firing]) -> BTreeMap<String, String> {
    let told = firing.iter().filter_map(|firing| firing.told.as_ref()).flatten();
    let failed = told.filter(|teller| teller.has_failed());
    failed.map(|it| (it.to.clone(), it.error.clone().unwrap_or_default())).collect()
}

fn unreached_need(to: &str, why: &str) -> Need {
    let what = html! { strong { "Alerts do not reach " (to) } @if !why.is_empty() { ": " (why) } };
    Need::of(Here::Alerts, Weight::Bad, Icon::Alerts, what, ("Look", "/alerts"))
}

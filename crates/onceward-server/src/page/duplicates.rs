//! `/duplicates`: who asked again, how late, what it got, and what it would have doubled; and who may have asked
//! again under another key.

use maud::{Markup, html};
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::tally::{Counts, DuplicateSeen, Place, Span, Stats};
use serde::Deserialize;

use super::frame::{Frame, Here, Html, heading, number, stacked};
use super::icons::Icon;
use super::stats::{self, percent, route_name, spans};
use super::suspects;
use super::words::{self, sign};
use crate::operator::{Asked, cursor_at, id_of, invalid, place_of, span_of};
use crate::problem::Problem;
use crate::view::View;

/// Those on a page, and how many are looked at for those of one kind.
const SHOWN: usize = 25;
const LOOKED_AT: usize = 500;

/// Routes that have a line.
const ROUTES_MAX: usize = 50;

/// Which of them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    over: Option<String>,
    /// Only those that got this.
    got: Option<String>,
    /// Only those that had the key of this operation.
    operation: Option<String>,
    /// Those before this one.
    cursor: Option<String>,
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

impl Wanted {
    fn span(&self) -> Result<Span, Problem> {
        Ok(span_of(self.over.as_ref())?.unwrap_or(Span::Day))
    }

    fn got(&self) -> Result<Option<Repeat>, Problem> {
        let Some(got) = self.got.as_deref().filter(|got| !got.is_empty()) else { return Ok(None) };
        let found = Repeat::ALL.into_iter().find(|repeat| repeat.name() == got);
        found
            .map(Some)
            .ok_or_else(|| invalid("got: replayed, joined, refused, mismatch, late or revived"))
    }

    /// Which of those that were read are wanted.
    fn which(&self) -> Result<Which, Problem> {
        let operation = self.operation.as_deref().filter(|id| !id.is_empty());
        Ok(Which { got: self.got()?, operation: operation.map(id_of).transpose()? })
    }

    /// The place that the cursor names.
    fn before(&self) -> Result<Option<Place>, Problem> {
        self.cursor.as_deref().filter(|it| !it.is_empty()).map(place_of).transpose()
    }
}

/// Those that are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Which {
    /// Those that got this alone.
    got: Option<Repeat>,
    /// Those of this operation alone.
    operation: Option<OperationId>,
}

impl Which {
    fn is_all(self) -> bool {
        self == Self::default()
    }

    fn wants(self, seen: &DuplicateSeen) -> bool {
        self.got.is_none_or(|got| got == seen.repeat)
            && self.operation.is_none_or(|id| id == seen.operation)
    }

    /// Its words, as the end of an address.
    fn written(self) -> String {
        let got = self.got.map_or_else(String::new, |got| format!("&got={}", got.name()));
        let operation = self.operation.map_or_else(String::new, |id| format!("&operation={id}"));
        got + &operation
    }
}

pub(super) async fn show(node: View, Asked(wanted): Asked<Wanted>) -> Result<Html, Problem> {
    let (span, which, before) = (wanted.span()?, wanted.which()?, wanted.before()?);
    let frame = Frame::of(&node).await?;
    let stats = node.stats(span).await?;
    let limit = if which.is_all() { SHOWN } else { LOOKED_AT };
    let seen = node.duplicates_seen(before, limit).await?;
    let (seen, cursor) = shown_of(seen, limit, which);
    let mut rows = Vec::with_capacity(seen.len());
    for seen in seen {
        // What is gone has nothing more to say, and its duplicate still does.
        let first = node.find(&seen.operation.to_string()).await.ok();
        rows.push((seen, first));
    }
    let older = cursor.map(|cursor| {
        format!("/duplicates?over={}{}&cursor={cursor}", span.name(), which.written())
    });
    let is_first = which.is_all() && before.is_none();
    let suspects = if is_first { Some(suspects::last(&node).await?) } else { None };
    let content = html! {
        (heading("Duplicates", &html! {
            "Calls whose key was known already: without a ledger, each would have been sent once more."
        }, "/v1/duplicates"))
        p { (spans("/duplicates", span)) }
        @if stats.total.repeated() == 0 && rows.is_empty() && is_first { (none(&stats)) }
        @else {
            @if which.operation.is_none() {
                (totals(&stats, which.got))
                (by_route(&stats))
            }
            (latest(&rows, which, before.is_some(), older.as_deref()))
        }
        @if let Some(suspects) = suspects { (suspects) }
    };
    Ok(Html(frame.page(Here::Duplicates, "Duplicates", &content)))
}

/// Those of what was read, at most `limit`, that are on the page, and where the next page begins: behind the
/// last of them, or behind all that was read.
fn shown_of(
    mut seen: Vec<DuplicateSeen>,
    limit: usize,
    which: Which,
) -> (Vec<DuplicateSeen>, Option<String>) {
    let end = seen.last().filter(|_| seen.len() >= limit).map(|seen| cursor_at(seen.place()));
    seen.retain(|seen| which.wants(seen));
    if seen.len() <= SHOWN {
        return (seen, end);
    }
    seen.truncate(SHOWN);
    let cursor = seen.last().map(|seen| cursor_at(seen.place()));
    (seen, cursor)
}

fn none(stats: &Stats) -> Markup {
    html! {
        div.empty.card {
            p { strong { "No call came twice in the last " (stats::words(stats.span)) "." } }
            p { "Send one again with the same key, and it is answered from the ledger:" }
            pre tabindex="0" { code { "curl -H 'Idempotency-Key: order-1' -d '{}' '…/to/demo/orders'   # twice" } }
        }
    }
}

/// What a duplicate got: its sign, and in a sentence what that means.
pub(super) fn told(repeat: Repeat) -> (Markup, &'static str) {
    match repeat {
        Repeat::Replayed => (
            sign("done", Icon::Done, "replayed"),
            "Got the answer of the first call, from the ledger. Nothing was sent.",
        ),
        Repeat::Joined => (
            sign("done", Icon::Delivering, "joined"),
            "Came while the first was under way, waited for it and got its answer. Nothing was sent.",
        ),
        Repeat::Refused => (
            sign("doubt", Icon::Pending, "refused"),
            "Came while the first was under way or in doubt, and was told so. Nothing was sent.",
        ),
        Repeat::Mismatch => (
            sign("dead", Icon::Warning, "mismatch"),
            "Another request under a used key: refused, and told which parts differ. Its sender has to mend that.",
        ),
        Repeat::Late => (
            sign("doubt", Icon::Gone, "late"),
            "Came after the window. Where its route refuses such, it was told that the key was used and nothing was sent; where it says on_expired = \"execute\", it was sent as a new operation. A longer window would have answered it.",
        ),
        Repeat::Revived => (
            sign("pending", Icon::Operations, "revived"),
            "The first had come to nothing: it was tried again, as the same operation and under the same key.",
        ),
    }
}

fn totals(stats: &Stats, got: Option<Repeat>) -> Markup {
    let total = &stats.total;
    let all = total.repeated();
    let calls = total.operations + all;
    let share = |count: u64, of: u64| if of == 0 { 0.0 } else { count as f64 * 100.0 / of as f64 };
    html! {
        section #totals {
            p.big {
                strong { (number(total.blocked())) } " blocked" span.soft {
                    " of " (number(all)) " that came again, which are " (percent(share(all, calls))) " of all " (number(calls)) " calls"
                }
            }
            (stacked("Duplicates by what they got", &html! {
                th { "It got" } th.number { "Calls" } th.number { "Share" } th { "What that means" }
            }, &html! {
                @for repeat in Repeat::ALL {
                    @let count = total.duplicates[repeat as usize];
                    @let (sign, words) = told(repeat);
                    tr.chosen[got == Some(repeat)] {
                        td { (sign) }
                        td.number data-label="Calls" {
                            @if count > 0 { a href={ "/duplicates?over=" (stats.span.name()) "&got=" (repeat.name()) "#latest" } { (number(count)) } }
                            @else { "0" }
                        }
                        td.number.soft data-label="Share" { (percent(share(count, all))) }
                        td.says { (words) }
                    }
                }
            }))
        }
    }
}

fn by_route(stats: &Stats) -> Markup {
    let mut routes: Vec<_> =
        stats.routes.iter().filter(|(_, counts)| counts.repeated() > 0).collect();
    routes.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.repeated()));
    let late = |counts: &Counts| counts.duplicates[Repeat::Late as usize];
    let mismatch = |counts: &Counts| counts.duplicates[Repeat::Mismatch as usize];
    html! {
        section #routes {
            h2 { "By route" }
            (stacked("Duplicates by route", &html! {
                th { "Route" } th.number { "Operations" } th.number { "Came again" } th.number { "Blocked" }
                th.number { "Late" } th.number { "Mismatch" }
            }, &html! {
                @for (name, counts) in routes.iter().take(ROUTES_MAX) {
                    tr {
                        td.what { strong { (route_name(name)) } }
                        td.number data-label="Operations" { (number(counts.operations)) }
                        td.number data-label="Came again" { (number(counts.repeated())) }
                        td.number data-label="Blocked" { (number(counts.blocked())) }
                        td.number data-label="Late" { (number(late(counts))) }
                        td.number data-label="Mismatch" { (number(mismatch(counts))) }
                    }
                }
            }))
            @if routes.len() > ROUTES_MAX { p.soft.small { "And " (routes.len() - ROUTES_MAX) " more with fewer." } }
        }
    }
}

/// A duplicate, and the operation that it would have doubled.
type Row = (DuplicateSeen, Option<Operation>);

fn latest(rows: &[Row], which: Which, is_older: bool, older: Option<&str>) -> Markup {
    let now = crate::shape::now();
    html! {
        section #latest {
            h2 {
                @if let Some(got) = which.got { "The last that were " (got.name()) } @else { "The last ones" }
                @if let Some(id) = which.operation { " of " a href=(words::url_of(id)) { code { (id) } } }
            }
            @if rows.is_empty() && older.is_some() { p.empty.card { "None so far: " q { "Older" } " looks further back." } }
            @else if rows.is_empty() { p.empty.card { "None is kept: of each time, only the last ones are." } }
            @else {
                (stacked("The last duplicates", &html! {
                    th { "When" } th { "It got" } th { "After the first" } th { "Asked again for" }
                    th { "Route" } th { "Asked by" }
                }, &html! { @for (seen, first) in rows { (row(seen, first.as_ref(), now)) } }))
            }
            nav.pager aria-label="Older and newer" {
                @if !which.is_all() || is_older { a href="/duplicates" { "Newest of all kinds" } }
                @if let Some(older) = older { a.older href=(older) rel="next" { "Older" } }
            }
        }
    }
}

fn row(seen: &DuplicateSeen, first: Option<&Operation>, now: Timestamp) -> Markup {
    let principal = if seen.principal.is_empty() { "anybody" } else { &seen.principal };
    html! {
        tr {
            td.when data-label="When" { (words::time(seen.at, now)) }
            td data-label="It got" { (told(seen.repeat).0) }
            td.number data-label="After the first" { (words::duration(seen.after)) }
            td.what data-label="Asked again for" {
                a.key href=(words::url_of(seen.operation)) {
                    @if let Some(first) = first { (first.key.as_str()) } @else { (seen.operation) }
                }
                @if let Some(first) = first {
                    span.request title=(first.target) { (first.method) " " (first.target) }
                }
            }
            td.route data-label="Route" { (route_name(&seen.route)) }
            td data-label="Asked by" { bdi { (principal) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seen(n: usize, repeat: Repeat) -> DuplicateSeen {
        DuplicateSeen {
            at: Timestamp::from_micros(1_000_000 - n as i64),
            operation: OperationId::from_u128(n as u128),
            repeat,
            after: Duration::ZERO,
            route: "crm".to_owned(),
            tenant: "default".to_owned(),
            principal: String::new(),
        }
    }

    #[test]
    fn a_page_of_one_kind_goes_on_behind_what_was_read_though_it_found_few_or_none() {
        let all: Vec<_> = (0..LOOKED_AT).map(|n| seen(n, Repeat::Replayed)).collect();
        let last = cursor_at(all[LOOKED_AT - 1].place());
        let of = |got| Which { got: Some(got), operation: None };
        let got = of(Repeat::Mismatch);
        assert_eq!(shown_of(all.clone(), LOOKED_AT, got), (vec![], Some(last.clone())));
        let mut few = all.clone();
        few[7] = seen(7, Repeat::Mismatch);
        assert_eq!(shown_of(few, LOOKED_AT, got), (vec![seen(7, Repeat::Mismatch)], Some(last)));
        let (shown, cursor) = shown_of(all.clone(), LOOKED_AT, of(Repeat::Replayed));
        assert_eq!((shown.len(), cursor), (SHOWN, Some(cursor_at(all[SHOWN - 1].place()))));
        let rest = all[..SHOWN].to_vec();
        assert_eq!(shown_of(rest.clone(), LOOKED_AT, of(Repeat::Replayed)), (rest, None));
        let one = Which { got: None, operation: Some(OperationId::from_u128(7)) };
        assert_eq!(shown_of(all, LOOKED_AT, one).0, vec![seen(7, Repeat::Replayed)]);
    }
}

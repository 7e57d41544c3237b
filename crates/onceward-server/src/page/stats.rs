//! Statistics as people see them: over which time, grouped so that a chart of them can be read.

use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::tally::{AD_HOC, CLAIMS, Counts, Histogram, OTHER, Point, Span, Stats};
use serde::Deserialize;

use super::chart::{self, About, Series, Times};
use super::frame::{number, table};
use crate::operator::span_of;
use crate::problem::Problem;

/// Over which time a page tells: `?over=24h`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Over {
    over: Option<String>,
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

impl Over {
    /// The span that is meant.
    pub(super) fn span(&self, usual: Span) -> Result<Span, Problem> {
        Ok(span_of(self.over.as_ref())?.unwrap_or(usual))
    }
}

/// The links to the other spans.
pub(super) fn spans(path: &str, span: Span) -> Markup {
    html! {
        nav.tabs aria-label="Over which time" {
            @for other in Span::ALL {
                a href={ (path) "?over=" (other.name()) } aria-current=[(other == span).then_some("true")] {
                    (words(other))
                }
            }
        }
    }
}

/// A span in words.
pub(super) fn words(span: Span) -> &'static str {
    match span {
        Span::Hour => "1 hour",
        Span::Day => "24 hours",
        Span::Week => "7 days",
    }
}

/// What statistics call a route, as people read it.
pub(super) fn route_name(name: &str) -> &str {
    match name {
        AD_HOC => "any other address (ad hoc)",
        CLAIMS => "claims",
        OTHER => "all other routes",
        name => name,
    }
}

/// The share of attempts that came to nothing, in per cent.
pub(super) fn failing(counts: &Counts) -> Option<f64> {
    let attempts: u64 = counts.attempts.iter().sum();
    (attempts > 0).then(|| counts.failed as f64 * 100.0 / attempts as f64)
}

/// A share in words.
pub(super) fn percent(share: f64) -> String {
    match share {
        _ if share == 0.0 => "0 %".to_owned(),
        _ if share < 10.0 => format!("{share:.1} %"),
        _ => format!("{share:.0} %"),
    }
}

/// A quantile in microseconds; zero where there is none.
fn micros(took: &Histogram, quantile: f64) -> u64 {
    took.quantile(quantile)
        .map_or(0, |took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1))
}

/// A quantile in words.
pub(super) fn quantile(took: &Histogram, quantile: f64) -> String {
    match micros(took, quantile) {
        0 => "-".to_owned(),
        micros => chart::spent(micros),
    }
}

/// Neighbours together, so that there are no more than sixty columns.
fn columns(stats: &Stats) -> Vec<Point> {
    let many = match stats.span {
        Span::Hour => 1,
        Span::Day | Span::Week => 3,
    };
    let together = |points: &[Point]| {
        let mut counts = Counts::default();
        for point in points {
            counts.add(&point.counts);
        }
        Point { at: points.first().map_or(Timestamp::from_micros(0), |point| point.at), counts }
    };
    stats.points.chunks(many).map(together).collect()
}

fn times(span: Span, columns: &[Point]) -> Times {
    let (marks, each): (&[_], _) = match span {
        Span::Hour => (&["1 h ago", "45 min", "30 min", "15 min", "now"], "each minute"),
        Span::Day => (&["24 h ago", "18 h", "12 h", "6 h", "now"], "each half hour"),
        Span::Week => (&["7 d ago", "6", "5", "4", "3", "2", "1 d", "now"], "each 3 hours"),
    };
    Times { begins: columns.iter().map(|column| column.at).collect(), marks, each }
}

/// Throughput, outcomes and latency, and the same in numbers.
pub(super) fn charts(stats: &Stats) -> Markup {
    let columns = columns(stats);
    let times = times(stats.span, &columns);
    let of =
        |value: fn(&Counts) -> u64| columns.iter().map(|column| value(&column.counts)).collect();
    let series = |name, hue, value| Series { name, hue, stroke: "", values: of(value) };
    let calls = [
        series("operations", "hue-1", |counts| counts.operations),
        series("duplicates blocked", "hue-2", Counts::blocked),
    ];
    let outcomes = [
        series("done", "hue-green", |counts| counts.done.saturating_sub(counts.recovered)),
        series("done after retry", "hue-pale", |counts| counts.recovered),
        series("dead, caller told", "hue-grey", |counts| counts.told),
        series("dead letters", "hue-red", |counts| counts.dead_letters),
        series("in doubt", "hue-amber", |counts| counts.in_doubt),
    ];
    let took = |name, hue, stroke, share: f64| {
        let values = columns.iter().map(|column| micros(&column.counts.took, share)).collect();
        (Series { name, hue, stroke, values }, quantile(&stats.total.took, share))
    };
    let latency = [
        took("p50", "hue-1", "", 0.5),
        took("p95", "hue-2", "dash", 0.95),
        took("p99", "hue-3", "dot", 0.99),
    ];
    let about = |id, title, unit: &str| About { id, title, unit: unit.to_owned() };
    html! {
        div.charts {
            (chart::stacked(&about("calls", "Calls", "remembered or blocked"), &times, &calls))
            (chart::stacked(&about("outcomes", "Outcomes", "operations that came to rest"), &times, &outcomes))
            (chart::lines(&about("latency", "Latency", "held calls, from arrival to answer"), &times, &latency))
        }
        (numbers(&columns))
    }
}

/// What the charts show, for whoever reads rather than looks.
fn numbers(columns: &[Point]) -> Markup {
    let head = html! {
        th { "From" } th.number { "Operations" } th.number { "Duplicates blocked" }
        th.number { "Done" } th.number { "After retry" } th.number { "Dead, told" }
        th.number { "Dead letters" } th.number { "In doubt" }
        th.number { "p50" } th.number { "p95" } th.number { "p99" }
    };
    let is_something = |column: &&Point| column.counts != Counts::default();
    let rows = html! {
        @for Point { at, counts } in columns.iter().rev().filter(is_something) {
            tr {
                td.when { (chart::clock(*at)) }
                @for count in [
                    counts.operations, counts.blocked(), counts.done, counts.recovered,
                    counts.told, counts.dead_letters, counts.in_doubt,
                ] { td.number { (number(count)) } }
                @for share in [0.5, 0.95, 0.99] { td.number { (quantile(&counts.took, share)) } }
            }
        }
    };
    html! {
        details.numbers {
            summary { "The numbers of these charts" }
            (table("The numbers of the charts", &head, &rows))
            p.soft.small { "The newest first; times in which nothing happened are left out." }
        }
    }
}

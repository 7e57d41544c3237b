//! "Since you last looked": what ended badly between the last visit to the overview and this one. When that was,
//! the browser keeps in a cookie, which says nothing else; without one nothing is said.

use std::time::Duration;

use http::HeaderValue;
use maud::{Markup, html};
use onceward::core::time::Timestamp;
use onceward::tally::{Counts, Span, Stats};

use super::frame::number;
use super::words;
use crate::access::{Arrival, Cookie};
use crate::problem::Problem;
use crate::view::View;

/// Looks that are closer together are one visit: a page that is read again has not been left.
const VISIT: Duration = Duration::from_mins(30);

/// How far back the longest span reaches.
const DAYS: u8 = 7;

/// When somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    /// The last look of the visit before this one.
    before: Option<Timestamp>,
    /// The last look.
    last: Timestamp,
}

impl Looks {
    /// As the browser says; what cannot be is not heeded.
    fn read(text: &str, now: Timestamp) -> Option<Self> {
        let (before, last) = text.split_once('.')?;
        let at = |text: &str| {
            let millis: i64 = text.parse().ok()?;
            let at = Timestamp::from_micros(millis.checked_mul(1000)?);
            (millis >= 0 && at <= now).then_some(at)
        };
        let (before, last) = (at(before)?, at(last)?);
        let before = Some(before).filter(|before| before.as_micros() > 0 && *before <= last);
        Some(Self { before, last })
    }

    /// What a browser said, with the look of now; one that a page does by itself is none.
    pub(super) fn with(arrival: &Arrival, now: Timestamp) -> Self {
        let looked = arrival.looked().and_then(|text| Self::read(text, now));
        match looked {
            Some(looked) if arrival.is_by_itself => looked,
            Some(looked) => looked.again(now),
            None => Self { before: None, last: now },
        }
    }

    fn again(self, now: Timestamp) -> Self {
        let is_new = now.since(self.last) > VISIT;
        Self { before: if is_new { Some(self.last) } else { self.before }, last: now }
    }

    /// The line with which the browser keeps it.
    pub(super) fn cookie(self, arrival: &Arrival) -> HeaderValue {
        let millis = |at: Timestamp| at.as_micros() / 1000;
        let value = format!("{}.{}", self.before.map_or(0, millis), millis(self.last));
        Cookie::Looked.set(&value, arrival.is_secured)
    }
}

/// What ended badly since the visit before this one. Sums of `known` spans are not read again.
pub(super) async fn line(
    node: &View,
    looks: Looks,
    known: [&Stats; 2],
    now: Timestamp,
) -> Result<Markup, Problem> {
    let Some(before) = looks.before else { return Ok(html! {}) };
    let span = span_of(now.since(before));
    let read;
    let stats = if let Some(stats) = known.into_iter().find(|stats| stats.span == span) {
        stats
    } else {
        read = node.stats(span).await?;
        &read
    };
    let counts = since(stats, before);
    let dead = counts.dead_letters + counts.told;
    // Of what was before the first point nothing is known.
    let is_longer_ago = stats.points.first().is_some_and(|first| first.at > before);
    Ok(html! {
        p.since #since {
            "Since you last looked, " (words::time(before, now)) ": "
            @if is_longer_ago { "in the last " (DAYS) " days " }
            @if dead + counts.in_doubt == 0 { "nothing ended badly" }
            @if dead > 0 {
                a href="/operations?state=dead" { strong { (number(dead)) } " dead" }
                @if counts.told > 0 { " (of " (number(counts.told)) " the caller was told)" }
            }
            @if dead > 0 && counts.in_doubt > 0 { " and " }
            @if counts.in_doubt > 0 {
                a href="/operations?state=in_doubt" { strong { (number(counts.in_doubt)) } " in doubt" }
            }
            span.soft { ", of " (number(counts.operations)) @if counts.operations == 1 { " operation" } @else { " operations" } " that came" }
            "."
        }
    })
}

/// The finest that reaches back so far.
fn span_of(ago: Duration) -> Span {
    match ago.as_secs() {
        ..3_600 => Span::Hour,
        3_600..86_400 => Span::Day,
        _ => Span::Week,
    }
}

/// The sum of the points from that in which `before` lies: a little too much is told twice, and nothing is left
/// out.
fn since(stats: &Stats, before: Timestamp) -> Counts {
    let points = stats.points.iter().filter(|point| point.at.plus(stats.step) > before);
    let mut counts = Counts::default();
    for point in points {
        counts.add(&point.counts);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use onceward::tally::Point;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_micros(minutes * 60_000_000)
    }

    #[test]
    fn a_visit_goes_on_while_somebody_looks_and_the_one_before_is_where_they_left() {
        let first = Looks { before: None, last: at(100) };
        let same = first.again(at(125)).again(at(150));
        assert_eq!(same, Looks { before: None, last: at(150) });
        let next = same.again(at(400));
        assert_eq!(next, Looks { before: Some(at(150)), last: at(400) });
        assert_eq!(next.again(at(401)).before, Some(at(150)), "read again it is the same visit");
        assert_eq!(next.again(at(900)).before, Some(at(400)));
    }

    #[test]
    fn what_a_browser_cannot_know_is_not_heeded() {
        let now = at(1000);
        for (text, looks) in [
            ("0.60000", Some(Looks { before: None, last: at(1) })),
            ("60000.120000", Some(Looks { before: Some(at(1)), last: at(2) })),
            ("120000.60000", Some(Looks { before: None, last: at(1) })),
            ("0.99999999999", None),
            ("-1.60000", None),
            ("0.9223372036854775807", None),
            ("x.y", None),
            ("", None),
        ] {
            assert_eq!(Looks::read(text, now), looks, "{text}");
        }
    }

    #[test]
    fn what_is_told_begins_with_the_point_in_which_somebody_left() {
        let point = |n: i64| Point {
            at: at(10 * n),
            counts: Counts { dead_letters: 1, ..Counts::default() },
        };
        let stats = Stats {
            span: Span::Day,
            step: Duration::from_mins(10),
            points: (0..6).map(point).collect(),
            total: Counts::default(),
            routes: Vec::new(),
        };
        let told = |minute| since(&stats, at(minute)).dead_letters;
        assert_eq!(told(25), 4);
        assert_eq!(told(30), 3);
        assert_eq!(told(70), 0, "a clock that is ahead");
    }
}

//! Who asked again for an operation, when, and what each got.

use std::time::Duration;

use maud::{Markup, html};
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::store::Asked;
use onceward::tally::DuplicateSeen;

use super::{duplicates, words};
use crate::problem::Problem;
use crate::view::View;

/// Duplicates of all operations that are looked at for this one's.
const LOOKED_AT: usize = 500;

/// Those that have a line.
const SHOWN: usize = 20;

/// How much later the note of a duplicate may be than its arrival.
const LATER: Duration = Duration::from_mins(1);

/// What those who asked again got, as far as it is kept, the newest first.
pub(super) async fn of(
    node: &View,
    operation: &Operation,
    asked: &Asked,
) -> Result<Vec<DuplicateSeen>, Problem> {
    let Some(last) = asked.times.last() else { return Ok(Vec::new()) };
    // What is noted of it may be later than when it came.
    let before = (last.plus(LATER), OperationId::from_u128(u128::MAX));
    let mut seen = node.duplicates_seen(Some(before), LOOKED_AT).await?;
    seen.retain(|seen| seen.operation == operation.id);
    Ok(seen)
}

pub(super) fn show(
    operation: &Operation,
    asked: &Asked,
    seen: &[DuplicateSeen],
    now: Timestamp,
) -> Markup {
    let rest = asked.count.saturating_sub(seen.len() as u64);
    html! {
        section.card #again {
            h2 { "Asked again" }
            @if asked.count == 0 { p.soft { "Nobody asked again with this key." } }
            @else {
                p {
                    strong { (asked.count) @if asked.count == 1 { " time" } @else { " times" } }
                    @if !seen.is_empty() { ": " (summed(seen)) } "."
                }
                @if rest > 0 {
                    p.soft.small {
                        @if seen.is_empty() { "What they got is not kept any more." }
                        @else { "What " (rest) " of them got is not kept any more." }
                    }
                }
                ol.plain.small {
                    @for seen in seen.iter().take(SHOWN) {
                        li {
                            (duplicates::told(seen.repeat).0) " " (words::time(seen.at, now))
                            @if !seen.principal.is_empty() { " by " bdi { (seen.principal) } }
                        }
                    }
                    @if seen.is_empty() {
                        @for at in asked.times.iter().rev() { li { (words::exact(*at)) } }
                    }
                }
                p.small { a href={ "/duplicates?operation=" (operation.id) "#latest" } { "Among all duplicates" } }
            }
        }
    }
}

/// How many got what, in words.
fn summed(seen: &[DuplicateSeen]) -> String {
    let said = Repeat::ALL.into_iter().filter_map(|repeat| {
        let count = seen.iter().filter(|seen| seen.repeat == repeat).count();
        (count > 0).then(|| format!("{count} {}", got(repeat)))
    });
    said.collect::<Vec<_>>().join(", ")
}

/// What a duplicate got, behind how many did.
fn got(repeat: Repeat) -> &'static str {
    match repeat {
        Repeat::Replayed => "replayed",
        Repeat::Joined => "joined the first",
        Repeat::Refused => "refused while it was open",
        Repeat::Mismatch => "refused as another request",
        Repeat::Late => "after its window",
        Repeat::Revived => "tried it again",
    }
}

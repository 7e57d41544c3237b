//! How far an attempt got, step by step, and how long each took: as a bar, and in words.

use std::time::Duration;

use maud::{Markup, html};
use onceward::core::attempt::{Attempt, Ended, Phase, Reached};

use super::chart::spent;
use super::words;

/// How wide the whole of a bar is in the drawing, which stretches; and how wide the shortest part is.
const WIDTH: u64 = 1_000;
const PART_MIN: u64 = 4;

/// What went by before the first phase is told from here on: less is nothing to a person.
const BEFORE_MIN: Duration = Duration::from_millis(1);

/// A step, in words.
struct Step {
    words: &'static str,
    hue: &'static str,
    is_reached: bool,
    /// What was spent on it, where that was measured.
    took: Option<Duration>,
}

/// The steps of an attempt that has ended.
pub(super) fn show(attempt: &Attempt, ended: &Ended) -> Markup {
    let steps = steps(attempt, ended);
    let longest = steps.iter().filter_map(|step| step.took).max();
    let is_longest = |step: &Step| step.took.is_some() && step.took == longest;
    html! {
        (bar(&steps))
        ol.track aria-label={ "It got as far as: " (words::reached(ended.reached)) } {
            @for step in &steps {
                li.(step.hue).got[step.is_reached].most[is_longest(step)] {
                    (step.words)
                    @if let Some(took) = step.took {
                        span.took { @if step.is_reached { " in " } @else { ": not in " } (spent(micros(took))) }
                    }
                }
            }
        }
    }
}

fn steps(attempt: &Attempt, ended: &Ended) -> Vec<Step> {
    let timings = &ended.timings;
    let step = |words, hue, took| Step { words, hue, is_reached: true, took };
    let mut steps = Vec::new();
    let lasted = ended.at.since(attempt.started_at);
    let before = lasted.saturating_sub(timings.sum());
    if !timings.is_empty() && before >= BEFORE_MIN {
        steps.push(step("began", "hue-grey", Some(before)));
    }
    if let Some(token) = timings.of(Phase::Token) {
        let is_reached = timings.each().nth(1).is_some();
        steps.push(Step { is_reached, ..step("access token", "hue-grey", Some(token)) });
    }
    if timings.reused {
        steps.push(step("connection reused", "hue-2", timings.of(Phase::Connect)));
    }
    for (reached, phase) in STEPS {
        let took = timings.of(phase).filter(|_| !(timings.reused && phase < Phase::Send));
        let is_told = match reached {
            Reached::Resolved | Reached::Connected => !timings.reused,
            // Once more was reached than TLS, nobody can tell here whether there was any to agree on.
            Reached::Secured => {
                took.is_some() || (!timings.reused && ended.reached <= Reached::Secured)
            }
            Reached::Nothing | Reached::Sent | Reached::Head | Reached::Body => true,
        };
        if is_told {
            let is_reached = reached <= ended.reached;
            steps.push(Step { is_reached, ..step(words::reached(reached), hue(phase), took) });
        }
    }
    steps
}

/// The steps, and what leads to each. The first, that it began, says nothing.
const STEPS: [(Reached, Phase); 6] = [
    (Reached::Resolved, Phase::Resolve),
    (Reached::Connected, Phase::Connect),
    (Reached::Secured, Phase::Tls),
    (Reached::Sent, Phase::Send),
    (Reached::Head, Phase::Head),
    (Reached::Body, Phase::Body),
];

/// The class of its colour.
fn hue(phase: Phase) -> &'static str {
    match phase {
        Phase::Token => "hue-grey",
        Phase::Resolve => "hue-3",
        Phase::Connect => "hue-2",
        Phase::Tls => "hue-amber",
        Phase::Send => "hue-pale",
        Phase::Head => "hue-1",
        Phase::Body => "hue-green",
    }
}

/// What the words say, drawn: each part as wide as its share of the time.
fn bar(steps: &[Step]) -> Markup {
    let parts: Vec<(&Step, u64)> =
        steps.iter().filter_map(|step| Some((step, micros(step.took?)))).collect();
    let all =
        parts.iter().map(|(_, took)| took).fold(0, |sum: u64, took| sum.saturating_add(*took));
    if all == 0 {
        return html! {};
    }
    let wide = |took: u64| {
        let share = u128::from(took) * u128::from(WIDTH) / u128::from(all);
        u64::try_from(share).unwrap_or(WIDTH).max(PART_MIN)
    };
    let mut end = 0;
    let drawn: Vec<_> = parts
        .iter()
        .map(|(step, took)| {
            let from = end;
            end += wide(*took);
            (*step, *took, from, end - from)
        })
        .collect();
    html! {
        svg.phases viewBox={ "0 0 " (end) " 8" } preserveAspectRatio="none" aria-hidden="true" {
            @for (step, took, from, wide) in drawn {
                rect class=(step.hue) x=(from) width=(wide) height="8" {
                    title { (step.words) ": " (spent(took)) }
                }
            }
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use onceward::core::attempt::{Ending, Timings};
    use onceward::core::lease::Session;
    use onceward::core::time::Timestamp;

    use super::*;

    fn shown(reached: Reached, timings: Timings) -> String {
        let ended = Ended {
            at: Timestamp::from_micros(60_000_000),
            ending: Ending::Unanswered,
            reached,
            status: None,
            error: None,
            may_have_executed: true,
            answer: None,
            timings,
        };
        let started_at = Timestamp::from_micros(29_000_000);
        let attempt = Attempt { n: 1, by: Session(1), started_at, ended: None };
        let text = show(&attempt, &ended).into_string();
        // The words alone.
        let list = text.split("<ol").nth(1).expect("a list").to_owned();
        list.split('<').filter_map(|tag| tag.split_once('>')).map(|(_, text)| text).collect()
    }

    #[test]
    fn what_an_attempt_broke_off_in_says_how_long_that_went_on() {
        let mut timings = Timings::new(true);
        timings.add(Phase::Send, Duration::from_micros(400));
        timings.add(Phase::Head, Duration::from_secs(30));
        let words = shown(Reached::Sent, timings);
        assert!(words.contains("began in 999 ms"), "{words}");
        assert!(words.contains("connection reused"), "{words}");
        assert!(words.contains("request sent in 0.4 ms"), "{words}");
        assert!(words.contains("answer began: not in 30 s"), "{words}");
        assert!(!words.contains("address found") && !words.contains("TLS"), "{words}");
    }

    #[test]
    fn where_nobody_measured_the_steps_are_told_alone() {
        let words = shown(Reached::Connected, Timings::default());
        let steps = "address foundconnectedTLS agreedrequest sentanswer beganwhole answer";
        assert_eq!(words, steps);
    }

    #[test]
    fn each_part_of_the_bar_is_as_wide_as_its_share_and_none_is_too_thin_to_be_seen() {
        let mut timings = Timings::new(false);
        timings.add(Phase::Resolve, Duration::from_micros(1));
        timings.add(Phase::Connect, Duration::from_secs(1));
        timings.add(Phase::Head, Duration::from_secs(30));
        let ended = |timings| Step { words: "", hue: "", is_reached: true, took: timings };
        let steps: Vec<_> = timings.each().map(|(_, took)| ended(Some(took))).collect();
        let drawn = bar(&steps).into_string();
        for part in [r#"x="0" width="4""#, r#"x="4" width="32""#, r#"x="36" width="967""#] {
            assert!(drawn.contains(part), "{part}\n{drawn}");
        }
    }
}

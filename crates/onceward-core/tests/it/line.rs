//! The line of those about one subject, under any order of arrivals, turns and ends.

use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::line::{End, Line, Place, Step, Turn};
use onceward_core::time::Timestamp;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(SECOND * u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// Number `n` to come, with this sequence.
fn place(n: u64, sequence: Option<u64>) -> Place {
    Place { sequence, id: OperationId::new(n, n) }
}

fn done() -> End {
    End { counts: true, blocks_until: None, forgotten_at: at(1000) }
}

fn failed(until: u64) -> End {
    End { counts: false, blocks_until: Some(at(until)), forgotten_at: at(1000) }
}

fn line(places: &[Place]) -> Line {
    let mut line = Line::default();
    for place in places {
        line.join(*place);
    }
    line
}

fn next(line: &Line, now: u64) -> Step {
    line.next(Duration::ZERO, at(now))
}

#[test]
fn they_go_in_the_order_of_their_sequence_and_then_as_they_came() {
    let places = [place(1, Some(3)), place(2, Some(1)), place(3, Some(3)), place(4, None)];
    let mut line = line(&places);
    let mut went = Vec::new();
    while let Step::Go(first) = next(&line, 0) {
        line.leave(first.id);
        went.push(first.id.sequence());
    }
    assert_eq!(went, [4, 2, 1, 3]);
}

#[test]
fn an_older_one_than_one_that_was_done_is_superseded_even_while_another_has_the_turn() {
    let (first, old, newer) = (place(1, Some(5)), place(2, Some(4)), place(3, Some(6)));
    let mut line = line(&[first]);
    line.end(first, done());
    line.join(newer);
    line.leave(newer.id);
    line.turn = Turn::Of(newer);
    line.join(old);
    line.join(place(4, Some(5)));
    assert_eq!(next(&line, 0), Step::Supersede(vec![old], first.id), "one as new is not older");
}

#[test]
fn what_never_ran_supersedes_nothing() {
    let (first, old) = (place(1, Some(5)), place(2, Some(4)));
    let mut line = line(&[first]);
    line.end(first, failed(60));
    line.join(old);
    assert_eq!(next(&line, 0), Step::Go(old), "and keeps only those behind it");
}

#[test]
fn a_failed_one_keeps_those_behind_it_waiting_for_so_long_and_no_longer() {
    let (first, second) = (place(1, Some(1)), place(2, Some(2)));
    let mut line = line(&[first, second]);
    line.end(first, failed(60));
    assert_eq!(next(&line, 0), Step::Wait(second, at(60)));
    assert_eq!((line.before(second.id, at(0)), line.behind(first.id, at(0))), (Some(first.id), 1));
    assert_eq!(next(&line, 60), Step::Go(second));
    assert_eq!((line.before(second.id, at(60)), line.behind(first.id, at(60))), (None, 0));
    line.join(first);
    assert_eq!(next(&line, 0), Step::Go(first), "it comes back before them");
}

#[test]
fn a_gap_is_waited_for_where_that_is_wanted() {
    let gap = Duration::from_secs(9);
    let came = |sequence| Place { sequence: Some(sequence), id: OperationId::new(1 << 20, 1) };
    let since = came(1).id.made_at();
    let mut line = Line::default();
    line.join(came(2));
    assert_eq!(line.next(gap, since), Step::Wait(came(2), since.plus(gap)));
    assert_eq!(line.next(Duration::ZERO, since), Step::Go(came(2)));
    assert_eq!(line.next(gap, since.plus(gap)), Step::Go(came(2)));
    line.end(place(1, Some(1)), failed(0));
    assert_eq!(line.next(gap, since), Step::Go(came(2)), "how it ended does not matter");
}

#[test]
fn a_line_is_kept_for_as_long_as_its_newest_is_and_no_longer() {
    let mut line = line(&[place(1, Some(1))]);
    assert!(!line.is_over(at(5000)), "somebody waits");
    line.end(place(1, Some(1)), done());
    assert_eq!((line.is_over(at(999)), line.is_over(at(1000))), (false, true));
    let mut unnumbered = Line::default();
    unnumbered.end(place(1, None), done());
    assert!(unnumbered.is_over(at(0)), "nothing is known of it that could be asked for");
    unnumbered.end(place(2, None), failed(60));
    assert_eq!((unnumbered.is_over(at(59)), unnumbered.is_over(at(60))), (false, true));
}

#[derive(Debug, Clone)]
enum Event {
    Joins(Option<u64>),
    Moves,
    Ends(End),
    TakenBack,
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let end = (any::<bool>(), proptest::option::of(0u64..200)).prop_map(|(counts, until)| End {
        counts,
        blocks_until: until.map(at),
        forgotten_at: at(1000),
    });
    prop_oneof![
        4 => proptest::option::weighted(0.8, 0u64..12).prop_map(Event::Joins),
        4 => Just(Event::Moves),
        2 => end.prop_map(Event::Ends),
        1 => Just(Event::TakenBack),
        1 => (0u64..40).prop_map(Event::Passes),
    ]
}

proptest! {
    #[test]
    fn one_goes_at_a_time_none_after_a_newer_one_and_all_get_out(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let (mut line, mut now, mut born) = (Line::default(), 0, 0u64);
        let mut newest: Option<u64> = None;
        let mut inside = Vec::new();
        let drain = std::iter::repeat_n([Event::Moves, Event::Ends(done()), Event::Passes(300)], 130);
        for event in events.into_iter().chain(drain.flatten()) {
            match event {
                Event::Joins(sequence) => {
                    born += 1;
                    let place = place(born, sequence);
                    prop_assert!(line.join(place));
                    prop_assert!(!line.join(place), "once");
                    inside.push(place);
                }
                Event::Moves => match line.next(Duration::ZERO, at(now)) {
                    Step::Go(first) => {
                        prop_assert_eq!(line.turn, Turn::Free);
                        prop_assert!(first.sequence.is_none() || first.sequence >= newest);
                        prop_assert!(line.waiting.iter().all(|other| *other >= first));
                        prop_assert!(line.block.is_none_or(|it| it.until <= at(now) || it.place > first));
                        line.leave(first.id);
                        line.turn = Turn::Of(first);
                    }
                    Step::Supersede(old, _) => {
                        for place in old {
                            prop_assert!(place.sequence < newest);
                            line.leave(place.id);
                            inside.retain(|other| *other != place);
                        }
                    }
                    Step::TakeBack(head) => {
                        line.leave(head.id);
                        line.join(head);
                    }
                    Step::Wait(_, until) => prop_assert!(until > at(now)),
                    Step::Look(_) | Step::Rest => {}
                },
                Event::Ends(end) => {
                    let Turn::Of(head) = line.turn else { continue };
                    line.end(head, end);
                    inside.retain(|other| *other != head);
                    if end.counts {
                        newest = newest.max(head.sequence);
                    }
                }
                Event::TakenBack => {
                    if let Turn::Of(head) = line.turn {
                        line.turn = Turn::BackFrom(head);
                    }
                }
                Event::Passes(seconds) => now += seconds,
            }
            for place in &inside {
                prop_assert!(line.has(place.id), "nobody is lost");
            }
        }
        prop_assert!(inside.is_empty(), "all get out: {:?}", line);
        prop_assert!(line.is_over(at(100_000)));
    }
}

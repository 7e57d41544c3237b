//! The life of an operation, arrow by arrow, and the verdicts that lead along them.

use std::time::Duration;

use onceward_core::attempt::{BodyRef, Ended, Ending};
use onceward_core::exchange::Headers;
use onceward_core::hint::Hint;
use onceward_core::lease::Session;
use onceward_core::operation::{
    Act, Death, Deed, Event, Forgotten, Operation, Outcome, Source, State,
};
use onceward_core::policy::{Effects, Meaning, Mode, Policy};
use onceward_core::risk::{Risk, risk};
use onceward_core::time::Timestamp;
use onceward_core::verdict::{self, Brought, Verdict};

use crate::made::{ended, fingerprint, operation};

const NOW: Timestamp = Timestamp::from_micros(5_000_000);

const NOTHING: Brought<'_> =
    Brought { headers: None, permanent: false, too_large: false, may_retry: true };

fn begun(effects: Effects, mode: Mode, method: &str) -> Operation {
    operation(effects, mode, method).after(Event::Started(Session(1)), NOW).unwrap()
}

fn how(ending: Ending, status: Option<u16>) -> Ended {
    ended(NOW, ending, status, &Policy::default(), Hint::default())
}

fn decide(op: &Operation, ending: Ending, status: Option<u16>) -> Verdict {
    verdict::decide(op, &Policy::default(), &how(ending, status), NOTHING, NOW)
}

/// After an attempt that ended so, by the machine's own verdict, and begun again where it waits.
fn again(op: &Operation, ending: Ending, status: Option<u16>) -> Operation {
    let verdict = decide(op, ending, status);
    let waits = op.after(Event::Ended(how(ending, status), verdict), NOW).unwrap();
    waits.after(Event::Started(Session(1)), NOW).unwrap()
}

fn act(deed: Deed) -> Act {
    Act { deed, at: NOW, who: "p".into(), reason: "r".into() }
}

fn outcome(status: u16) -> Outcome {
    Outcome { status: Some(status), ok: true, source: Source::Upstream, answer: None }
}

fn doubted(effects: Effects) -> Operation {
    let ended = Event::Ended(how(Ending::Unanswered, None), Verdict::Doubt);
    begun(effects, Mode::Held, "POST").after(ended, NOW).unwrap()
}

fn buried(mode: Mode, death: Death) -> Operation {
    let ended = Event::Ended(how(Ending::Unanswered, None), Verdict::Bury(death, None));
    begun(Effects::Keyed, mode, "POST").after(ended, NOW).unwrap()
}

#[test]
fn attempts_are_counted_from_one_and_a_run_from_its_beginning() {
    let mut op = begun(Effects::Idempotent, Mode::Held, "POST");
    assert_eq!((op.attempts_made(), op.attempts_in_run()), (1, 1));
    op = again(&op, Ending::Unsent, None);
    assert_eq!((op.attempts_made(), op.attempts_in_run()), (2, 2));
    let bury = Event::Ended(how(Ending::Unsent, None), Verdict::Bury(Death::Unsent, None));
    let dead = op.after(bury, NOW).unwrap();
    let revive = Event::Revived { due: NOW, mode: Mode::Accepted, act: None };
    let revived = dead.after(revive, NOW).unwrap();
    assert_eq!((revived.attempts_made(), revived.attempts_in_run()), (2, 0));
    let third = revived.after(Event::Started(Session(1)), NOW).unwrap();
    assert_eq!((third.attempts_made(), third.attempts_in_run()), (3, 1));
    let mark = dead.forgotten_but_for_its_mark();
    assert_eq!(mark.fence.0, dead.fence.0 + 1);
}

#[test]
fn the_upstreams_window_begins_with_the_first_attempt_that_may_have_been_executed() {
    let window = Duration::from_hours(24).mul_f64(0.8);
    for (effects, ending, send_by) in [
        (Effects::Keyed, Ending::Unanswered, Some(NOW.plus(window))),
        (Effects::Keyed, Ending::Unsent, None),
        (Effects::Idempotent, Ending::Unanswered, None),
    ] {
        let op = again(&begun(effects, Mode::Held, "POST"), ending, None);
        assert_eq!(op.send_by, send_by, "{effects:?} {ending:?}");
    }
    let first = again(&begun(Effects::Keyed, Mode::Held, "POST"), Ending::Unanswered, None);
    let later = NOW.plus(Duration::from_hours(1));
    let retry = Verdict::Retry { due: later };
    let ended = Ended { at: later, ..how(Ending::Unanswered, None) };
    let second = first.after(Event::Ended(ended, retry), later).unwrap();
    assert_eq!(second.send_by, first.send_by, "and not with a later one");
}

#[test]
fn a_late_answer_ends_a_doubt_and_nothing_else() {
    let answer = || Event::Ended(how(Ending::Answered, Some(201)), Verdict::Finish(outcome(201)));
    let done = doubted(Effects::NonIdempotent).after(answer(), NOW).unwrap();
    assert_eq!((done.state, done.ended_at), (State::Done, Some(NOW)));
    let dead = buried(Mode::Held, Death::Exhausted);
    assert!(dead.after(answer(), NOW).is_err(), "its attempt has ended");
    assert!(operation(Effects::Keyed, Mode::Held, "POST").after(answer(), NOW).is_err());
}

#[test]
fn a_person_who_says_that_nothing_was_sent_is_believed() {
    let doubt = doubted(Effects::Keyed);
    assert!(doubt.may_have_executed() && doubt.send_by.is_some());
    let revive = |act| Event::Revived { due: NOW, mode: Mode::Accepted, act };
    let trusted = doubt.after(revive(Some(act(Deed::ResolvedNotSent))), NOW).unwrap();
    assert!(!trusted.may_have_executed() && trusted.send_by.is_none());
    let dead = buried(Mode::Held, Death::Exhausted);
    let redelivered = dead.after(revive(Some(act(Deed::Redelivered))), NOW).unwrap();
    assert!(redelivered.may_have_executed() && redelivered.send_by.is_some());
    assert_eq!((redelivered.told, redelivered.ended_at), (false, None));
    let late = NOW.plus(Duration::from_hours(24));
    let at_risk = dead.after(revive(Some(act(Deed::Redelivered))), late).unwrap();
    assert!(at_risk.may_have_executed() && at_risk.send_by.is_none(), "the person takes the risk");
    assert_eq!(dead.after(revive(None), late).unwrap().send_by, dead.send_by, "a caller does not");
}

#[test]
fn a_redelivery_is_as_risky_as_what_is_known_of_the_attempts() {
    let late = NOW.plus(Duration::from_hours(24));
    let unsent = operation(Effects::NonIdempotent, Mode::Accepted, "POST");
    assert_eq!(risk(&unsent, late), Risk::Safe);
    assert_eq!(risk(&doubted(Effects::NonIdempotent), NOW), Risk::Unknown);
    assert_eq!(risk(&doubted(Effects::Idempotent), late), Risk::Safe);
    let keyed = doubted(Effects::Keyed);
    let send_by = keyed.send_by.unwrap();
    let just_before = Timestamp::from_micros(send_by.as_micros() - 1);
    assert_eq!(risk(&keyed, just_before), Risk::SameKey);
    assert_eq!(risk(&keyed, send_by), Risk::WindowOver);
    for risk in Risk::ALL {
        assert_eq!(Risk::from_name(risk.name()), Some(risk));
    }
}

#[test]
fn what_people_do_needs_the_state_that_it_is_for() {
    let (doubt, dead) = (doubted(Effects::NonIdempotent), buried(Mode::Held, Death::Exhausted));
    let pending = operation(Effects::Keyed, Mode::Held, "POST");
    let after = |op: &Operation, deed, outcome, forgotten| {
        op.after(Event::Acted(act(deed), outcome, forgotten), NOW).map(|op| op.state)
    };
    let resolve = |op| after(op, Deed::ResolvedDone, Some(outcome(200)), None);
    assert_eq!(resolve(&doubt), Ok(State::Done));
    assert!(resolve(&dead).is_err() && resolve(&pending).is_err());
    let forget = |op| after(op, Deed::Forgot, None, Some(Forgotten::New));
    assert_eq!(forget(&dead), Ok(dead.state));
    assert!(forget(&doubt).is_err() && forget(&pending).is_err());
    let cancel = |op| after(op, Deed::Cancelled, None, None);
    assert_eq!(cancel(&pending), Ok(State::Dead(Death::Cancelled)));
    assert!(cancel(&doubt).is_err() && cancel(&dead).is_err());
    for op in [&doubt, &dead, &pending] {
        assert!(after(op, Deed::Redelivered, None, None).is_err(), "it would have no due time");
    }
    let not_sent = |op| after(op, Deed::ResolvedNotSent, None, None);
    assert_eq!(not_sent(&doubt), Ok(State::Dead(Death::Unsent)));
    assert!(not_sent(&dead).is_err() && not_sent(&pending).is_err());
    let trusted = doubt.after(Event::Acted(act(Deed::ResolvedNotSent), None, None), NOW).unwrap();
    assert!(!trusted.may_have_executed() && trusted.ended_at == Some(NOW));
    assert!(after(&dead, Deed::Resent, None, None).is_err(), "that is another operation's birth");
}

#[test]
fn a_dead_letter_is_dead_and_nobody_was_told() {
    let of = |op: &Operation| (op.told, op.is_dead_letter());
    assert_eq!(of(&buried(Mode::Held, Death::Exhausted)), (true, false));
    assert_eq!(of(&buried(Mode::Accepted, Death::Exhausted)), (false, true));
    assert_eq!(of(&doubted(Effects::Keyed)), (false, false));
    let cancelled = operation(Effects::Keyed, Mode::Accepted, "POST")
        .after(Event::Acted(act(Deed::Cancelled), None, None), NOW)
        .unwrap();
    assert_eq!(of(&cancelled), (true, false));
}

#[test]
fn what_may_have_been_executed_and_died_is_remembered_for_longer() {
    let day = Duration::from_hours(24);
    let window = Policy::default().window;
    for (death, days) in [(Death::Exhausted, 30), (Death::OwnerGone, 30), (Death::Refused, 3)] {
        let op = buried(Mode::Held, death);
        assert_eq!(op.key_expires_at(), Some(NOW.plus(day * days)), "{death:?}");
    }
    let long = Operation { window: day * 90, ..buried(Mode::Held, Death::Exhausted) };
    assert_eq!(long.key_expires_at(), Some(NOW.plus(day * 90)));
    assert_eq!(doubted(Effects::Keyed).key_expires_at(), None);
    assert_eq!(window, day * 3);
}

#[test]
fn every_body_that_an_operation_refers_to_is_told() {
    let body = |offset| BodyRef { segment: 1, offset, length: 1, crc: 0 };
    let mut op = doubted(Effects::Keyed);
    op.request = Some(body(1));
    op.attempts[0].ended.as_mut().unwrap().answer = Some(body(2));
    op.outcome = Some(Outcome { answer: Some(body(3)), ..outcome(201) });
    assert_eq!(op.bodies().map(|body| body.offset).collect::<Vec<_>>(), [1, 2, 3]);
    let mark = op.forgotten_but_for_its_mark();
    assert_eq!((mark.bodies().count(), mark.attempts.len()), (0, 0));
}

#[test]
fn a_refusal_that_asks_to_come_back_is_for_now_only() {
    let policy = Policy::default();
    for (status, retry_after, meaning) in [
        (400, false, Meaning::Final),
        (400, true, Meaning::Refused),
        (499, true, Meaning::Refused),
        (200, true, Meaning::Final),
        (302, true, Meaning::Final),
        (429, true, Meaning::NotProcessed),
        (503, true, Meaning::Ambiguous),
        (599, false, Meaning::Ambiguous),
        (501, false, Meaning::Refused),
    ] {
        let wait = retry_after.then_some(Duration::from_secs(3));
        let hint = Hint { wait, ..Hint::default() };
        assert_eq!(verdict::meaning(status, &policy, hint), meaning, "{status}");
    }
    let mut op = begun(Effects::Keyed, Mode::Held, "POST");
    let mut headers = Headers::default();
    headers.set("retry-after", "3");
    let brought = Brought { headers: Some(&headers), ..NOTHING };
    let refused = how(Ending::Answered, Some(404));
    let verdict = verdict::decide(&op, &policy, &refused, brought, NOW);
    assert_eq!(verdict, Verdict::Bury(Death::Refused, None));
    let busy = how(Ending::Answered, Some(429));
    let wait = |op: &Operation| match verdict::decide(op, &policy, &busy, brought, NOW) {
        Verdict::Retry { due } => due.since(NOW),
        other => panic!("{other:?}"),
    };
    assert!(wait(&op) >= Duration::from_secs(3), "never earlier than asked");
    op.deadline = Some(NOW.plus(Duration::from_secs(2)));
    let late = verdict::decide(&op, &policy, &busy, brought, NOW);
    assert_eq!(late, Verdict::Bury(Death::Exhausted, None), "nobody would wait so long");
}

#[test]
fn what_the_route_says_of_a_status_goes_before_the_table() {
    let said = [
        (404, Meaning::Ambiguous),
        (409, Meaning::Refused),
        (500, Meaning::Final),
        (503, Meaning::NotProcessed),
    ];
    let policy = Policy { statuses: said.into(), ..Policy::default() };
    let op = begun(Effects::NonIdempotent, Mode::Held, "POST");
    let decide = |status| {
        let end = how(Ending::Answered, Some(status));
        verdict::decide(&op, &policy, &end, NOTHING, NOW)
    };
    assert_eq!(decide(404), Verdict::Doubt);
    assert_eq!(decide(409), Verdict::Bury(Death::Refused, None));
    assert!(matches!(decide(500), Verdict::Finish(outcome) if !outcome.ok));
    assert!(matches!(decide(503), Verdict::Retry { .. }));
    let may = |status| {
        verdict::may_have_executed(Ending::Answered, Some(status), &policy, Hint::default())
    };
    assert_eq!([404, 409, 500, 503].map(may), [true, false, true, false]);
}

#[test]
fn a_refusal_after_an_attempt_that_may_have_worked_does_not_free_the_key() {
    let first = begun(Effects::Keyed, Mode::Held, "POST");
    assert_eq!(decide(&first, Ending::Answered, Some(401)), Verdict::Bury(Death::Refused, None));
    let second = again(&first, Ending::Unanswered, None);
    assert_eq!(decide(&second, Ending::Answered, Some(401)), Verdict::Bury(Death::Exhausted, None));
    let unsent = again(&first, Ending::Unsent, None);
    assert_eq!(decide(&unsent, Ending::Answered, Some(401)), Verdict::Bury(Death::Refused, None));
}

#[test]
fn what_may_have_been_executed_is_told_from_what_was_not() {
    let policy = Policy { statuses: [(503, Meaning::NotProcessed)].into(), ..Policy::default() };
    let may = |ending, status| verdict::may_have_executed(ending, status, &policy, Hint::default());
    assert!(may(Ending::Unanswered, None) && !may(Ending::Unsent, None));
    for (status, executed) in [
        (201, true),
        (302, true),
        (404, false),
        (429, false),
        (500, true),
        (503, false),
        (501, false),
    ] {
        assert_eq!(may(Ending::Answered, Some(status)), executed, "{status}");
        assert_eq!(may(Ending::Truncated, Some(status)), executed, "{status}, cut");
    }
    assert!(may(Ending::Truncated, None));
}

#[test]
fn what_can_never_be_sent_is_not_tried_again() {
    let op = begun(Effects::Idempotent, Mode::Accepted, "POST");
    let unsent = how(Ending::Unsent, None);
    let decided = |permanent| {
        let brought = Brought { permanent, ..NOTHING };
        verdict::decide(&op, &Policy::default(), &unsent, brought, NOW)
    };
    assert_eq!(decided(true), Verdict::Bury(Death::Unsent, None));
    assert!(matches!(decided(false), Verdict::Retry { .. }));
}

#[test]
fn attempts_end_with_their_number_and_their_time() {
    let policy = Policy::default();
    let mut op = begun(Effects::Keyed, Mode::Held, "POST");
    for _ in 1..policy.held.attempts_max {
        op = again(&op, Ending::Unanswered, None);
    }
    let over = Verdict::Bury(Death::Exhausted, None);
    assert_eq!(decide(&op, Ending::Unanswered, None), over, "as the route says");
    let mut op = begun(Effects::Keyed, Mode::Held, "POST");
    op.attempts_max = Some(1);
    assert_eq!(decide(&op, Ending::Unanswered, None), over, "as the caller says");
    let op = begun(Effects::Keyed, Mode::Held, "POST");
    let late = NOW.plus(policy.held.horizon);
    let ended = Ended { at: late, ..how(Ending::Unanswered, None) };
    assert_eq!(verdict::decide(&op, &policy, &ended, NOTHING, late), over, "no time is left");
}

#[test]
fn a_refusal_may_be_the_echo_of_an_attempt_that_worked() {
    let echo = |effects, method, status| {
        let op = again(&begun(effects, Mode::Held, method), Ending::Unanswered, None);
        decide(&op, Ending::Answered, Some(status))
    };
    let finished = |verdict| match verdict {
        Verdict::Finish(outcome) => Some((outcome.ok, outcome.source)),
        _ => None,
    };
    let gone = Some((true, Source::Inferred));
    assert_eq!(finished(echo(Effects::Idempotent, "DELETE", 404)), gone);
    assert_eq!(finished(echo(Effects::Idempotent, "DELETE", 410)), gone);
    assert_eq!(finished(echo(Effects::Idempotent, "PUT", 404)), Some((false, Source::Upstream)));
    assert!(matches!(echo(Effects::Keyed, "POST", 409), Verdict::Retry { .. }), "still at it");
    assert_eq!(echo(Effects::Idempotent, "PUT", 409), Verdict::Doubt, "nobody can tell who wrote");
    assert_eq!(echo(Effects::Keyed, "PUT", 412), Verdict::Doubt);
    // Where nothing was tried before, it is the upstream's own word.
    let first = begun(Effects::Idempotent, Mode::Held, "DELETE");
    let plain = finished(decide(&first, Ending::Answered, Some(404)));
    assert_eq!(plain, Some((false, Source::Upstream)));
    let wanted = Policy { delete_gone: true, ..Policy::default() };
    let gone = how(Ending::Answered, Some(404));
    let verdict = verdict::decide(&first, &wanted, &gone, NOTHING, NOW);
    assert_eq!(finished(verdict), Some((true, Source::Upstream)));
    let post = begun(Effects::Idempotent, Mode::Held, "POST");
    let verdict = verdict::decide(&post, &wanted, &gone, NOTHING, NOW);
    assert_eq!(finished(verdict), Some((false, Source::Upstream)), "for a DELETE only");
    let other = how(Ending::Answered, Some(400));
    let verdict = verdict::decide(&first, &wanted, &other, NOTHING, NOW);
    assert_eq!(finished(verdict), Some((false, Source::Upstream)), "and for what is gone");
}

#[test]
fn an_answer_that_is_not_kept_says_why() {
    let op = begun(Effects::NonIdempotent, Mode::Held, "POST");
    let source = |ending, too_large| {
        let brought = Brought { too_large, ..NOTHING };
        match verdict::decide(&op, &Policy::default(), &how(ending, Some(200)), brought, NOW) {
            Verdict::Finish(outcome) => outcome.source,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(source(Ending::Answered, false), Source::Upstream);
    assert_eq!(source(Ending::Answered, true), Source::TooLarge);
    assert_eq!(source(Ending::Truncated, true), Source::Truncated);
}

#[test]
fn what_is_due_too_late_does_not_begin() {
    let policy = Policy::default();
    let second = Duration::from_secs(1);
    let never = operation(Effects::Keyed, Mode::Held, "POST");
    let far = NOW.plus(Duration::from_hours(1000));
    assert_eq!(verdict::decide_unstarted(&never, &policy, far), None, "it is tried once");
    let bounded = Operation { deadline: Some(NOW), ..never.clone() };
    assert_eq!(verdict::decide_unstarted(&bounded, &policy, NOW), None);
    let over = Some(Verdict::Bury(Death::Unsent, None));
    assert_eq!(verdict::decide_unstarted(&bounded, &policy, NOW.plus(second)), over);
    let windowed = Operation { send_by: Some(NOW), ..never };
    assert_eq!(verdict::decide_unstarted(&windowed, &policy, NOW), Some(Verdict::Doubt));
    let before = Timestamp::from_micros(NOW.as_micros() - 1);
    assert_eq!(verdict::decide_unstarted(&windowed, &policy, before), None);
    let op = begun(Effects::Keyed, Mode::Held, "POST");
    let wait = decide(&op, Ending::Unanswered, None);
    let tried = op.after(Event::Ended(how(Ending::Unanswered, None), wait), NOW).unwrap();
    let end = Timestamp::default().plus(policy.held.horizon);
    assert_eq!(verdict::decide_unstarted(&tried, &policy, end), None);
    let over = Some(Verdict::Bury(Death::Exhausted, None));
    assert_eq!(verdict::decide_unstarted(&tried, &policy, end.plus(second)), over);
}

#[test]
fn what_an_owner_left_behind_is_judged_by_whether_it_may_have_been_done() {
    let policy = Policy::default();
    let assumed = how(Ending::Unanswered, None);
    let of = |op: &Operation, ended| verdict::decide_orphan(op, &policy, ended, NOW);
    for mode in [Mode::Held, Mode::Accepted] {
        let once = begun(Effects::NonIdempotent, mode, "POST");
        assert_eq!(of(&once, Some(&assumed)), Some(Verdict::Doubt));
    }
    let gone = Some(Verdict::Bury(Death::OwnerGone, None));
    assert_eq!(of(&begun(Effects::Keyed, Mode::Held, "POST"), Some(&assumed)), gone);
    assert_eq!(of(&operation(Effects::Keyed, Mode::Held, "POST"), None), gone);
    let accepted = begun(Effects::Keyed, Mode::Accepted, "POST");
    assert!(matches!(of(&accepted, Some(&assumed)), Some(Verdict::Retry { .. })));
    assert_eq!(of(&operation(Effects::Keyed, Mode::Accepted, "POST"), None), None);
    assert_eq!(accepted.fingerprint, fingerprint("a"));
}

#[test]
fn a_key_lasts_longer_or_as_long_and_is_never_opened_again() {
    let ended = Event::Ended(how(Ending::Answered, Some(201)), Verdict::Finish(outcome(201)));
    let done = begun(Effects::Keyed, Mode::Held, "POST").after(ended, NOW).unwrap();
    let day = Duration::from_hours(24);
    let extend =
        |op: &Operation, window, at| op.after(Event::Extended(act(Deed::Extended), window), at);
    let longer = extend(&done, done.window + day, NOW).unwrap();
    assert_eq!(longer.key_expires_at(), Some(NOW.plus(done.window + day)));
    assert!(extend(&done, done.window, NOW).is_err() && extend(&longer, done.window, NOW).is_err());
    assert!(extend(&done, done.window + day, NOW.plus(done.window)).is_err(), "it is over");
    let forget = Event::Acted(act(Deed::Forgot), None, Some(Forgotten::Refuse));
    let forgotten = done.after(forget, NOW).unwrap();
    assert!(extend(&forgotten, done.window + day, NOW).is_err());
    for open in [begun(Effects::Keyed, Mode::Held, "POST"), doubted(Effects::NonIdempotent)] {
        assert!(extend(&open, Duration::from_hours(9999), NOW).is_err());
        assert!(open.after(Event::Rotated(act(Deed::Rotated), open.id), NOW).is_err());
    }
    assert!(done.after(Event::Acted(act(Deed::Extended), None, None), NOW).is_err());
}

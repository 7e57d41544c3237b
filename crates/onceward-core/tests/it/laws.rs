//! Laws of the core, held over arbitrary histories: whatever an upstream answers and whoever
//! asks when, these stay true.

use std::time::Duration;

use onceward_core::admission::{self, Admission};
use onceward_core::attempt::{Ended, Ending};
use onceward_core::exchange::Headers;
use onceward_core::hint::{Hint, HintHeader};
use onceward_core::lease::Session;
use onceward_core::operation::{
    Act, Death, Deed, Event, Forgotten, Operation, Outcome, Source, State,
};
use onceward_core::policy::{Effects, Mode, OnDead, OnExpired, Policy};
use onceward_core::risk::risk;
use onceward_core::time::Timestamp;
use onceward_core::verdict::{self, Brought, Verdict};
use proptest::prelude::*;

use crate::made::{ended, fingerprint, operation};

/// What the world may do next to an operation.
#[derive(Debug, Clone)]
enum Move {
    Start,
    Answer(u16, Option<u32>, Option<(usize, &'static str)>),
    Cut(u16),
    Vanish,
    Refuse { permanent: bool },
    Orphan,
    AskAgain,
    Cancel,
    Redeliver,
    Pass(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    let status = prop_oneof![
        Just(200u16),
        Just(201),
        Just(302),
        Just(400),
        Just(401),
        Just(404),
        Just(409),
        Just(412),
        Just(429),
        100u16..600,
        Just(500),
        Just(503),
        Just(501)
    ];
    let said =
        prop_oneof![Just("true"), Just("false"), Just("abort-message"), Just("-1"), Just("250")];
    let hint = proptest::option::of((0..HintHeader::ALL.len(), said));
    prop_oneof![
        4 => Just(Move::Start),
        4 => (status.clone(), proptest::option::of(0u32..100_000), hint)
            .prop_map(|(status, wait, hint)| Move::Answer(status, wait, hint)),
        1 => status.prop_map(Move::Cut),
        2 => Just(Move::Vanish),
        2 => any::<bool>().prop_map(|permanent| Move::Refuse { permanent }),
        1 => Just(Move::Orphan),
        2 => Just(Move::AskAgain),
        1 => Just(Move::Cancel),
        1 => Just(Move::Redeliver),
        2 => (0u64..40 * 3600).prop_map(Move::Pass),
    ]
}

/// Applies a move as the engine does; a move that cannot be made now changes nothing.
fn apply(op: &Operation, step: &Move, policy: &Policy, now: &mut Timestamp) -> Option<Operation> {
    let end = |ended: Ended, headers: &Headers, permanent: bool| {
        let brought =
            Brought { headers: Some(headers), permanent, too_large: false, may_retry: true };
        let verdict = verdict::decide(op, policy, &ended, brought, *now);
        op.after(Event::Ended(ended, verdict), *now).ok()
    };
    let (none, silent) = (Headers::default(), Hint::default());
    match step {
        Move::Pass(seconds) => {
            *now = now.plus(Duration::from_secs(*seconds));
            None
        }
        Move::Start => {
            let State::Pending { due } = op.state else {
                return None;
            };
            if *now < due {
                *now = due;
            }
            match verdict::decide_unstarted(op, policy, *now) {
                Some(verdict) => op.after(Event::Ruled(verdict), *now).ok(),
                None => op.after(Event::Started(Session(1)), *now).ok(),
            }
        }
        _ if matches!(step, Move::AskAgain) => {
            match admission::admit(op, &fingerprint("a"), policy, *now) {
                Admission::Revive => {
                    op.after(Event::Revived { due: *now, mode: op.mode, act: None }, *now).ok()
                }
                Admission::TooLate => op.after(Event::Ruled(Verdict::Doubt), *now).ok(),
                _ => None,
            }
        }
        Move::Cancel => {
            let act = Act { deed: Deed::Cancelled, at: *now, who: "p".into(), reason: "r".into() };
            op.after(Event::Acted(act, None, None), *now).ok()
        }
        Move::Redeliver => {
            // Whoever takes a risk knows of it; nobody here does.
            if risk(op, *now).wants_a_word() || op.state == State::InDoubt {
                return None;
            }
            let act =
                Act { deed: Deed::Redelivered, at: *now, who: "p".into(), reason: "r".into() };
            op.after(Event::Revived { due: *now, mode: Mode::Accepted, act: Some(act) }, *now).ok()
        }
        _ if op.state != State::Delivering => None,
        Move::Answer(status, wait, hint) => {
            let mut headers = Headers::default();
            if let Some(wait) = wait {
                headers.set("retry-after", wait.to_string());
            }
            if let Some((which, said)) = hint {
                headers.set(HintHeader::ALL[*which].name(), *said);
            }
            let hint = Hint::of(&headers, &policy.hints, *now);
            end(ended(*now, Ending::Answered, Some(*status), policy, hint), &headers, false)
        }
        Move::Cut(status) => {
            end(ended(*now, Ending::Truncated, Some(*status), policy, silent), &none, false)
        }
        Move::Vanish => end(ended(*now, Ending::Unanswered, None, policy, silent), &none, false),
        Move::Refuse { permanent } => {
            end(ended(*now, Ending::Unsent, None, policy, silent), &none, *permanent)
        }
        Move::Orphan => {
            let ended = ended(*now, Ending::Unanswered, None, policy, silent);
            let verdict = verdict::decide_orphan(op, policy, Some(&ended), *now)?;
            op.after(Event::Ended(ended, verdict), *now).ok()
        }
        Move::AskAgain => None,
    }
}

fn effects() -> impl Strategy<Value = Effects> {
    prop_oneof![Just(Effects::Idempotent), Just(Effects::Keyed), Just(Effects::NonIdempotent)]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Held), Just(Mode::Accepted)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_promises(
        effects in effects(), mode in mode(), method in prop_oneof![Just("POST"), Just("DELETE"), Just("PUT")],
        steps in proptest::collection::vec(moves(), 0..60), believes in any::<bool>(),
    ) {
        let hints = if believes { HintHeader::ALL.to_vec() } else { Vec::new() };
        let policy = Policy { hints, ..Policy::default() };
        let mut now = Timestamp::from_micros(1);
        let mut op = operation(effects, mode, method);
        for step in &steps {
            let Some(next) = apply(&op, step, &policy, &mut now) else { continue };
            prop_assert!(next.fence > op.fence, "a fence only grows");
            prop_assert!(op.state != State::Done, "what is done never changes");
            prop_assert!(next.attempts.len() >= op.attempts.len(), "no attempt is ever lost");
            let numbers: Vec<u32> = next.attempts.iter().map(|attempt| attempt.n).collect();
            let counted: Vec<u32> = (1..=next.attempts.len() as u32).collect();
            prop_assert_eq!(numbers, counted, "attempts are numbered from 1");
            prop_assert_eq!(next.key.as_str(), "k");
            prop_assert_eq!(next.fingerprint, op.fingerprint);
            prop_assert_eq!(next.effects, op.effects);
            prop_assert_eq!(&next.upstream_key, &op.upstream_key);
            let risky = next.attempts.iter().filter(|attempt| attempt.may_have_executed()).count();
            if effects == Effects::NonIdempotent {
                prop_assert!(risky <= 1, "two attempts that may have been executed, and nobody took that risk");
                if op.state == State::InDoubt {
                    prop_assert!(false, "left doubt without evidence by {:?}", step);
                }
            }
            if next.attempts.len() > op.attempts.len() {
                prop_assert!(next.send_by.is_none_or(|send_by| now < send_by), "sent past the upstream's window");
            }
            if let State::Pending { due } = next.state {
                prop_assert!(due >= now || op.state != State::Delivering, "a retry is never due in the past");
            }
            prop_assert!(next.attempts_in_run() <= policy.backoff(Mode::Accepted).attempts_max);
            prop_assert_eq!(next.ended_at.is_some(), next.state.is_ended());
            prop_assert!(!admission::is_expired(&next, now) || next.state.is_ended(), "what is open never expires");
            op = next;
        }
        // Whatever happened, the same key is never free while the operation is open.
        if !op.state.is_ended() {
            let far = now.plus(Duration::from_hours(87600));
            prop_assert_ne!(admission::admit(&op, &fingerprint("a"), &policy, far), Admission::Fresh);
        }
    }

    #[test]
    fn a_mismatch_is_decided_before_the_state(effects in effects(), mode in mode(), steps in proptest::collection::vec(moves(), 0..30)) {
        let policy = Policy::default();
        let mut now = Timestamp::from_micros(1);
        let mut op = operation(effects, mode, "POST");
        for step in &steps {
            if let Some(next) = apply(&op, step, &policy, &mut now) {
                op = next;
            }
        }
        let other = admission::admit(&op, &fingerprint("b"), &policy, now);
        prop_assert!(matches!(other, Admission::Mismatch(_) | Admission::Fresh), "{:?}", other);
        if other == Admission::Fresh {
            prop_assert!(admission::is_expired(&op, now));
        }
    }
}

proptest! {
    #[test]
    fn a_hint_never_makes_a_doubt_a_retry_nor_undoes_a_success(
        effects in effects(), mode in mode(), method in prop_oneof![Just("POST"), Just("DELETE")],
        status in 100u16..600, cut in any::<bool>(), again in any::<bool>(), wait in proptest::option::of(0u32..100_000),
        first in any::<bool>(),
    ) {
        let now = Timestamp::from_micros(1);
        let policy = Policy { hints: vec![HintHeader::StripeShouldRetry], ..Policy::default() };
        let silent = Policy::default();
        let mut op = operation(effects, mode, method).after(Event::Started(Session(1)), now).unwrap();
        if !first && effects != Effects::NonIdempotent {
            let lost = ended(now, Ending::Unanswered, None, &silent, Hint::default());
            op = op.after(Event::Ended(lost, Verdict::Retry { due: now }), now).unwrap();
            op = op.after(Event::Started(Session(1)), now).unwrap();
        }
        let mut headers = Headers::default();
        if let Some(wait) = wait {
            headers.set("retry-after", wait.to_string());
        }
        headers.set("stripe-should-retry", again.to_string());
        let ending = if cut { Ending::Truncated } else { Ending::Answered };
        let decide = |policy: &Policy| {
            let end = ended(now, ending, Some(status), policy, Hint::of(&headers, &policy.hints, now));
            let brought = Brought { headers: Some(&headers), permanent: false, too_large: false, may_retry: true };
            (end.may_have_executed, verdict::decide(&op, policy, &end, brought, now))
        };
        let ((executed, heard), (would_be, table)) = (decide(&policy), decide(&silent));
        prop_assert!(executed == would_be || !executed && (400..500).contains(&status), "a hint says nothing of the effect");
        let retries = matches!(heard, Verdict::Retry { .. });
        if effects == Effects::NonIdempotent && would_be {
            prop_assert!(!retries, "{status} may have been executed and is sent again");
        }
        if table == Verdict::Doubt {
            prop_assert!(!retries, "{status} was doubt without the hint");
        }
        if policy.is_success(status) || status < 400 {
            prop_assert_eq!(&heard, &table, "what is done needs no hint");
        }
        if !again && !matches!((ending, status), (Ending::Truncated, _)) && !matches!(status, 404 | 409 | 410 | 412) {
            prop_assert!(!retries, "{status} is asked again although the upstream says no");
        }
    }
}

#[test]
fn an_upstreams_word_goes_before_the_table() {
    use Effects::{Idempotent, Keyed, NonIdempotent};
    let now = Timestamp::from_micros(1);
    let policy = Policy { hints: HintHeader::ALL.to_vec(), ..Policy::default() };
    let after = |effects, header: &str, said: &'static str, status| {
        let op =
            operation(effects, Mode::Held, "POST").after(Event::Started(Session(1)), now).unwrap();
        let mut headers = Headers::default();
        headers.set(header, said);
        let hint = Hint::of(&headers, &policy.hints, now);
        let end = ended(now, Ending::Answered, Some(status), &policy, hint);
        let brought = Brought {
            headers: Some(&headers),
            permanent: false,
            too_large: false,
            may_retry: true,
        };
        verdict::decide(&op, &policy, &end, brought, now)
    };
    let exhausted = Verdict::Bury(Death::Exhausted, None);
    let refused = Verdict::Bury(Death::Refused, None);
    for effects in [Idempotent, Keyed, NonIdempotent] {
        // A lock that another call holds (Stripe, Adyen): refused, and worth asking again.
        for (header, status) in [("stripe-should-retry", 409), ("transient-error", 422)] {
            let verdict = after(effects, header, "true", status);
            assert!(matches!(verdict, Verdict::Retry { .. }), "{effects:?} {status} {verdict:?}");
        }
        assert_eq!(after(effects, "x-should-retry", "false", 429), refused, "{effects:?}");
        let unclear = if effects == NonIdempotent { Verdict::Doubt } else { exhausted.clone() };
        assert_eq!(after(effects, "stripe-should-retry", "false", 500), unclear, "{effects:?}");
        assert_eq!(
            after(effects, "webhook-delivery", "abort-message", 503),
            unclear,
            "{effects:?}"
        );
    }
    assert_eq!(after(NonIdempotent, "stripe-should-retry", "true", 500), Verdict::Doubt);
    // Adyen's says that the error had no side effects.
    let transient = after(NonIdempotent, "transient-error", "true", 503);
    assert!(matches!(transient, Verdict::Retry { .. }), "{transient:?}");
    let Verdict::Retry { due } = after(Keyed, "x-amz-retry-after", "1500", 503) else {
        panic!("a keyed call is sent again")
    };
    assert!(due.since(now) >= Duration::from_millis(1500), "never earlier than asked");
}

fn verdict_of(effects: Effects, mode: Mode, ending: Ending, status: Option<u16>) -> Verdict {
    let now = Timestamp::from_micros(1);
    let policy = Policy::default();
    let op = operation(effects, mode, "POST").after(Event::Started(Session(1)), now).unwrap();
    let brought = Brought { headers: None, permanent: false, too_large: false, may_retry: true };
    verdict::decide(
        &op,
        &policy,
        &ended(now, ending, status, &policy, Hint::default()),
        brought,
        now,
    )
}

#[test]
fn the_table_of_effects_is_the_contract() {
    use Effects::{Idempotent, Keyed, NonIdempotent};
    for effects in [Idempotent, Keyed, NonIdempotent] {
        let after = |ending, status| verdict_of(effects, Mode::Held, ending, status);
        assert!(
            matches!(after(Ending::Unsent, None), Verdict::Retry { .. }),
            "unsent is retried everywhere"
        );
        for status in [408, 421, 425, 429] {
            assert!(
                matches!(after(Ending::Answered, Some(status)), Verdict::Retry { .. }),
                "{status}"
            );
        }
        for status in [401, 403, 407, 423, 426, 428, 431, 501, 505, 506, 508, 510, 511] {
            assert_eq!(
                after(Ending::Answered, Some(status)),
                Verdict::Bury(Death::Refused, None),
                "{status}"
            );
        }
        for status in [200, 201, 204, 302, 400, 404, 409, 422] {
            assert!(
                matches!(after(Ending::Answered, Some(status)), Verdict::Finish(_)),
                "{status}"
            );
        }
        let ambiguous = [(Ending::Unanswered, None)]
            .into_iter()
            .chain([500, 502, 503, 504, 507, 520, 529].map(|s| (Ending::Answered, Some(s))));
        for (ending, status) in ambiguous {
            match effects {
                NonIdempotent => assert_eq!(after(ending, status), Verdict::Doubt, "{status:?}"),
                Idempotent | Keyed => {
                    assert!(matches!(after(ending, status), Verdict::Retry { .. }), "{status:?}");
                }
            }
        }
    }
}

#[test]
fn an_accepted_refusal_is_dead_with_its_outcome_kept() {
    let Verdict::Bury(Death::Refused, Some(outcome)) =
        verdict_of(Effects::Keyed, Mode::Accepted, Ending::Answered, Some(404))
    else {
        panic!("a 404 that nobody waits for is a dead letter")
    };
    assert_eq!((outcome.status, outcome.ok, outcome.source), (Some(404), false, Source::Upstream));
}

#[test]
fn a_cut_answer_to_a_non_idempotent_call_is_known_but_not_retained() {
    let Verdict::Finish(outcome) =
        verdict_of(Effects::NonIdempotent, Mode::Held, Ending::Truncated, Some(201))
    else {
        panic!("the effect is known")
    };
    assert_eq!((outcome.ok, outcome.source), (true, Source::Truncated));
    assert!(matches!(
        verdict_of(Effects::Keyed, Mode::Held, Ending::Truncated, Some(201)),
        Verdict::Retry { .. }
    ));
}

#[test]
fn a_key_lives_from_completion_through_its_tombstone() {
    let policy = Policy::default();
    let now = Timestamp::from_micros(1);
    let op = operation(Effects::Keyed, Mode::Held, "POST")
        .after(Event::Started(Session(1)), now)
        .unwrap();
    let end = ended(now, Ending::Answered, Some(201), &policy, Hint::default());
    let outcome = Outcome { status: Some(201), ok: true, source: Source::Upstream, answer: None };
    let done = op.after(Event::Ended(end, Verdict::Finish(outcome)), now).unwrap();
    let at = |after: Duration| admission::admit(&done, &fingerprint("a"), &policy, now.plus(after));
    assert_eq!(at(Duration::ZERO), Admission::Replay);
    assert_eq!(at(policy.window.checked_sub(Duration::from_secs(1)).unwrap()), Admission::Replay);
    assert_eq!(at(policy.window), Admission::Expired);
    assert_eq!(at(policy.window + policy.tombstone), Admission::Fresh);
}

#[test]
fn an_accepted_retry_that_would_fall_behind_the_upstreams_window_goes_into_doubt() {
    let now = Timestamp::from_micros(1);
    let policy = Policy::default();
    let mut op = operation(Effects::Keyed, Mode::Accepted, "POST");
    op.intent_mut().upstream_window = Duration::from_millis(10);
    let op = op.after(Event::Started(Session(1)), now).unwrap();
    let brought = Brought { headers: None, permanent: false, too_large: false, may_retry: true };
    let decide = |op: &Operation| {
        let end = ended(now, Ending::Unanswered, None, &policy, Hint::default());
        verdict::decide(op, &policy, &end, brought, now)
    };
    assert_eq!(decide(&op), Verdict::Doubt);
    let mut known = op;
    known.intent_mut().upstream_window = Duration::from_hours(24);
    assert!(matches!(decide(&known), Verdict::Retry { .. }));
}

/// An operation that ended an hour after the epoch, changed as a row of a table says.
fn ended_as(state: State, change: impl Fn(&mut Operation)) -> Operation {
    let mut op = operation(Effects::Keyed, Mode::Held, "POST");
    op.state = state;
    op.ended_at = state.is_ended().then(|| Timestamp::default().plus(Duration::from_hours(1)));
    change(&mut op);
    op
}

#[test]
fn a_known_key_gets_what_the_contract_says() {
    let policy = Policy::default();
    let at = |hours: u64| Timestamp::default().plus(Duration::from_hours(hours));
    let (window, tombstone) = (policy.window.as_secs() / 3600, policy.tombstone.as_secs() / 3600);
    let (soon, expired, over) = (2, 1 + window, 1 + window + tombstone);
    let outcome = Outcome { status: Some(201), ok: true, source: Source::Upstream, answer: None };
    let fresh = Admission::Fresh;
    let plain = |_: &mut Operation| {};
    let kept = |op: &mut Operation| op.outcome = Some(outcome.clone());
    let sent_by = |op: &mut Operation| op.send_by = Some(at(2));
    let refused = |op: &mut Operation| op.forgotten = Some(Forgotten::Refuse);
    let freed = |op: &mut Operation| op.forgotten = Some(Forgotten::New);
    let dead = State::Dead;
    let pending = State::Pending { due: at(1) };
    let table: Vec<(Operation, u64, Admission)> = vec![
        (ended_as(pending, plain), over, Admission::Join),
        (ended_as(State::Delivering, plain), over, Admission::Join),
        (ended_as(State::InDoubt, plain), over, Admission::InDoubt),
        (ended_as(State::Done, kept), soon, Admission::Replay),
        (ended_as(State::Done, kept), expired - 1, Admission::Replay),
        (ended_as(State::Done, kept), expired, Admission::Expired),
        (ended_as(State::Done, kept), over - 1, Admission::Expired),
        (ended_as(State::Done, kept), over, fresh.clone()),
        (ended_as(dead(Death::Refused), kept), soon, Admission::Replay),
        (ended_as(dead(Death::Refused), kept), expired, Admission::Expired),
        (ended_as(dead(Death::Refused), plain), soon, Admission::Revive),
        (ended_as(dead(Death::Refused), plain), expired, fresh.clone()),
        (ended_as(dead(Death::Unsent), plain), expired, fresh.clone()),
        (ended_as(dead(Death::Cancelled), plain), soon, Admission::Cancelled),
        (ended_as(dead(Death::Cancelled), plain), expired, Admission::Expired),
        // What may have been executed stays for thirty days: its key opens the way to run it again.
        (ended_as(dead(Death::Exhausted), plain), expired, Admission::Revive),
        (ended_as(dead(Death::OwnerGone), plain), 720, Admission::Revive),
        (ended_as(dead(Death::OwnerGone), plain), 721, Admission::Expired),
        (ended_as(dead(Death::Exhausted), sent_by), 1, Admission::Revive),
        (ended_as(dead(Death::Exhausted), sent_by), 2, Admission::TooLate),
        (ended_as(State::Done, refused), soon, Admission::Invalidated),
        (ended_as(State::Done, refused), over - 1, Admission::Invalidated),
        (ended_as(State::Done, refused), over, fresh.clone()),
        (ended_as(State::Done, freed), soon, fresh.clone()),
    ];
    for (op, hours, wanted) in &table {
        let found = admission::admit(op, &fingerprint("a"), &policy, at(*hours));
        assert_eq!(&found, wanted, "{:?} after {hours} h", op.state);
    }
    let replays = Policy { on_dead: OnDead::Replay, ..policy.clone() };
    let exhausted = ended_as(dead(Death::Exhausted), plain);
    let found = admission::admit(&exhausted, &fingerprint("a"), &replays, at(soon));
    assert_eq!(found, Admission::ReplayFailure);
    let executes = Policy { on_expired: OnExpired::Execute, ..policy.clone() };
    let done = ended_as(State::Done, kept);
    let found = |hours| admission::admit(&done, &fingerprint("a"), &executes, at(hours));
    assert_eq!((found(expired - 1), found(expired)), (Admission::Replay, Admission::Fresh));
}

#[test]
fn what_is_over_says_that_its_key_was_used_until_its_tombstone_is() {
    let policy = Policy::default();
    let end = Timestamp::default().plus(Duration::from_hours(1)).plus(policy.window);
    let before = |at: Timestamp| Timestamp::from_micros(at.as_micros() - 1);
    let over = end.plus(policy.tombstone);
    let outcome = Outcome { status: Some(404), ok: false, source: Source::Upstream, answer: None };
    let done = ended_as(State::Done, |_| {});
    let refused = ended_as(State::Dead(Death::Refused), |_| {});
    let told = ended_as(State::Dead(Death::Refused), |op| op.outcome = Some(outcome.clone()));
    let forgotten = ended_as(State::Done, |op| op.forgotten = Some(Forgotten::Refuse));
    let open = ended_as(State::InDoubt, |_| {});
    for (op, at, leaves) in [
        (&done, before(end), false),
        (&done, end, true),
        (&done, before(over), true),
        (&done, over, false),
        (&told, end, true),
        (&refused, end, false),
        (&forgotten, end, false),
        (&open, over, false),
    ] {
        assert_eq!(admission::leaves_its_mark(op, at), leaves, "{:?}", op.state);
    }
    assert!(admission::leaves_no_tombstone(&refused) && !admission::leaves_no_tombstone(&told));
    assert!(!admission::leaves_no_tombstone(&done));
}

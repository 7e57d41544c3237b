//! A fuzz target: a row reads back as the operation it was, and no other bytes make its reader
//! fall, nor whoever is handed what it read.

use onceward_core::admission;
use onceward_core::attempt::{BodyRef, Ended, Ending, Reached, Timings};
use onceward_core::lease::Session;
use onceward_core::operation::{
    Act, Deed, Event, Forgotten, Illegal, Operation, Outcome, Source, UpstreamKey,
};
use onceward_core::policy::{Mode, Policy};
use onceward_core::time::Timestamp;
use onceward_core::upstream_key::KeyPlace;
use onceward_core::verdict::{self, Verdict};
use onceward_fuzz::Fuzz;

use super::{CHECKSUM_BYTES, KINDS, decode, encode};
use crate::store::contract;

const WORDS: &[&str] = &["\x01", "\x02", "\0", "\x7f", "\u{7ff}", "k", "POST"];

const NOW: Timestamp = Timestamp::from_micros(5);

fn row_of(operation: &Operation) -> Vec<u8> {
    let mut row = Vec::new();
    encode(operation, &mut row);
    row
}

/// An operation wherever one can stand.
pub(super) fn everywhere() -> Result<Vec<Operation>, Illegal> {
    let kept = Some(BodyRef { segment: 1, offset: 2, length: 3, crc: 4 });
    let pending = contract::operation(3, "key-1", "stripe", Mode::Accepted);
    let mut started = pending.after(Event::Started(Session(3)), NOW)?;
    started.intent_mut().upstream_key = Some(UpstreamKey {
        place: KeyPlace::Header("idempotency-key".into()),
        value: "key-1".into(),
    });
    started.request = kept;
    let ended = Ended {
        at: NOW,
        ending: Ending::Unanswered,
        reached: Reached::Sent,
        status: Some(503),
        error: Some("the answer broke off".into()),
        may_have_executed: true,
        answer: kept,
        timings: contract::timings(),
    };
    let outcome = Outcome { status: Some(201), ok: true, source: Source::Upstream, answer: kept };
    let finish = Event::Ended(ended.clone(), Verdict::Finish(outcome));
    let done = started.after(finish, NOW)?;
    let doubt = started.after(Event::Ended(ended, Verdict::Doubt), NOW)?;
    let act = |deed| Act { deed, at: NOW, who: "local".into(), reason: "in the books".into() };
    let not_sent = Some(act(Deed::ResolvedNotSent));
    let revived = doubt.after(Event::Revived { due: NOW, mode: Mode::Held, act: not_sent }, NOW)?;
    let cancelled = revived.after(Event::Acted(act(Deed::Cancelled), None, None), NOW)?;
    let forgot = Event::Acted(act(Deed::Forgot), None, Some(Forgotten::New));
    let forgotten = cancelled.after(forgot, NOW)?;
    let mark = forgotten.forgotten_but_for_its_mark();
    Ok(vec![pending, started, done, doubt, revived, cancelled, forgotten, mark])
}

#[test]
fn what_an_older_release_knows_nothing_of_is_written_so_that_it_passes_over_it() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut operation = contract::operation(3, "key-1", "stripe", Mode::Accepted);
        operation.intent_mut().scope.kind = kind;
        let row = row_of(&operation);
        assert_eq!(row[0], if number < 4 { 1 } else { 2 }, "{}", kind.name());
        assert_eq!(decode(&row).expect("just written"), operation);
    }
}

#[test]
fn what_phases_took_follows_what_older_releases_read() {
    for traced in [3, 4] {
        let pending = contract::operation(traced, "key-1", "stripe", Mode::Accepted);
        let done = contract::done(&contract::started(&pending), NOW);
        let mut unmeasured = done.clone();
        let last = unmeasured.attempts.last_mut().expect("one was made");
        last.ended.as_mut().expect("it has ended").timings = Timings::default();
        let (with, without) = (row_of(&done), row_of(&unmeasured));
        assert_eq!((with[0], without[0]), (1, 1));
        let head = 1 + CHECKSUM_BYTES;
        assert!(with.len() > without.len() && with[head..].starts_with(&without[head..]));
        assert_eq!(decode(&with).expect("just written"), done);
        assert_eq!(decode(&without).expect("just written"), unmeasured);
    }
}

#[test]
fn a_row_reads_back_and_other_bytes_are_refused_or_harmless() {
    let policy = Policy::default();
    let operations = everywhere().expect("a life");
    for operation in &operations {
        assert_eq!(&decode(&row_of(operation)).expect("just written"), operation);
    }
    let rows = operations.iter().map(row_of).collect();
    Fuzz::new("row", 10_000, WORDS).with(rows).run(|input| {
        let Ok(operation) = decode(input) else { return None };
        assert_eq!(decode(&row_of(&operation)).expect("just written"), operation);
        let admitted = admission::admit(&operation, &operation.fingerprint, &policy, NOW);
        let ruled = verdict::decide_unstarted(&operation, &policy, NOW);
        let mark = operation.forgotten_but_for_its_mark();
        assert!(mark.request.is_none() && mark.attempts_in_run() == 0);
        let attempts = operation.attempts.len().min(3);
        Some((operation.state.name(), format!("{admitted:?}"), ruled.is_some(), attempts))
    });
}

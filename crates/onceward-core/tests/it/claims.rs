//! Claims: whatever several workers do, one at a time has a key in hand, and what may have been done
//! is not begun again where that could do it twice.

use std::time::Duration;

use onceward_core::admission::is_expired;
use onceward_core::claim::{self, ATTEMPTS_KEPT, Begin, ClaimEvent, UNCOMPARED, Word};
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Act, Death, Deed, Event, Fence, Operation, Outcome, Source, State};
use onceward_core::policy::{Effects, Mode};
use onceward_core::time::Timestamp;
use proptest::prelude::*;

use crate::made::{fingerprint, operation};

const LEASE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000).plus(Duration::from_secs(seconds))
}

/// A claim that nobody has in hand yet.
fn newborn(effects: Effects, now: Timestamp) -> Operation {
    let mut claim = operation(effects, Mode::Held, "CLAIM");
    claim.intent_mut().scope.kind = ScopeKind::Claim;
    claim.intent_mut().route = String::new();
    claim.fence = claim::first_fence(now);
    claim
}

fn begun(claim: &Operation, now: Timestamp) -> Operation {
    let event = ClaimEvent::Begun { lease_until: now.plus(LEASE), holder: None };
    claim.after(Event::Claim(event), now).unwrap()
}

fn told(claim: &Operation, event: ClaimEvent, now: Timestamp) -> Operation {
    claim.after(Event::Claim(event), now).unwrap()
}

fn completed() -> ClaimEvent {
    ClaimEvent::Completed { status: None, ok: true }
}

fn released(free_at: Timestamp) -> ClaimEvent {
    ClaimEvent::Released { why: Some("busy".into()), free_at }
}

fn lapsed() -> ClaimEvent {
    ClaimEvent::Lapsed { why: "its lease was over".into() }
}

fn act(deed: Deed) -> Act {
    Act { deed, at: at(0), who: "p".into(), reason: "r".into() }
}

fn fence(claim: &Operation) -> Fence {
    claim::fence_of(claim).unwrap()
}

#[test]
fn what_is_in_hand_is_busy_until_its_lease_is_over() {
    for (effects, after) in [
        (Effects::Idempotent, Begin::Acquire),
        (Effects::Keyed, Begin::Acquire),
        (Effects::NonIdempotent, Begin::Lapse),
    ] {
        let claim = begun(&newborn(effects, at(0)), at(0));
        let asked = |seconds| claim::begin(&claim, &claim.fingerprint, at(seconds));
        assert_eq!(asked(29), Begin::Busy { until: at(30) });
        assert_eq!(asked(30), after, "{effects:?}");
        let renewed = told(&claim, ClaimEvent::Renewed { lease_until: at(50) }, at(20));
        assert_eq!(fence(&renewed), fence(&claim), "whoever renews keeps the fence");
        let asked = claim::begin(&renewed, &claim.fingerprint, at(49));
        assert_eq!(asked, Begin::Busy { until: at(50) });
    }
}

#[test]
fn a_lapse_frees_what_may_be_repeated_and_doubts_what_may_not() {
    let harmless = told(&begun(&newborn(Effects::Idempotent, at(0)), at(0)), lapsed(), at(30));
    assert_eq!(harmless.state, State::Dead(Death::OwnerGone));
    assert!(!harmless.is_dead_letter(), "whoever begins it next has it in hand");
    assert_eq!(claim::begin(&harmless, &UNCOMPARED, at(31)), Begin::Acquire);
    let second = begun(&harmless, at(31));
    assert_eq!((second.attempts_made(), second.attempts_in_run()), (2, 1));
    assert!(fence(&second) > fence(&harmless));

    let doubtful = told(&begun(&newborn(Effects::NonIdempotent, at(0)), at(0)), lapsed(), at(30));
    assert_eq!(claim::begin(&doubtful, &UNCOMPARED, at(31)), Begin::InDoubt);
    let event = ClaimEvent::Begun { lease_until: at(90), holder: None };
    assert!(doubtful.after(Event::Claim(event), at(31)).is_err());
    let vouched = act(Deed::ResolvedNotSent);
    let freed = doubtful.after(Event::Acted(vouched, None, None), at(40)).unwrap();
    assert_eq!(claim::begin(&freed, &UNCOMPARED, at(41)), Begin::Acquire);
    assert_eq!(begun(&freed, at(41)).attempts_made(), 2);
}

#[test]
fn the_late_word_of_who_had_it_last_is_evidence() {
    for effects in [Effects::Idempotent, Effects::NonIdempotent] {
        let claim = told(&begun(&newborn(effects, at(0)), at(0)), lapsed(), at(30));
        assert_eq!(claim::complete(&claim, fence(&claim)), Word::Holds);
        let done = told(&claim, completed(), at(40));
        let source = done.outcome.as_ref().unwrap().source;
        assert_eq!((done.state, source), (State::Done, Source::LateAnswer));
        assert_eq!(claim::complete(&done, fence(&claim)), Word::Said);
    }
    let doubtful = told(&begun(&newborn(Effects::NonIdempotent, at(0)), at(0)), lapsed(), at(30));
    let freed = told(&doubtful, released(at(31)), at(31));
    assert!(!freed.may_have_executed());
    assert_eq!(claim::begin(&freed, &UNCOMPARED, at(31)), Begin::Acquire);
    let taken =
        begun(&told(&begun(&newborn(Effects::Keyed, at(0)), at(0)), lapsed(), at(30)), at(31));
    let old = claim::first_fence(at(0)).0 + 1;
    assert_eq!(claim::complete(&taken, Fence(old)), Word::Stale, "somebody else has it in hand");
}

#[test]
fn what_is_given_back_is_free_and_leaves_no_mark() {
    let claim = begun(&newborn(Effects::NonIdempotent, at(0)), at(0));
    let free = told(&claim, released(at(60)), at(10));
    let until = Begin::Busy { until: at(60) };
    assert_eq!(claim::begin(&free, &UNCOMPARED, at(59)), until, "it was given back for later");
    assert_eq!(claim::begin(&free, &UNCOMPARED, at(60)), Begin::Acquire);
    let other = fingerprint("b");
    assert_eq!(claim::begin(&free, &other, at(60)), Begin::Mismatch, "before the state");
    assert_eq!(claim::release(&free, fence(&free)), Word::Said);
    assert_eq!(claim::complete(&free, fence(&free)), Word::Stale);
    let over = free.key_expires_at().unwrap();
    assert_eq!(claim::begin(&free, &other, over), Begin::Fresh);
}

#[test]
fn what_is_done_is_told_for_its_window_and_refused_for_its_tombstone() {
    let claim = begun(&newborn(Effects::Idempotent, at(0)), at(0));
    let done = told(&claim, completed(), at(10));
    let (window, tombstone) = (done.window, done.tombstone);
    for (now, expected) in [
        (at(11), Begin::Done),
        (at(10).plus(window), Begin::Expired),
        (at(10).plus(window).plus(tombstone), Begin::Fresh),
    ] {
        assert_eq!(claim::begin(&done, &UNCOMPARED, now), expected);
    }
    let mark = done.forgotten_but_for_its_mark();
    let asked = claim::begin(&mark, &UNCOMPARED, at(11));
    assert_eq!(asked, Begin::Expired, "another node's clock was ahead");
    let outcome = Outcome { status: None, ok: true, source: Source::Person, answer: None };
    let doubt = told(&begun(&newborn(Effects::NonIdempotent, at(0)), at(0)), lapsed(), at(30));
    let by_person = Event::Acted(act(Deed::ResolvedDone), Some(outcome), None);
    let resolved = doubt.after(by_person, at(40)).unwrap();
    assert_eq!(claim::complete(&resolved, fence(&resolved)), Word::Stale, "a person has decided");
    let next = claim::first_fence(at(10).plus(window));
    assert!(next > done.fence, "a key that was forgotten goes on with greater fences");
}

#[test]
fn what_says_nothing_of_itself_is_compared_with_nothing() {
    let mut claim = begun(&newborn(Effects::Idempotent, at(0)), at(0));
    let asked = |claim: &Operation, print| claim::begin(claim, &print, at(1));
    assert_eq!(asked(&claim, fingerprint("b")), Begin::Mismatch);
    assert!(matches!(asked(&claim, UNCOMPARED), Begin::Busy { .. }));
    claim.intent_mut().fingerprint = UNCOMPARED;
    assert!(matches!(asked(&claim, fingerprint("b")), Begin::Busy { .. }));
}

#[test]
fn a_claim_that_always_fails_stays_small() {
    let mut claim = begun(&newborn(Effects::Idempotent, at(0)), at(0));
    for turn in 1..200 {
        claim = begun(&told(&claim, lapsed(), at(turn * 60)), at(turn * 60));
    }
    assert_eq!((claim.attempts.len(), claim.attempts_made()), (ATTEMPTS_KEPT, 200));
}

#[test]
fn only_a_claim_is_claimed() {
    let call = operation(Effects::Idempotent, Mode::Held, "POST");
    let event = ClaimEvent::Begun { lease_until: at(30), holder: None };
    assert!(call.after(Event::Claim(event), at(0)).is_err());
}

/// What somebody does next.
#[derive(Debug, Clone, Copy)]
enum Move {
    Begin(usize),
    Complete(usize),
    Release(usize, u64),
    GiveUp(usize),
    Renew(usize),
    LookForLapses,
    ResolveDone,
    ResolveNotSent,
    Pass(u64),
}

const WORKERS: usize = 3;

fn moves() -> impl Strategy<Value = Move> {
    let worker = 0..WORKERS;
    prop_oneof![
        6 => worker.clone().prop_map(Move::Begin),
        1 => worker.clone().prop_map(Move::Complete),
        2 => (worker.clone(), 0u64..20).prop_map(|(worker, later)| Move::Release(worker, later)),
        1 => worker.clone().prop_map(Move::GiveUp),
        2 => worker.prop_map(Move::Renew),
        2 => Just(Move::LookForLapses),
        1 => Just(Move::ResolveDone),
        1 => Just(Move::ResolveNotSent),
        4 => (0u64..60).prop_map(Move::Pass),
    ]
}

/// What a worker believes: the fence that it was given last, and until when it has it in hand.
#[derive(Debug, Clone, Copy, Default)]
struct Worker {
    fence: Option<Fence>,
    until: Option<Timestamp>,
}

/// What one key and its workers have lived through.
struct World {
    claim: Operation,
    now: Timestamp,
    workers: [Worker; WORKERS],
    /// Acquisitions after which nobody has vouched that nothing was done.
    perhaps: u32,
}

impl World {
    fn write(&mut self, event: ClaimEvent) -> Result<(), TestCaseError> {
        let next = self.claim.after(Event::Claim(event), self.now);
        let next = next.map_err(|illegal| TestCaseError::fail(illegal.to_string()))?;
        prop_assert!(next.fence > self.claim.fence, "a fence only grows");
        prop_assert!(self.claim.state != State::Done, "what is done never changes");
        self.claim = next;
        Ok(())
    }

    fn begin(&mut self, worker: usize) -> Result<(), TestCaseError> {
        match claim::begin(&self.claim, &UNCOMPARED, self.now) {
            Begin::Acquire => {
                let now = self.now;
                let in_hand = self.workers.iter().filter(|worker| worker.until > Some(now)).count();
                prop_assert_eq!(in_hand, 0, "one at a time has it in hand");
                let last = self.claim.attempts.last().map(|attempt| attempt.by.0);
                if self.claim.effects == Effects::NonIdempotent {
                    prop_assert_eq!(self.perhaps, 0, "what may have been done is not begun again");
                }
                let lease_until = now.plus(LEASE);
                self.write(ClaimEvent::Begun { lease_until, holder: None })?;
                let given = fence(&self.claim);
                prop_assert!(Some(given.0) > last, "each holder has a greater fence");
                self.perhaps += 1;
                self.workers[worker] = Worker { fence: Some(given), until: Some(lease_until) };
            }
            Begin::Lapse => {
                self.write(lapsed())?;
                prop_assert_eq!(self.claim.state, State::InDoubt);
            }
            Begin::Done => prop_assert_eq!(self.claim.state, State::Done),
            Begin::InDoubt => prop_assert_eq!(self.claim.state, State::InDoubt),
            Begin::Busy { until } => prop_assert!(until > self.now),
            Begin::Fresh | Begin::Mismatch | Begin::Expired | Begin::Invalidated => {
                prop_assert!(is_expired(&self.claim, self.now));
            }
        }
        Ok(())
    }

    /// Somebody's word under the fence that they were given last.
    fn say(
        &mut self,
        worker: usize,
        worth: fn(&Operation, Fence) -> Word,
        event: ClaimEvent,
    ) -> Result<bool, TestCaseError> {
        let Some(given) = self.workers[worker].fence else { return Ok(false) };
        let worth = worth(&self.claim, given);
        if given != fence(&self.claim) {
            prop_assert_eq!(worth, Word::Stale, "an old fence changes nothing");
        }
        if worth != Word::Holds {
            return Ok(false);
        }
        self.write(event)?;
        Ok(true)
    }

    fn step(&mut self, step: Move) -> Result<(), TestCaseError> {
        match step {
            Move::Begin(worker) => self.begin(worker)?,
            Move::Complete(worker) => {
                if self.say(worker, claim::complete, completed())? {
                    prop_assert_eq!(self.claim.state, State::Done);
                    self.workers[worker].until = None;
                }
            }
            Move::Release(worker, later) => {
                let free_at = self.now.plus(Duration::from_secs(later));
                if self.say(worker, claim::release, released(free_at))? {
                    self.perhaps -= 1;
                    self.workers[worker].until = None;
                }
            }
            Move::GiveUp(worker) => {
                if self.say(worker, claim::give_up, lapsed())? {
                    self.workers[worker].until = None;
                }
            }
            Move::Renew(worker) => {
                let lease_until = self.now.plus(LEASE);
                if self.say(worker, claim::renew, ClaimEvent::Renewed { lease_until })? {
                    self.workers[worker].until = Some(lease_until);
                }
            }
            Move::LookForLapses => {
                if claim::has_lapsed(&self.claim, self.now) {
                    self.write(lapsed())?;
                }
            }
            Move::ResolveDone | Move::ResolveNotSent if self.claim.state == State::InDoubt => {
                let is_done = matches!(step, Move::ResolveDone);
                let deed = if is_done { Deed::ResolvedDone } else { Deed::ResolvedNotSent };
                let outcome = is_done.then_some(Outcome {
                    status: None,
                    ok: true,
                    source: Source::Person,
                    answer: None,
                });
                let event = Event::Acted(act(deed), outcome, None);
                self.claim = self.claim.after(event, self.now).unwrap();
                self.perhaps = 0;
            }
            Move::ResolveDone | Move::ResolveNotSent => {}
            Move::Pass(seconds) => self.now = self.now.plus(Duration::from_secs(seconds)),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_workers_do_one_at_a_time_has_it_in_hand(
        effects in prop_oneof![Just(Effects::Idempotent), Just(Effects::Keyed), Just(Effects::NonIdempotent)],
        steps in proptest::collection::vec(moves(), 0..80),
    ) {
        let mut claim = newborn(effects, at(0));
        claim.window = Duration::from_hours(24);
        let mut world = World { claim, now: at(0), workers: [Worker::default(); WORKERS], perhaps: 0 };
        world.begin(0)?;
        for step in steps {
            world.step(step)?;
        }
    }
}

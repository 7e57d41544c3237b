//! Sagas in worlds of chance: several hands that move a saga on at once and die in the middle, people who
//! come between, and an upstream that answers as it likes.

use std::collections::BTreeMap;

use onceward_core::saga::{
    Course, Hindered, Leg, Next, Place, Plan, Progress, Seen, Shape, Standing, Word,
};
use proptest::prelude::*;

/// An operation of a step as the ledger has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Op {
    seen: Seen,
    version: u32,
    /// How often it was revived.
    retries: u32,
    /// Whether it can be sent at all.
    is_real: bool,
}

/// What somebody read, and what they are about to do about it.
#[derive(Debug, Clone)]
struct Hand {
    saga: u32,
    op: Option<u32>,
    next: Next,
}

/// What happened at the upstream, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Began(Place),
    Did(Place),
    /// A person said that it is done.
    Vouched(Place),
}

struct World {
    plan: Plan,
    saga: Progress,
    version: u32,
    ops: BTreeMap<Place, Op>,
    hands: [Option<Hand>; 3],
    facts: Vec<Fact>,
    unmakeable: Option<Place>,
}

const FAILED: Seen = Seen::Failed { maybe_done: false, retries: 0 };

impl World {
    fn new(plan: Plan, unmakeable: Option<Place>) -> Self {
        let saga = plan.begin();
        let (ops, facts) = (BTreeMap::new(), Vec::new());
        Self { plan, saga, version: 0, ops, hands: [None, None, None], facts, unmakeable }
    }

    fn seen(&self) -> Option<Seen> {
        let place = self.saga.at?;
        let absent = Seen::Absent { can_be_made: self.unmakeable != Some(place) };
        Some(self.ops.get(&place).map_or(absent, |op| op.seen))
    }

    fn read(&self) -> Hand {
        let op = self.saga.at.and_then(|place| self.ops.get(&place)).map(|op| op.version);
        Hand { saga: self.version, op, next: self.plan.next(&self.saga, self.seen()) }
    }

    fn write(&mut self, saga: Progress) {
        let place = self.saga.at;
        if self.saga.at != saga.at
            && let Some(place) = place
        {
            let is_there = self.ops.contains_key(&place) || self.saga.standing == Standing::Stuck;
            assert!(is_there, "it went on from what was never in the ledger");
        }
        self.saga = saga;
        self.version += 1;
    }

    fn bear(&mut self, place: Place, is_real: bool) {
        let seen = if is_real { Seen::Waits } else { FAILED };
        // A key that is there is there.
        self.ops.entry(place).or_insert(Op { seen, version: 0, retries: 0, is_real });
    }

    /// The operation at `place`, where its fence is as it was read.
    fn op(&mut self, place: Place, version: Option<u32>) -> Option<&mut Op> {
        self.ops.get_mut(&place).filter(|op| Some(op.version) == version)
    }

    fn apply(&mut self, hand: Hand) {
        match hand.next {
            Next::Write(saga) if hand.saga == self.version => self.write(saga),
            Next::Write(_) | Next::Rest => {}
            Next::Bear(place) => self.bear(place, true),
            Next::BearDead(place) => self.bear(place, false),
            Next::GiveUp(place) => {
                if let Some(op) = self.op(place, hand.op).filter(|op| op.seen == Seen::Waits) {
                    op.seen = Seen::Failed { maybe_done: false, retries: op.retries };
                    op.version += 1;
                }
            }
            Next::Revive(place) => {
                let op = self.op(place, hand.op);
                if let Some(op) = op.filter(|op| matches!(op.seen, Seen::Failed { .. })) {
                    op.retries += 1;
                    let failed = Seen::Failed { maybe_done: false, retries: op.retries };
                    op.seen = if op.is_real { Seen::Waits } else { failed };
                    op.version += 1;
                }
            }
        }
    }

    /// The upstream and the dispatcher do something with an operation.
    fn deliver(&mut self, which: usize, how: u8) {
        let places: Vec<Place> = self.ops.keys().copied().collect();
        let Some(place) = places.get(which % places.len().max(1)).copied() else { return };
        let Some(op) = self.ops.get_mut(&place) else { return };
        let retries = op.retries;
        let did = how.is_multiple_of(2);
        let seen = match (op.seen, how % 6) {
            (Seen::Waits, _) => {
                self.facts.push(Fact::Began(place));
                Seen::UnderWay
            }
            (Seen::UnderWay, 0 | 1) => Seen::Done { lacks: how.is_multiple_of(12) },
            (Seen::UnderWay, 2) => Seen::Failed { maybe_done: false, retries },
            (Seen::UnderWay, 3) => Seen::Failed { maybe_done: true, retries },
            (Seen::UnderWay, 4) => Seen::InDoubt,
            (Seen::InDoubt, _) if did => Seen::Done { lacks: false },
            (Seen::UnderWay | Seen::InDoubt, _) => Seen::Waits,
            _ => return,
        };
        if let Seen::Done { .. } = seen {
            self.facts.push(Fact::Did(place));
        }
        *op = Op { seen, version: op.version + 1, ..*op };
    }

    fn person(&mut self, what: u8) {
        let (plan, saga) = (&self.plan, &self.saga);
        let wanted = match what % 6 {
            0 => saga.pause(),
            1 => saga.resume(),
            2 => plan.cancel(saga),
            3 => {
                let op = saga.at.and_then(|place| self.ops.get(&place));
                let Some(op) = op else { return };
                saga.retry(op.retries)
            }
            4 => plan.settle(saga, Word::Done),
            _ => plan.settle(saga, Word::NotDone),
        };
        if let (4, Ok(_), Some(place)) = (what % 6, &wanted, saga.at) {
            self.facts.push(Fact::Vouched(place));
        }
        if let Ok(saga) = wanted {
            self.write(saga);
        }
    }

    fn act(&mut self, (what, which, how): (u8, usize, u8)) {
        match what % 8 {
            0..=3 => {
                let hand = which % 3;
                match self.hands[hand].take() {
                    None => self.hands[hand] = Some(self.read()),
                    // A process dies, and what it was about to do with it.
                    Some(_) if how == 0 => {}
                    Some(read) => self.apply(read),
                }
            }
            4..=6 if how == 255 => self.forget(),
            4..=6 => self.deliver(which, how),
            _ => self.person(how),
        }
    }

    /// What is over is forgotten, whether a saga waits for somebody's word about it or not.
    fn forget(&mut self) {
        let is_late = |hand: &Option<Hand>| hand.is_some();
        if self.saga.standing == Standing::Stuck && !self.hands.iter().any(is_late) {
            let place = self.saga.at;
            self.ops.retain(|other, _| Some(*other) != place);
        }
    }

    /// Everything comes to its end: doubts are resolved, and what is stuck is settled.
    fn finish(&mut self) {
        for hand in [0, 1, 2] {
            if let Some(read) = self.hands[hand].take() {
                self.apply(read);
            }
        }
        for _ in 0..10_000 {
            if self.saga.standing.is_ended() {
                return;
            }
            let hand = self.read();
            if hand.next != Next::Rest {
                self.apply(hand);
                continue;
            }
            let is_begun = self.saga.at.is_some_and(|at| self.ops.contains_key(&at));
            match self.saga.standing {
                Standing::Paused if !is_begun => self.person(1),
                Standing::Stuck => self.person(4),
                _ => (0..self.ops.len()).for_each(|op| self.deliver(op, 1)),
            }
        }
        panic!("it never ends: {:?} {:?}", self.saga, self.ops);
    }

    fn check(&self) {
        let at = |fact: Fact| self.facts.iter().position(|other| *other == fact);
        let is_done = |place, before| {
            let done = at(Fact::Did(place)).into_iter().chain(at(Fact::Vouched(place))).min();
            done.is_some_and(|at| at < before)
        };
        let forward = |step| Place { step, undo: false };
        let back = |step| Place { step, undo: true };
        let first_undo =
            self.facts.iter().position(|fact| matches!(fact, Fact::Began(place) if place.undo));
        let pivot = self.plan.steps.iter().position(|step| step.is_pivot);
        for (n, fact) in self.facts.iter().enumerate() {
            match *fact {
                Fact::Did(place) => {
                    let times = self.facts.iter().filter(|other| **other == Fact::Did(place));
                    assert_eq!(times.count(), 1, "{place:?} is done twice: {:?}", self.facts);
                }
                Fact::Began(place) if place.undo => {
                    assert!(is_done(forward(place.step), n), "undone, and never done: {place:?}");
                    assert!(
                        pivot.is_none_or(|pivot| !is_done(forward(pivot), n)),
                        "behind a pivot"
                    );
                    for later in place.step + 1..self.plan.steps.len() {
                        let stands = is_done(forward(later), n) && self.plan.steps[later].can_undo;
                        let undone = is_done(back(later), n) || self.saga.legs[later] == Leg::Left;
                        assert!(!stands || undone, "{later} is to be undone before {place:?}");
                    }
                }
                Fact::Began(place) => {
                    assert!(
                        first_undo.is_none_or(|undo| n < undo),
                        "begun after an undo: {place:?}"
                    );
                    for before in 0..place.step {
                        let is_over =
                            is_done(forward(before), n) || self.saga.legs[before] == Leg::NotDone;
                        assert!(is_over, "{place:?} before {before}");
                    }
                }
                Fact::Vouched(_) => {}
            }
        }
        for (step, leg) in self.saga.legs.iter().enumerate() {
            let did = at(Fact::Did(forward(step))).is_some();
            let (undone, can_undo) =
                (at(Fact::Did(back(step))).is_some(), self.plan.steps[step].can_undo);
            match (self.saga.standing, leg) {
                (Standing::Unwound, Leg::Done) => assert!(!can_undo, "left as it is: {step}"),
                (Standing::Done, leg) => {
                    assert!(matches!(leg, Leg::Done | Leg::NotDone), "{leg:?}");
                    assert!(!undone);
                }
                (_, Leg::Waiting | Leg::NotDone) => assert!(!did && !undone, "{step} was done"),
                _ => {}
            }
        }
    }
}

prop_compose! {
    fn plans()(
        undos in proptest::collection::vec(any::<bool>(), 1..6),
        pivot in 0usize..8,
        stops: bool,
    ) -> Plan {
        let step = |(at, can_undo): (usize, &bool)| Shape {
            can_undo: *can_undo && at < pivot,
            is_pivot: at == pivot,
        };
        Plan { steps: undos.iter().enumerate().map(step).collect(), stops }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_between_order_holds_and_only_what_is_done_is_undone_once_in_reverse(
        plan in plans(),
        unmakeable in proptest::option::of((0usize..5, any::<bool>())),
        acts in proptest::collection::vec((any::<u8>(), 0usize..12, any::<u8>()), 0..200),
    ) {
        let unmakeable = unmakeable.map(|(step, undo)| Place { step, undo });
        let mut world = World::new(plan, unmakeable);
        for act in acts {
            world.act(act);
        }
        world.finish();
        world.check();
    }
}

fn three() -> Plan {
    let can_undo = Shape { can_undo: true, is_pivot: false };
    Plan { steps: vec![can_undo; 3], stops: false }
}

/// The saga after `seen` of each that comes to hand, and the places that were borne.
fn run(plan: &Plan, mut saga: Progress, seen: impl Fn(Place) -> Seen) -> (Progress, Vec<Place>) {
    let mut borne: Vec<Place> = saga.at.into_iter().collect();
    loop {
        let at = saga.at.map(|place| {
            if borne.contains(&place) { seen(place) } else { Seen::Absent { can_be_made: true } }
        });
        match plan.next(&saga, at) {
            Next::Write(next) => saga = next,
            Next::Bear(place) => borne.push(place),
            _ => return (saga, borne),
        }
    }
}

const DONE: Seen = Seen::Done { lacks: false };

fn fails_at(step: usize) -> impl Fn(Place) -> Seen {
    move |place| if place == (Place { step, undo: false }) { FAILED } else { DONE }
}

#[test]
fn where_a_step_fails_what_was_done_is_undone_in_reverse() {
    let (saga, borne) = run(&three(), three().begin(), fails_at(2));
    assert_eq!(saga.standing, Standing::Unwound);
    assert_eq!(saga.legs, [Leg::Undone, Leg::Undone, Leg::NotDone]);
    let order: Vec<_> = borne.iter().map(|place| (place.step, place.undo)).collect();
    assert_eq!(order, [(0, false), (1, false), (2, false), (1, true), (0, true)]);
}

#[test]
fn a_step_in_doubt_stops_the_saga_and_nothing_is_undone() {
    let doubt = |place: Place| if place.step == 1 { Seen::InDoubt } else { DONE };
    let (saga, borne) = run(&three(), three().begin(), doubt);
    assert_eq!((saga.standing, borne.len()), (Standing::InDoubt, 2));
    let cancelled = three().cancel(&saga).unwrap();
    assert_eq!(run(&three(), cancelled, |_| Seen::InDoubt).0.standing, Standing::InDoubt);
}

#[test]
fn a_dead_step_that_may_have_been_done_is_never_undone_blindly() {
    let maybe = Seen::Failed { maybe_done: true, retries: 0 };
    let (saga, _) =
        run(&three(), three().begin(), |place| if place.step == 1 { maybe } else { DONE });
    assert_eq!(saga.standing, Standing::Stuck);
    let said = |word| three().settle(&saga, word).unwrap();
    assert_eq!(said(Word::Done).at, Some(Place { step: 2, undo: false }));
    assert_eq!(said(Word::NotDone).at, Some(Place { step: 0, undo: true }));
}

#[test]
fn behind_its_pivot_a_saga_only_goes_forward() {
    let mut plan = three();
    plan.steps[1] = Shape { can_undo: false, is_pivot: true };
    let (saga, _) = run(&plan, plan.begin(), fails_at(2));
    assert_eq!(saga.standing, Standing::Stuck);
    assert_eq!(plan.cancel(&saga), Err(Hindered::PastPivot));
    let again = saga.retry(0).unwrap();
    assert_eq!(plan.next(&again, Some(FAILED)), Next::Revive(Place { step: 2, undo: false }));
    assert_eq!(plan.settle(&saga, Word::NotDone).unwrap().standing, Standing::Done);
}

#[test]
fn a_cancel_that_comes_after_the_pivot_was_done_comes_too_late() {
    let mut plan = three();
    plan.steps[1] = Shape { can_undo: false, is_pivot: true };
    let under_way = |place: Place| if place.step == 1 { Seen::UnderWay } else { DONE };
    let (saga, _) = run(&plan, plan.begin(), under_way);
    let cancelled = plan.cancel(&saga).unwrap();
    assert_eq!(cancelled.standing, Standing::Unwinding);
    let Next::Write(after) = plan.next(&cancelled, Some(DONE)) else { panic!("it goes on") };
    assert_eq!((after.course, after.at), (Course::Forward, Some(Place { step: 2, undo: false })));
}

#[test]
fn a_compensation_that_cannot_succeed_leaves_the_saga_stuck_until_a_person_says_how_to_go_on() {
    let seen = |place: Place| {
        if (place.step, place.undo) == (1, true) { FAILED } else { fails_at(2)(place) }
    };
    let (saga, _) = run(&three(), three().begin(), seen);
    assert_eq!((saga.standing, saga.at), (Standing::Stuck, Some(Place { step: 1, undo: true })));
    for (word, leg) in [(Word::Done, Leg::Undone), (Word::NotDone, Leg::Left)] {
        let settled = three().settle(&saga, word).unwrap();
        let (end, _) = run(&three(), settled, |_| DONE);
        assert_eq!(
            (end.standing, end.legs),
            (Standing::Unwound, vec![Leg::Undone, leg, Leg::NotDone])
        );
    }
}

#[test]
fn a_paused_saga_ends_what_is_at_hand_and_begins_nothing() {
    let (saga, _) = run(&three(), three().begin(), |_| Seen::UnderWay);
    let paused = saga.pause().unwrap();
    let (held, borne) = run(&three(), paused, |_| DONE);
    assert_eq!((held.standing, held.at), (Standing::Paused, None));
    assert_eq!((held.legs[0], borne.len()), (Leg::Done, 1));
    let (end, _) = run(&three(), held.resume().unwrap(), |_| DONE);
    assert_eq!(end.standing, Standing::Done);
}

#[test]
fn where_a_failure_stops_a_saga_a_person_tries_the_step_anew_or_cancels() {
    let plan = Plan { stops: true, ..three() };
    let (saga, _) = run(&plan, plan.begin(), fails_at(1));
    assert_eq!(saga.standing, Standing::Stuck);
    assert!(saga.retry(0).is_ok());
    let (end, borne) = run(&plan, plan.cancel(&saga).unwrap(), fails_at(1));
    assert_eq!((end.standing, borne.len()), (Standing::Unwound, 2));
}

#[test]
fn an_answer_that_lacks_what_a_later_step_takes_fails_the_saga_at_once() {
    let lacks = |place: Place| Seen::Done { lacks: place == Place { step: 0, undo: false } };
    let (saga, borne) = run(&three(), three().begin(), lacks);
    assert_eq!((saga.standing, borne.len()), (Standing::Unwound, 2));
}

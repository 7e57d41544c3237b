//! Sagas: several effects of one cause, one after the other; where one fails, what was done is undone in
//! reverse (Garcia-Molina and Salem, "Sagas", 1987).
//!
//! Each step is an operation, and so is its compensation. What is decided here is which comes next, from how
//! far the saga came and how the one at hand stands. What is begun is first written down as being *at hand*,
//! then remembered; and how it ended is written down before another is. So whoever finds a saga, whenever its
//! process died, finds the one operation that may or may not be in the ledger yet, and its key says which.
//!
//! Invariants: no step is begun before those before it are done; only what is done is undone, in reverse, and
//! once; a step that may have been done is never undone blindly; behind a pivot that is done nothing is
//! undone. That a step was not done is written down only where a dead operation stands in the ledger: whoever
//! is late finds that one, and begins nothing.

mod definition;
mod numbers;
mod template;

use crate::key::ScopeKind;
use crate::operation::{self, Deed, Illegal, Operation, Outcome, Source, State};
use crate::time::Timestamp;

pub use definition::{
    Ask, Body, DEPTH_MAX, Definition, NAME_BYTES_MAX, NotASaga, Step, is_shallow,
};
pub use numbers::{first_not_kept, is_kept, read_kept};
pub use template::{NotATemplate, Room, Template, Unfilled, Variable};

/// Steps of a saga, at most.
pub const STEPS_MAX: usize = 100;

/// A step as far as the order goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Whether it has a compensation.
    pub can_undo: bool,
    /// Whether nothing is undone any more once it is done.
    pub is_pivot: bool,
}

/// The steps of a saga in their order, and what follows a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Shape>,
    /// Whether a step that failed waits for a person, who retries it or cancels the saga.
    pub stops: bool,
}

/// A step, or its compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which step, from 0.
    pub step: usize,
    /// Whether it is its compensation.
    pub undo: bool,
}

/// What has become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// Its turn has not come, or it is at hand.
    Waiting,
    /// It is done, and stands.
    Done,
    /// It was not done, and is not going to be.
    NotDone,
    /// It was done, and is undone.
    Undone,
    /// It was done, and a person leaves it so.
    Left,
}

impl Leg {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Done, Self::NotDone, Self::Undone, Self::Left];

    /// The word for it in answers and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::NotDone => "not_done",
            Self::Undone => "undone",
            Self::Left => "left",
        }
    }
}

/// Which way a saga goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Step after step.
    Forward,
    /// Compensation after compensation, in reverse.
    Unwinding,
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// It goes forward.
    Running,
    /// Nobody knows whether the one at hand was done: it waits for evidence.
    InDoubt,
    /// A person holds it: what is at hand comes to its end, and nothing else is begun.
    Paused,
    /// It undoes what was done.
    Unwinding,
    /// The one at hand came to nothing, and only a person can say how to go on.
    Stuck,
    /// All of it is done.
    Done,
    /// It failed or was cancelled, and what was done is undone.
    Unwound,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::InDoubt,
        Self::Paused,
        Self::Unwinding,
        Self::Stuck,
        Self::Done,
        Self::Unwound,
    ];

    /// The word for it in answers, logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::InDoubt => "in_doubt",
            Self::Paused => "paused",
            Self::Unwinding => "unwinding",
            Self::Stuck => "stuck",
            Self::Done => "done",
            Self::Unwound => "unwound",
        }
    }

    /// Whether nothing more happens.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Running | Self::InDoubt | Self::Paused | Self::Unwinding | Self::Stuck => false,
            Self::Done | Self::Unwound => true,
        }
    }
}

/// How far a saga came: what is written of it before anything follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What has become of each step.
    pub legs: Vec<Leg>,
    /// Which way it goes.
    pub course: Course,
    /// What is at hand: its operation is in the ledger, or is to be.
    pub at: Option<Place>,
    /// How often the one at hand was to be tried anew.
    pub retries: u32,
    /// Whether a person holds it.
    pub is_paused: bool,
    /// Where it stands.
    pub standing: Standing,
}

/// How the operation at hand stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is not there.
    Absent {
        /// Whether it can be made: each value that it takes is there.
        can_be_made: bool,
    },
    /// It waits for an attempt.
    Waits,
    /// An attempt may be under way.
    UnderWay,
    /// Nobody knows whether it was done.
    InDoubt,
    /// It is done as it was wanted.
    Done {
        /// Whether its answer lacks a value that a later step takes, or a compensation that may come to run.
        lacks: bool,
    },
    /// It is dead, or done otherwise than wanted.
    Failed {
        /// Whether it may have been done all the same.
        maybe_done: bool,
        /// How often it was tried anew.
        retries: u32,
    },
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This is written of the saga; then it is asked again.
    Write(Progress),
    /// The operation is remembered, so that it is delivered.
    Bear(Place),
    /// It is remembered as a dead one, so that nobody else begins it.
    BearDead(Place),
    /// It waits still, and is given up.
    GiveUp(Place),
    /// It is dead, and runs again.
    Revive(Place),
    /// Nothing, until something else happens.
    Rest,
}

/// What a person says has become of the one at hand, where the saga is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is done: by an attempt after all, or by hand.
    Done,
    /// It is not done, and is not going to be.
    NotDone,
}

/// Why what a person wants cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Hindered {
    /// It has ended.
    #[error("the saga has ended")]
    Ended,
    /// Its pivot is done.
    #[error("its pivot is done: from there it only goes forward")]
    PastPivot,
    /// Only what is stuck has somebody's word to wait for.
    #[error(
        "the saga is not stuck: what is at hand is still under way, or is looked after as an operation"
    )]
    NotStuck,
    /// What it did since its ledger's backup is not in it.
    #[error(
        "its ledger was restored, so that what is at hand, or comes next, may have been done since the backup: say first what became of it (`not-done` has the saga unwind), or resume it"
    )]
    Held,
}

impl Plan {
    /// Nothing done yet.
    pub fn begin(&self) -> Progress {
        Progress {
            legs: vec![Leg::Waiting; self.steps.len()],
            course: Course::Forward,
            at: None,
            retries: 0,
            is_paused: false,
            standing: Standing::Running,
        }
    }

    /// What comes next, `seen` being how the one at hand stands, where there is one.
    pub fn next(&self, progress: &Progress, seen: Option<Seen>) -> Next {
        if progress.standing.is_ended() {
            return Next::Rest;
        }
        let (Some(place), Some(seen)) = (progress.at, seen) else {
            return progress.rest_unless(self.choose(progress));
        };
        let is_unwanted = progress.course == Course::Unwinding && !place.undo;
        match seen {
            // It was there, and was forgotten since.
            Seen::Absent { .. } if progress.standing == Standing::Stuck => Next::Rest,
            // Nothing else is begun, nor is this buried: whoever holds it may know that it was done.
            Seen::Absent { .. } if progress.is_paused => progress.rest_unless(progress.going()),
            Seen::Absent { can_be_made } if is_unwanted || !can_be_made => Next::BearDead(place),
            Seen::Absent { .. } => Next::Bear(place),
            Seen::Waits if is_unwanted => Next::GiveUp(place),
            Seen::Waits | Seen::UnderWay => progress.rest_unless(progress.going()),
            Seen::InDoubt => progress.rest_unless(progress.standing_at(Standing::InDoubt)),
            // What was asked for is there before anything is made of how it ended.
            Seen::Failed { retries, .. } if retries < progress.retries => Next::Revive(place),
            Seen::Done { lacks } => Next::Write(self.after_done(progress, place, lacks)),
            // Only a person's word leads on from there: what is known of it may have gone since.
            Seen::Failed { .. } if progress.standing == Standing::Stuck => Next::Rest,
            Seen::Failed { maybe_done: false, .. }
                if !place.undo && (is_unwanted || !self.stops && !self.is_past_pivot(progress)) =>
            {
                Next::Write(self.after_not_done(progress, place))
            }
            Seen::Failed { .. } => progress.rest_unless(progress.standing_at(Standing::Stuck)),
        }
    }

    /// A person wants what was done undone.
    pub fn cancel(&self, progress: &Progress) -> Result<Progress, Hindered> {
        progress.open()?;
        if self.is_past_pivot(progress) {
            return Err(Hindered::PastPivot);
        }
        let unwound = Progress { course: Course::Unwinding, is_paused: false, ..progress.clone() };
        Ok(match progress.standing {
            // How the one at hand ended is still to be looked at.
            Standing::InDoubt => unwound,
            _ => unwound.going(),
        })
    }

    /// A person says what has become of the one at hand.
    pub fn settle(&self, progress: &Progress, word: Word) -> Result<Progress, Hindered> {
        Ok(self.settled(progress, progress.stuck()?, word))
    }

    /// What is at hand of a saga that a person holds, or would be next.
    pub fn held_at(&self, progress: &Progress) -> Option<Place> {
        if !progress.is_paused || progress.standing.is_ended() {
            return None;
        }
        let let_go = || self.choose(&Progress { is_paused: false, ..progress.clone() });
        progress.at.or_else(|| let_go().at)
    }

    /// A person who holds the saga says what has become of what is at hand, or would be next. Only where the
    /// ledger has no operation of that: who has one finds out by it.
    pub fn settle_held(&self, progress: &Progress, word: Word) -> Result<Progress, Hindered> {
        progress.open()?;
        let place = self.held_at(progress).ok_or(Hindered::NotStuck)?;
        Ok(self.settled(progress, place, word))
    }

    fn settled(&self, progress: &Progress, place: Place, word: Word) -> Progress {
        match word {
            Word::Done => self.after_done(progress, place, false),
            Word::NotDone if place.undo => self.after(progress, place, Leg::Left, progress.course),
            Word::NotDone if self.is_past_pivot(progress) => {
                self.after(progress, place, Leg::NotDone, Course::Forward)
            }
            Word::NotDone => self.after_not_done(progress, place),
        }
    }

    /// Whether nothing is undone any more.
    pub fn is_past_pivot(&self, progress: &Progress) -> bool {
        let mut legs = self.steps.iter().zip(&progress.legs);
        legs.any(|(step, leg)| step.is_pivot && *leg == Leg::Done)
    }

    fn after_done(&self, progress: &Progress, place: Place, lacks: bool) -> Progress {
        if place.undo {
            return self.after(progress, place, Leg::Undone, progress.course);
        }
        let is_pivot = self.steps.get(place.step).is_some_and(|step| step.is_pivot);
        let course = match progress.course {
            // Whoever cancelled it came too late.
            _ if is_pivot => Course::Forward,
            Course::Forward if lacks && !self.is_past_pivot(progress) => Course::Unwinding,
            course => course,
        };
        self.after(progress, place, Leg::Done, course)
    }

    fn after_not_done(&self, progress: &Progress, place: Place) -> Progress {
        self.after(progress, place, Leg::NotDone, Course::Unwinding)
    }

    /// The one at `place` came to its end; with what is at hand from then on.
    fn after(&self, progress: &Progress, place: Place, leg: Leg, course: Course) -> Progress {
        let mut next = Progress { course, at: None, retries: 0, ..progress.clone() };
        if let Some(its) = next.legs.get_mut(place.step) {
            *its = leg;
        }
        self.choose(&next)
    }

    /// What is at hand from now on, where nothing is.
    fn choose(&self, progress: &Progress) -> Progress {
        let (place, end) = match progress.course {
            Course::Forward => {
                let first = progress.legs.iter().position(|leg| *leg == Leg::Waiting);
                (first.map(|step| Place { step, undo: false }), Standing::Done)
            }
            Course::Unwinding => {
                let is_to_undo = |(step, leg): (&Shape, &Leg)| step.can_undo && *leg == Leg::Done;
                let mut legs = self.steps.iter().zip(&progress.legs);
                (
                    legs.rposition(is_to_undo).map(|step| Place { step, undo: true }),
                    Standing::Unwound,
                )
            }
        };
        match place {
            None => progress.standing_at(end),
            Some(_) if progress.is_paused => progress.going(),
            at => Progress { at, ..progress.clone() }.going(),
        }
    }
}

impl Progress {
    /// A person holds it.
    pub fn pause(&self) -> Result<Self, Hindered> {
        self.hold(true)
    }

    /// A person lets it go on.
    pub fn resume(&self) -> Result<Self, Hindered> {
        self.hold(false)
    }

    fn hold(&self, is_paused: bool) -> Result<Self, Hindered> {
        self.open()?;
        let held = Self { is_paused, ..self.clone() };
        Ok(match self.standing {
            Standing::InDoubt | Standing::Stuck => held,
            _ => held.going(),
        })
    }

    /// A person wants the one at hand tried anew, which was so `made` times before.
    pub fn retry(&self, made: u32) -> Result<Self, Hindered> {
        self.stuck()?;
        Ok(Self { retries: made + 1, ..self.clone() }.going())
    }

    fn open(&self) -> Result<(), Hindered> {
        if self.standing.is_ended() { Err(Hindered::Ended) } else { Ok(()) }
    }

    fn stuck(&self) -> Result<Place, Hindered> {
        self.open()?;
        self.at.filter(|_| self.standing == Standing::Stuck).ok_or(Hindered::NotStuck)
    }

    fn standing_at(&self, standing: Standing) -> Self {
        Self { standing, ..self.clone() }
    }

    /// The same, where nothing is in its way.
    fn going(&self) -> Self {
        self.standing_at(match self.course {
            _ if self.is_paused => Standing::Paused,
            Course::Forward => Standing::Running,
            Course::Unwinding => Standing::Unwinding,
        })
    }

    /// Nothing follows where nothing is another.
    fn rest_unless(&self, next: Self) -> Next {
        if *self == next { Next::Rest } else { Next::Write(next) }
    }
}

/// A fact in the life of the operation that a saga is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagaEvent {
    /// It begins.
    Begun,
    /// It went on, and has not come to its end.
    Moved,
    /// It came to its end: all of it is done, or what was done is undone.
    Ended {
        /// Whether all of it is done.
        ok: bool,
    },
}

impl Operation {
    /// Changes a saga as `event` says.
    pub(crate) fn saga(&mut self, event: SagaEvent, now: Timestamp) -> Result<(), Illegal> {
        if self.scope.kind != ScopeKind::Saga {
            return Err(Illegal { from: "no saga", to: "moved on" });
        }
        match event {
            SagaEvent::Begun => self.state = self.state.after(operation::Step::Start)?,
            SagaEvent::Moved if self.state == State::Delivering => {}
            SagaEvent::Moved => return Err(Illegal { from: self.state.name(), to: "moved on" }),
            SagaEvent::Ended { ok } => {
                self.state = self.state.after(operation::Step::Finish)?;
                self.ended_at = Some(now);
                let source = Source::Steps;
                self.outcome = Some(Outcome { status: None, ok, source, answer: None });
            }
        }
        Ok(())
    }
}

impl Seen {
    /// How the operation of a step stands.
    pub fn of(step: &Operation) -> Self {
        // Whether it was sent was known by its attempts, and nothing is left to send: as if it had been tried
        // as often as anybody asked.
        let is_mark = step.request.is_none() && step.attempts.is_empty() && !is_stand_in(step);
        let retries = if is_mark { u32::MAX } else { retries_of(step) };
        match step.state {
            State::Pending { .. } => Self::Waits,
            State::Delivering => Self::UnderWay,
            State::InDoubt => Self::InDoubt,
            State::Done if step.outcome.as_ref().is_some_and(|outcome| outcome.ok) => {
                Self::Done { lacks: false }
            }
            State::Done => Self::Failed { maybe_done: false, retries },
            State::Dead(_) => {
                // An attempt that was never answered may arrive still, whatever a later one was told.
                Self::Failed { maybe_done: is_mark || step.may_have_executed(), retries }
            }
        }
    }
}

/// Whether it stands in the place of a step that was not to be: there is nothing that could be sent.
pub fn is_stand_in(step: &Operation) -> bool {
    step.method.is_empty()
}

/// How often the operation of a step was tried anew.
pub fn retries_of(step: &Operation) -> u32 {
    step.acts.iter().filter(|act| act.deed == Deed::Redelivered).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::id::OperationId;
    use crate::key::{Key, Scope};
    use crate::operation::{Death, Intent};

    #[test]
    fn of_what_only_its_mark_is_left_nobody_knows_whether_it_was_done() {
        let scope = Scope {
            kind: ScopeKind::Step,
            tenant: "t".to_owned(),
            name: "saga".to_owned(),
            principal: String::new(),
        };
        let fingerprint = Fingerprint { version: 1, parts: [[0; 16]; 4] };
        let (id, at) = (OperationId::new(1, 1), Timestamp::from_micros(0));
        let key = Key::new("op_1/a").unwrap();
        let intent = Intent::new(id, scope, key, fingerprint, at);
        let dead = State::Dead(Death::Refused);
        let mark = Operation {
            state: dead,
            ..Operation::new(Intent { method: "POST".to_owned(), ..intent.clone() })
        };
        assert_eq!(Seen::of(&mark), Seen::Failed { maybe_done: true, retries: u32::MAX });
        // What stands in the place of a step was never anything else.
        let stand_in = Operation { state: dead, ..Operation::new(intent) };
        assert!(is_stand_in(&stand_in));
        assert_eq!(Seen::of(&stand_in), Seen::Failed { maybe_done: false, retries: 0 });
    }

    #[test]
    fn what_is_at_hand_of_a_saga_that_is_held_is_not_begun_and_what_is_unwanted_is_given_up() {
        let plan = Plan { steps: vec![Shape::default()], stops: false };
        let Next::Write(at_hand) = plan.next(&plan.begin(), None) else { panic!("it begins") };
        let absent = Some(Seen::Absent { can_be_made: true });
        let place = Place { step: 0, undo: false };
        assert_eq!(plan.next(&at_hand, absent), Next::Bear(place));
        let held = at_hand.pause().unwrap();
        assert_eq!(plan.next(&held, absent), Next::Rest);
        assert_eq!(plan.next(&held.resume().unwrap(), absent), Next::Bear(place));
        let cancelled = plan.cancel(&held).unwrap();
        assert_eq!(plan.next(&cancelled, absent), Next::BearDead(place));
        assert_eq!(plan.next(&cancelled.pause().unwrap(), absent), Next::Rest);
    }

    #[test]
    fn a_stuck_saga_goes_on_by_a_persons_word_alone_whatever_is_seen_to_have_gone() {
        let plan = Plan { steps: vec![Shape::default(); 2], stops: false };
        let Next::Write(at_hand) = plan.next(&plan.begin(), None) else { panic!("it begins") };
        let failed = |maybe_done| Some(Seen::Failed { maybe_done, retries: u32::MAX });
        let Next::Write(stuck) = plan.next(&at_hand, failed(true)) else { panic!("it is stuck") };
        assert_eq!(stuck.standing, Standing::Stuck);
        for seen in [failed(true), failed(false), Some(Seen::Absent { can_be_made: true })] {
            assert_eq!(plan.next(&stuck, seen), Next::Rest, "{seen:?}");
        }
        let retried = stuck.retry(1).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(
            plan.next(&retried, failed(true)),
            Next::Write(Progress { retries: 2, ..stuck })
        );
    }
}

//! One intended effect and its life: the only place where a state becomes another.

use std::time::Duration;

use crate::attempt::{Attempt, BodyRef, Ended};
use crate::claim::ClaimEvent;
use crate::fingerprint::Fingerprint;
use crate::id::OperationId;
use crate::key::{Key, Scope, ScopeKind};
use crate::lease::Session;
use crate::policy::{Effects, Mode};
use crate::time::Timestamp;
use crate::upstream_key::KeyPlace;
use crate::verdict::Verdict;

/// How long an exhausted operation stays, at least.
pub const EXHAUSTED_WINDOW: Duration = Duration::from_hours(720);

/// The number that grows with every write of an operation: a write that carries an older one
/// is refused by the store, in the statement that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

/// One intended effect, identified by its scope and key. What is here and in its request is
/// frozen when it is remembered; addresses, credentials, timeouts and retry policy are read at
/// each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its identity.
    pub id: OperationId,
    /// Grows with every write.
    pub fence: Fence,
    /// Within what its key is unique.
    pub scope: Scope,
    /// The caller's key, or one that was made.
    pub key: Key,
    /// What must be equal for "the same request".
    pub fingerprint: Fingerprint,
    /// Who waits for the outcome.
    pub mode: Mode,
    /// What a second arrival would do.
    pub effects: Effects,
    /// The key that the upstream dedupes by: one for all attempts.
    pub upstream_key: Option<UpstreamKey>,
    /// Where it goes: a route's name, or the origin of an ad hoc upstream. Empty where it goes
    /// nowhere: a claim.
    pub route: String,
    /// By which way it came, where that is no call: `source/NAME`, `outbox/NAME`.
    pub via: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub target: String,
    /// What the caller calls it; what whoever has a claim in hand calls themselves.
    pub label: Option<String>,
    /// When it was remembered.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// Where the present run of attempts began: limits count from here, not from what came
    /// before a revival.
    pub run: Run,
    /// The caller's own bound: no attempt begins later.
    pub deadline: Option<Timestamp>,
    /// The caller's own bound on the attempts of a run.
    pub attempts_max: Option<u32>,
    /// No attempt begins later, because the upstream may have forgotten our key: the first send
    /// that may have been executed, and 0.8 of the upstream's window.
    pub send_by: Option<Timestamp>,
    /// How long the upstream remembers our key.
    pub upstream_window: Duration,
    /// How long the outcome is replayed, from completion.
    pub window: Duration,
    /// How long the mark of the used key stays after that.
    pub tombstone: Duration,
    /// When it became done or dead.
    pub ended_at: Option<Timestamp>,
    /// Whether a dead one's caller was told: then it is no dead letter.
    pub told: bool,
    /// The final answer.
    pub outcome: Option<Outcome>,
    /// What people did, oldest first.
    pub acts: Vec<Act>,
    /// Where the request is kept; nothing once it is forgotten.
    pub request: Option<BodyRef>,
    /// Set by a person who dropped the key before its time.
    pub forgotten: Option<Forgotten>,
    /// Whose share of the route it counts against.
    pub flow: Option<String>,
    /// What it is about, where that has an order.
    pub subject: Option<Subject>,
    /// The operation that it was born of: an original that was edited, or one that it reports.
    pub parent: Option<OperationId>,
    /// The operation that its key is another name of: then it is nothing else.
    pub alias_of: Option<OperationId>,
    /// Whom to tell when it ends.
    pub callback: Option<String>,
    /// What its answer says that it made, by name.
    pub ids: Vec<(String, String)>,
    /// How often the upstream was asked whether it was done, while it is in doubt.
    pub looks: Looks,
    /// The operations whose keys are other names of this one: they last as long as it does.
    pub aliases: Vec<OperationId>,
    /// How long its request and its answer are kept after its end, where that is less than the
    /// window; the key stays.
    pub retain: Option<Duration>,
    /// Until when whoever claimed it has it in hand: a claim keeps its own time, no session does.
    /// Where a claim was given back: from when on it may be begun again.
    pub lease_until: Option<Timestamp>,
}

/// What an operation is about, and its place among all that are about the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What.
    pub name: String,
    /// Its place in the caller's own order.
    pub sequence: Option<u64>,
    /// Whether it is this one's turn; always, where its kind has no order.
    pub is_first: bool,
    /// The newer one that was done before this one was sent.
    pub superseded_by: Option<OperationId>,
}

/// How often the upstream was asked whether an operation was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looks {
    /// How often.
    pub made: u32,
    /// How often in a row it knew nothing of it.
    pub absent: u32,
    /// When it is asked next.
    pub next: Option<Timestamp>,
}

/// A key that goes to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamKey {
    /// Where in the request it goes.
    pub place: KeyPlace,
    /// Its value: at most 45 bytes where it is derived.
    pub value: String,
}

/// A run of attempts: from remembering or a revival to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it began.
    pub since: Timestamp,
    /// How many attempts there were before it.
    pub before: u32,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Remembered, and nothing is under way. Entered by remembering, by a retry and by revival;
    /// left when an attempt starts, or when it may not start any more.
    Pending {
        /// When the next attempt may start.
        due: Timestamp,
    },
    /// An attempt may be under way. Entered when it starts; left by its verdict, or by recovery
    /// where its owner is gone.
    Delivering,
    /// It may have been executed, and sending again could double it. Entered by a verdict;
    /// left only with evidence: a late answer, a lookup, a webhook, or a person.
    InDoubt,
    /// The final answer is known and kept. Never left.
    Done,
    /// No attempt will be made. Entered by a verdict, a person, or recovery; left by the same
    /// key or by a person's redelivery.
    Dead(Death),
}

impl State {
    /// The word for it in answers, logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Delivering => "delivering",
            Self::InDoubt => "in_doubt",
            Self::Done => "done",
            Self::Dead(_) => "dead",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Pending { .. } | Self::Delivering | Self::InDoubt => false,
            Self::Done | Self::Dead(_) => true,
        }
    }
}

/// Why an operation is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The upstream refused it; nothing was done there.
    Refused,
    /// Attempts, time or the upstream's key window ran out.
    Exhausted,
    /// No attempt ever sent a byte.
    Unsent,
    /// A person gave it up.
    Cancelled,
    /// The caller waited on a node that ended meanwhile.
    OwnerGone,
    /// A newer one about the same was done first.
    Superseded,
}

impl Death {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Exhausted,
        Self::Unsent,
        Self::Cancelled,
        Self::OwnerGone,
        Self::Superseded,
    ];

    /// The word for it in answers, logs and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Unsent => "unsent",
            Self::Cancelled => "cancelled",
            Self::OwnerGone => "owner_gone",
            Self::Superseded => "superseded",
        }
    }
}

/// The final answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its status, where there was an answer.
    pub status: Option<u16>,
    /// Whether it meets the route's `success`.
    pub ok: bool,
    /// How we know it.
    pub source: Source,
    /// Where the answer is kept; nothing where it is not retained.
    pub answer: Option<BodyRef>,
}

/// How an outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upstream answered.
    Upstream,
    /// The upstream answered, after the operation had been given into doubt.
    LateAnswer,
    /// The upstream's answer began and broke off: its status is known, its body is lost.
    Truncated,
    /// The upstream's answer was larger than what is kept.
    TooLarge,
    /// The answer itself says that an earlier attempt had done it.
    Inferred,
    /// A person said so.
    Person,
    /// The upstream was asked, and knew of it.
    Lookup,
    /// The provider said so by itself, in a webhook.
    Webhook,
    /// Whoever had claimed it said so.
    Holder,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Upstream,
        Self::LateAnswer,
        Self::Truncated,
        Self::TooLarge,
        Self::Inferred,
        Self::Person,
        Self::Lookup,
        Self::Webhook,
        Self::Holder,
    ];

    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::LateAnswer => "late_answer",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Inferred => "inferred",
            Self::Person => "person",
            Self::Lookup => "lookup",
            Self::Webhook => "webhook",
            Self::Holder => "holder",
        }
    }
}

/// What a person did to an operation: who, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
    /// Who: the name of the access key, or `local`.
    pub who: String,
    /// Why, in that person's words; the evidence where it resolves a doubt.
    pub reason: String,
}

/// What a person can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Sent again on purpose.
    Redelivered,
    /// Gave up.
    Cancelled,
    /// Said of an operation in doubt that it was done.
    ResolvedDone,
    /// Said of an operation in doubt that it was not sent.
    ResolvedNotSent,
    /// Dropped the key before its time.
    Forgot,
    /// Made the key last longer.
    Extended,
    /// Gave it another key beside its own.
    Rotated,
    /// Asked anew, changed or not, by an operation of its own: this one.
    Resent,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Redelivered,
        Self::Cancelled,
        Self::ResolvedDone,
        Self::ResolvedNotSent,
        Self::Forgot,
        Self::Extended,
        Self::Rotated,
        Self::Resent,
    ];

    /// The word for it in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redelivered => "redelivered",
            Self::Cancelled => "cancelled",
            Self::ResolvedDone => "resolved_done",
            Self::ResolvedNotSent => "resolved_not_sent",
            Self::Forgot => "forgot",
            Self::Extended => "extended",
            Self::Rotated => "rotated",
            Self::Resent => "resent",
        }
    }
}

/// What a forgotten key gets from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// 410 with the person's reason.
    Refuse,
    /// It is a new operation.
    New,
}

/// A fact in an operation's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An attempt may start, made by this session.
    Started(Session),
    /// The attempt under way ended, and this follows.
    Ended(Ended, Verdict),
    /// Without an attempt, this follows: time ran out, or the owner is gone.
    Ruled(Verdict),
    /// The same key asked again, or a person wants it sent again.
    Revived {
        /// When the next attempt may start.
        due: Timestamp,
        /// Who waits now.
        mode: Mode,
        /// The person, where it was one.
        act: Option<Act>,
    },
    /// A person gave up, resolved a doubt, or dropped the key.
    Acted(Act, Option<Outcome>, Option<Forgotten>),
    /// It is its turn among those about the same.
    TurnCame {
        /// When its attempt may start.
        due: Timestamp,
    },
    /// It is not its turn, or not any more.
    TurnWent {
        /// When it is looked at again, where it waits.
        due: Timestamp,
    },
    /// A newer one about the same was done: this one is not sent any more.
    Superseded {
        /// Which.
        by: OperationId,
    },
    /// The upstream is asked what became of it, or was asked and that decided nothing.
    Looked(Looks),
    /// A person made its key last for so long, from completion.
    Extended(Act, Duration),
    /// A person gave it another key: this operation owns it.
    Rotated(Act, OperationId),
    /// Somebody's own handler says what becomes of its claim.
    Claim(ClaimEvent),
}

/// A fact that cannot follow from where the operation stands. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {from} cannot become {to}")]
pub struct Illegal {
    /// Where it stands.
    pub from: &'static str,
    /// Where it was to go.
    pub to: &'static str,
}

/// Where a state is to go: the arrows of the life of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Start,
    Wait(Timestamp),
    Doubt,
    Finish,
    /// Finished, by the word of whoever had it in hand last.
    Prove,
    Bury(Death),
    Revive(Timestamp),
    Cancel,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "delivering",
            Self::Wait(_) | Self::Revive(_) => "pending",
            Self::Doubt => "in_doubt",
            Self::Finish | Self::Prove => "done",
            Self::Bury(_) | Self::Cancel => "dead",
        }
    }
}

impl State {
    /// The state after `step`; every pair is written out, so that a new state does not compile
    /// until somebody has decided about it.
    pub(crate) fn after(self, step: Step) -> Result<Self, Illegal> {
        let illegal = Err(Illegal { from: self.name(), to: step.name() });
        match self {
            Self::Pending { .. } => match step {
                Step::Start => Ok(Self::Delivering),
                Step::Wait(due) => Ok(Self::Pending { due }),
                Step::Doubt => Ok(Self::InDoubt),
                Step::Bury(death) => Ok(Self::Dead(death)),
                Step::Cancel => Ok(Self::Dead(Death::Cancelled)),
                // Nothing is under way that could answer, and nothing has ended that could revive.
                Step::Finish | Step::Prove | Step::Revive(_) => illegal,
            },
            Self::Delivering => match step {
                Step::Wait(due) => Ok(Self::Pending { due }),
                Step::Doubt => Ok(Self::InDoubt),
                Step::Finish | Step::Prove => Ok(Self::Done),
                Step::Bury(death) => Ok(Self::Dead(death)),
                // What may be on the wire can be neither called back nor sent beside itself.
                Step::Start | Step::Revive(_) | Step::Cancel => illegal,
            },
            Self::InDoubt => match step {
                Step::Finish | Step::Prove => Ok(Self::Done),
                Step::Bury(death) => Ok(Self::Dead(death)),
                Step::Revive(due) => Ok(Self::Pending { due }),
                // Only evidence ends a doubt, and giving up is none.
                Step::Start | Step::Wait(_) | Step::Doubt | Step::Cancel => illegal,
            },
            Self::Done => match step {
                Step::Start
                | Step::Wait(_)
                | Step::Doubt
                | Step::Finish
                | Step::Prove
                | Step::Bury(_)
                | Step::Revive(_)
                | Step::Cancel => illegal,
            },
            Self::Dead(death) => match step {
                Step::Revive(due) => Ok(Self::Pending { due }),
                // It was silent for too long, and nobody has had it in hand since.
                Step::Prove if death == Death::OwnerGone => Ok(Self::Done),
                // The upstream's window passed before it could be revived.
                Step::Doubt => Ok(Self::InDoubt),
                Step::Start
                | Step::Wait(_)
                | Step::Finish
                | Step::Prove
                | Step::Bury(_)
                | Step::Cancel => illegal,
            },
        }
    }
}

impl Operation {
    /// An operation that is due at once, of which nothing else is said: it goes where its scope is
    /// called, it is held, doing it twice may be two effects, and its key lasts no time.
    pub fn new(
        id: OperationId,
        scope: Scope,
        key: Key,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            fence: Fence(0),
            route: scope.name.clone(),
            scope,
            key,
            fingerprint,
            mode: Mode::Held,
            effects: Effects::NonIdempotent,
            upstream_key: None,
            via: None,
            method: String::new(),
            target: String::new(),
            label: None,
            created_at: now,
            state: State::Pending { due: now },
            attempts: Vec::new(),
            run: Run { since: now, before: 0 },
            deadline: None,
            attempts_max: None,
            send_by: None,
            upstream_window: Duration::ZERO,
            window: Duration::ZERO,
            tombstone: Duration::ZERO,
            ended_at: None,
            told: false,
            outcome: None,
            acts: Vec::new(),
            request: None,
            forgotten: None,
            flow: None,
            subject: None,
            parent: None,
            alias_of: None,
            callback: None,
            ids: Vec::new(),
            looks: Looks::default(),
            aliases: Vec::new(),
            retain: None,
            lease_until: None,
        }
    }

    /// The operation after `event` at `now`, with the next fence; or why that cannot be.
    pub fn after(&self, event: Event, now: Timestamp) -> Result<Self, Illegal> {
        let mut next = self.clone();
        next.fence = Fence(self.fence.0 + 1);
        match event {
            Event::Started(by) => {
                if !self.is_first() {
                    return Err(Illegal { from: "not first", to: Step::Start.name() });
                }
                next.state = self.state.after(Step::Start)?;
                next.attempts.push(Attempt {
                    n: self.attempts_made() + 1,
                    by,
                    started_at: now,
                    ended: None,
                });
            }
            Event::Ended(ended, verdict) => next.end_attempt(ended, verdict, now)?,
            Event::Ruled(verdict) => next.rule(verdict, now)?,
            Event::Revived { due, mode, act } => {
                next.state = self.state.after(Step::Revive(due))?;
                next.run = Run { since: now, before: self.attempts_made() };
                next.mode = mode;
                next.told = false;
                next.ended_at = None;
                next.outcome = None;
                if let Some(subject) = &mut next.subject {
                    subject.superseded_by = None;
                }
                next.ids.clear();
                // They bound the call that set them; whoever wants it now sets their own.
                next.deadline = None;
                next.attempts_max = None;
                match act.as_ref().map(|act| act.deed) {
                    Some(Deed::ResolvedNotSent) => next.trust_that_nothing_was_done(),
                    // A person took the risk that the upstream has forgotten the key.
                    Some(_) if next.send_by.is_some_and(|send_by| now >= send_by) => {
                        next.send_by = None;
                    }
                    _ => {}
                }
                next.acts.extend(act);
            }
            Event::Acted(act, outcome, forgotten) => next.act(act, outcome, forgotten, now)?,
            Event::TurnCame { due } => next.come_first(due)?,
            Event::TurnWent { due } => next.step_back(due)?,
            Event::Superseded { by } => next.supersede(by, now)?,
            Event::Looked(looks) => {
                if self.state != State::InDoubt {
                    return Err(Illegal { from: self.state.name(), to: "looked for" });
                }
                next.looks = looks;
            }
            Event::Extended(act, window) => next.extend(act, window, now)?,
            Event::Rotated(act, alias) => next.rotate(act, alias, now)?,
            Event::Claim(event) => next.claim(event, now)?,
        }
        Ok(next)
    }

    fn come_first(&mut self, due: Timestamp) -> Result<(), Illegal> {
        let illegal = Illegal { from: self.state.name(), to: "first" };
        let (State::Pending { .. }, Some(subject)) = (self.state, &mut self.subject) else {
            return Err(illegal);
        };
        subject.is_first = true;
        self.state = State::Pending { due };
        // Waiting for its turn takes nothing of its time.
        if self.attempts_in_run() == 0 {
            self.run.since = self.run.since.max(due);
        }
        Ok(())
    }

    fn step_back(&mut self, due: Timestamp) -> Result<(), Illegal> {
        let illegal = Illegal { from: self.state.name(), to: "behind others" };
        let Some(subject) = &mut self.subject else { return Err(illegal) };
        match self.state {
            State::Pending { .. } => self.state = State::Pending { due },
            // Whoever revives it begins behind the others.
            State::InDoubt | State::Dead(_) => {}
            State::Delivering | State::Done => return Err(illegal),
        }
        subject.is_first = false;
        Ok(())
    }

    fn supersede(&mut self, by: OperationId, now: Timestamp) -> Result<(), Illegal> {
        let illegal = Illegal { from: self.state.name(), to: Death::Superseded.name() };
        let (State::Pending { .. }, Some(subject)) = (self.state, &mut self.subject) else {
            return Err(illegal);
        };
        subject.superseded_by = Some(by);
        self.state = self.state.after(Step::Bury(Death::Superseded))?;
        self.ended_at = Some(now);
        // It is as its caller wanted it: newer.
        self.told = true;
        Ok(())
    }

    /// Whether it is its turn among those about the same; always, where they have no order.
    pub fn is_first(&self) -> bool {
        self.subject.as_ref().is_none_or(|subject| subject.is_first)
    }

    fn end_attempt(
        &mut self,
        ended: Ended,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        let illegal = Illegal { from: self.state.name(), to: "after an attempt" };
        let upstream_window = self.upstream_window;
        let attempt = self.attempts.last_mut().ok_or(illegal)?;
        // A late answer belongs to the attempt whose end was only assumed.
        if attempt.ended.is_some() && self.state != State::InDoubt {
            return Err(illegal);
        }
        if ended.may_have_executed && self.effects == Effects::Keyed && self.send_by.is_none() {
            self.send_by = Some(attempt.started_at.plus(upstream_window.mul_f64(0.8)));
        }
        attempt.ended = Some(ended);
        match (self.state, verdict) {
            // The late answer itself says that nothing was done.
            (State::InDoubt, Verdict::Retry { due }) => {
                self.state = self.state.after(Step::Revive(due))?;
                Ok(())
            }
            (State::InDoubt, Verdict::Doubt) => Ok(()),
            (_, verdict) => self.rule(verdict, now),
        }
    }

    /// A person vouches for it: what was in doubt counts as unsent from now on.
    fn trust_that_nothing_was_done(&mut self) {
        self.send_by = None;
        for ended in self.attempts.iter_mut().filter_map(|attempt| attempt.ended.as_mut()) {
            ended.may_have_executed = false;
        }
    }

    pub(crate) fn rule(&mut self, verdict: Verdict, now: Timestamp) -> Result<(), Illegal> {
        match verdict {
            Verdict::Finish(outcome) => {
                self.state = self.state.after(Step::Finish)?;
                self.ended_at = Some(now);
                self.outcome = Some(outcome);
            }
            Verdict::Retry { due } => self.state = self.state.after(Step::Wait(due))?,
            Verdict::Doubt => {
                self.state = self.state.after(Step::Doubt)?;
                self.ended_at = None;
                self.looks = Looks::default();
            }
            Verdict::Bury(death, outcome) => {
                self.state = self.state.after(Step::Bury(death))?;
                self.ended_at = Some(now);
                self.outcome = outcome;
                self.told = self.mode == Mode::Held;
            }
        }
        Ok(())
    }

    fn act(
        &mut self,
        act: Act,
        outcome: Option<Outcome>,
        forgotten: Option<Forgotten>,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        match act.deed {
            Deed::Cancelled => {
                self.state = self.state.after(Step::Cancel)?;
                self.ended_at = Some(now);
                self.told = true;
            }
            Deed::ResolvedDone => {
                if self.state != State::InDoubt {
                    return Err(Illegal { from: self.state.name(), to: "resolved" });
                }
                self.state = self.state.after(Step::Finish)?;
                self.ended_at = Some(now);
                self.outcome = outcome;
            }
            Deed::Forgot => {
                if !self.state.is_ended() {
                    return Err(Illegal { from: self.state.name(), to: "forgotten" });
                }
                self.forgotten = forgotten;
            }
            // Nobody waits for it any more: whoever asks again sends it.
            Deed::ResolvedNotSent => {
                if self.state != State::InDoubt {
                    return Err(Illegal { from: self.state.name(), to: "resolved" });
                }
                self.rule(Verdict::Bury(Death::Unsent, None), now)?;
                self.trust_that_nothing_was_done();
            }
            Deed::Redelivered | Deed::Extended | Deed::Rotated => {
                return Err(Illegal {
                    from: self.state.name(),
                    to: "acted upon by this deed alone",
                });
            }
            Deed::Resent => {
                return Err(Illegal { from: self.state.name(), to: "born again" });
            }
        }
        self.acts.push(act);
        Ok(())
    }

    /// Only a key that still replays is extended, and never to an earlier end: retention cannot
    /// reopen a key.
    fn extend(&mut self, act: Act, window: Duration, now: Timestamp) -> Result<(), Illegal> {
        let before = self.replaying(now).ok_or(Illegal { from: "over", to: "extended" })?;
        self.window = window;
        if self.key_expires_at() <= Some(before) {
            return Err(Illegal { from: "kept as long already", to: "extended" });
        }
        self.acts.push(act);
        Ok(())
    }

    fn rotate(&mut self, act: Act, alias: OperationId, now: Timestamp) -> Result<(), Illegal> {
        self.replaying(now).ok_or(Illegal { from: "over", to: "rotated" })?;
        if !self.aliases.contains(&alias) {
            self.aliases.push(alias);
        }
        self.acts.push(act);
        Ok(())
    }

    /// When its key expires, where it has ended and its key answers still.
    fn replaying(&self, now: Timestamp) -> Option<Timestamp> {
        let expires_at = self.key_expires_at().filter(|_| self.state.is_ended())?;
        (self.forgotten.is_none() && now < expires_at).then_some(expires_at)
    }

    /// The session that has it in hand: it makes the attempt under way, or has the caller who
    /// waits for the next one. Nothing where the operation is at rest or waits in the ledger.
    pub fn owner(&self) -> Option<Session> {
        let last = || self.attempts.last().map(|attempt| attempt.by);
        if self.scope.kind == ScopeKind::Claim {
            return None;
        }
        match (self.state, self.mode) {
            (State::Delivering, _) | (State::Pending { .. }, Mode::Held) => last(),
            (State::Pending { .. }, Mode::Accepted)
            | (State::InDoubt | State::Done | State::Dead(_), _) => None,
        }
    }

    /// How many attempts were started.
    pub fn attempts_made(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.n)
    }

    /// How many attempts the present run has had; none where only the mark is left.
    pub fn attempts_in_run(&self) -> u32 {
        self.attempts_made().saturating_sub(self.run.before)
    }

    /// Whether any attempt so far may have been executed.
    pub fn may_have_executed(&self) -> bool {
        self.attempts.iter().any(Attempt::may_have_executed)
    }

    /// The status that it ended with, or that it met last.
    pub fn last_status(&self) -> Option<u16> {
        let met = || {
            let last = self.attempts.iter().rev().find_map(|attempt| attempt.ended.as_ref());
            last.and_then(|ended| ended.status)
        };
        self.outcome.as_ref().and_then(|outcome| outcome.status).or_else(met)
    }

    /// When the key is forgotten with its outcome, where the operation has ended. What may have
    /// been executed and died stays longer: its key opens the way to run it again.
    pub fn key_expires_at(&self) -> Option<Timestamp> {
        let window = match self.state {
            State::Dead(Death::Exhausted | Death::OwnerGone) => self.window.max(EXHAUSTED_WINDOW),
            _ => self.window,
        };
        Some(self.ended_at?.plus(window))
    }

    /// Whether a person should see it as a dead letter.
    pub fn is_dead_letter(&self) -> bool {
        matches!(self.state, State::Dead(_)) && !self.told
    }

    /// Every body that the operation refers to.
    pub fn bodies(&self) -> impl Iterator<Item = BodyRef> {
        let answers = self.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()?.answer);
        let outcome = self.outcome.as_ref().and_then(|outcome| outcome.answer);
        self.request.into_iter().chain(answers).chain(outcome)
    }

    /// The operation without its request and its answers; the key and all that happened stay.
    #[must_use]
    pub fn without_bodies(&self) -> Self {
        let mut kept = self.clone();
        kept.fence = Fence(self.fence.0 + 1);
        kept.request = None;
        for ended in kept.attempts.iter_mut().filter_map(|attempt| attempt.ended.as_mut()) {
            ended.answer = None;
        }
        if let Some(outcome) = &mut kept.outcome {
            outcome.answer = None;
        }
        kept
    }

    /// What stays of the operation after its window: that its key was used, and how it ended.
    #[must_use]
    pub fn forgotten_but_for_its_mark(&self) -> Self {
        let mut mark = self.clone();
        mark.fence = Fence(self.fence.0 + 1);
        mark.request = None;
        mark.attempts.clear();
        mark.label = None;
        mark.ids.clear();
        if let Some(outcome) = &mut mark.outcome {
            outcome.answer = None;
        }
        mark
    }
}

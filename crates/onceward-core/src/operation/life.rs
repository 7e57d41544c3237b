//! The life of an operation: the only place where a state becomes another.

use std::time::Duration;

use super::{
    Act, Death, Deed, Fence, Forgotten, Looks, Operation, Outcome, Run, State, is_said_by_a_mail,
};
use crate::attempt::{Attempt, Ended};
use crate::claim::ClaimEvent;
use crate::id::OperationId;
use crate::key::ScopeKind;
use crate::lease::Session;
use crate::policy::{Effects, Mode};
use crate::saga::SagaEvent;
use crate::time::Timestamp;
use crate::verdict::Verdict;

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
    /// A person wants the attempt that it waits for now.
    Retried {
        /// When it may start, if that is sooner.
        due: Timestamp,
        /// The person.
        act: Act,
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
    /// A saga went on.
    Saga(SagaEvent),
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
    /// The operation after `event` at `now`, with the next fence; or why that cannot be.
    pub fn after(&self, event: Event, now: Timestamp) -> Result<Self, Illegal> {
        let mut next = self.clone();
        next.go_on(event, now)?;
        Ok(next)
    }

    /// The same, in its place: after an error it is of no use.
    fn go_on(&mut self, event: Event, now: Timestamp) -> Result<(), Illegal> {
        match event {
            Event::Started(by) => {
                if !self.is_first() {
                    return Err(Illegal { from: "not first", to: Step::Start.name() });
                }
                self.state = self.state.after(Step::Start)?;
                // Most have one attempt and no more.
                self.attempts.reserve_exact(1);
                self.attempts.push(Attempt {
                    n: self.attempts_made() + 1,
                    by,
                    started_at: now,
                    ended: None,
                });
            }
            Event::Ended(ended, verdict) => self.end_attempt(ended, verdict, now)?,
            Event::Ruled(verdict) => self.rule(verdict, now)?,
            Event::Revived { due, mode, act } => self.revive(due, mode, act, now)?,
            Event::Retried { due, act } => self.retry(due, act)?,
            Event::Acted(act, outcome, forgotten) => self.act(act, outcome, forgotten, now)?,
            Event::TurnCame { due } => self.come_first(due)?,
            Event::TurnWent { due } => self.step_back(due)?,
            Event::Superseded { by } => self.supersede(by, now)?,
            Event::Looked(looks) => {
                if self.state != State::InDoubt {
                    return Err(Illegal { from: self.state.name(), to: "looked for" });
                }
                self.looks = looks;
            }
            Event::Extended(act, window) => self.extend(act, window, now)?,
            Event::Rotated(act, alias) => self.rotate(act, alias, now)?,
            Event::Claim(event) => self.claim(event, now)?,
            Event::Saga(event) => self.saga(event, now)?,
        }
        self.fence = Fence(self.fence.0 + 1);
        Ok(())
    }

    pub(crate) fn revive(
        &mut self,
        due: Timestamp,
        mode: Mode,
        act: Option<Act>,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        self.state = self.state.after(Step::Revive(due))?;
        self.run = Run { since: now, before: self.attempts_made() };
        self.mode = mode;
        self.told = false;
        self.ended_at = None;
        // What an answer made goes with it; what a mail says of itself stays.
        if self.outcome.take().is_some() {
            let is_mail = self.is_mail();
            self.ids.retain(|(name, _)| is_mail && is_said_by_a_mail(name));
        }
        if let Some(subject) = &mut self.subject {
            subject.superseded_by = None;
        }
        // They bound the call that set them; whoever wants it now sets their own.
        self.deadline = None;
        self.attempts_max = None;
        match act.as_ref().map(|act| act.deed) {
            Some(Deed::ResolvedNotSent) => self.trust_that_nothing_was_done(),
            // A person took the risk that the upstream has forgotten the key.
            Some(_) if self.send_by.is_some_and(|send_by| now >= send_by) => self.send_by = None,
            _ => {}
        }
        self.acts.extend(act);
        Ok(())
    }

    fn retry(&mut self, due: Timestamp, act: Act) -> Result<(), Illegal> {
        let State::Pending { due: then } = self.state else {
            return Err(Illegal { from: self.state.name(), to: "retried" });
        };
        if !self.is_first() {
            return Err(Illegal { from: "not first", to: "retried" });
        }
        self.state = self.state.after(Step::Wait(due.min(then)))?;
        self.acts.push(act);
        Ok(())
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

    fn end_attempt(
        &mut self,
        ended: Ended,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        let illegal = Illegal { from: self.state.name(), to: "after an attempt" };
        let (effects, upstream_window) = (self.effects, self.upstream_window);
        let attempt = self.attempts.last_mut().ok_or(illegal)?;
        // A late answer belongs to the attempt whose end was only assumed.
        if attempt.ended.is_some() && self.state != State::InDoubt {
            return Err(illegal);
        }
        if ended.may_have_executed && effects == Effects::Keyed && self.send_by.is_none() {
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
                // Of a step its saga is told, and that says so to people.
                self.told = self.mode == Mode::Held || self.scope.kind == ScopeKind::Step;
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
            Deed::Redelivered | Deed::Retried | Deed::Extended | Deed::Rotated => {
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
}

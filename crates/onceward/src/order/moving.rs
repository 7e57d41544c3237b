//! Moving a line on, step by step, until whoever may go goes and the others wait.

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::line::{End, Line, Place, Step, Turn};
use onceward_core::operation::{Event, Operation, State};
use onceward_core::policy::Policy;
use onceward_core::time::Timestamp;

use super::{cell, look_again};
use crate::engine::Engine;
use crate::sabotage::Sabotage;
use crate::store::{StoreError, Which};

/// What follows a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The line says what comes next.
    On,
    /// Nothing is left to do.
    Rest,
    /// Somebody else wrote meanwhile: all of it is looked at again.
    Again,
}

impl Then {
    fn rest_if(is_ours: bool) -> Self {
        if is_ours { Self::Rest } else { Self::Again }
    }
}

/// A line that is being moved, and its cell as it was read.
pub(super) struct Moving<'a> {
    engine: &'a Engine,
    policy: &'a Policy,
    name: &'a str,
    line: Line,
    before: Option<Bytes>,
}

impl<'a> Moving<'a> {
    /// The line in the cell of this name.
    pub(super) async fn of(
        engine: &'a Engine,
        policy: &'a Policy,
        name: &'a str,
    ) -> Result<Self, StoreError> {
        let before = engine.store.setting(name.to_owned()).await?;
        Ok(Self { engine, policy, name, line: cell::decode(before.as_ref())?, before })
    }

    /// Takes in what is new of `operation`, and goes on until nothing is left to do, or until somebody
    /// else wrote.
    pub(super) async fn advance(mut self, operation: OperationId) -> Result<Then, StoreError> {
        if let Some(found) = self.find(operation).await? {
            self.take_in(&found);
        }
        loop {
            let now = self.engine.clock.now();
            let then = match self.line.next(self.policy.order_gap_max, now) {
                Step::Rest => Then::rest_if(self.keep().await?),
                Step::Supersede(old, by) => self.supersede(old, by).await?,
                Step::Wait(first, until) => self.let_wait(first, until).await?,
                step @ (Step::Look(place) | Step::TakeBack(place) | Step::Go(place)) => {
                    match (self.find(place.id).await?, step) {
                        (None, _) => {
                            self.line.leave(place.id);
                            Then::On
                        }
                        (Some(found), Step::Look(_)) => self.look(place, &found).await?,
                        (Some(found), Step::TakeBack(_)) => self.take_back(place, found).await?,
                        (Some(found), _) => self.let_go(place, &found).await?,
                    }
                }
            };
            if then != Then::On {
                return Ok(then);
            }
        }
    }

    async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.engine.store.find(Which::Id(id)).await
    }

    /// Puts what is new of an operation into the line.
    fn take_in(&mut self, found: &Operation) {
        let Some(place) = Place::of(found) else { return };
        if matches!(found.state, State::Pending { .. }) {
            // One too many joins later.
            let room = self.policy.subject_max.saturating_mul(2);
            if !found.is_first() && self.line.waiting.len() < room {
                self.line.join(place);
            }
        } else if self.line.head() != Some(place)
            && let Some(end) = self.end_of(found)
        {
            self.line.end(place, end);
        }
    }

    /// How an operation of the line came to rest; nothing where it has not.
    fn end_of(&self, found: &Operation) -> Option<End> {
        let end = End::of(found, self.policy.order_block_max, self.engine.clock.now())?;
        Some(End { counts: end.counts && !Sabotage::OlderSent.is_on(), ..end })
    }

    /// Writes the cell where it changed; tells whether nobody else did meanwhile.
    async fn keep(&self) -> Result<bool, StoreError> {
        let is_over = self.line.is_over(self.engine.clock.now());
        let value = (!is_over).then(|| cell::encode(&self.line));
        if value == self.before {
            return Ok(true);
        }
        self.engine.store.swap(self.name.to_owned(), self.before.clone(), value).await
    }

    /// The first waits until something that keeps it from going is over.
    async fn let_wait(&self, first: Place, until: Timestamp) -> Result<Then, StoreError> {
        if !self.keep().await? {
            return Ok(Then::Again);
        }
        match self.find(first.id).await?.map(|found| (found.state, found)) {
            Some((State::Pending { due }, found)) if due > until => {
                let turned = self.turn(&found, Event::TurnWent { due: until }).await?;
                Ok(Then::rest_if(turned.is_some()))
            }
            _ => Ok(Then::Rest),
        }
    }

    /// Older ones than one that was done are not sent any more.
    async fn supersede(&mut self, old: Vec<Place>, by: OperationId) -> Result<Then, StoreError> {
        for place in old {
            match self.find(place.id).await? {
                Some(found) if matches!(found.state, State::Pending { .. }) => {
                    let Some(buried) = self.turn(&found, Event::Superseded { by }).await? else {
                        return Ok(Then::Again);
                    };
                    self.engine.rested(&buried);
                    self.engine.waiters.wake(buried.id);
                }
                _ => {}
            }
            self.line.leave(place.id);
            self.line.passed = self.line.passed.max(place.sequence);
        }
        Ok(Then::On)
    }

    /// Whether the one that has the turn has come to rest, or is still to be given it.
    async fn look(&mut self, head: Place, found: &Operation) -> Result<Then, StoreError> {
        let is_overtaken = self.line.waiting.first().is_some_and(|first| *first < head)
            && found.attempts_in_run() == 0;
        match found.state {
            State::Done => {
                if let Some(end) = self.end_of(found) {
                    self.line.end(head, end);
                }
                Ok(Then::On)
            }
            State::Pending { .. } if !is_overtaken => {
                if !self.keep().await? {
                    return Ok(Then::Again);
                }
                if found.is_first() {
                    return Ok(Then::Rest);
                }
                // The process that was to give it ended before. The cell has to say so still, after
                // the operation was read.
                let is_as_it_was = self.before.as_ref() == Some(&cell::encode(&self.line));
                if is_as_it_was
                    && self.engine.store.setting(self.name.to_owned()).await? != self.before
                {
                    return Ok(Then::Again);
                }
                self.give(found).await
            }
            State::Pending { .. } | State::InDoubt | State::Dead(_) => {
                self.line.turn = Turn::BackFrom(head);
                self.keep().await?;
                Ok(Then::Again)
            }
            State::Delivering => Ok(Then::rest_if(self.keep().await?)),
        }
    }

    /// Takes the turn back from one that has not started, or that ended without being done.
    async fn take_back(&mut self, head: Place, found: Operation) -> Result<Then, StoreError> {
        let stays = match found.state {
            State::Delivering => {
                self.line.turn = Turn::Of(head);
                return Ok(Then::On);
            }
            State::Done => found,
            _ if Sabotage::TurnNotTakenBack.is_on() => found,
            _ => {
                let due = look_again(head.id, self.engine.clock.now());
                match self.turn(&found, Event::TurnWent { due }).await? {
                    Some(turned) => turned,
                    None if self.engine.is_succeeded(&found).await? => found,
                    None => return Ok(Then::Again),
                }
            }
        };
        self.line.leave(head.id);
        if let Some(end) = self.end_of(&stays) {
            self.line.end(head, end);
        } else {
            self.line.join(head);
        }
        Ok(Then::On)
    }

    /// It is the turn of the first that waits. It was read before the cell is written: whoever takes
    /// the turn back later writes it anew.
    async fn let_go(&mut self, first: Place, found: &Operation) -> Result<Then, StoreError> {
        if let Some(end) = self.end_of(found) {
            self.line.end(first, end);
            return Ok(Then::On);
        }
        self.line.leave(first.id);
        self.line.turn = Turn::Of(first);
        if !self.keep().await? {
            return Ok(Then::Again);
        }
        self.give(found).await
    }

    /// Gives the turn to an operation that the cell names.
    async fn give(&self, found: &Operation) -> Result<Then, StoreError> {
        let now = self.engine.clock.now();
        let due = if found.attempts_in_run() == 0 { found.run.since.max(now) } else { now };
        Ok(Then::rest_if(self.turn(found, Event::TurnCame { due }).await?.is_some()))
    }

    /// Writes what became of an operation's turn; nothing where somebody else wrote it meanwhile.
    async fn turn(&self, found: &Operation, event: Event) -> Result<Option<Operation>, StoreError> {
        self.engine.write(found.after(event, self.engine.clock.now()), None, false).await
    }
}

//! Those about one subject, one after the other. Their line is a cell of the ledger that is changed by
//! comparing and swapping, so that any node may move it on; whose turn it is stands in the operation
//! too, and the fence of its writes decides where two nodes differ.
//!
//! Between the two writes a process may end: an operation that waits for its turn is due after a
//! while all the same, and whoever finds it looks at its line again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::backoff;
use onceward_core::exchange::{Headers, Response};
use onceward_core::id::OperationId;
use onceward_core::line::{Block, End, Line, Place, Step, Turn};
use onceward_core::operation::{Death, Event, Operation, State};
use onceward_core::policy::{Order, Policy};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::call::Arrival;
use crate::engine::Engine;
use crate::sabotage::Sabotage;
use crate::store::{StoreError, Way, Which, Write};

/// What the setting of a line is called.
const PREFIX: &str = "line/";

/// Whoever waits for its turn is looked at again after about so long.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The same for one that has waited for long, at most.
const LOOK_AGAIN_MAX: Duration = Duration::from_hours(1);

/// How often a line that others move too is looked at again before it is left to them.
const RACES_MAX: usize = 64;

/// Lines that are moved at once by this node, at most.
const STRIPES: usize = 64;

/// The shape of a cell.
const VERSION: u8 = 1;

/// Whoever moves a line of this node waits for the others who do, instead of racing them.
#[derive(Debug)]
pub(crate) struct Lines(Vec<Mutex<()>>);

impl Default for Lines {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Mutex::default()).collect())
    }
}

impl Lines {
    async fn alone(&self, name: &str) -> MutexGuard<'_, ()> {
        let mix = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(usize::from(byte));
        self.0[name.bytes().fold(0, mix) % STRIPES].lock().await
    }
}

/// Where an operation stands in the line of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InLine {
    /// Who keeps it from going.
    pub blocked_by: Option<OperationId>,
    /// How many wait because of it.
    pub behind: usize,
}

/// When an operation that waits for its turn is looked at again: the later the longer it has waited,
/// so that a long line costs little, and not all of it at once.
pub(crate) fn look_again(id: OperationId, now: Timestamp) -> Timestamp {
    let after = (now.since(id.made_at()) / 2).clamp(LOOK_AGAIN, LOOK_AGAIN_MAX);
    now.plus(after.mul_f64(1.0 + backoff::draw(id, 0) / 4.0))
}

/// What the caller of a superseded operation gets: nothing was sent, and what it wanted is outdated.
pub(crate) fn superseded() -> Response {
    Response {
        status: 204,
        headers: Headers::default(),
        body: Bytes::new(),
        trailers: Headers::default(),
    }
}

fn cell_of(operation: &Operation) -> Option<String> {
    let name = &operation.subject.as_ref()?.name;
    let (tenant, route) = (&operation.scope.tenant, &operation.route);
    Some(format!("{PREFIX}{}", Line::name(tenant, route, name)))
}

impl Engine {
    /// Whether `operation` waits for its turn among those about the same.
    pub(crate) fn is_in_order(&self, operation: &Operation) -> bool {
        let Some(subject) = &operation.subject else { return false };
        subject.sequence.is_some()
            || !subject.is_first
            || self.route_of(operation).1.order == Order::Subject
    }

    /// Whether one more may wait about its subject.
    pub(crate) async fn has_room_in_line(&self, arrival: &Arrival) -> Result<bool, StoreError> {
        let Some(subject) = &arrival.options.subject else { return Ok(true) };
        let name = Line::name(&arrival.scope.tenant, &arrival.route.name, subject);
        let cell = self.store.setting(format!("{PREFIX}{name}")).await?;
        Ok(read(cell.as_ref())?.waiting.len() < arrival.policy.subject_max)
    }

    /// Where `operation` stands in its line; nothing where it is in none and keeps nobody waiting.
    pub async fn in_line(&self, operation: &Operation) -> Result<Option<InLine>, StoreError> {
        let Some(cell) = cell_of(operation).filter(|_| self.is_in_order(operation)) else {
            return Ok(None);
        };
        let (line, now) = (read(self.store.setting(cell).await?.as_ref())?, self.clock.now());
        let (blocked_by, behind) = (line.before(operation.id, now), line.behind(operation.id, now));
        Ok((blocked_by.is_some() || behind > 0).then_some(InLine { blocked_by, behind }))
    }

    /// The operation that was just remembered or revived and waits for its turn, once its line has it.
    pub(crate) async fn put_in_line(&self, operation: Operation) -> Operation {
        self.advance(&operation).await;
        // It may have been outdated before it came; whatever else became of it is told by others.
        let found = self.store.find(Which::Id(operation.id)).await.ok().flatten();
        let is_old = |found: &Operation| found.state == State::Dead(Death::Superseded);
        found.filter(is_old).unwrap_or(operation)
    }

    /// The same as [`Engine::advance`], beside whoever asks for it.
    pub(crate) fn spawn_advance(self: &Arc<Self>, operation: &Operation) {
        if !self.is_in_order(operation) {
            return;
        }
        let (engine, operation) = (Arc::clone(self), operation.clone());
        let run = self.begin();
        tokio::spawn(async move {
            let _run = run;
            engine.advance(&operation).await;
        });
    }

    /// Moves the line of `operation` on, after it joined it or came to rest. What does not work now
    /// is done when one that waits is looked at again.
    pub(crate) async fn advance(&self, operation: &Operation) {
        let Some(cell) = cell_of(operation).filter(|_| self.is_in_order(operation)) else { return };
        let _alone = self.lines.alone(&cell).await;
        for _ in 0..RACES_MAX {
            match Box::pin(self.move_line(&cell, operation)).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if error.may_pass() || error == StoreError::Stale => return,
                Err(error) => return drop(self.heed(error)),
            }
        }
    }

    /// One look at a line; tells whether nothing is left to do.
    async fn move_line(&self, name: &str, operation: &Operation) -> Result<bool, StoreError> {
        let (_, policy) = self.route_of(operation);
        let before = self.store.setting(name.to_owned()).await?;
        let mut line = Moved { name, line: read(before.as_ref())?, before };
        self.take_in(&mut line.line, operation, &policy).await?;
        loop {
            let now = self.clock.now();
            let is_done = match line.line.next(policy.order_gap_max, now) {
                Step::Rest => Some(self.keep(&line).await?),
                Step::Wait(first, until) => Some(self.let_wait(&line, first, until).await?),
                Step::Supersede(old, by) => self.supersede(&mut line.line, old, by).await?,
                Step::Look(head) => self.look(&mut line, head, &policy).await?,
                Step::TakeBack(head) => self.take_back(&mut line, head, &policy).await?,
                Step::Go(first) => self.let_go(&mut line, first, &policy).await?,
            };
            if let Some(is_done) = is_done {
                return Ok(is_done);
            }
        }
    }

    /// Puts what is new of `operation` into its line.
    async fn take_in(
        &self,
        line: &mut Line,
        operation: &Operation,
        policy: &Policy,
    ) -> Result<(), StoreError> {
        let Some(found) = self.store.find(Which::Id(operation.id)).await? else { return Ok(()) };
        let Some(place) = Place::of(&found) else { return Ok(()) };
        if matches!(found.state, State::Pending { .. }) {
            // One too many joins later.
            if !found.is_first() && line.waiting.len() < policy.subject_max.saturating_mul(2) {
                line.join(place);
            }
        } else if line.head() != Some(place)
            && let Some(end) = self.end_of(&found, policy)
        {
            line.end(place, end);
        }
        Ok(())
    }

    /// How an operation of a line came to rest; nothing where it has not.
    fn end_of(&self, found: &Operation, policy: &Policy) -> Option<End> {
        let end = End::of(found, policy.order_block_max, self.clock.now())?;
        Some(End { counts: end.counts && !Sabotage::OlderSent.is_on(), ..end })
    }

    /// Writes the cell where it changed; tells whether nobody else did meanwhile.
    async fn keep(&self, moved: &Moved<'_>) -> Result<bool, StoreError> {
        let value = (!moved.line.is_over(self.clock.now())).then(|| write(&moved.line));
        if value == moved.before {
            return Ok(true);
        }
        self.store.swap(moved.name.to_owned(), moved.before.clone(), value).await
    }

    /// The first waits until something that keeps it from going is over.
    async fn let_wait(
        &self,
        moved: &Moved<'_>,
        first: Place,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        if !self.keep(moved).await? {
            return Ok(false);
        }
        let found = self.store.find(Which::Id(first.id)).await?;
        match found.map(|found| (found.state, found)) {
            Some((State::Pending { due }, found)) if due > until => self
                .turn(&found, Event::TurnWent { due: until })
                .await
                .map(|turned| turned.is_some()),
            _ => Ok(true),
        }
    }

    /// Older ones than one that was done are not sent any more.
    async fn supersede(
        &self,
        line: &mut Line,
        old: Vec<Place>,
        by: OperationId,
    ) -> Result<Option<bool>, StoreError> {
        for place in old {
            match self.store.find(Which::Id(place.id)).await? {
                Some(found) if matches!(found.state, State::Pending { .. }) => {
                    let Some(buried) = self.turn(&found, Event::Superseded { by }).await? else {
                        return Ok(Some(false));
                    };
                    self.rested(&buried);
                    self.waiters.wake(buried.id);
                }
                _ => {}
            }
            line.leave(place.id);
            line.passed = line.passed.max(place.sequence);
        }
        Ok(None)
    }

    /// Whether the one that has the turn has come to rest, or is still to be given it.
    async fn look(
        &self,
        moved: &mut Moved<'_>,
        head: Place,
        policy: &Policy,
    ) -> Result<Option<bool>, StoreError> {
        let Some(found) = self.store.find(Which::Id(head.id)).await? else {
            moved.line.leave(head.id);
            return Ok(None);
        };
        let is_overtaken = moved.line.waiting.first().is_some_and(|first| *first < head)
            && found.attempts_in_run() == 0;
        match found.state {
            State::Done => {
                if let Some(end) = self.end_of(&found, policy) {
                    moved.line.end(head, end);
                }
                Ok(None)
            }
            State::Pending { .. } if !is_overtaken => {
                let before = moved.before.clone();
                if !self.keep(moved).await? {
                    return Ok(Some(false));
                }
                // The process that was to give it ended before. The cell has to say so still, after
                // the operation was read.
                let is_given = found.is_first();
                let stays = write(&moved.line);
                let is_kept = is_given
                    || before.as_ref() != Some(&stays)
                    || self.store.setting(moved.name.to_owned()).await? == before;
                if !is_kept {
                    return Ok(Some(false));
                }
                if is_given { Ok(Some(true)) } else { self.give(&found).await.map(Some) }
            }
            State::Pending { .. } | State::InDoubt | State::Dead(_) => {
                moved.line.turn = Turn::BackFrom(head);
                self.keep(moved).await?;
                Ok(Some(false))
            }
            State::Delivering => self.keep(moved).await.map(Some),
        }
    }

    /// Takes the turn back from one that has not started, or that ended without being done.
    async fn take_back(
        &self,
        moved: &mut Moved<'_>,
        head: Place,
        policy: &Policy,
    ) -> Result<Option<bool>, StoreError> {
        let Some(found) = self.store.find(Which::Id(head.id)).await? else {
            moved.line.leave(head.id);
            return Ok(None);
        };
        let now = self.clock.now();
        let stays = match found.state {
            State::Delivering => {
                moved.line.turn = Turn::Of(head);
                return Ok(None);
            }
            State::Done => found,
            _ if Sabotage::TurnNotTakenBack.is_on() => found,
            _ => {
                match self.turn(&found, Event::TurnWent { due: look_again(head.id, now) }).await? {
                    Some(turned) => turned,
                    None if self.is_succeeded(&found).await? => found,
                    None => return Ok(Some(false)),
                }
            }
        };
        moved.line.leave(head.id);
        if let Some(end) = self.end_of(&stays, policy) {
            moved.line.end(head, end);
        } else {
            moved.line.join(head);
        }
        Ok(None)
    }

    /// It is the turn of the first that waits.
    async fn let_go(
        &self,
        moved: &mut Moved<'_>,
        first: Place,
        policy: &Policy,
    ) -> Result<Option<bool>, StoreError> {
        // Read before the cell is written: whoever takes the turn back later writes it anew.
        let Some(found) = self.store.find(Which::Id(first.id)).await? else {
            moved.line.leave(first.id);
            return Ok(None);
        };
        if let Some(end) = self.end_of(&found, policy) {
            moved.line.end(first, end);
            return Ok(None);
        }
        moved.line.leave(first.id);
        moved.line.turn = Turn::Of(first);
        if !self.keep(moved).await? {
            return Ok(Some(false));
        }
        self.give(&found).await.map(Some)
    }

    /// Gives the turn to an operation that the cell names; tells whether nobody wrote it meanwhile.
    async fn give(&self, found: &Operation) -> Result<bool, StoreError> {
        let due = match found.attempts_in_run() {
            0 => found.run.since.max(self.clock.now()),
            _ => self.clock.now(),
        };
        Ok(self.turn(found, Event::TurnCame { due }).await?.is_some())
    }

    /// Writes what became of an operation's turn; nothing where somebody else wrote it meanwhile.
    async fn turn(&self, found: &Operation, event: Event) -> Result<Option<Operation>, StoreError> {
        let Ok(operation) = found.after(event, self.clock.now()) else { return Ok(None) };
        match self.store.commit(Write { operation, answer: None, visible: false }).await {
            Ok(turned) => Ok(Some(turned)),
            Err(StoreError::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the key of an operation has gone to another: then nothing changes it any more.
    async fn is_succeeded(&self, operation: &Operation) -> Result<bool, StoreError> {
        let digest = operation.scope.digest(&operation.key);
        let owner = self.store.find(Which::Key(digest)).await?;
        Ok(owner.is_some_and(|owner| owner.id != operation.id))
    }

    /// One step of forgetting lines; tells where the next begins.
    pub(crate) async fn sweep_lines(
        &self,
        after: String,
        max: usize,
    ) -> Result<Option<String>, StoreError> {
        let page = {
            let from = Some(after).filter(|after| !after.is_empty());
            self.store.settings_from(PREFIX.to_owned(), from, Way::Up, max).await?
        };
        let next = page.last().filter(|_| page.len() == max).map(|(name, _)| name.clone());
        for (name, cell) in page {
            let line = read(Some(&cell))?;
            if line.is_over(self.clock.now()) {
                self.store.swap(name, Some(cell), None).await?;
            } else if let Some(first) = line.head().or_else(|| line.waiting.first().copied()) {
                // Whoever was to move it on may have ended before.
                match self.store.find(Which::Id(first.id)).await? {
                    Some(found)
                        if !line.waiting.is_empty()
                            || End::of(&found, Duration::ZERO, self.clock.now()).is_some() =>
                    {
                        self.advance(&found).await;
                    }
                    None if line.waiting.is_empty() => {
                        self.store.swap(name, Some(cell), None).await?;
                    }
                    _ => {}
                }
            }
        }
        Ok(next)
    }
}

/// A line that is being moved, and its cell as it was read.
struct Moved<'a> {
    name: &'a str,
    line: Line,
    before: Option<Bytes>,
}

type PlaceRow = (Option<u64>, u128);

#[derive(Default, Serialize, Deserialize)]
struct Row {
    version: u8,
    /// Whose, and whether it is being taken back.
    turn: Option<(PlaceRow, bool)>,
    newest: Option<PlaceRow>,
    passed: Option<u64>,
    block: Option<(PlaceRow, i64)>,
    waiting: Vec<PlaceRow>,
    ends_at: i64,
}

fn row(place: Place) -> PlaceRow {
    (place.sequence, place.id.as_u128())
}

fn place((sequence, id): PlaceRow) -> Place {
    Place { sequence, id: OperationId::from_u128(id) }
}

fn write(line: &Line) -> Bytes {
    let row = Row {
        version: VERSION,
        turn: match line.turn {
            Turn::Free => None,
            Turn::Of(head) => Some((row(head), false)),
            Turn::BackFrom(head) => Some((row(head), true)),
        },
        newest: line.newest.map(row),
        passed: line.passed,
        block: line.block.map(|block| (row(block.place), block.until.as_micros())),
        waiting: line.waiting.iter().copied().map(row).collect(),
        ends_at: line.ends_at.as_micros(),
    };
    // Writing into memory does not fail.
    postcard::to_allocvec(&row).unwrap_or_default().into()
}

fn read(cell: Option<&Bytes>) -> Result<Line, StoreError> {
    let Some(cell) = cell else { return Ok(Line::default()) };
    match cell.first() {
        Some(&VERSION) => {}
        Some(later) if *later > VERSION => {
            return Err(StoreError::Away("a later release wrote this line".to_owned()));
        }
        _ => return Err(StoreError::Damaged("a line cannot be read".to_owned())),
    }
    let row: Row = postcard::from_bytes(cell)
        .map_err(|error| StoreError::Damaged(format!("a line cannot be read: {error}")))?;
    Ok(Line {
        turn: match row.turn {
            None => Turn::Free,
            Some((head, false)) => Turn::Of(place(head)),
            Some((head, true)) => Turn::BackFrom(place(head)),
        },
        newest: row.newest.map(place),
        passed: row.passed,
        block: row.block.map(|(blocked, until)| Block {
            place: place(blocked),
            until: Timestamp::from_micros(until),
        }),
        waiting: row.waiting.into_iter().map(place).collect(),
        ends_at: Timestamp::from_micros(row.ends_at),
    })
}

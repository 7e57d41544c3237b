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
use onceward_core::key::ScopeKind;
use onceward_core::line::{End, Line};
use onceward_core::operation::{Death, Operation, State};
use onceward_core::policy::Order;
use onceward_core::time::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

use crate::call::Arrival;
use crate::engine::Engine;
use crate::store::{StoreError, Way, Which};

mod cell;
mod moving;

use moving::{Moving, Then};

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
#[non_exhaustive]
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
        Ok(cell::decode(cell.as_ref())?.waiting.len() < arrival.policy.subject_max)
    }

    /// Where `operation` stands in its line; nothing where it is in none and keeps nobody waiting.
    pub async fn in_line(&self, operation: &Operation) -> Result<Option<InLine>, StoreError> {
        let Some(cell) = cell_of(operation).filter(|_| self.is_in_order(operation)) else {
            return Ok(None);
        };
        let (line, now) =
            (cell::decode(self.store.setting(cell).await?.as_ref())?, self.clock.now());
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
        if operation.scope.kind != ScopeKind::Step && !self.is_in_order(operation) {
            return;
        }
        let (engine, operation) = (Arc::clone(self), operation.clone());
        self.go_on_with(async move { engine.advance(&operation).await });
    }

    /// Moves the line of `operation` on, after it joined it or came to rest, or the saga that it is a step
    /// of. What does not work now is done when one that waits is looked at again.
    pub(crate) async fn advance(&self, operation: &Operation) {
        if operation.scope.kind == ScopeKind::Step {
            // No subject has a line of steps.
            return Box::pin(self.advance_saga_of(operation)).await;
        }
        let Some(cell) = cell_of(operation).filter(|_| self.is_in_order(operation)) else { return };
        let _alone = self.lines.alone(&cell).await;
        let (_, policy) = self.route_of(operation);
        for _ in 0..RACES_MAX {
            let moved =
                async { Moving::of(self, &policy, &cell).await?.advance(operation.id).await };
            match Box::pin(moved).await {
                Ok(Then::Again) => {}
                Ok(Then::Rest | Then::On) => return,
                Err(error) => {
                    self.goes_on_after(&error);
                    return;
                }
            }
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
            let line = cell::decode(Some(&cell))?;
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

//! Erasing what somebody has a right to have erased: requests, answers, labels, subjects and what was said
//! of the operations go for good, and a mark stays by which a late duplicate is refused.
//!
//! First it is written what goes, then the marks take the operations' places, then the ledger is scrubbed.
//! Whatever breaks off in between goes on with the next pass of the sweep, on any node.

use std::sync::Arc;

use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Act, Deed, Operation, State};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, RACES_MAX};
use crate::observe::Fact;
use crate::people::Person;
use crate::refusal::Refusal;
use crate::setting;
use crate::store::{Query, StoreError, Way, Which, Write};

/// What the setting of what goes is called: the operation's id follows.
const PREFIX: &str = "erase/";

/// Operations that are looked at, and erasures that are finished, at once.
const PAGE: usize = 256;

/// How many that have not ended are named.
const OPEN_MAX: usize = 100;

/// Whose data goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// All about a subject, whatever its route.
    Subject(String),
    /// All that a caller sent: the name of its access key.
    Principal(String),
    /// The operation of one key.
    Key(Scope, Key),
    /// A saga of the tenant, with what its steps asked and were answered.
    Saga(OperationId),
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Whose tenant.
    pub tenant: String,
    /// What goes.
    pub whose: Whose,
    /// Who wants it, and why.
    pub person: Person,
    /// Whether what waits is given up first.
    pub cancels: bool,
    /// Whether it is only counted.
    pub is_plan: bool,
}

/// What came of it, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Operations that are erased, or would be.
    pub operations: u64,
    /// Some of those that have not ended, and stay.
    pub open: Vec<OperationId>,
    /// How many those are.
    pub open_count: u64,
}

impl Erased {
    fn tell_open(&mut self, id: OperationId) {
        // It may have been met as another's kin.
        if self.open.contains(&id) {
            return;
        }
        self.open_count += 1;
        if self.open.len() < OPEN_MAX {
            self.open.push(id);
        }
    }
}

/// What goes of an operation.
#[derive(Serialize, Deserialize)]
struct Going {
    at: i64,
    who: String,
    reason: String,
    /// Segment, offset, length and checksum of each.
    bodies: Vec<(u32, u32, u32, u32)>,
}

impl Going {
    fn of(operation: &Operation, person: &Person, now: Timestamp) -> Self {
        let place = |body: BodyRef| (body.segment, body.offset, body.length, body.crc);
        Self {
            at: now.as_micros(),
            who: person.who.clone(),
            reason: format!("erased: {}", person.reason),
            bodies: operation.bodies().map(place).collect(),
        }
    }

    fn act(&self) -> Act {
        Act {
            deed: Deed::Forgot,
            at: Timestamp::from_micros(self.at),
            who: self.who.clone(),
            reason: self.reason.clone(),
        }
    }

    fn bodies(&self) -> impl Iterator<Item = BodyRef> {
        let body = |&(segment, offset, length, crc): &_| BodyRef { segment, offset, length, crc };
        self.bodies.iter().map(body)
    }
}

impl Engine {
    /// Erases all that is meant and has ended, or counts it. Once it answers nothing of it is in the
    /// ledger any more.
    pub async fn erase(self: &Arc<Self>, erasure: &Erasure) -> Result<Erased, Refusal> {
        let mut erased = Erased::default();
        if !erasure.is_plan {
            let about = match &erasure.whose {
                Whose::Subject(_) => "a subject".to_owned(),
                Whose::Principal(name) => format!("principal {name}"),
                Whose::Key(scope, _) => format!("a key of {}", scope.name),
                Whose::Saga(id) => format!("saga {id}"),
            };
            self.note(&erasure.person, "erased", &about).await?;
        }
        match &erasure.whose {
            Whose::Key(scope, key) => {
                let operation = self.operation_of(scope, key).await?;
                self.erase_with_kin(operation, erasure, &mut erased).await?;
            }
            Whose::Saga(id) => {
                let saga = self.store.find(Which::Id(*id)).await?.filter(|found| {
                    found.scope.kind == ScopeKind::Saga && found.scope.tenant == erasure.tenant
                });
                self.erase_with_kin(saga.ok_or(Refusal::NotFound)?, erasure, &mut erased).await?;
            }
            Whose::Subject(_) | Whose::Principal(_) => {
                let mut before = None;
                loop {
                    let query = Query {
                        tenant: Some(erasure.tenant.clone()),
                        subject: erasure.whose.subject(),
                        principal: erasure.whose.principal(),
                        before,
                        limit: PAGE,
                        ..Query::default()
                    };
                    let page = self.store.list(query).await?;
                    for operation in page.operations {
                        self.erase_with_kin(operation, erasure, &mut erased).await?;
                    }
                    before = page.next;
                    if before.is_none() {
                        break;
                    }
                }
            }
        }
        if !erasure.is_plan {
            self.finish_erasures().await.map_err(|error| self.heed(error))?;
        }
        Ok(erased)
    }

    /// Erases an operation, its other names, the callbacks that told of it, of a saga its steps, and what it was
    /// delivered by: an event last, and not while a delivery of it is open, because that is sent from the
    /// event's body.
    async fn erase_with_kin(
        self: &Arc<Self>,
        operation: Operation,
        erasure: &Erasure,
        erased: &mut Erased,
    ) -> Result<(), Refusal> {
        let mut kin = Vec::new();
        let mut before = None;
        loop {
            let born = Query { parent: Some(operation.id), limit: PAGE, ..Query::default() };
            let born = Query { since: Some(operation.kin_since()), before, ..born };
            let page = self.store.list(born).await?;
            let is_of_it = |child: &Operation| {
                matches!(
                    child.scope.kind,
                    ScopeKind::Callback | ScopeKind::Delivery | ScopeKind::Step
                )
            };
            kin.extend(page.operations.into_iter().filter(is_of_it));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        for alias in &operation.aliases {
            kin.extend(self.store.find(Which::Id(*alias)).await?);
        }
        let mut is_needed = false;
        for one in kin {
            let is_delivery = one.scope.kind == ScopeKind::Delivery;
            is_needed |= !self.erase_one(one, erasure, erased).await? && is_delivery;
        }
        if is_needed {
            erased.tell_open(operation.id);
            return Ok(());
        }
        self.erase_one(operation, erasure, erased).await.map(drop)
    }

    /// Erases one operation; tells whether it is erased, or would be, and not open.
    async fn erase_one(
        self: &Arc<Self>,
        mut operation: Operation,
        erasure: &Erasure,
        erased: &mut Erased,
    ) -> Result<bool, Refusal> {
        // Its saga asks the ledger what became of it, and goes on by that.
        if operation.scope.kind == ScopeKind::Step
            && let Some(saga) = operation.parent
            && let Some(saga) = self.store.find(Which::Id(saga)).await?
            && !saga.state.is_ended()
        {
            erased.tell_open(operation.id);
            return Ok(false);
        }
        let waits = matches!(operation.state, State::Pending { .. });
        if waits && erasure.cancels && !erasure.is_plan {
            match self.cancel(operation.id, &erasure.person).await {
                Ok(cancelled) => operation = cancelled,
                // It began meanwhile.
                Err(Refusal::Conflict { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let would_end = waits && erasure.cancels && erasure.is_plan;
        if !operation.state.is_ended() && !would_end {
            erased.tell_open(operation.id);
            return Ok(false);
        }
        if is_erased(&operation) {
            return Ok(true);
        }
        erased.operations += 1;
        if erasure.is_plan {
            return Ok(true);
        }
        let going = Going::of(&operation, &erasure.person, self.clock.now());
        let name = setting::name_of(PREFIX, operation.id);
        self.store.set(name, Some(setting::encode(&going)?)).await?;
        self.put_mark(operation.id, &going).await.map_err(|error| self.heed(error))?;
        Ok(true)
    }

    /// Puts the mark in the place of the operation.
    async fn put_mark(&self, id: OperationId, going: &Going) -> Result<(), StoreError> {
        for _ in 0..RACES_MAX {
            let Some(operation) = self.store.find(Which::Id(id)).await? else { return Ok(()) };
            // Revived meanwhile, it stays until it has ended and is erased again.
            if is_erased(&operation) || !operation.state.is_ended() {
                return Ok(());
            }
            let mark = operation.erased(going.act());
            match self.store.commit(Write { operation: mark, answer: None, visible: true }).await {
                Ok(mark) => {
                    self.observer.observe(Fact::Acted(&mark));
                    return Ok(());
                }
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Away("others write to the operation without an end".to_owned()))
    }

    /// Finishes what was begun: where a mark is missing it is put, and all of it is scrubbed.
    pub(crate) async fn finish_erasures(&self) -> Result<(), StoreError> {
        let _turn = self.erasing.lock().await;
        loop {
            let page = self.store.settings_from(PREFIX.to_owned(), None, Way::Up, PAGE).await?;
            let mut scrubbed = Vec::new();
            for (name, value) in &page {
                let (id, going) =
                    (setting::id_of(PREFIX, name)?, setting::decode::<Going>(name, value)?);
                self.put_mark(id, &going).await?;
                let found = self.store.find(Which::Id(id)).await?;
                if found.is_none_or(|operation| is_erased(&operation)) {
                    scrubbed.push((id, going.bodies().collect()));
                }
            }
            if !scrubbed.is_empty() {
                self.store.scrub(scrubbed).await?;
            }
            for (name, _) in &page {
                self.store.set(name.clone(), None).await?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }
}

impl Whose {
    fn subject(&self) -> Option<String> {
        match self {
            Self::Subject(name) => Some(name.clone()),
            Self::Principal(_) | Self::Key(..) | Self::Saga(_) => None,
        }
    }

    fn principal(&self) -> Option<String> {
        match self {
            Self::Principal(name) => Some(name.clone()),
            Self::Subject(_) | Self::Key(..) | Self::Saga(_) => None,
        }
    }
}

/// Whether nothing but its mark is left, and a person wanted that.
fn is_erased(operation: &Operation) -> bool {
    let is_bare = operation.bodies().next().is_none() && operation.attempts.is_empty();
    is_bare
        && operation.forgotten.is_some()
        && operation.subject.is_none()
        && operation.target == "/"
}

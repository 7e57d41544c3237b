//! The reference: plain maps under one lock. What it does is what a store means; it forgets
//! everything when it is dropped.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use onceward_core::admission;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::lease::{LEASE, Session};
use onceward_core::operation::{Fence, Operation, State};
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

use crate::clock::{Clock, SystemClock};
use crate::judgement;
use crate::sabotage::Sabotage;

use super::{
    Asked, Backlog, Birth, Condition, Counted, Judge, Lane, Page, Query, Remembered, Reply, Slot,
    Standing, Store, StoreError, Swept, Way, Which, Write, digest_of,
};

/// A ledger in memory.
pub struct MemoryStore {
    kept: Mutex<Kept>,
    changed: Arc<Notify>,
    /// By which leases run.
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

#[derive(Debug, Default)]
struct Kept {
    operations: BTreeMap<OperationId, Operation>,
    keys: BTreeMap<KeyDigest, OperationId>,
    bodies: Vec<Bytes>,
    asked: BTreeMap<OperationId, Asked>,
    /// When the right of each session lapses.
    sessions: BTreeMap<Session, Timestamp>,
    settings: BTreeMap<String, Bytes>,
    commits: u64,
}

impl Kept {
    fn keep_body(&mut self, bytes: Bytes) -> BodyRef {
        let body = BodyRef {
            segment: 0,
            offset: self.bodies.len() as u32,
            length: bytes.len() as u32,
            crc: crc32fast::hash(&bytes),
        };
        self.bodies.push(bytes);
        body
    }

    fn find(&self, which: Which) -> Option<&Operation> {
        match which {
            Which::Id(id) => self.operations.get(&id),
            Which::Key(key) => self.operations.get(self.keys.get(&key)?),
        }
    }

    fn remember(&mut self, birth: Birth) -> Result<Remembered, StoreError> {
        let Birth { mut operation, request, replaces } = birth;
        let digest = digest_of(&operation);
        if let Some((id, fence)) = replaces {
            let old = self
                .operations
                .get_mut(&id)
                .filter(|old| old.fence == fence)
                .ok_or(StoreError::Stale)?;
            old.fence = Fence(fence.0 + 1);
            self.keys.remove(&digest);
        }
        let known = self.find(Which::Key(digest));
        if let Some(known) = known.filter(|_| !Sabotage::SelectThenInsert.is_on()) {
            return Ok(Remembered::Known(known.clone()));
        }
        operation.request = Some(self.keep_body(request));
        self.keys.insert(digest, operation.id);
        self.operations.insert(operation.id, operation.clone());
        Ok(Remembered::Fresh(operation))
    }

    fn put(&mut self, operation: Operation) -> Result<(), StoreError> {
        let id = operation.id;
        let owner = self.keys.get(&digest_of(&operation));
        let stored = self.operations.get_mut(&id).ok_or(StoreError::Stale)?;
        let has_successor = owner.is_some_and(|owner| *owner != id);
        let is_old = stored.fence.0 + 1 != operation.fence.0 && !Sabotage::NoFence.is_on();
        if is_old || has_successor {
            return Err(StoreError::Stale);
        }
        *stored = operation;
        Ok(())
    }

    fn commit(&mut self, write: Write) -> Result<Operation, StoreError> {
        let Write { mut operation, answer, .. } = write;
        let is_request = matches!(answer, Some((Slot::Request, _)));
        let over = operation.request.filter(|_| is_request);
        if let Some((slot, bytes)) = answer {
            let body = self.keep_body(bytes);
            slot.fill(&mut operation, body);
        }
        self.put(operation.clone())?;
        // Nothing leads to the one in whose place another is.
        if let Some(bytes) = over.and_then(|over| self.bodies.get_mut(over.offset as usize)) {
            *bytes = Bytes::new();
        }
        Ok(operation)
    }

    fn waiting(&self) -> impl Iterator<Item = (&Operation, Timestamp)> {
        let waits = |operation: &&Operation| Standing::of(operation) == Standing::Pending;
        self.operations.values().filter(waits).filter_map(|operation| match operation.state {
            State::Pending { due } => Some((operation, due)),
            _ => None,
        })
    }

    fn take(
        &mut self,
        lane: &Lane,
        now: Timestamp,
        max: usize,
        judge: &Judge,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut due: Vec<(Timestamp, Operation)> = self
            .waiting()
            .filter(|(operation, due)| *due <= now && lane.is_of(operation))
            .map(|(operation, due)| (due, operation.clone()))
            .collect();
        due.sort_by_key(|(due, operation)| (*due, operation.id));
        let mut taken = Vec::new();
        for (_, operation) in due.into_iter().take(max) {
            let Ok(next) = operation.after(judge(&operation), now) else {
                continue;
            };
            self.put(next.clone())?;
            taken.push(next);
        }
        Ok(taken)
    }

    fn list(&self, query: &Query) -> Page {
        let before = query.begins_before();
        let mut page = Page::default();
        for (looked_at, (id, operation)) in self.operations.range(..before).rev().enumerate() {
            if query.ends_before(id.sequence()) {
                break;
            }
            if query.wants(operation) {
                page.operations.push(operation.clone());
            }
            if page.operations.len() >= query.limit || looked_at + 1 >= Query::ROWS_MAX {
                page.next = Some(*id);
                break;
            }
        }
        page
    }

    fn sweep(&mut self, now: Timestamp, from: u64, max: usize) -> Swept {
        let page: Vec<OperationId> =
            self.operations.range(first_at(from + 1)..).take(max).map(|(id, _)| *id).collect();
        let last = page.last().map(|id| id.sequence());
        let mut swept = Swept { next: last.filter(|_| page.len() == max), ..Swept::default() };
        for id in page {
            let Some(operation) = self.operations.get(&id) else {
                continue;
            };
            let expired = judgement::is_expired(operation, now);
            if expired
                && (admission::is_tombstone_over(operation, now)
                    || admission::leaves_no_tombstone(operation))
            {
                self.keys.retain(|_, owner| *owner != id);
                self.operations.remove(&id);
                self.asked.remove(&id);
                swept.removed += 1;
            } else if expired && admission::is_more_than_its_mark(operation) {
                let mark = operation.forgotten_but_for_its_mark();
                self.operations.insert(id, mark);
                swept.forgotten += 1;
            } else if !expired
                && operation.request.is_some()
                && admission::are_bodies_over(operation, now)
            {
                let kept = operation.without_bodies();
                self.operations.insert(id, kept);
            }
        }
        swept
    }

    fn beat(&mut self, session: Session, max: usize, now: Timestamp) -> Vec<Operation> {
        self.sessions.insert(session, now.plus(LEASE));
        self.sessions.retain(|_, lapses_at| *lapses_at > now);
        let is_orphan = |operation: &&Operation| {
            let is_alive = |owner| self.sessions.contains_key(&owner);
            operation
                .owner()
                .is_some_and(|owner| !is_alive(owner) || Sabotage::LivingJudged.is_on())
        };
        self.operations.values().filter(is_orphan).take(max).cloned().collect()
    }
}

/// The first id at this place in time order.
fn first_at(place: u64) -> OperationId {
    OperationId::new(place, 0)
}

impl MemoryStore {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty ledger whose leases run by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { kept: Mutex::default(), changed: Arc::default(), clock }
    }

    /// Ends every session: its process is gone for sure.
    pub fn end_sessions(&self) {
        self.kept().sessions.clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One durable write, as far as memory is durable.
    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Kept) -> Result<T, StoreError>,
    ) -> Reply<'_, T> {
        let mut kept = self.kept();
        kept.commits += 1;
        let result = write(&mut kept);
        drop(kept);
        self.changed.notify_one();
        Box::pin(ready(result))
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&Kept) -> T) -> Reply<'_, T> {
        let result = read(&self.kept());
        Box::pin(ready(Ok(result)))
    }
}

impl Store for MemoryStore {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        self.write(|kept| kept.remember(birth))
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        self.write(|kept| kept.commit(write))
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        self.read(|kept| kept.find(which).cloned())
    }

    fn recall(&self, key: KeyDigest) -> Option<Operation> {
        self.kept()
            .find(Which::Key(key))
            .filter(|operation| operation.state == State::Done)
            .cloned()
    }

    fn body(&self, body: BodyRef) -> Reply<'_, Bytes> {
        let found = self.kept().bodies.get(body.offset as usize).cloned();
        let found = found.filter(|bytes| bytes.len() == body.length as usize);
        Box::pin(ready(found.ok_or_else(|| StoreError::Damaged("no such body".to_owned()))))
    }

    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>> {
        self.read(|kept| {
            let mut first: BTreeMap<Lane, Timestamp> = BTreeMap::new();
            for (operation, due) in kept.waiting() {
                first
                    .entry(Lane::of(operation))
                    .and_modify(|at| *at = (*at).min(due))
                    .or_insert(due);
            }
            first.into_iter().collect()
        })
    }

    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog> {
        self.read(|kept| {
            let mut backlog = Backlog::default();
            let on_it = kept.waiting().filter(|(operation, _)| {
                operation.scope.tenant == lane.tenant
                    && (lane.route.is_empty() || operation.route == lane.route)
            });
            on_it.take(max as usize).for_each(|(operation, _)| backlog.add(operation));
            backlog
        })
    }

    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>> {
        let result = self.kept().take(&lane, now, max, &judge);
        Box::pin(ready(result))
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        let now = self.clock.now();
        let orphans = self.kept().beat(session, max, now);
        Box::pin(ready(Ok(orphans)))
    }

    fn nodes(&self) -> Reply<'_, u32> {
        let now = self.clock.now();
        self.read(|kept| {
            let alive = kept.sessions.values().filter(|lapses_at| **lapses_at > now).count();
            (alive as u32).max(1)
        })
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        self.read(|kept| kept.list(&query))
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        self.write(|kept| {
            for (id, asked) in &asked {
                kept.asked.entry(*id).or_default().add(asked);
            }
            Ok(())
        })
    }

    fn asked(&self, id: OperationId) -> Reply<'_, Asked> {
        self.read(|kept| kept.asked.get(&id).cloned().unwrap_or_default())
    }

    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept> {
        self.write(|kept| Ok(kept.sweep(now, from, max)))
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        self.read(|kept| kept.settings.get(&name).cloned())
    }

    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>> {
        let (least, greatest) = way.bounds(prefix, from);
        self.read(|kept| {
            let all = kept.settings.iter();
            let within = all.filter(|(name, _)| **name > least && **name < greatest);
            let own = |(name, value): (&String, &Bytes)| (name.clone(), value.clone());
            match way {
                Way::Up => within.take(max).map(own).collect(),
                Way::Down => within.rev().take(max).map(own).collect(),
            }
        })
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        self.write(|kept| {
            match value {
                Some(value) => kept.settings.insert(name, value),
                None => kept.settings.remove(&name),
            };
            Ok(())
        })
    }

    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool> {
        self.write(|kept| {
            if kept.settings.get(&name) != expected.as_ref() {
                return Ok(false);
            }
            match value {
                Some(value) => kept.settings.insert(name, value),
                None => kept.settings.remove(&name),
            };
            Ok(true)
        })
    }

    fn scrub(&self, erased: Vec<(OperationId, Vec<BodyRef>)>) -> Reply<'_, ()> {
        self.write(|kept| {
            for body in erased.iter().flat_map(|(_, bodies)| bodies) {
                if let Some(bytes) = kept.bodies.get_mut(body.offset as usize) {
                    *bytes = Bytes::new();
                }
            }
            Ok(())
        })
    }

    fn condition(&self) -> Reply<'_, Condition> {
        self.read(|kept| {
            let mut counts: BTreeMap<Standing, u64> = BTreeMap::new();
            for operation in kept.operations.values() {
                *counts.entry(Standing::of(operation)).or_default() += 1;
            }
            Condition { counts: counts.into_iter().collect(), bytes: 0, commits: kept.commits }
        })
    }

    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>> {
        self.read(|kept| {
            let mut met: BTreeMap<Standing, (u64, u64)> = BTreeMap::new();
            for operation in kept.operations.values() {
                let (own, looked_at) = met.entry(Standing::of(operation)).or_default();
                if *looked_at <= max {
                    let is_own = tenant.as_ref().is_none_or(|it| operation.scope.tenant == *it);
                    *looked_at += 1;
                    *own += u64::from(is_own);
                }
            }
            let counted = |(own, looked_at)| Counted::of(own, looked_at, max);
            met.into_iter().map(|(standing, met)| (standing, counted(met))).collect()
        })
    }

    fn backup<'a>(&'a self, _to: &'a Path) -> Reply<'a, ()> {
        Box::pin(ready(Err(StoreError::Unavailable("a ledger in memory has no backup".to_owned()))))
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn newest(&self) -> u64 {
        self.kept().operations.keys().next_back().map_or(0, |id| id.sequence())
    }
}

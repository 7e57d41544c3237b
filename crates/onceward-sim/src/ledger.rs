//! The ledger of a world as one life sees it: the reference store, behind a door where things go
//! wrong. Every write that succeeds is held against the promises at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::attempt::BodyRef;
use onceward::core::id::OperationId;
use onceward::core::key::KeyDigest;
use onceward::core::lease::Session;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::{
    Asked, Backlog, Birth, Condition, Counted, Judge, Lane, Page, Query, Remembered, Reply,
    Standing, Store, StoreError, Swept, Way, Which, Write,
};
use tokio::sync::Notify;

use crate::life::Life;
use crate::world::World;

/// The longest that an ordinary answer of the store takes.
const LATENCY: Duration = Duration::from_millis(4);

/// The store of one life.
pub(crate) struct FaultyStore {
    world: Arc<World>,
    life: Arc<Life>,
    changed: Arc<Notify>,
}

impl FaultyStore {
    /// With `deaf`, wake-ups go to somebody else in worlds where they get lost.
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>, deaf: &Arc<Notify>) -> Self {
        let changed = if world.plan.faults.deaf { Arc::clone(deaf) } else { world.store.changed() };
        Self { world, life, changed }
    }

    /// One call: the node may die before or after it, and its answer may be lost.
    async fn call<T>(
        &self,
        verb: &'static str,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (world, faults) = (&self.world, &self.world.plan.faults);
        self.life.pass().await;
        tokio::time::sleep(world.moment(LATENCY)).await;
        self.life.pass().await;
        world.audit().note(&(verb, world.now().as_micros()));
        if world.befalls("died before a write", faults.die_before) {
            self.life.kill();
            self.life.pass().await;
        }
        let result = run.await;
        if world.befalls("died after a write", faults.die_after) {
            self.life.kill();
        }
        if world.befalls("answer of the store lost", faults.unknown) {
            self.life.disturb();
            return Err(StoreError::Unavailable("the answer was lost".to_owned()));
        }
        tokio::time::sleep(world.moment(LATENCY)).await;
        self.life.pass().await;
        result
    }

    /// A call that a full store refuses.
    async fn write<T>(
        &self,
        verb: &'static str,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.world.befalls("store full", self.world.plan.faults.full) {
            self.life.pass().await;
            return Err(StoreError::Full("there is no room".to_owned()));
        }
        self.call(verb, run).await
    }

    async fn find_now(&self, id: OperationId) -> Option<Operation> {
        self.world.store.find(Which::Id(id)).await.ok().flatten()
    }
}

impl Store for FaultyStore {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        Box::pin(self.write("remember", async move {
            let old = match &birth.replaces {
                Some((id, _)) => self.find_now(*id).await,
                None => None,
            };
            let remembered = self.world.store.remember(birth).await?;
            if let Remembered::Fresh(operation) = &remembered {
                self.world.audit().born(operation, old.as_ref());
            }
            Ok(remembered)
        }))
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        Box::pin(self.write("commit", async move {
            let before = self.find_now(write.operation.id).await;
            let after = self.world.store.commit(write).await?;
            self.world.audit().moved(before.as_ref(), &after);
            Ok(after)
        }))
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        Box::pin(self.call("find", self.world.store.find(which)))
    }

    fn recall(&self, key: KeyDigest) -> Option<Operation> {
        self.world.store.recall(key)
    }

    fn body(&self, body: BodyRef) -> Reply<'_, Bytes> {
        Box::pin(self.call("body", self.world.store.body(body)))
    }

    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog> {
        Box::pin(self.call("backlog", self.world.store.backlog(lane, max)))
    }

    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>> {
        Box::pin(self.call("lanes", self.world.store.lanes()))
    }

    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>> {
        Box::pin(self.write("take", async move {
            let all = everything(&self.world).await;
            let taken = self.world.store.take(lane, now, max, judge).await?;
            for operation in &taken {
                let before = all.iter().find(|before| before.id == operation.id);
                self.world.audit().moved(before, operation);
            }
            Ok(taken)
        }))
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        Box::pin(self.call("beat", self.world.store.beat(session, max)))
    }

    fn nodes(&self) -> Reply<'_, u32> {
        Box::pin(self.call("nodes", self.world.store.nodes()))
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        Box::pin(self.call("list", self.world.store.list(query)))
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        Box::pin(self.write("note asked", self.world.store.note_asked(asked)))
    }

    fn asked(&self, id: OperationId) -> Reply<'_, Asked> {
        Box::pin(self.call("asked", self.world.store.asked(id)))
    }

    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept> {
        Box::pin(self.write("sweep", async move {
            let before = everything(&self.world).await;
            let swept = self.world.store.sweep(now, from, max).await?;
            let after = everything(&self.world).await;
            self.world.audit().swept(&before, &after, now);
            Ok(swept)
        }))
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        Box::pin(self.call("setting", self.world.store.setting(name)))
    }

    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>> {
        let page = self.world.store.settings_from(prefix, from, way, max);
        Box::pin(self.call("settings", page))
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        Box::pin(self.write("set", self.world.store.set(name, value)))
    }

    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool> {
        Box::pin(self.write("swap", self.world.store.swap(name, expected, value)))
    }

    fn condition(&self) -> Reply<'_, Condition> {
        Box::pin(self.call("condition", self.world.store.condition()))
    }

    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>> {
        Box::pin(self.call("count_open", self.world.store.count_open(tenant, max)))
    }

    fn oldest_in_doubt(&self, tenant: Option<String>) -> Reply<'_, Option<Operation>> {
        Box::pin(self.call("oldest_in_doubt", self.world.store.oldest_in_doubt(tenant)))
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, ()> {
        self.world.store.backup(to)
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn newest(&self) -> u64 {
        self.world.store.newest()
    }

    fn is_shared(&self) -> bool {
        self.world.plan.nodes > 1
    }
}

/// Every operation in the ledger of a world, newest first.
pub(crate) async fn everything(world: &World) -> Vec<Operation> {
    let query = Query { limit: usize::MAX, ..Query::default() };
    world.store.list(query).await.map(|page| page.operations).unwrap_or_default()
}

//! How do I write a store of my own, and how do I know that it is one?
//!
//! ```sh
//! cargo run -p onceward --example write_a_store
//! ```
//!
//! This one keeps everything in another store and counts what is written. The suite that runs over
//! it is the one that the stores of this crate pass.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use onceward::core::attempt::BodyRef;
use onceward::core::id::OperationId;
use onceward::core::key::KeyDigest;
use onceward::core::lease::Session;
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::memory::MemoryStore;
use onceward::store::{
    Asked, Backlog, Birth, Condition, Counted, Judge, Lane, Page, Query, Remembered, Reply,
    Standing, Store, Swept, Way, Which, Write, contract,
};
use tokio::sync::Notify;

struct Counting<S> {
    inner: S,
    written: Arc<AtomicU64>,
}

impl<S> Counting<S> {
    fn count(&self) -> &S {
        self.written.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

impl<S: Store> Store for Counting<S> {
    fn remember(&self, birth: Birth) -> Reply<'_, Remembered> {
        self.count().remember(birth)
    }

    fn commit(&self, write: Write) -> Reply<'_, Operation> {
        self.count().commit(write)
    }

    fn find(&self, which: Which) -> Reply<'_, Option<Operation>> {
        self.inner.find(which)
    }

    fn recall(&self, key: KeyDigest) -> Option<Operation> {
        self.inner.recall(key)
    }

    fn body(&self, body: BodyRef) -> Reply<'_, Bytes> {
        self.inner.body(body)
    }

    fn lanes(&self) -> Reply<'_, Vec<(Lane, Timestamp)>> {
        self.inner.lanes()
    }

    fn backlog(&self, lane: Lane, max: u64) -> Reply<'_, Backlog> {
        self.inner.backlog(lane, max)
    }

    fn take(
        &self,
        lane: Lane,
        now: Timestamp,
        max: usize,
        judge: Judge,
    ) -> Reply<'_, Vec<Operation>> {
        self.count().take(lane, now, max, judge)
    }

    fn beat(&self, session: Session, max: usize) -> Reply<'_, Vec<Operation>> {
        self.count().beat(session, max)
    }

    fn list(&self, query: Query) -> Reply<'_, Page> {
        self.inner.list(query)
    }

    fn note_asked(&self, asked: Vec<(OperationId, Asked)>) -> Reply<'_, ()> {
        self.count().note_asked(asked)
    }

    fn asked(&self, id: OperationId) -> Reply<'_, Asked> {
        self.inner.asked(id)
    }

    fn sweep(&self, now: Timestamp, from: u64, max: usize) -> Reply<'_, Swept> {
        self.count().sweep(now, from, max)
    }

    fn setting(&self, name: String) -> Reply<'_, Option<Bytes>> {
        self.inner.setting(name)
    }

    fn settings_from(
        &self,
        prefix: String,
        from: Option<String>,
        way: Way,
        max: usize,
    ) -> Reply<'_, Vec<(String, Bytes)>> {
        self.inner.settings_from(prefix, from, way, max)
    }

    fn set(&self, name: String, value: Option<Bytes>) -> Reply<'_, ()> {
        self.count().set(name, value)
    }

    // What has a default may have a better answer: this one is atomic.
    fn offer(&self, name: String, value: Bytes) -> Reply<'_, Bytes> {
        self.count().offer(name, value)
    }

    fn swap(&self, name: String, expected: Option<Bytes>, value: Option<Bytes>) -> Reply<'_, bool> {
        self.count().swap(name, expected, value)
    }

    fn condition(&self) -> Reply<'_, Condition> {
        self.inner.condition()
    }

    fn count_open(&self, tenant: Option<String>, max: u64) -> Reply<'_, Vec<(Standing, Counted)>> {
        self.inner.count_open(tenant, max)
    }

    fn backup<'a>(&'a self, to: &'a Path) -> Reply<'a, ()> {
        self.inner.backup(to)
    }

    fn changed(&self) -> Arc<Notify> {
        self.inner.changed()
    }

    fn newest(&self) -> u64 {
        self.inner.newest()
    }
}

#[tokio::main]
async fn main() {
    let written = Arc::new(AtomicU64::new(0));
    contract::run(|| async {
        let inner = MemoryStore::new();
        Arc::new(Counting { inner, written: Arc::clone(&written) }) as Arc<dyn Store>
    })
    .await;
    println!("it is a store: {} writes", written.load(Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main();
    }
}

//! Connections between two uses: idle ones of HTTP/1.1, shared ones of HTTP/2.
//!
//! A connection comes back only after a whole answer was read from it. It remembers the address
//! that was judged, and whoever takes it up judges it again. One that ends is taken off its shelf,
//! and a shelf goes with its last connection: what callers may name without end leaves nothing
//! behind. Nobody tends idle ones but one task for all of them, while there are any.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use url::Position;

use super::door::DoorOptions;
use super::http1::Http1;
use super::http2::Shared;
use super::line::{Line, Way};
use super::wire::Wire;
use super::{Target, Trust};
use crate::alarm::Alarm;

/// Trust and protocol make four rows of shelves.
const ROWS: usize = 4;

/// All shelves.
pub(super) struct Pool {
    pub(super) options: DoorOptions,
    shelves: Mutex<Shelves>,
    next_id: AtomicU64,
    /// Rung where an idle connection moves, which none should.
    stirred: Arc<Notify>,
}

#[derive(Default)]
struct Shelves {
    rows: [BTreeMap<Box<str>, Shelf>; ROWS],
    /// Idle connections on all of them.
    idle: usize,
    /// Looks after the idle ones while there are any.
    sweeper: Option<JoinHandle<()>>,
}

/// The connections of one origin.
#[derive(Default)]
struct Shelf {
    /// Berths that keep it: open connections, and those who wait to open one.
    berths: usize,
    /// Whether the origin was seen to speak HTTP/1.1, so that each request needs its own.
    speaks_http1: bool,
    /// Held by whoever opens a connection that others may then share.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// The last one put down is the last.
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

/// A connection that lies idle.
struct Idle {
    /// Where it was opened: beside it, since whoever looks for one of its own passes by many others'.
    runtime: Id,
    connection: Box<Http1>,
    alarm: Alarm,
    since: Instant,
}

/// The name of a shelf: what connections have to agree in to stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ShelfName {
    /// Trust and protocol, as an index.
    row: usize,
    /// Scheme, host and port, behind the identity in TLS where the target has one of its own.
    origin: Box<str>,
}

/// A place at an origin, of a connection or of whoever is about to open one: keeps its shelf.
#[derive(Debug)]
pub(super) struct Berth {
    pool: Weak<Pool>,
    name: ShelfName,
}

/// The right to open a connection; where it may be shared, one at a time has it.
pub(super) struct Turn {
    _berth: Berth,
    waited: Option<OwnedMutexGuard<()>>,
    /// Whether somebody else had it before.
    pub(super) has_waited: bool,
}

impl Pool {
    pub(super) fn new(options: DoorOptions) -> Self {
        Self {
            options,
            shelves: Mutex::default(),
            next_id: AtomicU64::new(0),
            stirred: Arc::default(),
        }
    }

    /// A number for a new connection.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What is rung where an idle connection moves.
    pub(super) fn stirred(&self) -> Arc<Notify> {
        Arc::clone(&self.stirred)
    }

    /// A connection that can take a request now, at an address that still may be reached.
    pub(super) fn take(&self, target: &Target, may: impl Fn(IpAddr) -> bool) -> Option<Line> {
        let mut kept = self.lock();
        let stock = kept.rows[row(target)].get_mut(&*origin(target))?;
        let shared = stock.shared.iter().find(|it| it.is_ready() && may(it.wire().peer.ip()));
        if let Some(shared) = shared {
            return Some(Line::reused(Way::Http2(shared.take_up()), Alarm::default()));
        }
        // On one that another runtime tells of, each of its bytes would be told from thread to thread.
        let here = Handle::current().id();
        let fits = |Idle { runtime, connection, .. }: &Idle| {
            *runtime == here && may(connection.wire().peer.ip()) && connection.bell().take_up()
        };
        // The last one put down is the least likely to be closed.
        let at = stock.idle.iter().rposition(fits)?;
        let Idle { connection, alarm, .. } = stock.idle.remove(at);
        kept.idle -= 1;
        Some(Line::reused(Way::Http1(connection), alarm))
    }

    /// Takes back a connection from which a whole answer was read. Where its request is not all sent,
    /// the rest of it is, in pauses of no more than `pause_max`.
    pub(super) fn give_back(self: &Arc<Self>, line: Line, pause_max: Duration) {
        let Some((connection, alarm)) = line.put_down(pause_max) else { return };
        let runtime = connection.wire().runtime;
        let idle = Idle { runtime, connection, alarm, since: Instant::now() };
        let mut kept = self.lock();
        if kept.idle >= self.options.idle_max {
            return;
        }
        let Berth { name, .. } = &idle.connection.wire().berth;
        let Some(stock) = kept.rows[name.row].get_mut(&name.origin) else { return };
        // It may have stirred by now, when nobody could find it here.
        if idle.connection.bell().has_stirred() {
            return;
        }
        // The one that lay longest gives way: those of a runtime that has no more use for them would
        // else keep out all others'.
        stock.idle.push(idle);
        let is_over = stock.idle.len() > self.options.idle_per_origin_max;
        let oldest = is_over.then(|| stock.idle.remove(0));
        kept.idle += usize::from(!is_over);
        if kept.sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            let (pool, stirred) = (Arc::downgrade(self), self.stirred());
            kept.sweeper = Some(tokio::spawn(sweep(pool, stirred)));
        }
        // Its berth wants the lock.
        drop(kept);
        drop(oldest);
    }

    /// Waits for the right to open a connection. Whoever waited looks for a shared one first.
    pub(super) async fn turn(self: &Arc<Self>, target: &Target) -> Turn {
        let berth = self.berth(target);
        // Only an origin that may speak HTTP/2 makes anyone wait.
        let opening = (target.http2 || target.base.scheme() == "https")
            .then(|| self.opening(&berth.name))
            .flatten();
        let mut has_waited = false;
        let waited = match opening {
            Some(opening) => {
                let free = Arc::clone(&opening).try_lock_owned().ok();
                has_waited = free.is_none();
                Some(match free {
                    Some(waited) => waited,
                    None => opening.lock_owned().await,
                })
            }
            None => None,
        };
        // Meanwhile somebody may have learnt that there is nothing to share.
        let waited = waited.filter(|_| self.opening(&berth.name).is_some());
        Turn { _berth: berth, waited, has_waited }
    }

    fn opening(&self, name: &ShelfName) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let kept = self.lock();
        let stock = kept.rows[name.row].get(&name.origin)?;
        (!stock.speaks_http1).then(|| Arc::clone(&stock.opening))
    }

    /// A place at the target's origin.
    pub(super) fn berth(self: &Arc<Self>, target: &Target) -> Berth {
        let name = ShelfName { row: row(target), origin: origin(target).into() };
        let mut kept = self.lock();
        kept.rows[name.row].entry(name.origin.clone()).or_default().berths += 1;
        drop(kept);
        Berth { pool: Arc::downgrade(self), name }
    }

    /// Notes that a new connection is one request's at a time.
    pub(super) fn cannot_share(&self, wire: &Wire) {
        if let Some(stock) = self.lock().shelf(&wire.berth.name) {
            stock.speaks_http1 = true;
        }
    }

    /// Puts up a new connection to be shared.
    pub(super) fn share(&self, connection: Shared) {
        let mut kept = self.lock();
        if let Some(stock) = kept.shelf(&connection.wire().berth.name) {
            stock.shared.push(connection);
        }
    }

    /// Takes a shared connection off its shelf: it ended, or gave no answer in time, so that the next
    /// request shall not depend on it. Requests under way on it go on.
    pub(super) fn retire(&self, wire: &Wire) {
        let is_it = |shared: &mut Shared| shared.wire().id == wire.id;
        let mut kept = self.lock();
        let stock = kept.shelf(&wire.berth.name);
        let gone: Vec<_> =
            stock.into_iter().flat_map(|it| it.shared.extract_if(.., is_it)).collect();
        // Its berth wants the lock.
        drop(kept);
        drop(gone);
    }

    /// How many connections lie idle.
    pub(super) fn idle(&self) -> usize {
        self.lock().idle
    }

    /// How many origins it keeps anything of.
    pub(super) fn origins(&self) -> usize {
        self.lock().rows.iter().map(BTreeMap::len).sum()
    }

    /// Closes the idle connections that moved or have lain for long; tells when the next will have,
    /// nothing where none is left.
    fn sweep(&self) -> Option<Instant> {
        let due = |idle: &Idle| idle.since + self.options.idle_for_max;
        let now = Instant::now();
        let is_over = |idle: &mut Idle| idle.connection.bell().has_stirred() || due(idle) <= now;
        let mut kept = self.lock();
        let mut gone = Vec::new();
        for stock in kept.rows.iter_mut().flat_map(BTreeMap::values_mut) {
            gone.extend(stock.idle.extract_if(.., is_over));
        }
        let left = kept.rows.iter().flat_map(BTreeMap::values).flat_map(|stock| &stock.idle);
        let next = left.map(due).min();
        kept.idle -= gone.len();
        if next.is_none() {
            // Whoever comes next finds none at work.
            kept.sweeper = None;
        }
        // Their berths want the lock.
        drop(kept);
        drop(gone);
        next
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Nothing in here is half done when a panic could strike.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The sweeper has nothing more to do.
        self.stirred.notify_one();
    }
}

impl Shelves {
    fn shelf(&mut self, name: &ShelfName) -> Option<&mut Shelf> {
        self.rows[name.row].get_mut(&name.origin)
    }
}

/// Looks after the idle connections of a pool until there are none.
async fn sweep(pool: Weak<Pool>, stirred: Arc<Notify>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.sweep()) {
        tokio::select! {
            () = sleep_until(next) => {}
            () = stirred.notified() => {}
        }
    }
}

impl Turn {
    /// Whether somebody else may have opened a connection meanwhile that can be shared.
    pub(super) fn may_share(&self) -> bool {
        self.waited.is_some()
    }
}

#[cfg(test)]
impl Berth {
    /// A place in no pool.
    pub(super) fn nowhere() -> Self {
        Self { pool: Weak::new(), name: ShelfName { row: 0, origin: "".into() } }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut kept = pool.lock();
        let Some(stock) = kept.shelf(&self.name) else { return };
        stock.berths -= 1;
        if stock.berths == 0 {
            kept.rows[self.name.row].remove(&self.name.origin);
        }
    }
}

fn row(target: &Target) -> usize {
    let trusted = matches!(target.trust, Trust::Operator);
    usize::from(trusted) * 2 + usize::from(target.http2)
}

/// Scheme, host and port, in the one spelling that a parsed URL has. Whoever trusts others, or shows
/// another certificate, is at another place: a connection is as good as what was checked on it.
fn origin(target: &Target) -> Cow<'_, str> {
    let origin = &target.base[..Position::BeforePath];
    match &target.tls {
        None => Cow::Borrowed(origin),
        Some(own) => Cow::Owned(format!("{} {origin}", own.identity())),
    }
}

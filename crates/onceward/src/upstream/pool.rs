//! Connections between two uses: idle ones of HTTP/1.1, shared ones of HTTP/2.
//!
//! A connection comes back only after a whole answer was read from it. It remembers the address
//! that was judged, and whoever takes it up judges it again. Each one is taken off its shelf when
//! it ends, and a shelf goes with its last connection: what callers may name without end leaves
//! nothing behind.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use url::{Position, Url};

use super::door::DoorOptions;
use super::line::{Line, Sender};
use super::wire::{ShelfName, Wire};
use super::{Target, Trust};

/// How many requests share one HTTP/2 connection: what most servers accept at once. One more
/// would wait unsent in a queue where nobody can tell that it was not sent.
const STREAMS_MAX: u32 = 100;

/// Trust and protocol make four rows of shelves.
const ROWS: usize = 4;

/// All shelves.
pub(super) struct Pool {
    pub(super) options: DoorOptions,
    shelves: Mutex<Shelves>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct Shelves {
    rows: [HashMap<Box<str>, Shelf>; ROWS],
    /// Idle connections on all of them.
    idle: usize,
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
    idle: Vec<(Sender, Arc<Wire>)>,
    shared: Vec<(Sender, Arc<Wire>)>,
}

/// Keeps a shelf, and takes a connection off it at the end.
pub(super) struct Berth {
    pool: Weak<Pool>,
    name: ShelfName,
    wire: Option<Arc<Wire>>,
}

/// The right to open a connection; where it may be shared, one at a time has it.
pub(super) struct Turn {
    _berth: Berth,
    waited: Option<OwnedMutexGuard<()>>,
}

impl Pool {
    pub(super) fn new(options: DoorOptions) -> Self {
        Self { options, shelves: Mutex::default(), next_id: AtomicU64::new(0) }
    }

    /// A number for a new connection.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection that can take a request now, at an address that still may be reached.
    pub(super) fn take(&self, target: &Target, may: impl Fn(IpAddr) -> bool) -> Option<Line> {
        let mut kept = self.lock();
        let stock = kept.rows[row(target)].get_mut(origin(&target.base))?;
        let room = |wire: &Wire| wire.busy.load(Ordering::Acquire) < STREAMS_MAX;
        for (sender, wire) in &stock.shared {
            if sender.is_ready() && room(wire) && may(wire.peer.ip()) {
                return sender.share().map(|sender| Line::new(sender, Arc::clone(wire), true));
            }
        }
        // The last one put down is the least likely to be closed. One that is still busy with
        // the end of its exchange stays where it is.
        let at = stock
            .idle
            .iter()
            .rposition(|(sender, wire)| sender.is_ready() && may(wire.peer.ip()))?;
        let (sender, wire) = stock.idle.remove(at);
        kept.idle -= 1;
        Some(Line::new(sender, wire, true))
    }

    /// Takes back a connection from which a whole answer was read.
    pub(super) fn give_back(&self, line: Line) {
        if line.is_http2() {
            return;
        }
        let (sender, wire) = line.put_down();
        let mut kept = self.lock();
        if wire.ended.load(Ordering::Acquire) || kept.idle >= self.options.idle_max {
            return;
        }
        let Some(stock) = kept.rows[wire.shelf.row].get_mut(&wire.shelf.origin) else {
            return;
        };
        if stock.idle.len() < self.options.idle_per_origin_max {
            stock.idle.push((sender, wire));
            kept.idle += 1;
        }
    }

    /// Waits for the right to open a connection. Whoever waited looks for a shared one first.
    pub(super) async fn turn(self: &Arc<Self>, target: &Target) -> Turn {
        let berth = self.berth(name(target), None);
        // Only an origin that may speak HTTP/2 makes anyone wait.
        let opening = (target.http2 || target.base.scheme() == "https")
            .then(|| self.opening(&berth.name))
            .flatten();
        let waited = match opening {
            Some(opening) => Some(opening.lock_owned().await),
            None => None,
        };
        // Meanwhile somebody may have learnt that there is nothing to share.
        let waited = waited.filter(|_| self.opening(&berth.name).is_some());
        Turn { _berth: berth, waited }
    }

    fn opening(&self, name: &ShelfName) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let kept = self.lock();
        let stock = kept.rows[name.row].get(&name.origin)?;
        (!stock.speaks_http1).then(|| Arc::clone(&stock.opening))
    }

    /// Puts up a new connection, to be shared if it can be. The berth lasts as long as it does.
    pub(super) fn opened(self: &Arc<Self>, sender: &Sender, wire: &Arc<Wire>) -> Berth {
        let berth = self.berth(wire.shelf.clone(), Some(Arc::clone(wire)));
        let mut kept = self.lock();
        if let Some(stock) = kept.rows[wire.shelf.row].get_mut(&wire.shelf.origin) {
            match sender.share() {
                Some(sender) => stock.shared.push((sender, Arc::clone(wire))),
                None => stock.speaks_http1 = true,
            }
        }
        drop(kept);
        berth
    }

    /// Takes a shared connection off its shelf: it gave no answer in time, so the next request
    /// shall not depend on it. Requests under way on it go on.
    pub(super) fn retire(&self, wire: &Wire) {
        if let Some(stock) = self.lock().rows[wire.shelf.row].get_mut(&wire.shelf.origin) {
            stock.shared.retain(|(_, other)| other.id != wire.id);
        }
    }

    /// How many connections lie idle.
    pub(super) fn idle(&self) -> usize {
        self.lock().idle
    }

    /// How many origins it keeps anything of.
    pub(super) fn origins(&self) -> usize {
        self.lock().rows.iter().map(HashMap::len).sum()
    }

    fn berth(self: &Arc<Self>, name: ShelfName, wire: Option<Arc<Wire>>) -> Berth {
        let mut kept = self.lock();
        kept.rows[name.row].entry(name.origin.clone()).or_default().berths += 1;
        drop(kept);
        Berth { pool: Arc::downgrade(self), name, wire }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Nothing in here is half done when a panic could strike.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether somebody else may have opened a connection meanwhile that can be shared.
    pub(super) fn may_share(&self) -> bool {
        self.waited.is_some()
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut kept = pool.lock();
        let Some(stock) = kept.rows[self.name.row].get_mut(&self.name.origin) else {
            return;
        };
        let idle_before = stock.idle.len();
        if let Some(wire) = &self.wire {
            wire.ended.store(true, Ordering::Release);
            stock.idle.retain(|(_, other)| other.id != wire.id);
            stock.shared.retain(|(_, other)| other.id != wire.id);
        }
        stock.berths -= 1;
        let gone = idle_before - stock.idle.len();
        let is_last = stock.berths == 0;
        kept.idle -= gone;
        if is_last {
            kept.rows[self.name.row].remove(&self.name.origin);
        }
    }
}

/// The shelf of a target's connections.
pub(super) fn name(target: &Target) -> ShelfName {
    ShelfName { row: row(target), origin: origin(&target.base).into() }
}

fn row(target: &Target) -> usize {
    let trusted = matches!(target.trust, Trust::Operator);
    usize::from(trusted) * 2 + usize::from(target.http2)
}

/// Scheme, host and port, in the one spelling that a parsed URL has.
fn origin(base: &Url) -> &str {
    &base[..Position::BeforePath]
}

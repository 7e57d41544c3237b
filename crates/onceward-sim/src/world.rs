//! One world, from its seed to the reckoning.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward::clock::Clock;
use onceward::core::time::Timestamp;
use onceward::route::Routes;
use onceward::store::memory::MemoryStore;
use onceward_proof::chance::Chance;
use tokio::time::Instant;

use crate::audit::{Audit, reckon};
use crate::node::{Fleet, nemesis};
use crate::plan::Plan;
use crate::routes::routes;
use crate::{callers, people, publishers, workers};

/// When a world begins: 2026-01-01 00:00:00 UTC.
const BEGINNING: i64 = 1_767_225_600_000_000;

/// How long the callers take at most, before the faults end.
const TROUBLED: Duration = Duration::from_hours(6);

/// How long a healed world takes to come to rest at most: longer than any policy goes on.
const REST_MAX: Duration = Duration::from_hours(3);

/// What every part of a world shares.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) routes: Routes,
    pub(crate) audit: Mutex<Audit>,
    chance: Mutex<Chance>,
    began: Instant,
    healed: AtomicBool,
}

/// The time of the world, which no node's clock can be relied upon to tell.
#[derive(Debug)]
struct TrueClock(Instant);

impl Clock for TrueClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(BEGINNING).plus(self.0.elapsed())
    }

    fn sleep_until(&self, until: Timestamp) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(until.since(self.now())))
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let began = Instant::now();
        let mut chance = Chance(plan.seed);
        Self {
            store: Arc::new(MemoryStore::with_clock(Arc::new(TrueClock(began)))),
            routes: routes(&mut chance),
            audit: Mutex::default(),
            chance: Mutex::new(chance),
            began,
            healed: AtomicBool::new(false),
            plan,
        }
    }

    /// The true time.
    pub(crate) fn now(&self) -> Timestamp {
        TrueClock(self.began).now()
    }

    pub(crate) fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of 0 to `end`, `end` excluded.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.chance().below(end)
    }

    /// Whether a fault that happens so often in a thousand happens now; it is counted.
    pub(crate) fn befalls(&self, name: &'static str, thousandths: u64) -> bool {
        let happens = !self.is_healed() && thousandths > 0 && self.below(1000) < thousandths;
        if happens {
            self.audit().fault(name);
        }
        happens
    }

    /// Some time below `max`.
    pub(crate) fn moment(&self, max: Duration) -> Duration {
        crate::plan::up_to(&mut self.chance(), max)
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }
}

/// What a world amounts to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Its seed; the number of worlds, where this is a sum.
    pub seed: u64,
    /// Every promise that was broken, in words.
    pub violations: Vec<String>,
    /// Faults that were injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Ways that operations went, from state to state.
    pub arrows: BTreeMap<(&'static str, &'static str), u64>,
    /// What callers heard and what became of keys, by kind.
    pub occasions: BTreeMap<&'static str, u64>,
    /// How long it took in its own time.
    pub simulated: Duration,
    /// Operations that were remembered.
    pub operations: u64,
    /// Requests that arrived at an upstream.
    pub arrivals: u64,
    /// A digest of everything that happened, in order.
    pub trace: u64,
}

/// Runs the world of `seed`. The same seed is the same world.
///
/// # Panics
///
/// Where the machine gives no runtime.
pub fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(live(Plan::of(seed)))
}

async fn live(plan: Plan) -> Report {
    let seed = plan.seed;
    let world = Arc::new(World::new(plan));
    publishers::subscribe(&world).await;
    let fleet = Arc::new(Fleet::new(&world));
    fleet.start_all(&world).await;
    let trouble = tokio::spawn(nemesis(Arc::clone(&world), Arc::clone(&fleet)));
    let acting = tokio::spawn(people::act(Arc::clone(&world), Arc::clone(&fleet)));
    let calling = async {
        tokio::join!(
            callers::call(&world, &fleet),
            workers::work(&world, &fleet),
            publishers::publish(&world, &fleet)
        )
    };
    // Whoever still waits then has waited long enough.
    let _ = tokio::time::timeout(TROUBLED, calling).await;
    world.healed.store(true, Ordering::Relaxed);
    trouble.abort();
    fleet.heal(&world).await;
    let rests = rest(&world).await;
    acting.abort();
    // Counts of duplicates are written each second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    reckon(&world, &fleet.lives(), rests).await;
    let audit = world.audit();
    Report {
        seed,
        violations: audit.violations.clone(),
        faults: audit.faults.clone(),
        arrows: audit.arrows.clone(),
        occasions: audit.occasions.clone(),
        simulated: world.began.elapsed(),
        operations: audit.remembered,
        arrivals: audit.arrivals(),
        trace: audit.trace,
    }
}

/// Waits until nothing is under way any more; tells whether that came.
async fn rest(world: &World) -> bool {
    let healed_at = Instant::now();
    while healed_at.elapsed() < REST_MAX {
        if crate::audit::open_operations(world).await.is_empty() {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    false
}

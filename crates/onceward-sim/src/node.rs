//! Nodes: real engines between faulty doors, one life after the other.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward::clock::Clock;
use onceward::core::lease::{LEASE, Session};
use onceward::core::time::Timestamp;
use onceward::observe::{Fact, Observer};
use onceward::secret::Secrets;
use onceward::{Engine, Parts};
use tokio::sync::Notify;

use crate::ledger::FaultyStore;
use crate::life::{Life, Pulse};
use crate::upstream::SimulatedUpstream;
use crate::workers;
use crate::world::World;

/// One life of a node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) engine: Arc<Engine>,
    pub(crate) life: Arc<Life>,
}

/// A node's clock: it goes at the right speed, and may be off.
pub(crate) struct NodeClock {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.world.now().as_micros() + self.life.skew())
    }

    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (life, left) = (Arc::clone(&self.life), until.since(self.now()));
        Box::pin(async move {
            tokio::time::sleep(left).await;
            life.pass().await;
        })
    }
}

/// What a life tells of itself.
struct Witness {
    world: Arc<World>,
    life: Arc<Life>,
}

impl Observer for Witness {
    fn observe(&self, fact: Fact<'_>) {
        if !self.life.is(Pulse::Dead) {
            self.world.audit().observe(fact);
        }
    }
}

/// All nodes, each in its present life.
#[derive(Debug)]
pub(crate) struct Fleet {
    nodes: Mutex<Vec<Node>>,
    lives: Mutex<Vec<(Session, Arc<Life>)>>,
    deaf: Arc<Notify>,
    size: usize,
}

impl Fleet {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            nodes: Mutex::default(),
            lives: Mutex::default(),
            deaf: Arc::default(),
            size: world.plan.nodes,
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every life there ever was.
    pub(crate) fn lives(&self) -> Vec<(Session, Arc<Life>)> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn start_all(&self, world: &Arc<World>) {
        for _ in 0..self.size {
            let node = self.begin(world, 0).await;
            self.nodes().push(node);
        }
    }

    /// A new life, which has recovered and delivers.
    async fn begin(&self, world: &Arc<World>, skew: i64) -> Node {
        loop {
            let life = Arc::new(Life::new(skew));
            let session = Session(world.chance().next());
            self.lives
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((session, Arc::clone(&life)));
            let store = FaultyStore::new(Arc::clone(world), Arc::clone(&life), &self.deaf);
            let engine = Engine::new(Parts {
                store: Arc::new(store),
                upstream: Arc::new(SimulatedUpstream::new(Arc::clone(world), Arc::clone(&life))),
                clock: Arc::new(NodeClock { world: Arc::clone(world), life: Arc::clone(&life) }),
                observer: Arc::new(Witness { world: Arc::clone(world), life: Arc::clone(&life) }),
                secrets: Secrets::new([7; 32]),
                routes: world.routes.clone(),
                session,
            });
            engine.set_claims(workers::rules());
            let recovered = tokio::select! {
                biased;
                () = life.death() => false,
                recovered = engine.recover() => recovered.is_ok(),
            };
            if recovered {
                engine.start();
                let (broken, ends) = (Arc::clone(&engine), Arc::clone(&life));
                // A process whose ledger cannot be used ends, and another starts.
                tokio::spawn(async move {
                    broken.broken().await;
                    ends.kill();
                });
                return Node { engine, life };
            }
            life.kill();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A node that runs, if there is one.
    pub(crate) fn any(&self, world: &World) -> Option<Node> {
        let running: Vec<Node> =
            self.nodes().iter().filter(|node| !node.life.is(Pulse::Dead)).cloned().collect();
        if running.is_empty() {
            return None;
        }
        let place = world.below(running.len() as u64) as usize;
        running.into_iter().nth(place)
    }

    /// Starts every node anew that is dead.
    async fn revive(&self, world: &Arc<World>) {
        for place in 0..self.size {
            let dead = {
                let nodes = self.nodes();
                nodes[place].life.is(Pulse::Dead).then(|| nodes[place].life.skew())
            };
            if let Some(skew) = dead {
                let node = self.begin(world, skew).await;
                self.nodes()[place] = node;
            }
        }
    }

    /// Ends all trouble: who stands still goes on, who is dead starts anew.
    pub(crate) async fn heal(&self, world: &Arc<World>) {
        for (_, life) in self.lives() {
            life.resume();
        }
        self.revive(world).await;
    }
}

/// Pauses nodes, moves their clocks, and starts the dead ones anew, until the world is healed.
pub(crate) async fn nemesis(world: Arc<World>, fleet: Arc<Fleet>) {
    loop {
        tokio::time::sleep(world.moment(Duration::from_secs(10))).await;
        let faults = world.plan.faults.clone();
        if world.befalls("pause", faults.pause)
            && let Some(node) = fleet.any(&world)
        {
            node.life.pause();
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                tokio::time::sleep(world.moment(LEASE * 4)).await;
                node.life.resume();
            });
        }
        if world.befalls("clock jump", faults.jump)
            && let Some(node) = fleet.any(&world)
        {
            let by = world.below(120_000_000) as i64 - 60_000_000;
            // Never further off than the rest of the upstream's window allows for.
            node.life.jump(by.clamp(-60_000_000 - node.life.skew(), 60_000_000 - node.life.skew()));
        }
        fleet.revive(&world).await;
    }
}

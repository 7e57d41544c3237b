//! The world of a run: a gateway that is killed and started again, an auditing upstream behind it,
//! and what is sent through it in each phase.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auditor::Auditor;
use crate::chance::Chance;
use crate::check::Log;
use crate::cold::{Cold, Window, drop_pages};
use crate::counted::{Calm, Counts};
use crate::load::{Aim, Load};
use crate::plan::{Fault, Plan, Post, shuffled};
use crate::process::{Binary, Folder, Gateway};
use crate::storm::{Options, Progress, Shuffle};
use crate::tally::Tally;

/// Longer than a held call takes with all its attempts: who asks through the gateway waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each event of the shuffle is delivered so often.
const DELIVERIES: usize = 3;

/// The gateway's configuration, without its routes.
const CONFIG: &str = r#"listen = "127.0.0.1:0"
store = STORE

[limits]
segment_bytes = "8MiB"
"#;

/// A route. Retries come fast, so that a run is short; a hung answer is given up after `timeout`,
/// which is long beside everything else that happens here.
const ROUTE: &str = r#"
[routes.NAME]
upstream = "http://AUDITOR/NAME"
effects = "EFFECTS"
timeout = "3s"
wait = "15s"
retry = { attempts_max = 50, horizon = "1h", base = "50ms", floor = "10ms", cap = "400ms", factor = 2.0 }
held = { attempts_max = 3, base = "20ms", floor = "5ms", cap = "100ms" }
breaker = { open = "50ms", open_max = "100ms" }
"#;

fn config(store: &str, auditor: SocketAddr) -> String {
    // A string of JSON is one of TOML too.
    let mut text = CONFIG.replace("STORE", &json!(store).to_string());
    for (name, effects) in [("keyed", "keyed"), ("once", "non-idempotent")] {
        let route = ROUTE.replace("NAME", name).replace("EFFECTS", effects);
        text.push_str(&route.replace("AUDITOR", &auditor.to_string()));
    }
    text
}

/// A gateway on a folder of its own, between callers and an auditor.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) auditor: Auditor,
    binary: Binary,
    pub(crate) gateway: Gateway,
    address: watch::Sender<Option<SocketAddr>>,
    plan: Plan,
    pub(crate) log: Arc<Log>,
}

impl World {
    pub(crate) async fn begin(folder: &Folder, options: &Options, plan: Plan) -> io::Result<Self> {
        let auditor = Auditor::start(plan.seed).await;
        let place = folder.path.join("onceward.toml");
        let store = format!("sqlite:{}", folder.path.join("data/ledger.db").display());
        std::fs::write(&place, config(&store, auditor.address))?;
        let mut binary = Binary {
            program: options.program.clone(),
            config: place,
            logs: folder.path.clone(),
            // Who keeps the logs wants to read every line of them.
            level: if options.keep.is_some() { "debug" } else { "info" },
            lives: 0,
        };
        let gateway = binary.start().await?;
        let address = watch::Sender::new(Some(gateway.address));
        Ok(Self { auditor, binary, gateway, address, plan, log: Arc::default() })
    }

    fn load(&self, wire: bool) -> Arc<Load> {
        let aim = Aim::Gateway(self.address.subscribe());
        Load::new(aim, self.plan, wire, PATIENCE, Arc::clone(&self.log))
    }

    /// Kills the gateway and starts it again; how long it was away.
    async fn kill(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.gateway.kill();
        self.address.send_replace(None);
        self.gateway = self.binary.start().await?;
        self.address.send_replace(Some(self.gateway.address));
        Ok(began.elapsed())
    }

    /// Runs a load to its end, unless the gateway ends before it; `kills` come on the way.
    async fn under(
        &mut self,
        load: &Arc<Load>,
        posts: Vec<Post>,
        kills: Vec<usize>,
        told: impl Fn(usize),
    ) -> io::Result<Vec<Duration>> {
        let mut left = load.left.subscribe();
        let mut running = JoinSet::new();
        let load = Arc::clone(load);
        running.spawn(async move { load.run(posts).await });
        let (mut kills, mut recoveries) = (kills.into_iter().peekable(), Vec::new());
        loop {
            let count = *left.borrow_and_update();
            told(count);
            if kills.next_if(|at| count >= *at).is_some() {
                recoveries.push(self.kill().await?);
                continue;
            }
            tokio::select! {
                _ = left.changed() => {}
                _ = running.join_next() => break,
                () = ended(&mut self.gateway) => {
                    return Err(self.binary.complaint("the gateway ended by itself"));
                }
            }
        }
        // A load that was faster than its kills leaves them for now.
        for _ in kills {
            recoveries.push(self.kill().await?);
        }
        told(*left.borrow());
        self.gateway.quiet().await?;
        Ok(recoveries)
    }

    /// The load, and the kills; how long it was away each time, and what the wire did.
    pub(crate) async fn storm(
        &mut self,
        posts: &[Post],
        kills: usize,
        progress: &Progress,
    ) -> io::Result<(Vec<Duration>, BTreeMap<Fault, u64>)> {
        let load = self.load(true);
        let at = self.plan.kills(posts.len(), kills);
        let told = |count| progress("storm", count, posts.len());
        let recoveries = self.under(&load, posts.to_vec(), at, told).await?;
        Ok((recoveries, load.met()))
    }

    /// A life of the gateway in which nobody kills it: its counters begin anew.
    pub(crate) async fn calm(&mut self) -> io::Result<Calm> {
        self.kill().await?;
        Calm::begin(&self.gateway, &self.auditor, &self.log).await
    }

    /// Every post once more, shuffled; how many were answered from memory.
    pub(crate) async fn again(
        &mut self,
        posts: &[Post],
        calm: &mut Calm,
        progress: &Progress,
    ) -> io::Result<u64> {
        let before = Counts::of(&self.log);
        let load = self.load(false);
        let posts = shuffled(posts.to_vec(), &mut Chance(self.plan.seed));
        let all = posts.len();
        self.under(&load, posts, Vec::new(), |count| progress("again", count, all)).await?;
        calm.note_again(&self.gateway, &self.log, before).await?;
        Ok(Counts::of(&self.log).replayed - before.replayed)
    }

    /// Fresh events, each delivered several times, in any order and at once.
    pub(crate) async fn shuffle(
        &mut self,
        posts: usize,
        calm: &mut Calm,
        progress: &Progress,
    ) -> io::Result<Shuffle> {
        let events = self.plan.posts("event", posts.div_ceil(5));
        let deliveries: Vec<Post> = (0..DELIVERIES).flat_map(|_| events.iter().cloned()).collect();
        let before = calm.duplicates(&self.gateway).await?;
        let told = Counts::of(&self.log).told;
        let load = self.load(false);
        let mut chance = Chance(self.plan.seed ^ 1);
        let deliveries = shuffled(deliveries, &mut chance);
        let all = deliveries.len();
        self.under(&load, deliveries, Vec::new(), |count| progress("shuffle", count, all)).await?;
        Ok(Shuffle {
            deliveries: all,
            calls: Counts::of(&self.log).told - told,
            duplicates: calm.duplicates(&self.gateway).await? - before,
            in_doubt: 0,
            tally: Tally::default(),
            events,
        })
    }

    pub(crate) async fn cold(&mut self, folder: &Folder, progress: &Progress) -> io::Result<Cold> {
        progress("cold", 0, 1);
        let arrivals = self.auditor.arrivals();
        let window = Window::of(&self.log);
        // The first pass warms, the second is measured.
        window.replay(self.gateway.address).await?;
        let warm = window.replay(self.gateway.address).await?;
        self.gateway.kill();
        let pages_dropped = drop_pages(&folder.path.join("data"))?;
        self.gateway = self.binary.start().await?;
        let cold = window.replay(self.gateway.address).await?;
        progress("cold", 1, 1);
        let sent = self.auditor.arrivals() - arrivals;
        Ok(Cold { window: window.len(), warm, cold, sent, pages_dropped })
    }
}

/// Waits until the gateway ends by itself.
async fn ended(gateway: &mut Gateway) {
    while !gateway.has_ended() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

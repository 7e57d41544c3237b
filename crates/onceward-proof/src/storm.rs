//! A whole run: a gateway between callers and an upstream that fails by plan, killed on the way;
//! then everything again, shuffled; then the same load without a gateway.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::auditor::Auditor;
use crate::check::{Log, check};
use crate::cold::Cold;
use crate::counted::Counts;
use crate::load::{Aim, Load};
use crate::metrics::Compared;
use crate::plan::{Fault, Plan, Post};
use crate::process::Folder;
use crate::tally::{Story, Tally};
use crate::world::World;

/// What a caller without a gateway waits for an answer.
const NAIVE_PATIENCE: Duration = Duration::from_secs(1);

/// What a run is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The gateway's executable.
    pub program: PathBuf,
    /// How many posts.
    pub posts: usize,
    /// How often the gateway is killed meanwhile.
    pub kills: usize,
    /// Decides everything else.
    pub seed: u64,
    /// Whether a window of keys is replayed with cold caches too.
    pub cold: bool,
    /// A new folder for the ledger and the logs, which then stay.
    pub keep: Option<PathBuf>,
}

/// Tells how far it is: what is done now, how much of it, and of how much.
pub type Progress = Arc<dyn Fn(&'static str, usize, usize) + Send + Sync>;

/// An operation that somebody has to resolve.
#[derive(Debug, Clone)]
pub struct Doubtful {
    /// Its id.
    pub operation: String,
    /// Its key.
    pub key: String,
    /// Its route.
    pub route: String,
    /// What its last attempt met.
    pub why: String,
    /// Whether the upstream's books have it.
    pub done: bool,
}

/// One side of the comparison.
#[derive(Debug, Clone)]
pub struct Side {
    /// Requests that arrived at the upstream.
    pub attempts: usize,
    /// Faults that were met, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Post by post.
    pub tally: Tally,
}

/// The events that were delivered several times, in any order.
#[derive(Debug, Clone)]
pub struct Shuffle {
    /// The events.
    pub events: Vec<Post>,
    /// How many deliveries of them.
    pub deliveries: usize,
    /// How many calls they took, with what was tried again.
    pub calls: u64,
    /// How far the gateway's counters of duplicates moved meanwhile.
    pub duplicates: u64,
    /// Events in doubt.
    pub in_doubt: usize,
    /// Event by event.
    pub tally: Tally,
}

/// What a run brought.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// The mark of the plan: equal plans, equal marks.
    pub plan: String,
    /// Posts to an upstream that dedupes nothing; the others' dedupes by key.
    pub deduping_nothing: usize,
    /// From each kill until the gateway was ready again.
    pub recoveries: Vec<Duration>,
    /// Through the gateway, up to the last kill and until all was at rest.
    pub gateway: Side,
    /// Without it.
    pub naive: Side,
    /// For a person to resolve.
    pub in_doubt: Vec<Doubtful>,
    /// Answers from memory, over the whole run.
    pub replayed: u64,
    /// Every post once more after the kills: answers from memory.
    pub again: u64,
    /// Events delivered several times.
    pub shuffle: Shuffle,
    /// The gateway's figures beside ours, over its last life, in which nobody killed it.
    pub metrics: Vec<Compared>,
    /// A window of keys with cold caches.
    pub cold: Option<Cold>,
    /// How long it all took.
    pub took: Duration,
    /// What was broken, in words.
    pub violations: Vec<String>,
    /// Where the ledger and the logs are, where they stay.
    pub kept: Option<PathBuf>,
}

/// Runs it all.
pub async fn run(options: Options, progress: Progress) -> io::Result<Report> {
    let began = Instant::now();
    let plan = Plan { seed: options.seed };
    let posts = plan.posts("post", options.posts);
    let mut folder = Folder::new(options.keep.as_deref())?;
    let mut world = World::begin(&folder, &options, plan).await?;
    let (recoveries, wire) = world.storm(&posts, options.kills, &progress).await?;
    let in_doubt = doubtful(&world.gateway.operations().await?, &world.auditor);
    let told = stories(&posts, &world.log, &world.auditor, &in_doubt);
    let gateway = Side::new(Tally::of(&told), &posts, &world.auditor, wire);
    let mut calm = world.calm().await?;
    let again = world.again(&posts, &mut calm, &progress).await?;
    let shuffle = world.shuffle(posts.len(), &mut calm, &progress).await?;
    let metrics = calm.compare(&world.gateway, &world.auditor, &world.log).await?;
    let operations = world.gateway.operations().await?;
    let cold = if options.cold { Some(world.cold(&folder, &progress).await?) } else { None };
    let in_the_end = doubtful(&operations, &world.auditor);
    let told = stories(&posts, &world.log, &world.auditor, &in_the_end);
    let shuffle = shuffle.judged(&world, &in_the_end);
    let mut violations = gateway.tally.violations();
    violations.extend(Tally::of(&told).violations());
    violations.extend(shuffle.violations());
    violations.extend(check(&world.log, &world.auditor, &operations).violations);
    violations.extend(metrics.iter().filter_map(Compared::violation));
    violations.extend(cold.iter().flat_map(Cold::violations));
    // What was broken early is broken in the end too.
    let mut seen = HashSet::new();
    violations.retain(|violation| seen.insert(violation.clone()));
    let naive = naively(&posts, plan, &progress).await;
    if !violations.is_empty() {
        folder.keep();
    }
    let is_kept = options.keep.is_some() || !violations.is_empty();
    Ok(Report {
        plan: plan.mark(&posts, options.kills),
        deduping_nothing: posts.iter().filter(|post| post.route == "once").count(),
        recoveries,
        gateway,
        naive,
        in_doubt,
        replayed: Counts::of(&world.log).replayed,
        again,
        shuffle,
        metrics,
        cold,
        took: began.elapsed(),
        violations,
        kept: is_kept.then(|| folder.path.clone()),
        options,
    })
}

impl Shuffle {
    /// With the events' stories added up.
    fn judged(self, world: &World, doubtful: &[Doubtful]) -> Self {
        let stories = stories(&self.events, &world.log, &world.auditor, doubtful);
        let in_doubt = stories.iter().filter(|story| story.in_doubt).count();
        Self { tally: Tally::of(&stories), in_doubt, ..self }
    }

    /// The promises that were broken, in words.
    fn violations(&self) -> Vec<String> {
        let (mut all, events) = (self.tally.violations(), self.events.len() as u64);
        if self.duplicates + events != self.calls {
            all.push(format!(
                "{} calls about {events} events, and {} duplicates were counted",
                self.calls, self.duplicates
            ));
        }
        all
    }
}

impl Side {
    fn new(tally: Tally, posts: &[Post], auditor: &Auditor, wire: BTreeMap<Fault, u64>) -> Self {
        let names: HashSet<&str> = posts.iter().map(|post| post.name.as_str()).collect();
        let (mut attempts, mut faults) = (0, wire);
        for arrived in auditor.arrived().iter().filter(|one| names.contains(one.key.as_str())) {
            attempts += 1;
            if let Some(fault) = arrived.fault {
                *faults.entry(fault).or_default() += 1;
            }
        }
        Self { attempts, faults, tally }
    }
}

/// The same load from the same seed, without keys and without a gateway.
async fn naively(posts: &[Post], plan: Plan, progress: &Progress) -> Side {
    let auditor = Auditor::start(plan.seed).await;
    let aim = Aim::Upstream(auditor.address);
    let load = Load::new(aim, plan, true, NAIVE_PATIENCE, Arc::default());
    let mut left = load.left.subscribe();
    let mut running = JoinSet::new();
    let (sender, all) = (Arc::clone(&load), posts.to_vec());
    running.spawn(async move { sender.run(all).await });
    loop {
        progress("naive", *left.borrow_and_update(), posts.len());
        tokio::select! {
            _ = left.changed() => {}
            _ = running.join_next() => break,
        }
    }
    let stories = stories(posts, &load.log, &auditor, &[]);
    Side::new(Tally::of(&stories), posts, &auditor, load.met())
}

fn stories(posts: &[Post], log: &Log, auditor: &Auditor, doubtful: &[Doubtful]) -> Vec<Story> {
    let in_doubt: HashSet<(&str, &str)> =
        doubtful.iter().map(|one| (one.route.as_str(), one.key.as_str())).collect();
    let asked = log.lock();
    let story = |post: &Post| Story {
        post: post.name.clone(),
        effects: auditor.effects(post.route, &post.name),
        told: asked.told.get(&post.name).cloned().unwrap_or_default(),
        in_doubt: in_doubt.contains(&(post.route, post.name.as_str())),
    };
    posts.iter().map(story).collect()
}

fn doubtful(operations: &[Value], auditor: &Auditor) -> Vec<Doubtful> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<Doubtful> = operations
        .iter()
        .filter(|operation| operation["state"] == "in_doubt")
        .map(|operation| {
            let (key, route) = (text(&operation["key"]), text(&operation["route"]));
            let last = operation["attempts"].as_array().and_then(|all| all.last());
            Doubtful {
                operation: text(&operation["id"]),
                why: last.map(why).unwrap_or_default(),
                done: auditor.effects(&route, &key) > 0,
                key,
                route,
            }
        })
        .collect();
    all.sort_by(|one, other| one.operation.cmp(&other.operation));
    all
}

fn why(attempt: &Value) -> String {
    let n = &attempt["n"];
    match (attempt["status"].as_u64(), attempt["error"].as_str()) {
        (Some(status), _) => format!("attempt {n} was answered {status}"),
        (None, error) => format!("attempt {n}: {}", error.unwrap_or("no answer")),
    }
}

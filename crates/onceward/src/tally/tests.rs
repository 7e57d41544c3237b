//! Whatever is told, whenever it is written and whoever dies: what is read is what was told.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};

use onceward_core::attempt::{Ended, Reached, Timings};
use onceward_core::lease::Session;
use onceward_core::operation::Death;
use onceward_core::policy::Policy;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::engine::{Engine, Parts};
use crate::observe::Unobserved;
use crate::route::{Route, Routes};
use crate::secret::Secrets;
use crate::store::contract::operation;
use crate::store::memory::MemoryStore;
use crate::store::{Store, Way};
use crate::upstream::{Dispatch, Sent, Target, Timeouts, Upstream};

/// The beginning of an hour.
const BEGIN: i64 = 1_767_225_600_000_000;

#[derive(Debug)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(ready(()))
    }
}

struct Nowhere;

impl Upstream for Nowhere {
    fn send(&self, _: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        unreachable!("nothing is sent")
    }
}

fn nowhere() -> Route {
    let base = "https://nowhere.test".parse().unwrap();
    let target = Target::of_operator(base, Timeouts::default());
    Route::new("", target, Policy::default())
}

/// Nodes on one ledger.
struct Nodes {
    runtime: Runtime,
    clock: Arc<Hand>,
    store: Arc<MemoryStore>,
    engines: Vec<Arc<Engine>>,
    sessions: u64,
}

impl Nodes {
    fn new(count: usize) -> Self {
        let mut nodes = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            clock: Arc::new(Hand(BEGIN.into())),
            store: Arc::new(MemoryStore::new()),
            engines: Vec::new(),
            sessions: 0,
        };
        nodes.engines = (0..count).map(|_| nodes.node()).collect();
        nodes
    }

    fn node(&mut self) -> Arc<Engine> {
        self.sessions += 1;
        Engine::new(Parts {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            upstream: Arc::new(Nowhere),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            observer: Arc::new(Unobserved),
            secrets: Secrets::new([7; 32]),
            routes: Routes { named: [].into(), ad_hoc: Arc::new(nowhere()) },
            session: Session(self.sessions),
        })
    }

    fn tell(&self, node: usize, told: &Told) {
        told.tell(&*self.engines[node].observer, self.clock.now());
    }

    fn pass(&self, by: Duration) {
        self.clock.0.fetch_add(by.as_micros() as i64, Ordering::Relaxed);
    }

    fn write(&self, node: usize) {
        self.runtime.block_on(self.engines[node].flush_tallies()).unwrap();
    }

    /// The node's process ends at once, and another takes its place.
    fn kill(&mut self, node: usize) {
        self.engines[node] = self.node();
    }

    fn stats(&self, node: usize, tenant: Option<&str>, span: Span) -> Stats {
        self.runtime.block_on(self.engines[node].stats(tenant, span)).unwrap()
    }

    fn rows(&self) -> Vec<String> {
        let all = self.store.settings_from(PREFIX.to_owned(), None, Way::Up, usize::MAX);
        self.runtime.block_on(all).unwrap().into_iter().map(|(name, _)| name).collect()
    }
}

/// Something that happened to somebody's operation.
#[derive(Debug, Clone)]
struct Told {
    tenant: &'static str,
    route: &'static str,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Remembered,
    Duplicate(Repeat),
    Attempted(Ending, u16),
    Rested(State, bool),
}

impl Told {
    fn operation(&self, now: Timestamp) -> Operation {
        let mut operation = operation(1, "k", self.route, Mode::Held);
        operation.intent_mut().scope.tenant = self.tenant.to_owned();
        operation.run.since = now.minus(Duration::from_millis(30));
        if let What::Rested(state, told) = self.what {
            (operation.state, operation.told) = (state, told);
            operation.ended_at = state.is_ended().then_some(now);
        }
        operation
    }

    fn tell(&self, observer: &dyn crate::observe::Observer, now: Timestamp) {
        let operation = self.operation(now);
        match self.what {
            What::Remembered => observer.observe(Fact::Remembered(&operation)),
            What::Duplicate(repeat) => observer.observe(Fact::Duplicate(&operation, repeat)),
            What::Rested(..) => observer.observe(Fact::Rested(&operation)),
            What::Attempted(ending, status) => {
                let ended = Ended {
                    at: now,
                    ending,
                    reached: Reached::Body,
                    status: Some(status),
                    error: None,
                    may_have_executed: true,
                    answer: None,
                    timings: Timings::default(),
                };
                let by = Session(1);
                let attempt = Attempt { n: 1, by, started_at: now, ended: Some(ended) };
                observer.observe(Fact::Attempted(&operation, &attempt));
            }
        }
    }

    /// What it comes to, said once more in other words.
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        match self.what {
            What::Remembered => counts.operations = 1,
            What::Duplicate(repeat) => {
                let place = Repeat::ALL.iter().position(|other| *other == repeat).unwrap();
                counts.duplicates[place] = 1;
            }
            What::Attempted(ending, status) => {
                let endings =
                    [Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered];
                counts.attempts = endings.map(|other| u64::from(other == ending));
                counts.statuses = [1, 2, 3, 4, 5].map(|class| u64::from(status / 100 == class));
                counts.failed = 1;
                counts.attempt_took.add(Duration::ZERO);
            }
            What::Rested(state, told) => {
                match state {
                    State::Done => counts.done = 1,
                    State::InDoubt => counts.in_doubt = 1,
                    _ if told => counts.told = 1,
                    _ => counts.dead_letters = 1,
                }
                if state.is_ended() {
                    counts.took.add(Duration::from_millis(30));
                }
            }
        }
        counts
    }

    fn route(&self) -> &str {
        match self.route {
            "" => "claims",
            route if route.contains("://") => "ad_hoc",
            route => route,
        }
    }
}

fn anything() -> impl Strategy<Value = Told> {
    let states = vec![
        (State::Done, false),
        (State::InDoubt, false),
        (State::Dead(Death::Exhausted), false),
        (State::Dead(Death::Refused), true),
    ];
    let endings = vec![Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered];
    let what = prop_oneof![
        Just(What::Remembered),
        prop::sample::select(Repeat::ALL.to_vec()).prop_map(What::Duplicate),
        (prop::sample::select(endings), 100..700_u16)
            .prop_map(|(ending, status)| What::Attempted(ending, status)),
        prop::sample::select(states).prop_map(|(state, told)| What::Rested(state, told)),
    ];
    // None of the tenants is read into another's name.
    let tenants = prop::sample::select(vec!["a", "a/b", "*", "%2A", "é"]);
    let routes = prop::sample::select(vec!["pay", "mail", "", "https://x.test"]);
    (tenants, routes, what).prop_map(|(tenant, route, what)| Told { tenant, route, what })
}

#[derive(Debug, Clone)]
enum Step {
    Tell(usize, Told),
    Write(usize),
    Kill(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..2_usize;
    let step = prop_oneof![
        6 => (node(), anything()).prop_map(|(node, told)| Step::Tell(node, told)),
        2 => node().prop_map(Step::Write),
        1 => node().prop_map(Step::Kill),
        2 => (1..150_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

/// What has to be read: what was written, and of each node what it knows besides.
#[derive(Debug, Default)]
struct Model {
    written: Vec<Told>,
    unwritten: [Vec<Told>; 2],
}

impl Model {
    fn seen_by(&self, node: usize, tenant: Option<&str>) -> (Counts, Vec<(String, Counts)>) {
        let (mut total, mut routes) = (Counts::default(), std::collections::BTreeMap::new());
        let told = self.written.iter().chain(&self.unwritten[node]);
        for told in told.filter(|told| tenant.is_none_or(|tenant| told.tenant == tenant)) {
            total.add(&told.counts());
            let of: &mut Counts = routes.entry(told.route().to_owned()).or_default();
            of.add(&told.counts());
        }
        (total, routes.into_iter().collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_what_was_told_and_nothing_is_counted_twice(steps in steps()) {
        let (mut nodes, mut model) = (Nodes::new(2), Model::default());
        let mut passed = 0;
        for step in steps {
            match step {
                Step::Tell(node, told) => {
                    nodes.tell(node, &told);
                    model.unwritten[node].push(told);
                    continue;
                }
                Step::Write(node) => {
                    nodes.write(node);
                    model.written.append(&mut model.unwritten[node]);
                }
                Step::Kill(node) => {
                    nodes.kill(node);
                    model.unwritten[node].clear();
                }
                // The first of it stays within an hour.
                Step::Pass(seconds) if passed + seconds < 3500 => {
                    passed += seconds;
                    nodes.pass(Duration::from_secs(seconds));
                }
                Step::Pass(_) => {}
            }
            for node in 0..2 {
                for tenant in [None, Some("a"), Some("a/b"), Some("*"), Some("%2A"), Some("b")] {
                    let wanted = model.seen_by(node, tenant);
                    for span in Span::ALL {
                        let stats = nodes.stats(node, tenant, span);
                        let mut sum = Counts::default();
                        stats.points.iter().for_each(|point| sum.add(&point.counts));
                        prop_assert_eq!(&sum, &stats.total);
                        prop_assert_eq!(&(stats.total, stats.routes), &wanted);
                    }
                }
            }
        }
    }
}

fn repeated(what: Repeat) -> Told {
    Told { tenant: "a", route: "pay", what: What::Duplicate(what) }
}

#[test]
fn no_point_is_missing_and_the_last_is_the_one_of_now() {
    let nodes = Nodes::new(1);
    nodes.pass(Duration::from_secs(61));
    nodes.tell(0, &repeated(Repeat::Joined));
    for (span, length, step) in
        [(Span::Hour, 60, 60), (Span::Day, 144, 600), (Span::Week, 168, 3600)]
    {
        let stats = nodes.stats(0, Some("a"), span);
        assert_eq!((stats.points.len(), stats.step.as_secs()), (length, step));
        let apart = stats.points.windows(2).map(|two| two[1].at.since(two[0].at));
        assert!(apart.into_iter().all(|apart| apart == stats.step));
        let last = stats.points.last().unwrap();
        assert!(last.at <= nodes.clock.now() && nodes.clock.now() < last.at.plus(stats.step));
        assert_eq!(last.counts.blocked(), 1);
    }
    nodes.pass(Duration::from_mins(1));
    let stats = nodes.stats(0, Some("a"), Span::Hour);
    let counted = stats.points.iter().map(|point| point.counts.blocked());
    assert_eq!(counted.rev().take(3).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn rows_do_not_grow_with_what_is_counted_and_the_old_ones_go() {
    let nodes = Nodes::new(1);
    let told = Told { tenant: "a", route: "pay", what: What::Rested(State::Done, false) };
    let mut rows = Vec::new();
    for many in [1, 1000] {
        for _ in 0..many {
            nodes.tell(0, &told);
            nodes.tell(0, &repeated(Repeat::Replayed));
        }
        nodes.write(0);
        rows.push(nodes.rows());
    }
    assert_eq!(rows[0], rows[1], "of the same time there are the same");
    assert_eq!(rows[0].len(), 2 * (3 + 2), "of a tenant and of all: three tiers, two days of ends");
    let commits = || nodes.runtime.block_on(nodes.store.condition()).unwrap().commits;
    let before = commits();
    nodes.write(0);
    nodes.pass(Duration::from_mins(5));
    nodes.write(0);
    assert_eq!(commits(), before, "nothing moved, and nothing is written");
    for (days, kept) in [(1, "htx"), (2, "hx"), (30, "x"), (40, "")] {
        nodes.clock.0.store(BEGIN + days * 86_400_000_000, Ordering::Relaxed);
        nodes.runtime.block_on(nodes.engines[0].sweep_tallies()).unwrap();
        let tiers: std::collections::BTreeSet<char> =
            nodes.rows().iter().filter_map(|name| name[PREFIX.len()..].chars().next()).collect();
        assert_eq!(tiers.into_iter().collect::<String>(), kept, "after {days} days");
    }
}

#[test]
fn what_cannot_be_written_is_held_for_no_longer_than_it_would_be_kept() {
    let nodes = Nodes::new(1);
    let told = Told { tenant: "a", route: "pay", what: What::Rested(State::Done, false) };
    let tallies = &nodes.engines[0].counting.tallies;
    for hour in 0..30 * 24 {
        nodes.pass(Duration::from_hours(1));
        nodes.tell(0, &told);
        // As it is done each second, whether anything can be written or not.
        tallies.gather(&*nodes.clock);
        let kept = tallies.kept();
        // Of each tier those that are kept, the one of now and one that is just over.
        let most = 2 * ((2 + 26 + 8 * 24) + 3 * 2);
        assert!(kept.rows.len() <= most, "{} rows after {hour} hours", kept.rows.len());
        let days: usize = kept.ends.values().map(Days::len).sum();
        assert!(days <= 2 * 34, "{days} days of ends after {hour} hours");
    }
    nodes.write(0);
    assert_eq!(nodes.stats(0, Some("a"), Span::Week).total.done, 7 * 24, "all of the week");
}

/// Time that says whether somebody could let go what is counted just now.
#[derive(Debug)]
struct Watched(Arc<Engine>);

impl Clock for Watched {
    fn now(&self) -> Timestamp {
        assert!(self.0.counting.tallies.kept.try_lock().is_err(), "a period may end meanwhile");
        Timestamp::from_micros(BEGIN)
    }

    fn sleep_until(&self, _: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(ready(()))
    }
}

#[test]
fn what_is_counted_late_lies_in_no_period_that_was_let_go() {
    let nodes = Nodes::new(1);
    nodes.tell(0, &repeated(Repeat::Joined));
    nodes.engines[0].counting.tallies.gather(&Watched(Arc::clone(&nodes.engines[0])));
    assert_eq!(nodes.stats(0, Some("a"), Span::Hour).total.blocked(), 1);
}

#[test]
fn one_row_has_room_for_so_many_routes_and_the_rest_are_counted_together() {
    let nodes = Nodes::new(1);
    for place in 0..2 * ROUTES_MAX {
        let mut operation = repeated(Repeat::Joined).operation(nodes.clock.now());
        operation.intent_mut().route = format!("r{place:04}");
        nodes.engines[0].observer.observe(Fact::Remembered(&operation));
        if place % 3 == 0 {
            nodes.engines[0].counting.tallies.gather(&*nodes.clock);
        }
    }
    nodes.write(0);
    let stats = nodes.stats(0, None, Span::Day);
    assert_eq!(stats.total.operations, 2 * ROUTES_MAX as u64);
    assert_eq!(stats.routes.len(), ROUTES_MAX + 1);
    let other = stats.routes.iter().find(|(name, _)| name == OTHER).unwrap();
    assert_eq!(other.1.operations, ROUTES_MAX as u64);
}

#[test]
fn the_last_duplicates_are_read_page_by_page_whoever_saw_them_and_however_long_ago() {
    let mut nodes = Nodes::new(2);
    let mut times = Vec::new();
    for place in 0..120_usize {
        // Over four days, near each other at the end.
        let gap = if place < 60 { Duration::from_mins(97) } else { Duration::from_secs(11) };
        nodes.pass(gap);
        let tenant = if place % 7 == 0 { "b" } else { "a" };
        nodes.tell(place % 2, &Told { tenant, ..repeated(Repeat::ALL[place % 6]) });
        if tenant == "a" {
            times.push((nodes.clock.now(), Repeat::ALL[place % 6]));
        }
        // As it is done each second; and what one has not written is its own.
        nodes.engines[0].counting.tallies.gather(&*nodes.clock);
        nodes.write(1);
        if place == 100 {
            nodes.write(0);
            nodes.kill(0);
        }
    }
    times.reverse();
    for limit in [1, 7, 1000] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = nodes.engines[0].duplicates_seen(Some("a"), before, limit);
            let page = nodes.runtime.block_on(page).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            before = Some(last.place());
            seen.extend(page.iter().map(|seen| (seen.at, seen.repeat)));
        }
        assert_eq!(seen, times, "by {limit}");
    }
    let all = nodes.runtime.block_on(nodes.engines[0].duplicates_seen(None, None, 1000)).unwrap();
    assert_eq!(all.len(), 120);
    assert!(all.iter().any(|seen| seen.tenant == "b"));
    let named = (all[0].operation, &*all[0].route, all[0].after);
    let first = operation(1, "k", "pay", Mode::Held);
    assert_eq!(named, (first.id, "pay", all[0].at.since(first.created_at)));
}

#[test]
fn of_many_duplicates_the_last_are_kept() {
    let nodes = Nodes::new(1);
    for _ in 0..10 * SAMPLES_MAX {
        nodes.pass(Duration::from_millis(1));
        nodes.tell(0, &repeated(Repeat::Replayed));
    }
    let seen = nodes.runtime.block_on(nodes.engines[0].duplicates_seen(None, None, 1000)).unwrap();
    assert_eq!(seen.len(), SAMPLES_MAX);
    assert_eq!(seen[0].at, nodes.clock.now());
    assert_eq!(nodes.stats(0, None, Span::Hour).total.blocked(), 10 * SAMPLES_MAX as u64);
}

#[test]
fn suspected_doubles_are_listed_newest_first_whichever_node_saw_them_and_whoever_dies() {
    let mut nodes = Nodes::new(2);
    let first = operation(1, "first", "pay", Mode::Held).id;
    let mut told = Vec::new();
    for n in 0..20_u32 {
        nodes.pass(Duration::from_mins(17));
        let mut again = operation(u64::from(n) + 2, "again", "pay", Mode::Held);
        again.intent_mut().scope.tenant = if n % 5 == 0 { "b" } else { "a" }.to_owned();
        let observer = &nodes.engines[n as usize % 2].observer;
        observer.observe(Fact::Suspected(&again, first, n + 1));
        if n % 5 != 0 {
            told.push((nodes.clock.now(), again.id, first, n + 1));
        }
        nodes.write(n as usize % 2);
    }
    nodes.kill(0);
    nodes.kill(1);
    told.reverse();
    for limit in [1, 6, 100] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = nodes.engines[0].suspects_seen(Some("a"), before, limit);
            let page = nodes.runtime.block_on(page).unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.place());
            seen.extend(page.iter().map(|seen| (seen.at, seen.operation, seen.first, seen.again)));
        }
        assert_eq!(seen, told, "by {limit}");
    }
    let all = nodes.runtime.block_on(nodes.engines[1].suspects_seen(None, None, 100)).unwrap();
    assert_eq!((all.len(), &*all[0].route), (20, "pay"));
}

#[test]
fn a_row_of_a_release_that_told_of_no_suspects_is_read_and_it_reads_ours() {
    type Before = (Vec<(String, Vec<u64>)>, Vec<(i64, u128, u8, u64, String, String, String)>);

    let nodes = Nodes::new(1);
    nodes.tell(0, &repeated(Repeat::Replayed));
    let first = operation(1, "first", "pay", Mode::Held);
    nodes.engines[0].observer.observe(Fact::Suspected(&first, first.id, 1));
    nodes.write(0);
    let names = nodes.rows();
    let name = names.iter().find(|name| name.contains("m/")).unwrap().clone();
    let ours = nodes.runtime.block_on(nodes.store.setting(name)).unwrap().unwrap();
    let before: Before = postcard::from_bytes(&ours).unwrap();
    assert_eq!(before.1.len(), 1, "what it does not know it reads past");
    let row = row::Row::decode(&postcard::to_allocvec(&before).unwrap());
    let counts: u64 = row.routes.values().map(Counts::repeated).sum();
    assert_eq!(counts, 1, "what is not there it does not miss");
}

#[test]
fn how_many_keys_end_soon_is_told_by_what_came_to_rest() {
    let mut nodes = Nodes::new(2);
    let told = Told { tenant: "a", route: "pay", what: What::Rested(State::Done, false) };
    let ahead = |nodes: &Nodes, node: usize, tenant| {
        let ahead = nodes.runtime.block_on(nodes.engines[node].keys_ahead(Some(tenant))).unwrap();
        (ahead.kept, ahead.expiring, ahead.tombstones)
    };
    for _ in 0..5 {
        nodes.tell(0, &told);
    }
    nodes.tell(1, &told);
    assert_eq!(ahead(&nodes, 0, "a"), (5, 0, 0), "what is not written counts too");
    for node in [0, 1, 0, 1] {
        nodes.write(node);
    }
    nodes.kill(0);
    // The window is 72 hours, the mark stays for 30 days more.
    for (hours, wanted) in [(0, (6, 0, 0)), (50, (6, 6, 0)), (74, (0, 0, 6)), (800, (0, 0, 0))] {
        nodes.clock.0.store(BEGIN + hours * 3_600_000_000, Ordering::Relaxed);
        assert_eq!(ahead(&nodes, 0, "a"), wanted, "after {hours} hours");
        assert_eq!(ahead(&nodes, 1, "b"), (0, 0, 0), "of another tenant");
    }
}

//! A scenario that touches everything that stores: held, accepted and repeated calls, full segments,
//! commits and checkpoints of the index, a backup, retention. It is killed at the N-th storage call,
//! for one N after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::crash_points::{StoragePoint, storage_points};
use crate::crash_world::{Ended, Gateway, World, abreast, can_trace, was_killed, words};
use onceward::store::sqlite::SqliteStore;
use onceward_proof::check::{Ask, Checked, Log, Told, check};
use onceward_proof::figures::{Figures, number};

/// What changes storage.
const CALLS: &str =
    "pwrite64,write,fdatasync,fsync,ftruncate,fallocate,unlink,rename,mkdir,copy_file_range";

/// A route whose operations are over when the scenario begins, so that retention has work.
const BRIEF: &str = r#"
[routes.brief]
upstream = "http://AUDITOR/once"
effects = "non-idempotent"
window = "1ms"
tombstone = "1ms"
"#;

/// Longer than the first pass of retention is waited for.
const RETENTION: Duration = Duration::from_secs(10);

/// Rounds of the scenario: enough for the journal to go on in a second segment and a third.
const ROUNDS: u32 = 3;

/// Runs that have to come to a point before others are killed there.
const UNDISTURBED: usize = 3;

fn ask(route: &str, key: &str, pad: usize) -> Ask {
    Ask {
        route: route.to_owned(),
        path: format!("/{route}/things"),
        key: format!("{route}-{key}"),
        body: format!("{{\"ask\":\"{route}-{key}\",\"pad\":\"{}\"}}", "z".repeat(pad)).into_bytes(),
    }
}

async fn send(gateway: &Gateway, log: &Log, ask: &Ask, accepted: bool) -> std::io::Result<()> {
    let path = &ask.path;
    let answer = if accepted {
        gateway.post(path, &ask.key, &ask.body).await
    } else {
        gateway.call(path, &ask.key, &ask.body).await
    };
    log.told(&ask.key, &answer);
    answer.map(|_| ())
}

/// Held, accepted and repeated calls, one after the other; ends where the gateway does.
async fn round(gateway: &Gateway, log: &Log, round: u32) -> std::io::Result<()> {
    let asks = [
        (ask("keyed", &format!("held-{round}"), 400_000), false),
        (ask("once", &format!("held-{round}"), 900), false),
        (ask("keyed", &format!("accepted-{round}"), 900), true),
        (ask("once", &format!("accepted-{round}"), 900), true),
    ];
    for (ask, accepted) in &asks {
        log.ask(ask);
        send(gateway, log, ask, *accepted).await?;
    }
    for (ask, _) in &asks {
        send(gateway, log, ask, false).await?;
    }
    let mut other = asks[0].0.clone();
    other.body = b"{}".to_vec();
    let answer = gateway.call(&other.path, &other.key, &other.body).await?;
    log.lock().mismatches.push((other.key, Told::of(&answer)));
    Ok(())
}

/// A world whose ledger has a first segment that nothing needs any more once retention has passed.
async fn seeded() -> World {
    let world = World::with(1, BRIEF).await;
    let mut gateway = world.start().await;
    for n in 0..4 {
        let ask = ask("brief", &format!("over-{n}"), 400_000);
        let answer = gateway.call("/brief/things", &ask.key, &ask.body).await;
        assert_eq!(answer.expect("an answer").status(), 201);
    }
    gateway.stop().await;
    world
}

/// Where a scenario begins: where the seeded world ended, or in an empty folder.
pub(crate) type Begin = Option<Arc<World>>;

async fn begun(begin: &Begin, seed: u64) -> World {
    let world = World::with(seed, BRIEF).await;
    if let Some(seeded) = begin {
        world.copy_data_of(seeded);
    }
    world
}

fn first_segment(world: &World) -> PathBuf {
    world.data().join("ledger.journal/segment-00000001")
}

/// The folder that the scenario backs up into.
fn copy_of(world: &World) -> PathBuf {
    world.folder.path().join("copy")
}

/// The whole scenario, or its first round in an empty folder; ends where the gateway does.
async fn golden(
    begin: &Begin,
    world: &World,
    gateway: &mut Gateway,
    log: &Log,
) -> std::io::Result<()> {
    if begin.is_none() {
        return round(gateway, log, 0).await;
    }
    for number in 0..ROUNDS {
        round(gateway, log, number).await?;
    }
    let mut line = onceward_proof::line::Line::connect(gateway.address).await?;
    let order = json!({ "to": copy_of(world) }).to_string();
    line.ask("POST", "/v1/backup", &[("content-type", "application/json")], order.as_bytes())
        .await?;
    // Where what is injected kept retention from its work, it comes to it much later.
    let until = Instant::now() + RETENTION;
    while first_segment(world).exists() && !gateway.has_ended() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The ledger in the end, without what was there before the scenario.
async fn operations(gateway: &Gateway) -> Vec<Value> {
    let all = gateway.operations().await;
    all.into_iter().filter(|operation| operation["route"] != "brief").collect()
}

/// Every storage call that an undisturbed run makes.
async fn all_points(begin: &Begin) -> Vec<StoragePoint> {
    let world = begun(begin, 1).await;
    let trace = world.folder.path().join("trace");
    let output = trace.display().to_string();
    let filter = format!("trace={CALLS}");
    let wrapper = ["strace", "-f", "-D", "-y", "--seccomp-bpf", "-o", &output, "-e", &filter];
    let mut gateway = world.start_behind(&wrapper).await.expect("a start under strace");
    golden(begin, &world, &mut gateway, &Log::default()).await.expect("an undisturbed run");
    gateway.quiet().await;
    gateway.stop().await;
    storage_points(&world, &trace).await
}

/// Whatever begins: an empty folder and the seeded one, each with the points that every run comes to.
pub(crate) async fn points() -> Vec<(Begin, StoragePoint)> {
    let grown: Begin = Some(Arc::new(seeded().await));
    let mut all = Vec::new();
    for begin in [None, grown] {
        // How many writes share a commit is a matter of time: where a run may not come, none can be killed.
        let mut points = all_points(&begin).await;
        for _ in 1..UNDISTURBED {
            let again = all_points(&begin).await;
            points.retain(|point| again.contains(point));
        }
        all.extend(points.into_iter().map(|point| (begin.clone(), point)));
    }
    let wanted = [
        ("unlink", "segment-"),
        ("fallocate", "segment-"),
        ("fsync", "ledger.db-wal"),
        ("fsync", "copy/"),
    ];
    for (call, file) in wanted {
        let is = |point: &StoragePoint| point.call == call && point.file.contains(file);
        assert!(all.iter().any(|(_, point)| is(point)), "no {call} of {file}: {all:#?}");
    }
    all
}

/// A world at which a point is to be met, and everything that is asked of it.
pub(crate) struct Met {
    pub(crate) world: World,
    pub(crate) log: Log,
    /// The gateway, or how it ended before it was ready.
    pub(crate) gateway: Result<Gateway, Ended>,
}

/// Runs the scenario with `what` injected at `point`.
pub(crate) async fn meet(begin: &Begin, point: &StoragePoint, what: &str) -> Met {
    let (world, log) = (begun(begin, point.n).await, Log::default());
    let wrapper = point.inject(&world, what);
    let mut gateway = world.start_behind(&words(&wrapper)).await;
    if let Ok(gateway) = &mut gateway {
        // A call that gets no answer is what this is about.
        let _ = golden(begin, &world, gateway, &log).await;
    }
    Met { world, log, gateway }
}

/// Starts again where nothing is injected any more, and checks everything.
pub(crate) async fn recovered(met: &Met) -> Checked {
    let Met { world, log, .. } = met;
    let mut gateway = world.start().await;
    // The same keys again: they get what they got, or go on; then others.
    for number in 0..=ROUNDS {
        round(&gateway, log, number).await.expect("a run after recovery");
    }
    gateway.quiet().await;
    let mut checked = check(log, &world.auditor, &operations(&gateway).await);
    gateway.stop().await;
    checked.violations.extend(world.examine().faults);
    checked.violations.extend(faults_of_backup(world));
    checked
}

/// What one point came to.
struct Point {
    killed: bool,
    acknowledged: usize,
    violations: Vec<String>,
}

async fn killed_at(begin: &Begin, point: &StoragePoint) -> Point {
    let mut met = meet(begin, point, "signal=SIGKILL").await;
    let killed = match &mut met.gateway {
        // Killed before it was ready: the next start has to cope.
        Err(ended) => {
            assert!(was_killed(ended.status), "{point}: {}\n{}", ended.status, ended.said);
            true
        }
        // The last points lie in an orderly end.
        Ok(gateway) => was_killed(gateway.stopped().await),
    };
    let checked = recovered(&met).await;
    let violations = checked.violations.iter();
    let violations = violations.map(|violation| format!("{point}: {violation}")).collect();
    Point { killed, acknowledged: checked.figures.acknowledged, violations }
}

/// A backup that has its last file is whole.
fn faults_of_backup(world: &World) -> Vec<String> {
    let copy = copy_of(world);
    if !copy.join("master.key").exists() {
        return Vec::new();
    }
    match SqliteStore::examine(&copy.join("ledger.db")) {
        Ok(examined) => examined.faults,
        Err(error) => vec![format!("the backup cannot be read: {error}")],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_a_storage_call_it_loses_nothing_and_does_nothing_twice() {
    if !can_trace() {
        return;
    }
    let mut told = Figures::of("kill-points", 1);
    let all = points().await;
    let total = all.len();
    let every = number("TEST_EVERY", 6) as usize;
    let points = abreast(all.into_iter().step_by(every).collect(), |(begin, point)| async move {
        killed_at(&begin, &point).await
    });
    let points = points.await;
    let killed = points.iter().filter(|point| point.killed).count();
    let violations: Vec<&String> = points.iter().flat_map(|point| &point.violations).collect();
    told.count("storage_calls", total);
    told.count("points", points.len());
    told.count("killed", killed);
    told.count("acknowledged", points.iter().map(|point| point.acknowledged).sum::<usize>());
    told.tell(violations.len());
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(total > 80, "it hardly touches the disk: {total}");
    assert!(killed * 10 >= points.len() * 9, "killed at {killed} of {} points only", points.len());
}

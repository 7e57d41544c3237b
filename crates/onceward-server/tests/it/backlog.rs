//! A ledger with much that waits: the start does not read it, memory does not hold it, and what
//! is due is delivered past what is not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceward::clock::{Clock as _, SystemClock};
use onceward::core::exchange::{Headers, Request};
use onceward::core::lease::Session;
use onceward::core::policy::{Effects, Policy};
use onceward::observe::{Fact, Observer};
use onceward::route::{Protection, Route, Routes};
use onceward::secret::Secrets;
use onceward::store::Store;
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::upstream::{Door, DoorOptions, Egress, Target, Timeouts, Trust};
use onceward::{Answer, Call, CallOptions, Engine, Parts};

use crate::crash_world::{World, until};
use onceward_proof::figures::{number, tell};

/// Due at once, and to be delivered.
const DUE: u64 = 1000;

/// Due at once, to an upstream that is not there.
const STUCK: u64 = 1000;

/// Calls in flight while the ledger is filled.
const AT_ONCE: u64 = 256;

struct Silent;

impl Observer for Silent {
    fn observe(&self, _: Fact<'_>) {}
}

/// An engine on the world's ledger that remembers and never sends: no slot, and not started.
pub(crate) fn engine(world: &World) -> Arc<Engine> {
    let master = [7; 32];
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(world.data().join("master.key"))
        .unwrap();
    std::io::Write::write_all(&mut file, &master).unwrap();
    let segments = SqliteOptions { segment_bytes: 1 << 20 };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&world.ledger(), &segments).unwrap());
    let route = |name: &str| {
        let target = Target {
            base: format!("http://{}", world.auditor.address).parse().unwrap(),
            trust: Trust::Operator,
            http2: false,
            tls: None,
            mail: None,
            timeouts: Timeouts::default(),
        };
        let policy = Policy { effects: Some(Effects::Keyed), ..Policy::default() };
        Arc::new(Route {
            protection: Protection { slots_max: 0, ..Protection::default() },
            ..Route::new(name, target, policy)
        })
    };
    let named = ["keyed", "stuck"].map(|name| (name.to_owned(), route(name)));
    let door = Door::new(Egress::new(Vec::new()), &DoorOptions::default()).unwrap();
    Engine::new(Parts {
        store,
        upstream: Arc::new(door),
        clock: Arc::new(SystemClock),
        observer: Arc::new(Silent),
        secrets: Secrets::new(master),
        routes: Routes { named: named.into_iter().collect(), ad_hoc: route("ad-hoc") },
        session: Session(1),
    })
}

pub(crate) async fn remember(engine: Arc<Engine>, route: &str, n: u64, delay: Duration) {
    let key = format!("{route}-{n}");
    let body = format!("{{\"ask\":\"{key}\",\"pad\":\"{}\"}}", "p".repeat(200));
    let call = Call {
        tenant: "default".to_owned(),
        principal: String::new(),
        route: route.to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: "/things".to_owned(),
            headers: Headers(vec![("content-type".into(), Bytes::from_static(b"text/plain"))]),
            body: body.into(),
        },
        options: CallOptions {
            respond_async: true,
            not_before: Some(SystemClock.now().plus(delay)),
            key: Some(key),
            ..CallOptions::default()
        },
    };
    let answer = engine.call(call).await.unwrap();
    assert!(matches!(answer, Answer::Accepted(_)));
}

/// Seconds of processor time so far.
fn processor_seconds(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every Linux that this runs on.
    ticks as f64 / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_that_waits_costs_no_memory_and_stands_before_nobody() {
    let backlog = number("TEST_BACKLOG", 24_000);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::with(
        29,
        &format!("\n[routes.stuck]\nupstream = \"http://{closed}\"\neffects = \"keyed\"\nbreaker = false\nretry = {{ base = \"1h\", floor = \"1h\" }}\n"),
    )
    .await;
    let began = Instant::now();
    {
        let engine = engine(&world);
        let mut callers = Vec::new();
        for caller in 0..AT_ONCE {
            let engine = Arc::clone(&engine);
            callers.push(tokio::spawn(async move {
                for n in (caller..backlog).step_by(AT_ONCE as usize) {
                    let (route, delay) = match n {
                        0..STUCK => ("stuck", Duration::ZERO),
                        n if n < STUCK + DUE => ("keyed", Duration::ZERO),
                        _ => ("keyed", Duration::from_hours(24)),
                    };
                    remember(Arc::clone(&engine), route, n, delay).await;
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
    }
    let filled = began.elapsed();
    let began = Instant::now();
    let gateway = world.start().await;
    let ready = began.elapsed();
    let at_start = gateway.memory("VmRSS");
    until("what is due to be delivered", async || {
        (world.auditor.arrivals() as u64 >= DUE).then_some(())
    })
    .await;
    let delivered = began.elapsed();
    let tried = format!("onceward_attempts_total{{ending=\"unsent\"}} {STUCK}");
    until("what is stuck to be tried", async || {
        let metrics = gateway.line().await.ask("GET", "/metrics", &[], &[]).await.ok()?;
        String::from_utf8_lossy(&metrics.body).contains(&tried).then_some(())
    })
    .await;
    let at_work = gateway.memory("VmRSS");
    let (before, pause) = (processor_seconds(gateway.id()), Duration::from_secs(5));
    tokio::time::sleep(pause).await;
    let idle = processor_seconds(gateway.id()) - before;
    tell(&format!(
        "{backlog} pending, filled in {filled:?}; ready after {ready:?}; {DUE} due delivered after {delivered:?}; \
         VmRSS {} MiB at start, {} MiB at work; {idle:.2} s of processor in {pause:?}",
        at_start >> 10,
        at_work >> 10
    ));
    assert!(at_start.max(at_work) < 200 << 10, "{at_start} KiB, then {at_work} KiB");
    for n in STUCK..STUCK + DUE {
        assert_eq!(world.auditor.effects("keyed", &format!("keyed-{n}")), 1);
    }
    assert_eq!(world.auditor.arrivals() as u64, DUE, "nothing arrives before its time");

    // Its work is older than all that one list looks at, and still keeps its route.
    let text = fs::read_to_string(world.config()).unwrap();
    let end = text.find("[routes.stuck]").unwrap();
    fs::write(world.config(), &text[..end]).unwrap();
    gateway.signal(rustix::process::Signal::HUP);
    until("the answer to a reload", async || {
        gateway.said().contains("this route has unfinished work").then_some(())
    })
    .await;
}

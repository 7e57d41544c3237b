//! What one tenant's flood costs another: a few calls after each other, alone and beside a crowd
//! whose upstream answers late, in turns. One engine, one route, a ledger on disk, real sockets.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceward::clock::SystemClock;
use onceward::core::exchange::{Headers, Request};
use onceward::core::lease::Session;
use onceward::core::policy::{Effects, Policy};
use onceward::observe::Unobserved;
use onceward::route::{Route, Routes};
use onceward::secret::{Secrets, random};
use onceward::store::sqlite::{SqliteOptions, SqliteStore};
use onceward::upstream::{Door, DoorOptions, Egress, Target, Timeouts, Trust};
use onceward::{Call, CallOptions, Engine, Parts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Outcome;

/// Callers of the crowd: more than the route has slots.
const CROWD: usize = 400;

/// How late the upstream answers the crowd.
const LATE: Duration = Duration::from_secs(2);

/// Turns of each, and how long one is.
const TURNS: usize = 4;
const TURN: Duration = Duration::from_secs(5);

/// Measures, and prints the ratio.
pub(crate) fn run(data: &Path) -> Outcome<()> {
    let folder = tempfile::tempdir_in(data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(folder.path()))
}

async fn measure(folder: &Path) -> Outcome<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(upstream(listener));
    let store = SqliteStore::open(&folder.join("ledger.db"), &SqliteOptions::default())?;
    let door = Door::new(Egress::new(Vec::new()), &DoorOptions::default())?;
    let route = Arc::new(route(address)?);
    let engine = Engine::new(Parts {
        store: Arc::new(store),
        upstream: Arc::new(door),
        clock: Arc::new(SystemClock),
        observer: Arc::new(Unobserved),
        secrets: Secrets::new(random()),
        routes: Routes { named: [("one".to_owned(), Arc::clone(&route))].into(), ad_hoc: route },
        session: Session(u64::from_le_bytes(random())),
    });
    engine.recover().await?;
    engine.start();
    let count = Arc::new(AtomicU64::new(0));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    // The first turn warms up.
    for turn in 0..=TURNS {
        let quiet = calls(&engine, &count).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                tokio::spawn(flood(Arc::clone(&engine), Arc::clone(&count), Arc::clone(&stop)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let loud = calls(&engine, &count).await?;
        stop.store(true, Ordering::Relaxed);
        for one in crowd {
            one.await?;
        }
        if turn > 0 {
            alone.extend(quiet);
            beside.extend(loud);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{CROWD} callers of one tenant wait {LATE:?} each; another calls one by one")?;
    writeln!(out, "{:>8} {:>8} {:>9} {:>9}", "", "calls", "p50 ms", "p99 ms")?;
    let mut figures = Vec::new();
    for (name, times) in [("alone", &mut alone), ("beside", &mut beside)] {
        times.sort_unstable();
        let at = |part: f64| {
            let place = (times.len() as f64 * part) as usize;
            times
                .get(place.min(times.len().saturating_sub(1)))
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        writeln!(out, "{name:>8} {:>8} {:>9.2} {:>9.2}", times.len(), at(0.5), at(0.99))?;
        figures.push(at(0.99));
    }
    writeln!(out, "p99 beside ÷ alone: {:.2}", figures[1] / figures[0])?;
    Ok(())
}

/// The calls of a turn, after each other, and how long each took.
async fn calls(engine: &Arc<Engine>, count: &AtomicU64) -> Outcome<Vec<Duration>> {
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < TURN {
        let called = Instant::now();
        engine
            .call(call("small", count.fetch_add(1, Ordering::Relaxed)))
            .await
            .map_err(|refusal| format!("{refusal:?}"))?;
        times.push(called.elapsed());
    }
    Ok(times)
}

/// Calls until it is told to stop; what is refused is called again.
async fn flood(engine: Arc<Engine>, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let _ = engine.call(call("flood", count.fetch_add(1, Ordering::Relaxed))).await;
    }
}

fn call(tenant: &str, n: u64) -> Call {
    let key = ("idempotency-key".to_owned(), Bytes::from(format!("{tenant}-{n}")));
    Call {
        tenant: tenant.to_owned(),
        principal: String::new(),
        route: "one".to_owned(),
        request: Request {
            method: "POST".to_owned(),
            target: format!("/{tenant}"),
            headers: Headers(vec![key]),
            body: Bytes::from(vec![b'x'; 1024]),
        },
        options: CallOptions::default(),
    }
}

fn route(address: SocketAddr) -> Outcome<Route> {
    let target = Target {
        tls: None,
        mail: None,
        base: format!("http://{address}").parse()?,
        trust: Trust::Operator,
        http2: false,
        timeouts: Timeouts::default(),
    };
    let policy = Policy { effects: Some(Effects::Keyed), ..Policy::default() };
    Ok(Route::new("one", target, policy))
}

/// Answers at once, and the crowd late.
async fn upstream(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut wanted) = (Vec::new(), None);
            let mut piece = [0; 4096];
            loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    wanted = Some(end + 4 + 1024);
                }
                if wanted.is_some_and(|wanted| read.len() >= wanted) {
                    if read.starts_with(b"POST /flood") {
                        tokio::time::sleep(LATE).await;
                    }
                    read.clear();
                    wanted = None;
                    let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => read.extend_from_slice(&piece[..length]),
                }
            }
        });
    }
}

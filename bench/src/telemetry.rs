//! What it costs to be watched: held calls and what passes, at a gateway with traces (over OTLP, to a receiver
//! on this machine, sampled as they are by default), metrics that are scraped each second, and a log; beside one
//! with none of it, in turns.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use crate::browser::Browser;
use crate::load::Keys;
use crate::options::Options;
use crate::passing::{plan, turn};
use crate::phase::Total;
use crate::report::{align, figure, percentile};
use crate::subject::Subject;
use crate::{Outcome, compare, place};

/// What Prometheus is often told; here each second, to be on the safe side.
const SCRAPE: Duration = Duration::from_secs(1);
/// Unmeasured work of each before the first round.
const WARM_UP: Duration = Duration::from_secs(1);
/// The last traces come a while after their calls.
const LAST_TRACES: Duration = Duration::from_secs(6);

/// One line of the report.
struct Line {
    name: &'static str,
    path: &'static str,
    is_held: bool,
    is_watched: bool,
    total: Total,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
    let (sink, receiver) = (Subject::sink()?, Subject::receiver()?);
    let alone = Subject::onceward_by(unwatched(&binary), sink.address, &data)?;
    let watched = Subject::onceward_by(watched(&binary, receiver.address), sink.address, &data)?;
    let mut lines = Vec::new();
    for (name, path, is_held) in
        [("held", "/to/sink/x", true), ("what passes", "/to/pass/x", false)]
    {
        for is_watched in [false, true] {
            lines.push(Line { name, path, is_held, is_watched, total: Total::default() });
        }
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    for round in 0..=options.rounds {
        for &line in &order {
            let line = &mut lines[line];
            let subject = if line.is_watched { &watched } else { &alone };
            let with = if line.is_watched { "watched" } else { "unwatched" };
            compare::say(&format!("round {round} of {}: {}, {with}", options.rounds, line.name));
            let keys =
                if line.is_held { Keys::Fresh(format!("round-{round}")) } else { Keys::Read };
            let length = if round == 0 { WARM_UP } else { options.phase() };
            let plan = plan(subject.address, line.path, keys, options.connections, length);
            let scraping = line.is_watched.then(|| Scraping::start(subject.address));
            let turn = turn(&plan, subject, &sink)?;
            drop(scraping);
            // The first round warms up.
            if round > 0 {
                line.total.add(turn);
            }
        }
        // Back and forth, so that nobody is always the one after the heaviest.
        order.reverse();
    }
    std::thread::sleep(LAST_TRACES);
    let (_, told) = Browser::new(receiver.address).get("/")?;
    print(&lines, options, &String::from_utf8_lossy(&told));
    Ok(())
}

/// The gateway with all that watches it, but that its metrics are read and not pushed.
fn watched(binary: &Path, receiver: SocketAddr) -> Command {
    let mut command = Command::new(binary);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{receiver}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("ONCEWARD_LOG", "info");
    command
}

fn unwatched(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("OTEL_SDK_DISABLED", "true").env("ONCEWARD_LOG", "off");
    command
}

/// Reads the metrics each second, as long as this is there.
struct Scraping {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Scraping {
    fn start(from: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut browser = Browser::new(from);
            while !stopped.load(Ordering::Relaxed) {
                // A turn whose calls fail is told of; one whose metrics do, would be by the next.
                let _ = browser.get("/metrics");
                std::thread::park_timeout(SCRAPE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Scraping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn print(lines: &[Line], options: &Options, received: &str) {
    let cpu = |line: &Line| {
        let used = line.total.used?;
        Some(used.subject.cpu.as_secs_f64() * 1e6 / line.total.measured.ok as f64)
    };
    let head = ["", "req/s", "÷ unwatched", "p50 ms", "p99 ms", "CPU µs", "others %"];
    let mut table = vec![head.map(str::to_owned)];
    for pair in lines.chunks(2) {
        for line in pair {
            let latency =
                |share| percentile(&line.total.measured.latencies, share).map(|us| us / 1e3);
            let with = if line.is_watched { "watched" } else { "unwatched" };
            table.push([
                format!("{}, {with}", line.name),
                format!("{:.0}", line.total.measured.throughput()),
                figure(pair.first().and_then(|of| line.total.ratio(&of.total)), 3),
                figure(latency(0.5), 2),
                figure(latency(0.99), 2),
                figure(cpu(line), 1),
                figure(
                    line.total.used.and_then(|used| used.others()).map(|share| share * 100.0),
                    0,
                ),
            ]);
        }
    }
    let mut text = format!(
        "\n{} connections, {} rounds of {} s; ratios of throughput are medians over the rounds\n\n",
        options.connections, options.rounds, options.seconds
    );
    align(&mut text, &table);
    print!("{text}");
    if received.starts_with("0 ") {
        println!("\nNo traces came: this is the cost of metrics and the log alone.");
    } else {
        println!("\nThe receiver got {received}.");
    }
}

/// Takes what is posted, counts it, and keeps nothing; until standard input ends.
pub(crate) fn receive() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = crate::sink::listen().await?;
        let counted = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        loop {
            let (stream, _) = listener.accept().await?;
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let service = service_fn(move |request| take(request, Arc::clone(&counted)));
                // A peer that goes away in the middle is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// Posts, and bytes of them.
type Counted = (AtomicU64, AtomicU64);

async fn take(
    request: Request<Incoming>,
    counted: Arc<Counted>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (posts, bytes) = &*counted;
    if request.method() == Method::GET {
        let (posts, bytes) = (posts.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        return Ok(Response::new(Full::new(format!("{posts} posts, {bytes} bytes").into())));
    }
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    posts.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(Full::default());
    let kind = HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

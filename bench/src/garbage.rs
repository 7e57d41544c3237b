//! What garbage costs good calls: the same load, alone and beside connections that send what no caller
//! would, in turns.
//!
//! The garbage is bounded, so that it is the gateway that is measured and not how many sockets the
//! machine opens in a second. The bare proxy has the same beside it: what it loses is what sharing the
//! cores costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{interval, sleep, timeout};

use crate::load::{self, Keys, Plan, Until};
use crate::options::Options;
use crate::phase::{Total, Turn};
use crate::report::{align, figure, percentile};
use crate::subject::Subject;
use crate::{Outcome, compare, place};

/// New connections of garbage in a second.
const EACH_SECOND: u64 = 500;
/// Connections that stand and say a byte a second: within what one address may have, beside the load's.
const DRIPPING: usize = 400;
/// How long an answer to garbage is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Unmeasured work of each before the first round.
const WARM_UP: Duration = Duration::from_secs(1);
/// What the p99 of good calls may grow by: the promise.
const GROWTH_MAX: f64 = 2.0;

/// One line of the report.
struct Line {
    name: &'static str,
    subject: usize,
    path: &'static str,
    keys: Keys,
    is_beside_garbage: bool,
    total: Total,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    let binary = place::binary(options.binary.as_deref())?;
    let sink = Subject::sink()?;
    let subjects = [Subject::bare(sink.address)?, Subject::onceward(&binary, sink.address, &data)?];
    let mut lines = lines();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    for line in lines.iter().filter(|line| !line.is_beside_garbage) {
        turn(line, &subjects, "warm", options.connections, WARM_UP)?;
    }
    let mut garbage = 0;
    for round in 1..=options.rounds {
        for &at in &order {
            let line = &mut lines[at];
            compare::say(&format!("round {round} of {}: {}", options.rounds, line.name));
            let beside = line
                .is_beside_garbage
                .then(|| Garbage::begin(subjects[line.subject].address))
                .transpose()?;
            let turn = turn(
                line,
                &subjects,
                &format!("{round}-{at}"),
                options.connections,
                options.phase(),
            )?;
            line.total.add(turn);
            garbage += beside.map_or(0, Garbage::end);
        }
        // Back and forth, so that nobody is always the one after the heaviest.
        order.reverse();
    }
    print(&lines, garbage, options);
    Ok(())
}

/// Each line beside garbage follows the same without it.
fn lines() -> Vec<Line> {
    let of = |subject, path, keys: Keys, names: [&'static str; 2]| {
        [(names[0], false), (names[1], true)].map(|(name, is_beside_garbage)| Line {
            name,
            subject,
            path,
            keys: keys.clone(),
            is_beside_garbage,
            total: Total::default(),
        })
    };
    let bare = ["GET, bare proxy", "the same beside garbage"];
    let passed = ["GET, onceward", "the same beside garbage"];
    let held = ["POST, held, onceward", "the same beside garbage"];
    [
        of(0, "/x", Keys::Read, bare),
        of(1, "/to/pass/x", Keys::Read, passed),
        of(1, "/to/sink/x", Keys::Fresh(String::new()), held),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn turn(
    line: &Line,
    subjects: &[Subject],
    name: &str,
    connections: usize,
    length: Duration,
) -> Outcome<Turn> {
    let keys = match line.keys {
        Keys::Fresh(_) => Keys::Fresh(format!("garbage-{name}")),
        ref keys => keys.clone(),
    };
    let plan = Plan {
        to: vec![subjects[line.subject].address],
        path: line.path,
        headers: "",
        keys,
        connections,
        until: Until::Elapsed(length),
    };
    let measured = load::run(&plan)?;
    compare::expect_clean(&measured, line.name)?;
    Ok(Turn { measured, ..Turn::default() })
}

/// Garbage that goes on until it is ended.
struct Garbage {
    end: oneshot::Sender<()>,
    sending: JoinHandle<()>,
    connections: Arc<AtomicU64>,
}

impl Garbage {
    fn begin(to: SocketAddr) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let connections = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&connections);
        let sending = std::thread::spawn(move || {
            runtime.block_on(async {
                for _ in 0..DRIPPING {
                    tokio::spawn(drip(to, Arc::clone(&counted)));
                }
                tokio::select! {
                    () = send(to, counted) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { end, sending, connections })
    }

    /// How many connections there were.
    fn end(self) -> u64 {
        // It may have ended by itself, and then it has nothing to say.
        let _ = self.end.send(());
        let _ = self.sending.join();
        self.connections.load(Ordering::Relaxed)
    }
}

/// A head that never ends, a byte a second.
async fn drip(to: SocketAddr, connections: Arc<AtomicU64>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(to).await {
            connections.fetch_add(1, Ordering::Relaxed);
            let head = b"GET /to/pass/x HTTP/1.1\r\nX-Drip: ".iter().chain([b'x'; 60].iter());
            for byte in head {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// New connections, each with another kind of garbage.
async fn send(to: SocketAddr, connections: Arc<AtomicU64>) {
    let mut tick = interval(Duration::from_secs(1) / EACH_SECOND as u32);
    let kinds: Arc<[Vec<u8>]> = kinds().into();
    for n in 0.. {
        tick.tick().await;
        let (kinds, connections) = (Arc::clone(&kinds), Arc::clone(&connections));
        tokio::spawn(async move {
            let Ok(mut stream) = TcpStream::connect(to).await else { return };
            connections.fetch_add(1, Ordering::Relaxed);
            // Whoever has heard enough closes.
            let _ = stream.write_all(&kinds[n % kinds.len()]).await;
            let mut said = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        });
    }
}

/// What is sent, a connection each.
fn kinds() -> Vec<Vec<u8>> {
    let head = "POST /to/sink/x HTTP/1.1\r\nHost: a\r\nIdempotency-Key: g\r\n";
    let smuggled = "POST /to/sink/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    };
    let mut reset = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    reset.extend(frame(4, 0, 0, &[]));
    for stream in 0..200 {
        // `:method: GET` and `:scheme: http` from the table, without a path: malformed, and reset.
        reset.extend(frame(1, 4, 2 * stream + 1, &[0x82, 0x86]));
        reset.extend(frame(3, 0, 2 * stream + 1, &8u32.to_be_bytes()));
    }
    vec![
        Vec::new(),
        // A generator good enough for what nobody can read.
        (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        format!("{head}Content-Length: +5\r\n\r\nhello{smuggled}").into_bytes(),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{smuggled}").into_bytes(),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{smuggled}")
            .into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n").into_bytes(),
        format!("{head}X-A: {}\r\n\r\n", "a".repeat(100 << 10)).into_bytes(),
        format!("{head}{}\r\n", "X-A: b\r\n".repeat(500)).into_bytes(),
        format!("{head}X-A : b\r\n\r\n").into_bytes(),
        format!("POST /to/sink/{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20 << 10)).into_bytes(),
        format!("{head}Content-Length: 1000\r\n\r\nhalf").into_bytes(),
        reset,
    ]
}

fn print(lines: &[Line], garbage: u64, options: &Options) {
    let latency = |line: &Line, share| {
        percentile(&line.total.measured.latencies, share).map(|micros| micros / 1e3)
    };
    let head = ["", "req/s", "p50 ms", "p99 ms", "p50 ÷ alone", "p99 ÷ alone"];
    let mut table = vec![head.map(str::to_owned)];
    let mut most: f64 = 0.0;
    for pair in lines.chunks(2) {
        for line in pair {
            let ratio = |share| {
                let grown = latency(line, share)? / latency(&pair[0], share)?;
                line.is_beside_garbage.then_some(grown)
            };
            if line.subject == 1 {
                most = most.max(ratio(0.99).unwrap_or_default());
            }
            table.push([
                line.name.to_owned(),
                format!("{:.0}", line.total.measured.throughput()),
                figure(latency(line, 0.5), 2),
                figure(latency(line, 0.99), 2),
                figure(ratio(0.5), 2),
                figure(ratio(0.99), 2),
            ]);
        }
    }
    let mut text = format!(
        "\n{} connections of good calls, {} rounds of {} s; beside them {DRIPPING} that say a byte a second and {EACH_SECOND} new ones a second, {garbage} in all\n\n",
        options.connections, options.rounds, options.seconds
    );
    align(&mut text, &table);
    let is_it = if most <= GROWTH_MAX { "held" } else { "not held" };
    print!(
        "{text}\nthe p99 of good calls grows by no more than {GROWTH_MAX} ×: {is_it} ({most:.2})\n"
    );
}

//! The auditor: an upstream that records every request that arrives, counts effects, and
//! misbehaves as a seed or the path says. It shares no code with what it audits.
//!
//! The first part of a path says what it is: `/keyed/…` dedupes by `Idempotency-Key`, `/once/…`
//! does not. The second says how it behaves: `chaos` and `storm` by the seed, `gate` holds every
//! answer until the gate opens, `refuse` answers 503 and does nothing, `chunked` answers in chunks,
//! anything else just works. What comes without a key is known by its body's member `post`, and is
//! done each time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::chance::{Chance, digest};
use crate::line::{Line, Message};
use crate::plan::{Fault, Plan};

/// How long an answer hangs at most; who asked has long given up.
const HANG: Duration = Duration::from_secs(20);

/// A slow answer comes in so many pieces, with this between them.
const PIECES: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// A request that arrived whole.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// `keyed` or `once`.
    pub route: String,
    /// Its path, without the query's meaning.
    pub path: String,
    /// The idempotency key that came with it, or what it is known by.
    pub key: String,
    /// Whether it came with a key.
    pub has_key: bool,
    /// What it met, of the storm's faults.
    pub fault: Option<Fault>,
    /// The operation that the gateway named.
    pub operation: String,
    /// The attempt's number, as the gateway counts.
    pub attempt: u32,
    /// Of everything that the caller sent.
    pub digest: u64,
}

/// What happened once: the effect of a key, and the answer to it.
#[derive(Debug, Clone)]
struct Effect {
    count: u64,
    answer: String,
}

#[derive(Debug, Default)]
struct Log {
    arrived: Vec<Arrived>,
    by_key: HashMap<String, u64>,
    effects: HashMap<(String, String), Effect>,
}

/// How one arrival is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Land,
    Slow(u64),
    /// The effect, and no answer.
    Lose,
    /// 503, and nothing done.
    Refuse,
    /// The connection is reset, and nothing done.
    Reset,
    /// One of the storm's.
    Meet(Fault),
}

#[derive(Debug)]
struct Seen {
    seed: u64,
    log: Mutex<Log>,
    gate: watch::Sender<bool>,
    /// Connections that are served.
    lines: watch::Sender<usize>,
}

/// A connection that is served, until it ends.
struct Served(Arc<Seen>);

impl Served {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.lines.send_modify(|lines| *lines += 1);
        Self(Arc::clone(seen))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.lines.send_modify(|lines| *lines -= 1);
    }
}

/// The upstream, in this process.
#[derive(Debug, Clone)]
pub struct Auditor {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Auditor {
    /// Starts on a free port.
    ///
    /// # Panics
    ///
    /// Where no port of loopback is free.
    pub async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Seen {
            seed,
            log: Mutex::default(),
            gate: watch::Sender::new(false),
            lines: watch::Sender::new(0),
        });
        let auditor = Self { address, seen: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = Served::new(&shared);
                tokio::spawn(async move { serve(Line::new(stream), &served.0).await });
            }
        });
        auditor
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.seen.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that arrived, oldest first.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.log().arrived.clone()
    }

    /// What arrived with this key.
    pub fn arrived_with(&self, key: &str) -> Vec<Arrived> {
        self.log().arrived.iter().filter(|arrived| arrived.key == key).cloned().collect()
    }

    /// How many requests arrived.
    pub fn arrivals(&self) -> usize {
        self.log().arrived.len()
    }

    /// How often something was done for this key on this route.
    pub fn effects(&self, route: &str, key: &str) -> u64 {
        let log = self.log();
        log.effects.get(&(route.to_owned(), key.to_owned())).map_or(0, |effect| effect.count)
    }

    /// Waits until nobody has a connection any more. Of whom was killed before, all that still comes to be done is
    /// done then.
    ///
    /// # Panics
    ///
    /// Where it does not listen any more.
    pub async fn until_alone(&self) {
        // Who comes last is served once all before have been taken.
        let mut last = Line::connect(self.address).await.expect("it listens");
        last.ask("HEAD", "/", &[], &[]).await.expect("it answers");
        drop(last);
        // The sender lives as long as `seen` does.
        let _ = self.seen.lines.subscribe().wait_for(|lines| *lines == 0).await;
    }

    /// Lets what waits at the gate go on.
    pub fn open_gate(&self) {
        self.seen.gate.send_replace(true);
    }
}

async fn serve(mut line: Line, seen: &Seen) {
    // A connection that ends badly ends alone.
    while let Ok(Some(message)) = line.read().await {
        // A probe asks whether anybody is there.
        if message.start.starts_with("HEAD ") {
            let there = b"HTTP/1.1 204 No Content\r\n\r\n";
            if line.write(there).await.is_err() {
                return;
            }
            continue;
        }
        let (conduct, arrived) = record(seen, &message);
        if arrived.path.contains("/gate") {
            let mut gate = seen.gate.subscribe();
            // The sender lives as long as `seen` does.
            let _ = gate.wait_for(|open| *open).await;
        }
        let answer = match conduct {
            Conduct::Land => effect(seen, &arrived),
            Conduct::Slow(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                effect(seen, &arrived)
            }
            Conduct::Lose => {
                effect(seen, &arrived);
                return;
            }
            Conduct::Refuse => {
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy".to_owned()
            }
            Conduct::Reset => return reset(&line),
            Conduct::Meet(fault) => match meet(&mut line, seen, &arrived, fault).await {
                Some(answer) => answer,
                None => return,
            },
        };
        if line.write(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn reset(line: &Line) {
    // A linger of nothing makes closing a reset.
    let _ = line.stream.set_zero_linger();
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 4\r\n\r\nbusy")
}

/// One of the storm's faults; nothing where the connection is over.
async fn meet(line: &mut Line, seen: &Seen, arrived: &Arrived, fault: Fault) -> Option<String> {
    match fault {
        Fault::Refused => return Some(status("503 Service Unavailable")),
        Fault::Limited => return Some(status("429 Too Many Requests")),
        Fault::Reset => {
            reset(line);
            return None;
        }
        _ => {}
    }
    let answer = effect(seen, arrived);
    match fault {
        Fault::Failed => Some(status("500 Internal Server Error")),
        Fault::Hung => {
            // Until whoever asked closes the connection.
            let _ = tokio::time::timeout(HANG, line.read()).await;
            None
        }
        Fault::Cut => {
            // Past the head, short of the body's end; where that fails it is as cut off.
            let _ = line.write(&answer.as_bytes()[..answer.len() - 2]).await;
            None
        }
        Fault::Slow => {
            for piece in answer.as_bytes().chunks(answer.len().div_ceil(PIECES)) {
                line.write(piece).await.ok()?;
                tokio::time::sleep(PAUSE).await;
            }
            Some(String::new())
        }
        _ => None,
    }
}

fn record(seen: &Seen, message: &Message) -> (Conduct, Arrived) {
    let path = message.start.split(' ').nth(1).unwrap_or_default().to_owned();
    let route = path.split('/').nth(1).unwrap_or_default().to_owned();
    let text = |name: &str| message.header(name).unwrap_or_default().to_owned();
    let key = match message.header("idempotency-key") {
        Some(key) => key.to_owned(),
        None => message.json()["post"].as_str().unwrap_or_default().to_owned(),
    };
    let mut arrived = Arrived {
        digest: digest(&(&message.start, text("content-type"), &message.body)),
        key,
        has_key: message.header("idempotency-key").is_some(),
        fault: None,
        operation: text("onceward-operation"),
        attempt: text("onceward-attempt").parse().unwrap_or_default(),
        route,
        path,
    };
    let mut log = seen.log.lock().unwrap_or_else(PoisonError::into_inner);
    let count = log.by_key.entry(arrived.key.clone()).or_default();
    let before = *count;
    *count += 1;
    let conduct = conduct(seen.seed, &arrived, before);
    if let Conduct::Meet(fault) = conduct {
        arrived.fault = Some(fault);
    }
    log.arrived.push(arrived.clone());
    (conduct, arrived)
}

fn conduct(seed: u64, arrived: &Arrived, before: u64) -> Conduct {
    if arrived.path.contains("/refuse") {
        return Conduct::Refuse;
    }
    if arrived.path.contains("/storm") {
        let met = Plan { seed }.upstream(&arrived.route, &arrived.key, before);
        return met.map_or(Conduct::Land, Conduct::Meet);
    }
    // What is tried again lands in the end: a fault is met twice at most.
    if !arrived.path.contains("/chaos") || before >= 2 {
        return Conduct::Land;
    }
    let mut chance = Chance(digest(&(seed, &arrived.key, before)));
    match chance.below(100) {
        0..70 => Conduct::Land,
        70..80 => Conduct::Slow(5 + chance.below(35)),
        80..87 => Conduct::Lose,
        87..95 => Conduct::Refuse,
        _ => Conduct::Reset,
    }
}

/// Does it, or finds that it was done, and gives the answer.
fn effect(seen: &Seen, arrived: &Arrived) -> String {
    let mut log = seen.log.lock().unwrap_or_else(PoisonError::into_inner);
    let number = log.effects.len();
    let place = (arrived.route.clone(), arrived.key.clone());
    let before = log.effects.get(&place).map_or(0, |effect| effect.count);
    // Without a key nothing tells a second arrival from another post.
    if before > 0 && arrived.route == "keyed" && arrived.has_key {
        return log.effects[&place].answer.clone();
    }
    // No two effects have the same answer, so that a second one cannot hide.
    let nonce = digest(&(seen.seed, number, before, &arrived.key));
    let body = format!(
        "{{\"landed\":\"landed-{}\",\"number\":{number},\"nonce\":\"{nonce:016x}\",\"pad\":\"{}\"}}",
        arrived.key,
        "x".repeat((nonce % 900) as usize),
    );
    let (framing, body) = if arrived.path.contains("/chunked") {
        ("transfer-encoding: chunked".to_owned(), chunked(&body))
    } else {
        (format!("content-length: {}", body.len()), body)
    };
    let answer = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nlocation: /things/{number}\r\netag: \"{nonce:x}\"\r\n{framing}\r\n\r\n{body}",
    );
    log.effects.insert(place, Effect { count: before + 1, answer: answer.clone() });
    answer
}

/// A body in two chunks and an end.
fn chunked(body: &str) -> String {
    let (first, second) = body.split_at(body.len() / 2);
    format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len())
}

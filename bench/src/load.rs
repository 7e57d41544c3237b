//! The load: keep-alive requests over plain sockets, and as little else as possible.
//!
//! It shares the machine with what it measures, so it reads a status line, a length, and no more.
//! Each thread has its own runtime and its own connections: nothing moves between cores.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::Outcome;

/// The size of a request's body.
const BODY_BYTES: usize = 1024;
/// The largest answer that is read: everything here is far smaller.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long an answer is waited for after the phase's end: the gateway's own longest is 60 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(75);
/// Between two tries after a broken connection, so that a dead subject is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What a request is: its method, its body, and which idempotency key it carries.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// No key.
    None,
    /// No key and no body: GET.
    Read,
    /// `{prefix}-{n}`, a new one for each.
    Fresh(String),
    /// `{prefix}-{n mod count}`.
    Cycle(String, u64),
}

/// When the load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// No request is begun after this time.
    Elapsed(Duration),
    /// This many requests were begun.
    Requests(u64),
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// One connection to each in turn.
    pub(crate) to: Vec<SocketAddr>,
    pub(crate) path: &'static str,
    /// Whole header lines, each with its end of line.
    pub(crate) headers: &'static str,
    pub(crate) keys: Keys,
    pub(crate) connections: usize,
    pub(crate) until: Until,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// Answers with status 2xx.
    pub(crate) ok: u64,
    /// All other answers, by status.
    pub(crate) others: BTreeMap<u16, u64>,
    /// Requests without a whole answer.
    pub(crate) broken: u64,
    /// Of the 2xx answers, in microseconds, unsorted.
    pub(crate) latencies: Vec<u32>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// The first answer that was not 2xx, for a person to read.
    pub(crate) sample: Option<String>,
}

impl Measured {
    /// 2xx answers in a second.
    pub(crate) fn throughput(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.ok as f64 / self.elapsed.as_secs_f64() }
    }

    /// Whether every request was answered 2xx.
    pub(crate) fn clean(&self) -> bool {
        self.others.is_empty() && self.broken == 0
    }

    /// Adds the same phase of a later round.
    pub(crate) fn add(&mut self, later: Self) {
        let elapsed = self.elapsed + later.elapsed;
        self.join(later);
        self.elapsed = elapsed;
    }

    /// Adds what ran beside it.
    fn join(&mut self, other: Self) {
        self.ok += other.ok;
        for (status, count) in other.others {
            *self.others.entry(status).or_default() += count;
        }
        self.broken += other.broken;
        self.latencies.extend(other.latencies);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.sample = self.sample.take().or(other.sample);
    }
}

/// One thread of load for each two cores: the rest is for what is measured.
pub(crate) fn half_of_the_cores() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan) -> Outcome<Measured> {
    let threads = half_of_the_cores().min(plan.connections);
    let begun = Arc::new(AtomicU64::new(0));
    let ready = Arc::new(Barrier::new(threads));
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            let share = (plan.connections + threads - 1 - thread) / threads;
            let (plan, begun, ready) = (plan.clone(), Arc::clone(&begun), Arc::clone(&ready));
            std::thread::spawn(move || one_thread(&plan, share, &begun, &ready))
        })
        .collect();
    let mut all = Measured::default();
    for thread in running {
        all.join(thread.join().map_err(|_| "a thread of the load panicked")??);
    }
    Ok(all)
}

fn one_thread(
    plan: &Plan,
    share: usize,
    begun: &Arc<AtomicU64>,
    ready: &Barrier,
) -> Outcome<Measured> {
    let connected = connect_all(&plan.to, share);
    // All connections stand before the first request; one that failed holds nobody up.
    ready.wait();
    let (runtime, streams) = connected?;
    let started = Instant::now();
    let mut all = Measured::default();
    runtime.block_on(async {
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|(to, stream)| {
                tokio::spawn(one_connection(plan.clone(), to, stream, started, Arc::clone(begun)))
            })
            .collect();
        for task in tasks {
            all.join(task.await?);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    all.elapsed = started.elapsed();
    Ok(all)
}

fn connect_all(
    to: &[SocketAddr],
    count: usize,
) -> Outcome<(Runtime, Vec<(SocketAddr, TcpStream)>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut streams = Vec::with_capacity(count);
    for to in to.iter().cycle().take(count) {
        streams.push((*to, runtime.block_on(connect(*to))?));
    }
    Ok((runtime, streams))
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn one_connection(
    plan: Plan,
    to: SocketAddr,
    mut stream: TcpStream,
    started: Instant,
    begun: Arc<AtomicU64>,
) -> Measured {
    let mut measured = Measured::default();
    let mut request = Template::new(&plan, to);
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let mut now = Instant::now();
    loop {
        if let Until::Elapsed(limit) = plan.until
            && now - started >= limit
        {
            return measured;
        }
        let n = begun.fetch_add(1, Ordering::Relaxed);
        if let Until::Requests(limit) = plan.until
            && n >= limit
        {
            return measured;
        }
        let exchange = exchange(&mut stream, request.with(n), &mut buffer);
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, exchange).await;
        let ended = Instant::now();
        match answer {
            Ok(Some(Answer { status: 200..=299, .. })) => {
                measured.ok += 1;
                measured
                    .latencies
                    .push(u32::try_from((ended - now).as_micros()).unwrap_or(u32::MAX));
            }
            Ok(Some(Answer { status, bytes })) => {
                *measured.others.entry(status).or_default() += 1;
                measured
                    .sample
                    .get_or_insert_with(|| String::from_utf8_lossy(&buffer[..bytes]).into_owned());
            }
            Ok(None) | Err(_) => {
                measured.broken += 1;
                tokio::time::sleep(RECONNECT_PAUSE).await;
                match connect(to).await {
                    Ok(fresh) => stream = fresh,
                    // Who refuses connections is not coming back within a phase.
                    Err(_) => return measured,
                }
            }
        }
        now = ended;
    }
}

/// A request of which only the key changes.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the head without the key's number ends.
    head: usize,
    body: Vec<u8>,
    /// The key's number comes again after so many; 0 where there is no key.
    cycle: u64,
}

impl Template {
    pub(crate) fn new(plan: &Plan, to: SocketAddr) -> Self {
        let (method, more, cycle) = match &plan.keys {
            Keys::Read => ("GET", String::new(), 0),
            Keys::None => ("POST", String::new(), 0),
            Keys::Fresh(prefix) => ("POST", format!("Idempotency-Key: {prefix}-"), u64::MAX),
            Keys::Cycle(prefix, count) => ("POST", format!("Idempotency-Key: {prefix}-"), *count),
        };
        let body = if method == "GET" { Vec::new() } else { body() };
        let of_body = match body.len() {
            0 => String::new(),
            length => {
                format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
            }
        };
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n{of_body}{}{more}",
            plan.path, to, plan.headers
        );
        Self { head: head.len(), bytes: head.into_bytes(), body, cycle }
    }

    /// The bytes of the request with number `n`.
    pub(crate) fn with(&mut self, n: u64) -> &[u8] {
        self.bytes.truncate(self.head);
        if let Some(number) = n.checked_rem(self.cycle) {
            // Writing to memory does not fail.
            let _ = std::io::Write::write_fmt(&mut self.bytes, format_args!("{number}\r\n"));
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(&self.body);
        &self.bytes
    }
}

/// An order of exactly 1 KiB, so that a fingerprint over JSON has something to read.
fn body() -> Vec<u8> {
    let mut text = String::from(r#"{"customer":"cus_01jd8k2v9x4qm7r3","currency":"EUR","items":["#);
    for n in 1..=6 {
        let _ = write!(text, r#"{{"sku":"sku-{n:04}","quantity":{n},"price":{}.5}},"#, n * 10);
    }
    text.pop();
    text.push_str(r#"],"note":""#);
    let end = "\"}";
    text.extend(std::iter::repeat_n('n', BODY_BYTES - text.len() - end.len()));
    text.push_str(end);
    text.into_bytes()
}

/// An answer that was read whole: its status, and how much of the buffer it takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Option<Answer> {
    stream.write_all(request).await.ok()?;
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => filled += read,
        }
        if let Some(answer) = parse(&buffer[..filled]) {
            return Some(answer);
        }
    }
}

/// The answer in `bytes`, if it is there whole. One request is under way at a time, so nothing
/// follows it, and a chunked body ends where the bytes end.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let mut whole = head;
    for line in bytes[..head].split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            whole += std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok()?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && !bytes.ends_with(b"0\r\n\r\n")
        {
            return None;
        }
    }
    (bytes.len() >= whole).then_some(Answer { status, bytes: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(keys: Keys) -> Template {
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        let plan = Plan {
            to: vec![to],
            path: "/x",
            headers: "Prefer: respond-async\r\n",
            keys,
            connections: 1,
            until: Until::Requests(1),
        };
        Template::new(&plan, to)
    }

    #[test]
    fn a_body_is_json_of_one_kibibyte() {
        let body = body();
        assert_eq!(body.len(), 1024);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap();
    }

    #[test]
    fn each_request_has_its_own_key_and_a_cycle_comes_back() {
        let mut fresh = template(Keys::Fresh("a".into()));
        assert!(
            String::from_utf8_lossy(fresh.with(7)).contains("\r\nIdempotency-Key: a-7\r\n\r\n{")
        );
        assert!(
            String::from_utf8_lossy(fresh.with(12)).contains("\r\nIdempotency-Key: a-12\r\n\r\n{")
        );
        let mut cycle = template(Keys::Cycle("b".into(), 10));
        assert!(String::from_utf8_lossy(cycle.with(12)).contains("Idempotency-Key: b-2\r\n"));
    }

    #[test]
    fn what_has_no_key_says_none() {
        let read = String::from_utf8_lossy(template(Keys::Read).with(7)).into_owned();
        assert!(read.starts_with("GET /x HTTP/1.1\r\n") && read.ends_with("async\r\n\r\n"));
        let post = String::from_utf8_lossy(template(Keys::None).with(7)).into_owned();
        assert!(!post.contains("Key") && post.contains("async\r\n\r\n{"), "{post}");
    }

    #[test]
    fn an_answer_is_taken_when_its_last_byte_is_there() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse(whole), Some(Answer { status: 201, bytes: whole.len() }));
    }

    #[test]
    fn a_chunked_answer_ends_with_its_last_chunk() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(parse(&whole[..whole.len() - 5]), None);
        assert_eq!(parse(whole), Some(Answer { status: 200, bytes: whole.len() }));
    }

    #[test]
    fn an_answer_without_a_body_is_whole_at_its_head() {
        let whole = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(parse(whole), Some(Answer { status: 204, bytes: whole.len() }));
    }
}

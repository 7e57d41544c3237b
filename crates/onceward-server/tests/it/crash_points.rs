//! The proof of order: nothing goes upstream and no answer leaves before the journal's fdatasync
//! has returned.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::crash_world::{Gateway, World, can_trace, until};
use onceward_proof::check::Ask;
use onceward_proof::figures::tell;
use onceward_proof::line::Line;

fn ask(route: &str, key: &str) -> Ask {
    Ask {
        route: route.to_owned(),
        path: format!("/{route}/things"),
        key: format!("{route}-{key}"),
        body: format!("{{\"ask\":\"{route}-{key}\",\"pad\":\"{}\"}}", "z".repeat(900)).into_bytes(),
    }
}

/// A storage call: the N-th of its kind that a thread makes on a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoragePoint {
    pub(crate) call: String,
    /// Below the world's folder.
    pub(crate) file: String,
    pub(crate) n: u64,
}

impl std::fmt::Display for StoragePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {}", self.call, self.n, self.file)
    }
}

impl StoragePoint {
    /// A tracer that does this to the gateway of `world` when it comes here.
    pub(crate) fn inject(&self, world: &World, what: &str) -> Vec<String> {
        let Self { call, file, n } = self;
        let file = world.folder.path().join(file).display().to_string();
        let output = injected(world).display().to_string();
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={n}"));
        let words = ["strace", "-f", "-D", "-o", &output, "-P", &file, "-e", &trace, "-e", &inject];
        words.map(str::to_owned).to_vec()
    }
}

/// What the tracer that injects writes.
fn injected(world: &World) -> PathBuf {
    world.folder.path().join("injected")
}

/// Whether the gateway came to the point at which an error was to be injected.
pub(crate) fn was_injected(world: &World) -> bool {
    std::fs::read_to_string(injected(world)).is_ok_and(|trace| trace.contains("(INJECTED)"))
}

/// Every storage call of a trace, in order: a tracer counts each thread's calls by themselves.
pub(crate) async fn storage_points(world: &World, trace: &Path) -> Vec<StoragePoint> {
    let root = format!("{}/", world.folder.path().display());
    let mut counts: HashMap<(String, String, String), u64> = HashMap::new();
    let mut points = Vec::new();
    for event in events(&traced(trace).await) {
        let Some((_, file)) = event.text.split_once(&root) else { continue };
        let file = file.split(['>', '"', ',']).next().unwrap_or_default().to_owned();
        let n = counts.entry((event.thread, event.call.clone(), file.clone())).or_default();
        *n += 1;
        let point = StoragePoint { call: event.call, file, n: *n };
        // The first thread that comes so far meets it; others do the same to another time.
        if !points.contains(&point) {
            points.push(point);
        }
    }
    points
}

/// The trace, once the tracer has written all of it.
async fn traced(trace: &Path) -> String {
    until("the end of the trace", async || {
        let text = std::fs::read_to_string(trace).unwrap_or_default();
        text.lines().last()?.contains("+++").then_some(text)
    })
    .await
}

/// One line of the trace: a call's begin or end.
#[derive(Debug)]
struct Event {
    thread: String,
    call: String,
    /// Its text, from its begin.
    text: String,
    begin: usize,
    /// The line in which it returned.
    end: usize,
}

/// The calls of a trace, those that were interleaved put together again.
fn events(trace: &str) -> Vec<Event> {
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut events: Vec<Event> = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            if let Some(begun) = open.remove(thread) {
                events[begun].end = number;
                events[begun].text.push_str(rest);
            }
            continue;
        }
        let Some((call, _)) = rest.split_once('(') else { continue };
        let end = if rest.ends_with("<unfinished ...>") {
            open.insert(thread.to_owned(), events.len());
            usize::MAX
        } else {
            number
        };
        events.push(Event {
            thread: thread.to_owned(),
            call: call.to_owned(),
            text: rest.to_owned(),
            begin: number,
            end,
        });
    }
    events
}

/// Where the journal's frame with `mark` was durable: the end of the first fdatasync of a
/// segment that began after the frame was written.
fn durable(events: &[Event], mark: &str) -> Option<usize> {
    let is_segment = |event: &&Event| event.text.contains("/segment-");
    let written = events
        .iter()
        .filter(is_segment)
        .find(|event| event.call == "pwrite64" && event.text.contains(mark))?;
    events
        .iter()
        .filter(is_segment)
        .find(|event| {
            event.call == "fdatasync"
                && event.thread == written.thread
                && event.begin > written.end
                && event.text.contains("= 0")
        })
        .map(|event| event.end)
}

/// Where bytes with `mark` first left over a socket of which `end` is one end.
fn left(events: &[Event], end: &str, mark: &str) -> Option<usize> {
    events
        .iter()
        .find(|event| {
            ["write", "writev", "sendto", "sendmsg"].contains(&event.call.as_str())
                && event.text.split_once(">]>").is_none()
                && event.text.split_once('>').is_some()
                && event.text.contains("TCP")
                && event.text.split(']').next().is_some_and(|socket| socket.contains(end))
                && event.text.contains(mark)
        })
        .map(|event| event.begin)
}

/// Which event it was that let them leave.
fn position(events: &[Event], end: &str, mark: &str) -> usize {
    let line = left(events, end, mark).unwrap_or_else(|| panic!("{mark}: never sent"));
    events.iter().position(|event| event.begin == line).expect("an event of this trace")
}

/// Whether it made a frame of the journal durable.
fn is_sync(event: &Event) -> bool {
    event.call == "fdatasync" && event.text.contains("/segment-") && event.text.contains("= 0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_before_the_journal_is_durable() {
    let world = World::new(7).await;
    if !can_trace() {
        return;
    }
    let trace = world.folder.path().join("trace");
    let output = trace.display().to_string();
    let calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
    let wrapper =
        ["strace", "-f", "-D", "--seccomp-bpf", "-yy", "-s", "65536", "-o", &output, "-e", calls];
    // What is written has to be read in the trace.
    let mut command = world.command(&wrapper);
    command.env("ONCEWARD_SEAL_BODIES", "false");
    let mut gateway = Gateway::start(command).await.expect("a start under strace");
    let mut marks = Vec::new();
    let mut line: Line = gateway.line().await;
    for n in 0..40 {
        let route = if n % 2 == 0 { "keyed" } else { "once" };
        let is_accepted = n % 4 >= 2;
        let ask = ask(route, &format!("proof-{n:03}-end"));
        let mut headers = vec![("idempotency-key", ask.key.as_str())];
        if is_accepted {
            headers.push(("prefer", "respond-async"));
        }
        let answer =
            line.ask("POST", &format!("/to{}", ask.path), &headers, &ask.body).await.unwrap();
        assert_eq!(answer.status(), if is_accepted { 202 } else { 201 });
        marks.push((ask.key, is_accepted));
    }
    let refused = gateway.call("/keyed/refuse/things", "again", b"{}").await.expect("an answer");
    assert_eq!((refused.status(), refused.header("onceward-attempts")), (503, Some("4")));
    gateway.quiet().await;
    let caller = format!(":{}->", gateway.address.port());
    let upstream = format!("->{}", world.auditor.address);
    drop(line);
    gateway.stop().await;
    let text = traced(&trace).await;
    let events = events(&text);
    for (key, is_accepted) in &marks {
        let remembered = durable(&events, &format!("\\\"ask\\\":\\\"{key}\\\""));
        let remembered = remembered.unwrap_or_else(|| panic!("{key}: never durable"));
        let sent = left(&events, &upstream, key).unwrap_or_else(|| panic!("{key}: never sent"));
        assert!(remembered < sent, "{key}: sent at {sent}, durable at {remembered}");
        let (before, mark) = if *is_accepted {
            (remembered, key.clone())
        } else {
            let mark = format!("landed-{key}");
            let settled = durable(&events, &mark);
            (settled.unwrap_or_else(|| panic!("{key}: its outcome is never durable")), mark)
        };
        let told = left(&events, &caller, &mark).unwrap_or_else(|| panic!("{key}: never told"));
        assert!(before < told, "{key}: told at {told}, durable at {before}");
    }
    let begun = position(&events, &upstream, "idempotency-key: again");
    let again = &events[begun..];
    for n in 2..=4 {
        let before = position(again, &upstream, &format!("onceward-attempt: {}", n - 1));
        let sent = position(again, &upstream, &format!("onceward-attempt: {n}"));
        let is_in_time = |event: &&Event| is_sync(event) && event.end < again[sent].begin;
        let syncs = again[before..sent].iter().filter(is_in_time).count();
        // The end of the attempt before, and the start of this one.
        assert!(syncs >= 2, "attempt {n} left after {syncs} of 2 syncs");
    }
    tell(&format!("{} calls: all durable before a byte left", marks.len()));
}

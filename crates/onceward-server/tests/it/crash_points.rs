//! Killed at the N-th storage system call of a small scenario, for one N after the other; and
//! the proof of order: nothing goes upstream and no answer leaves before the journal's fdatasync
//! has returned.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::crash_world::{Gateway, World, can_trace, number, tell, until, was_killed};
use onceward_proof::check::{Ask, Log, Told, check};
use onceward_proof::line::Line;

/// What changes storage.
const CALLS: &str = "pwrite64,fdatasync,fsync,ftruncate,fallocate,unlink,rename";

/// Rounds of the scenario: enough for the journal to go on in a second segment and a third.
const ROUNDS: u32 = 3;

fn ask(route: &str, key: &str) -> Ask {
    let pad = if key.starts_with("held") && route == "keyed" { 400_000 } else { 900 };
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
async fn scenario(gateway: &Gateway, log: &Log, round: u32) -> std::io::Result<()> {
    let asks = [
        (ask("keyed", &format!("held-{round}")), false),
        (ask("once", &format!("held-{round}")), false),
        (ask("keyed", &format!("accepted-{round}")), true),
        (ask("once", &format!("accepted-{round}")), true),
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

async fn rounds(gateway: &Gateway, log: &Log) -> std::io::Result<()> {
    for round in 0..ROUNDS {
        scenario(gateway, log, round).await?;
    }
    Ok(())
}

/// How often each thread made each storage call, in a run that is not disturbed; by call, the
/// most that one thread made: a tracer counts each thread's calls by themselves.
async fn count(world: &World) -> BTreeMap<String, u64> {
    let trace = world.folder.path().join("trace");
    let output = trace.display().to_string();
    let filter = format!("trace={CALLS}");
    let wrapper = ["strace", "-f", "-D", "--seccomp-bpf", "-o", &output, "-e", &filter];
    let mut gateway = world.start_behind(&wrapper).await.expect("a start under strace");
    rounds(&gateway, &Log::default()).await.expect("an undisturbed run");
    gateway.quiet().await;
    gateway.stop().await;
    let mut counts: HashMap<(String, String), u64> = HashMap::new();
    for event in events(&traced(&trace).await) {
        *counts.entry((event.thread, event.call)).or_default() += 1;
    }
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, call), count) in counts {
        let most = most.entry(call).or_default();
        *most = count.max(*most);
    }
    most
}

/// The trace, once the tracer has written all of it.
async fn traced(trace: &Path) -> String {
    until("the end of the trace", async || {
        let text = std::fs::read_to_string(trace).unwrap_or_default();
        text.lines().last()?.contains("+++").then_some(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_a_storage_call_it_loses_nothing_and_does_nothing_twice() {
    let dry = World::new(1).await;
    if !can_trace(dry.folder.path()) {
        return;
    }
    let most = count(&dry).await;
    let total: u64 = most.values().sum();
    assert!(total > 50, "the scenario hardly touches the disk: {most:?}");
    let every = if number("TEST_ALL", 0) == 1 { 1 } else { 5 };
    let (mut points, mut killed, mut acknowledged) = (0u64, 0u64, 0);
    let all = most.iter().flat_map(|(call, most)| (1..=*most).map(move |n| (call, n)));
    for (call, n) in all.step_by(every) {
        let (world, log) = (World::new(n).await, Log::default());
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=SIGKILL:when={n}");
        let wrapper = ["strace", "-f", "-D", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        points += 1;
        match world.start_behind(&wrapper).await {
            // Killed before it was ready: the next start has to cope.
            Err(ended) => {
                assert!(was_killed(ended.status), "{call} {n}: {}\n{}", ended.status, ended.said);
                killed += 1;
            }
            Ok(mut gateway) => {
                // A call that gets no answer is what this is about.
                let _ = rounds(&gateway, &log).await;
                // The last points lie in an orderly end.
                let status =
                    if gateway.has_ended() { gateway.ended().await } else { gateway.stop().await };
                killed += u64::from(was_killed(status));
            }
        }
        let gateway = world.start().await;
        // The same keys again: they get what they got, or go on.
        rounds(&gateway, &log).await.expect("a run after recovery");
        scenario(&gateway, &log, ROUNDS).await.expect("a run after recovery");
        gateway.quiet().await;
        let figures = check(&log, &world.auditor, &gateway.operations().await).expect_kept();
        acknowledged += figures.acknowledged;
    }
    tell(&format!("{most:?}; {points} points, {killed} killed, {acknowledged} acknowledged"));
    assert!(killed * 10 >= points * 8, "killed at {killed} of {points} points only");
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
    if !can_trace(world.folder.path()) {
        return;
    }
    let trace = world.folder.path().join("trace");
    let output = trace.display().to_string();
    let calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
    let wrapper =
        ["strace", "-f", "-D", "--seccomp-bpf", "-yy", "-s", "65536", "-o", &output, "-e", calls];
    let mut gateway = world.start_behind(&wrapper).await.expect("a start under strace");
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

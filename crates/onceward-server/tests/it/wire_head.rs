//! Malformed, oversized and smuggling requests, as bytes on a connection to the real gateway:
//! each is refused and nothing arrives, or exactly one request arrives, in the gateway's framing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_fuzz::Fuzz;
use onceward_fuzz::figures::Figures;
use onceward_proof::chance::Chance;
use onceward_proof::figures::number;
use onceward_proof::line::Line;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::crash_world::World;
use crate::wire_strict::{Arrived, Strict};
use crate::wire_table::{self, Case, SMUGGLED, Want};

/// After so long without an answer the gateway waits for bytes that never come: we say so.
const LISTEN: Duration = Duration::from_millis(300);

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a case's bytes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    /// In three pieces.
    InPieces,
    /// On a connection that has carried a sound request.
    Behind,
    /// With a whole second request directly behind it.
    Before,
}

/// What stands before the name of a case in the table.
const PATH: &str = "/to/strict/";

const WAYS: [Way; 4] = [Way::Whole, Way::InPieces, Way::Behind, Way::Before];

/// What became of a case.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    statuses: Vec<u16>,
    hangs: bool,
}

/// By which edge the cases come; those of the table are for `/to/strict/…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    /// What stands before the name of a case.
    pub(crate) path: &'static str,
}

async fn world() -> (World, Strict) {
    let strict = Strict::start().await;
    let routes = format!(
        "[routes.strict]\nupstream = \"http://{}\"\neffects = \"keyed\"\ntimeout = \"20s\"\n",
        strict.address
    );
    (World::with(1, &routes).await, strict)
}

/// The bytes of a case, its number in its place.
fn numbered(bytes: &[u8], number: usize) -> Vec<u8> {
    let number = number.to_string();
    bytes.split(|byte| *byte == b'@').collect::<Vec<_>>().join(number.as_bytes())
}

/// The bytes of a case as they come by another edge.
fn by_edge(bytes: &[u8], edge: Edge) -> Vec<u8> {
    let mut left = bytes;
    let mut all = Vec::with_capacity(bytes.len());
    while let Some(at) = left.windows(PATH.len()).position(|window| window == PATH.as_bytes()) {
        all.extend_from_slice(&left[..at]);
        all.extend_from_slice(edge.path.as_bytes());
        left = &left[at + PATH.len()..];
    }
    all.extend_from_slice(left);
    all
}

/// Sends one case and hears it out.
async fn send(edge: Edge, case: &Case, way: Way, number: usize) -> Heard {
    let bytes = by_edge(&[&case.head[..], &case.rest].concat(), edge);
    let mut bytes = numbered(&bytes, number);
    let mut line = Line::connect(edge.address).await.expect("a connection");
    if way == Way::Behind {
        let key = format!("b{number}");
        let path = format!("{}before{number}", edge.path);
        let answer = line.ask("POST", &path, &[("idempotency-key", &key)], b"x").await;
        assert_eq!(answer.map(|answer| answer.status()).ok(), Some(200), "the sound one before");
    }
    if way == Way::Before {
        let behind = by_edge(SMUGGLED.replace("smuggled", "behind").as_bytes(), edge);
        bytes.extend(numbered(&behind, number));
    }
    let pieces = if way == Way::InPieces { bytes.len().div_ceil(3).max(1) } else { bytes.len() };
    for piece in bytes.chunks(pieces) {
        // A gateway that has heard enough closes: that is an answer too.
        if line.write(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    listen(line, case.want == Want::One).await
}

/// Reads answers until the gateway closes; tells it that nothing more comes once it has answered,
/// or once it seems to wait.
async fn listen(mut line: Line, is_sound: bool) -> Heard {
    let mut heard = Heard::default();
    let mut has_said = false;
    loop {
        let patience = if has_said || is_sound { PATIENCE } else { LISTEN };
        match tokio::time::timeout(patience, line.read()).await {
            Ok(Ok(Some(message))) => heard.statuses.push(message.status()),
            Ok(Ok(None) | Err(_)) => return heard,
            Err(_) if has_said || is_sound => {
                heard.hangs = true;
                return heard;
            }
            Err(_) => {}
        }
        if !has_said {
            has_said = true;
            // It may have closed by now.
            let _ = line.stream.shutdown().await;
        }
    }
}

/// Whether a status says that nothing was taken.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) || matches!(status, 501 | 505)
}

/// What is wrong with what became of a case.
fn judge(
    case: &Case,
    way: Way,
    number: usize,
    heard: &Heard,
    arrived: &HashMap<String, Vec<Arrived>>,
) -> Option<String> {
    let of = |prefix: &str| -> Vec<&Arrived> {
        let exact = format!("{prefix}{number}");
        let is_it = |path: &str| {
            path.strip_prefix(&exact)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        };
        arrived.iter().filter(|(path, _)| is_it(path)).flat_map(|(_, arrived)| arrived).collect()
    };
    let (own, smuggled, behind) = (of("/c"), of("/smuggled").len(), of("/behind").len());
    let first = heard.statuses.first().copied();
    let wrong = |what: &str| Some(format!("{way:?} {}: {what}; {heard:?}; {case:?}", case.kind));
    if heard.hangs {
        return wrong("it hangs");
    }
    if smuggled > 0 {
        return wrong("what belongs to it arrived as another");
    }
    if own.len() > 1 {
        return wrong("it arrived twice");
    }
    if let (Some(body), [arrived]) = (case.body, &own[..])
        && arrived.body != body.as_bytes()
    {
        return wrong("it arrived with another body");
    }
    if own.len() == 1 && first.is_some_and(is_refusal) {
        return wrong("it was refused, and arrived");
    }
    if first == Some(200) && own.is_empty() && case.body.is_some() {
        return wrong("it was answered, and never arrived");
    }
    if heard.statuses.iter().any(|status| *status >= 500 && !is_refusal(*status)) {
        return wrong("it made the gateway fail");
    }
    match case.want {
        Want::Refused if !own.is_empty() => wrong("it has to be refused"),
        Want::Refused if first.is_some_and(|status| !is_refusal(status)) => wrong("no refusal"),
        Want::Refused if behind > 0 && case.breaks_framing() => {
            wrong("nobody can know where it ends, and what follows arrived")
        }
        Want::One if own.len() != 1 || first != Some(200) => wrong("it is sound"),
        Want::Refused | Want::One | Want::Either => None,
    }
}

/// What is wrong with what was heard, and with what arrived at each path.
pub(crate) fn wrong_in(
    heard: &[(Case, Way, Heard)],
    strict: &Strict,
    arrived: &HashMap<String, Vec<Arrived>>,
) -> Vec<String> {
    let judged = heard.iter().enumerate();
    let judged =
        judged.filter_map(|(number, (case, way, heard))| judge(case, *way, number, heard, arrived));
    strict.wrong().into_iter().chain(judged).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_or_smuggling_request_is_refused_or_arrives_once_in_our_own_framing() {
    let (began, seed) = (Instant::now(), number("TEST_SEED", 1));
    let count = number("TEST_WIRE_REQUESTS", 1500) as usize;
    let mut chance = Chance(seed);
    let cases = some(count, &mut chance);
    let (world, strict) = world().await;
    let gateway = world.start().await;
    let heard = send_all(Edge { address: gateway.address, path: PATH }, cases).await;
    gateway.quiet().await;
    let wrong = wrong_in(&heard, &strict, &strict.arrived());
    let first = |status: fn(u16) -> bool| {
        let is = |heard: &Heard| heard.statuses.first().copied().is_some_and(status);
        heard.iter().filter(|(_, _, heard)| is(heard)).count() as u64
    };
    let closed = heard.iter().filter(|(_, _, heard)| heard.statuses.is_empty()).count() as u64;
    Figures::new("smuggling", seed, began).write(
        &[
            ("requests", heard.len() as u64),
            ("refused", first(is_refusal)),
            ("closed", closed),
            ("answered", first(|status| status < 400)),
            ("arrived", strict.arrivals() as u64),
        ],
        wrong.len() as u64,
    );
    assert!(wrong.is_empty(), "{} differentials:\n{}", wrong.len(), wrong.join("\n"));
    assert!(strict.arrivals() > 0);
}

/// So many cases of the table, each with a way for its bytes to leave.
pub(crate) fn some(count: usize, chance: &mut Chance) -> Vec<(Case, Way)> {
    let cases = wire_table::some(count, chance);
    cases.into_iter().map(|case| (case, WAYS[chance.below(4) as usize])).collect()
}

/// Sends them, a few at once, and returns what was heard in the order of the cases.
pub(crate) async fn send_all(edge: Edge, cases: Vec<(Case, Way)>) -> Vec<(Case, Way, Heard)> {
    let cases = Arc::new(cases);
    let mut senders = JoinSet::new();
    for start in 0..32 {
        let cases = Arc::clone(&cases);
        senders.spawn(async move {
            let mut heard = Vec::new();
            for number in (start..cases.len()).step_by(32) {
                let (case, way) = &cases[number];
                heard.push((number, send(edge, case, *way, number).await));
            }
            heard
        });
    }
    let mut all: Vec<(usize, Heard)> = senders.join_all().await.into_iter().flatten().collect();
    all.sort_by_key(|(number, _)| *number);
    all.into_iter()
        .map(|(number, heard)| {
            let (case, way) = cases[number].clone();
            (case, way, heard)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_length_and_a_coding_is_the_last_on_its_connection() {
    let (world, strict) = world().await;
    let gateway = world.start().await;
    let edge = Edge { address: gateway.address, path: PATH };
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ];
    for (number, lines) in both.into_iter().enumerate() {
        let written = format!(
            "POST {PATH}c@ HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: k@\r\n{lines}\r\n\r\n"
        );
        let rest = "5\r\nhello\r\n0\r\n\r\n";
        let case = Case {
            kind: "length and coding",
            want: Want::One,
            head: written.into(),
            rest: rest.into(),
            body: Some("hello"),
        };
        // A sound one stands behind it, and is not read: who framed it otherwise may have meant another.
        let heard = send(edge, &case, Way::Before, number).await;
        assert_eq!((heard.statuses.as_slice(), heard.hangs), (&[200][..], false), "{lines}");
        assert_eq!(strict.arrived()[&format!("/c{number}")][0].body, b"hello");
    }
    assert_eq!(strict.arrivals(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_never_be_sent_is_refused_and_not_remembered() {
    let (world, strict) = world().await;
    let gateway = world.start().await;
    let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
    let tunnel = gateway.line().await.ask("CONNECT", "/to/strict/x", &headers, b"").await;
    assert_eq!(tunnel.expect("an answer").code(), "request-invalid");
    for document in [
        r#"{"to": "strict", "method": "CONNECT"}"#,
        r#"{"to": "strict", "path": "/a b"}"#,
        r#"{"to": "strict", "path": "/a#b"}"#,
        r#"{"to": "strict/a b"}"#,
    ] {
        let mut line = gateway.line().await;
        let answer = line.ask("POST", "/v1/operations", &headers, document.as_bytes()).await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (400, "request-invalid"),
            "{document}"
        );
    }
    assert_eq!(gateway.operations().await, Vec::<serde_json::Value>::new());
    assert_eq!(strict.arrivals(), 0);
}

const WORDS: &[&str] = &[
    "POST ",
    "GET ",
    "/to/strict/x",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: 127.0.0.1\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Idempotency-Key: f\r\n",
    "Connection: close\r\n",
    "Prefer: respond-async\r\n",
    "Prefer: wait=0\r\n",
    "Onceward-Delay: 1ms\r\n",
    "Onceward-Timeout: 1s\r\n",
    "Onceward-Label: l\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "/to/https://a.example/",
    "/v1/operations",
    "/dead",
    " ",
    "\t",
    "\0",
    "@",
    "#",
    "%",
];

#[test]
fn fuzz_whatever_comes_on_a_connection_the_gateway_lives_and_what_arrives_is_in_its_framing() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (world, strict) = runtime.block_on(world());
    let gateway = runtime.block_on(world.start());
    let address = gateway.address;
    Fuzz::new("head", 300, WORDS).run(|input| {
        let heard = runtime.block_on(async {
            let mut line = Line::connect(address).await.expect("the gateway lives");
            // A gateway that has heard enough closes.
            let _ = line.write(input).await;
            // Nothing more comes: whoever waits for it need not.
            let _ = line.stream.shutdown().await;
            listen(line, true).await
        });
        assert!(!heard.hangs, "it hangs");
        let wrong = strict.wrong();
        assert!(wrong.is_empty(), "{wrong:?}");
        let said = gateway.said();
        assert!(!said.contains("panicked"), "{said}");
        heard.statuses
    });
    runtime.block_on(gateway.quiet());
    assert!(strict.wrong().is_empty(), "{:?}", strict.wrong());
}

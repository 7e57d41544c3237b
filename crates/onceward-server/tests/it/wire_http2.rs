//! HTTP/2 at its worst, frame by frame: whatever a connection floods the gateway with, its memory
//! stays bounded and an honest caller is served meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use onceward_fuzz::figures::Figures;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use onceward_proof::figures::{number, tell};

use crate::crash_world::{Gateway, World};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What the floods call.
const PATH: &str = "/to/once/things";

/// The memory that one flood may cost, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

/// How many connections flood at once.
const CONNECTIONS: usize = 4;

/// How many frames a flood has, at least.
const FRAMES_MIN: u64 = 2_000;

/// Frames are written in pieces of about so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// RFC 9113, section 4.1: length, type, flags, stream, payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header as a literal that is not indexed (RFC 7541, section 6.2.2), its strings plain.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// The header block of a call.
pub(crate) fn call(path: &str, key: &str) -> Vec<u8> {
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":path", path),
        literal(":authority", "127.0.0.1"),
        literal("idempotency-key", key),
    ]
    .concat()
}

/// A flood: what is written at its `n`-th turn.
struct Flood {
    name: &'static str,
    turn: fn(u32) -> Vec<u8>,
    /// Whether the attacker reads what it is sent.
    reads: bool,
}

/// Streams of a client are odd.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

const FLOODS: [Flood; 11] = [
    Flood {
        name: "rapid reset",
        turn: |n| {
            let open = frame(HEADERS, END_HEADERS, stream(n), &call(PATH, "flood"));
            [open, frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()
        },
        reads: true,
    },
    Flood {
        name: "rapid reset of whole calls",
        turn: |n| {
            let key = format!("flood-{n}");
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &call(PATH, &key));
            [open, frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()
        },
        reads: true,
    },
    Flood {
        // Nothing may be added to a window that is nothing: the server has to reset the stream.
        name: "resets that the server has to make",
        turn: |n| {
            let open = frame(HEADERS, END_HEADERS, stream(n), &call(PATH, "flood"));
            [open, frame(WINDOW_UPDATE, 0, stream(n), &0u32.to_be_bytes())].concat()
        },
        reads: true,
    },
    Flood {
        name: "headers without end",
        turn: |n| match n {
            0 => frame(HEADERS, 0, 1, &call(PATH, "flood")),
            _ => frame(CONTINUATION, 0, 1, &literal("x-flood", &"x".repeat(200)).repeat(70)),
        },
        reads: true,
    },
    Flood {
        name: "empty continuations",
        turn: |n| match n {
            0 => frame(HEADERS, 0, 1, &call(PATH, "flood")),
            _ => frame(CONTINUATION, 0, 1, &[]),
        },
        reads: true,
    },
    Flood {
        name: "empty data",
        turn: |n| match n {
            0 => frame(HEADERS, END_HEADERS, 1, &call(PATH, "flood")),
            _ => frame(DATA, 0, 1, &[]),
        },
        reads: true,
    },
    Flood { name: "settings", turn: |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), reads: false },
    Flood { name: "pings", turn: |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()), reads: false },
    Flood {
        name: "priorities",
        turn: |n| frame(PRIORITY, 0, stream(n % 1_000_000), &[0, 0, 0, 0, 7]),
        reads: true,
    },
    Flood {
        // One entry of 4,000 bytes, named ten thousand times in every block.
        name: "header bomb",
        turn: |n| {
            let mut block = call(PATH, "flood");
            // A literal that is indexed; its value's length is 127 and 3873 in seven-bit groups.
            block.extend_from_slice(b"\x40\x01x\x7f\xa1\x1e");
            block.extend(std::iter::repeat_n(b'x', 4000));
            block.extend(std::iter::repeat_n(0xbe, 10_000));
            frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &block)
        },
        reads: true,
    },
    Flood {
        // Calls whose answers nobody lets the server send.
        name: "a window of nothing",
        turn: |n| match n {
            0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            _ => frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                stream(n),
                &call(PATH, &format!("flood-{}", n % 50)),
            ),
        },
        reads: false,
    },
];

/// Floods one connection after the other, until it is told to end.
async fn attack(
    gateway: SocketAddr,
    flood: &'static Flood,
    frames: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
) {
    loop {
        let Ok(socket) = TcpStream::connect(gateway).await else { continue };
        let (mut read, mut write) = socket.into_split();
        let reader = flood.reads.then(|| {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while read.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            })
        });
        let mut piece = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for n in 0.. {
            piece.extend((flood.turn)(n));
            frames.fetch_add(1, Ordering::Relaxed);
            if piece.len() < PIECE_BYTES && n % 1000 != 999 {
                continue;
            }
            if write.write_all(&piece).await.is_err() {
                break;
            }
            piece.clear();
        }
        closed.fetch_add(1, Ordering::Relaxed);
        if let Some(reader) = reader {
            reader.abort();
        }
    }
}

async fn serve_one(gateway: &Gateway, key: &str) {
    let answer = gateway.call("/once/things", key, b"{}").await.expect("an answer");
    assert_eq!(answer.status(), 201, "{key}: {}", answer.json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_costs_bounded_memory_and_an_honest_caller_is_served() {
    let began = Instant::now();
    let honest_min = number("TEST_HONEST_CALLS", 5);
    let (mut all_frames, mut all_closed, mut honest, mut most) = (0, 0, 0, 0);
    for flood in &FLOODS {
        let world = World::new(1).await;
        let gateway = world.start().await;
        serve_one(&gateway, "before").await;
        let before = gateway.memory("VmHWM");
        let (frames, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let attackers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (frames, closed) = (Arc::clone(&frames), Arc::clone(&closed));
                tokio::spawn(attack(gateway.address, flood, frames, closed))
            })
            .collect();
        let mut served = 0;
        while served < honest_min || frames.load(Ordering::Relaxed) < FRAMES_MIN {
            serve_one(&gateway, &format!("honest-{served}")).await;
            served += 1;
        }
        for attacker in attackers {
            attacker.abort();
        }
        serve_one(&gateway, "after").await;
        let grown = gateway.memory("VmHWM").saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{}: {grown} KiB more", flood.name);
        assert!(!gateway.said().contains("panicked"), "{}", gateway.said());
        all_frames += frames.load(Ordering::Relaxed);
        all_closed += closed.load(Ordering::Relaxed);
        honest += served;
        most = most.max(grown);
        let flooded = frames.load(Ordering::Relaxed);
        let cut = closed.load(Ordering::Relaxed);
        tell(&format!("{}: {flooded} frames, {cut} cut, {grown} KiB more", flood.name));
    }
    Figures::new("http2_abuse", 1, began).write(
        &[
            ("floods", FLOODS.len() as u64),
            ("frames", all_frames),
            ("connections_closed", all_closed),
            ("honest_calls", honest),
            ("memory_kib_grown_max", most),
        ],
        0,
    );
}

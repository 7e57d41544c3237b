//! What the sink has seen: the count of effects, over one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::{Outcome, load};

/// Between two looks at the count.
const LOOK: Duration = Duration::from_millis(5);
/// How long the sink may see nothing new before what is missing counts as missing.
const STALL_MAX: Duration = Duration::from_secs(15);

/// How many effects there were at a sink now.
pub(crate) fn at(sink: SocketAddr) -> Outcome<u64> {
    Counter::open(sink)?.read()
}

/// Waits until a sink has seen `goal` effects, or nothing new comes; how many it has seen.
pub(crate) fn reach(sink: SocketAddr, goal: u64) -> Outcome<u64> {
    let mut counter = Counter::open(sink)?;
    let mut seen = counter.read()?;
    let mut moved = Instant::now();
    while seen < goal && moved.elapsed() < STALL_MAX {
        std::thread::sleep(LOOK);
        let now = counter.read()?;
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
    }
    Ok(seen)
}

struct Counter {
    stream: TcpStream,
}

impl Counter {
    fn open(sink: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(sink)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    fn read(&mut self) -> Outcome<u64> {
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while load::parse(&answer).is_none() {
            match self.stream.read(&mut buffer)? {
                0 => return Err("the sink went away".into()),
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        let text = String::from_utf8(answer)?;
        let (_, count) = text.rsplit_once("\r\n").ok_or("the sink answered without a body")?;
        Ok(count.parse()?)
    }
}

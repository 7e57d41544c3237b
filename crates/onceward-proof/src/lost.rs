//! A wire to PostgreSQL that loses replies: what was to be written has arrived at the server, and
//! before its answer comes back both ends find the connection gone. It can be cut altogether, and it
//! can fall silent, in both directions or in one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::chance::Chance;

/// What a statement says that writes, or makes what was written stay.
const WRITES: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "COMMIT", "nextval"];

#[derive(Debug)]
struct Rule {
    chance: Chance,
    percent: u64,
    next: Option<&'static str>,
    passed: u64,
    lost: u64,
}

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Comes,
    /// The connection ends at once, whatever the server is doing.
    LostAtOnce,
    /// The connection ends when the server has done it.
    LostWhenDone,
}

/// What passes at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Open,
    /// Nothing: connections end, and no new one lives.
    Cut,
    /// Nothing, and nobody is told: connections stay and say no more.
    Silent,
    /// What is asked arrives, and no reply comes back.
    Deaf,
}

/// The wire, in this process.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Where it listens, in the server's place.
    pub address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    passage: watch::Sender<Passage>,
}

fn open(rule: &Mutex<Rule>) -> MutexGuard<'_, Rule> {
    rule.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A wire to `server` that loses nothing yet.
    ///
    /// # Panics
    ///
    /// Where no port of loopback is free.
    pub async fn start(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let rule = Rule { chance: Chance(seed), percent: 0, next: None, passed: 0, lost: 0 };
        let passage = watch::Sender::new(Passage::Open);
        let wire = Self { address, rule: Arc::new(Mutex::new(rule)), passage };
        let (rule, passage) = (Arc::clone(&wire.rule), wire.passage.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (rule, passage, mut end) =
                    (Arc::clone(&rule), passage.clone(), passage.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        biased;
                        _ = end.wait_for(|passage| *passage == Passage::Cut) => {}
                        // A connection that ends badly ends alone.
                        _ = relay(client, server, &rule, passage) => {}
                    }
                });
            }
        });
        wire
    }

    /// From now on lets this pass.
    pub fn pass(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// From now on loses so many of a hundred replies to statements that write.
    pub fn lose_percent(&self, percent: u64) {
        open(&self.rule).percent = percent;
    }

    /// Loses the reply to the next statement that says `words`, once it is done.
    pub fn lose_next(&self, words: &'static str) {
        open(&self.rule).next = Some(words);
    }

    /// Whether nothing waits to be lost any more.
    pub fn is_spent(&self) -> bool {
        open(&self.rule).next.is_none()
    }

    /// How many replies to statements that write came back, and how many were lost.
    pub fn passed_and_lost(&self) -> (u64, u64) {
        let rule = open(&self.rule);
        (rule.passed, rule.lost)
    }
}

impl Rule {
    fn fate(&mut self, said: &str) -> Fate {
        let is_next = self.next.is_some_and(|words| said.contains(words));
        if is_next {
            self.next = None;
        }
        if !is_next && !WRITES.iter().any(|word| said.contains(word)) {
            return Fate::Comes;
        }
        let is_lost = is_next || self.chance.percent(self.percent);
        if !is_lost {
            self.passed += 1;
            return Fate::Comes;
        }
        self.lost += 1;
        if is_next || self.chance.percent(50) { Fate::LostWhenDone } else { Fate::LostAtOnce }
    }
}

/// Messages of one direction, cut out of a stream of bytes.
#[derive(Debug)]
struct Messages {
    ahead: Vec<u8>,
    /// The first message of a client has no type before its length.
    is_typed: bool,
}

impl Messages {
    fn next(&mut self) -> Option<Vec<u8>> {
        let start = usize::from(self.is_typed);
        let length = self.ahead.get(start..start + 4)?;
        let length = length.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        let end = start + length;
        if self.ahead.len() < end {
            return None;
        }
        self.is_typed = true;
        let rest = self.ahead.split_off(end);
        Some(std::mem::replace(&mut self.ahead, rest))
    }
}

/// What a client said since it last asked for an answer.
#[derive(Debug, Default)]
struct Said {
    prepared: HashMap<String, String>,
    words: String,
}

impl Said {
    /// Takes note of a message; its words where it asks for an answer to them.
    fn add(&mut self, message: &[u8]) -> Option<String> {
        let texts = message.get(5..).unwrap_or_default().split(|byte| *byte == 0);
        let mut texts = texts.map(|text| String::from_utf8_lossy(text).into_owned());
        match message.first() {
            Some(b'P') => {
                let name = texts.next().unwrap_or_default();
                self.prepared.insert(name, texts.next().unwrap_or_default());
                None
            }
            Some(b'B') => {
                let name = texts.nth(1).unwrap_or_default();
                self.words.push_str(self.prepared.get(&name).map_or("", String::as_str));
                None
            }
            Some(b'Q') => texts.next(),
            Some(b'S') => Some(std::mem::take(&mut self.words)),
            _ => None,
        }
    }
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    rule: &Mutex<Rule>,
    mut passage: watch::Receiver<Passage>,
) -> io::Result<()> {
    // Small messages go out at once; where that cannot be set they go out a little later.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut asked = Messages { ahead: Vec::new(), is_typed: false };
    let mut answered = Messages { ahead: Vec::new(), is_typed: true };
    let mut said = Said::default();
    // The server ends its greeting as it ends an answer.
    let mut due: u64 = 1;
    let (mut client_out, mut client_in) = client.split();
    let (mut server_out, mut server_in) = server.split();
    let (mut up, mut down) = (Vec::with_capacity(16 << 10), Vec::with_capacity(16 << 10));
    loop {
        up.clear();
        down.clear();
        tokio::select! {
            read = client_out.read_buf(&mut up) => {
                if read? == 0 {
                    return Ok(());
                }
                // Where the wire itself is gone, so is this connection; here and below.
                let _ = passage.wait_for(|passage| *passage != Passage::Silent).await;
                asked.ahead.extend_from_slice(&up);
                while let Some(message) = asked.next() {
                    server_in.write_all(&message).await?;
                    let Some(words) = said.add(&message) else { continue };
                    due += 1;
                    let fate = open(rule).fate(&words);
                    if fate == Fate::LostWhenDone {
                        while due > 0 {
                            down.clear();
                            if server_out.read_buf(&mut down).await? == 0 {
                                return Ok(());
                            }
                            due -= ends_of(&mut answered, &down);
                        }
                    }
                    if fate != Fate::Comes {
                        return Ok(());
                    }
                }
            }
            read = server_out.read_buf(&mut down) => {
                if read? == 0 {
                    return Ok(());
                }
                due -= ends_of(&mut answered, &down);
                let _ = passage.wait_for(|passage| *passage == Passage::Open).await;
                client_in.write_all(&down).await?;
            }
        }
    }
}

/// How many answers end in these bytes.
fn ends_of(answered: &mut Messages, bytes: &[u8]) -> u64 {
    answered.ahead.extend_from_slice(bytes);
    let mut ends = 0;
    while let Some(message) = answered.next() {
        ends += u64::from(message.first() == Some(&b'Z'));
    }
    ends
}

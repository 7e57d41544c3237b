//! The load of crash and fault tests: callers that send new keys, the same key twice at once, late
//! duplicates, other requests under a known key and calls without one, until the gateway is gone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::crash_world::{Gateway, World, until};
use onceward_proof::chance::Chance;
use onceward_proof::check::{Ask, Checked, Log, Told, check};
use onceward_proof::line::{Line, Message};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Waits until so many calls are acknowledged: on a slow machine that takes longer.
pub(crate) async fn until_acknowledged(log: &Log, count: usize) {
    let is_enough = || log.acknowledged_count() >= count;
    until("calls to be acknowledged", async || is_enough().then_some(())).await;
}

/// Callers that are under way.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets so many callers begin; `name` keeps their keys apart from those of other loads.
    pub(crate) fn start(
        address: SocketAddr,
        log: &Arc<Log>,
        chance: &mut Chance,
        name: &str,
        callers: u64,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let caller = |number: u64| Caller {
            address,
            log: Arc::clone(log),
            over: Arc::clone(&over),
            chance: Chance(chance.next()),
            name: format!("{name}-{number}"),
            count: 0,
        };
        let callers: Vec<Caller> = (0..callers).map(caller).collect();
        let callers = callers.into_iter().map(|caller| tokio::spawn(caller.run())).collect();
        Self { over, callers }
    }

    /// Lets them come to their end.
    pub(crate) async fn end(self) {
        self.over.store(true, Ordering::Release);
        for caller in self.callers {
            caller.await.unwrap();
        }
    }
}

struct Caller {
    address: SocketAddr,
    log: Arc<Log>,
    over: Arc<AtomicBool>,
    chance: Chance,
    name: String,
    count: u64,
}

impl Caller {
    /// Calls until the gateway is gone.
    async fn run(mut self) {
        let (Ok(mut line), Ok(mut other)) =
            (Line::connect(self.address).await, Line::connect(self.address).await)
        else {
            return;
        };
        while !self.over.load(Ordering::Acquire) {
            if self.step(&mut line, &mut other).await.is_err() {
                return;
            }
        }
    }

    async fn step(&mut self, line: &mut Line, other: &mut Line) -> std::io::Result<()> {
        match self.chance.below(100) {
            0..60 => {
                let ask = self.new_ask();
                self.send(line, &ask).await
            }
            60..72 => {
                let ask = self.earlier().unwrap_or_else(|| self.new_ask());
                self.send(line, &ask).await
            }
            72..88 => {
                let ask = self.new_ask();
                let (first, second) = (self.is_accepted(), self.is_accepted());
                let (one, two) = tokio::join!(
                    send(line, &ask, first, &self.log),
                    send(other, &ask, second, &self.log)
                );
                one.and(two)
            }
            88..94 => {
                // What is not known to be in the ledger may come first with any bytes.
                let known = self.earlier().filter(|ask| self.log.knows(&ask.key));
                let Some(mut ask) = known else { return Ok(()) };
                ask.body.push(b' ');
                ask.body.extend_from_slice(b"\"other\"");
                let answer = exchange(line, &ask, false).await;
                let told = Told::of(answer.as_ref().map_err(copy)?);
                self.log.lock().mismatches.push((ask.key, told));
                Ok(())
            }
            _ => self.send_without_key(line).await,
        }
    }

    fn is_accepted(&mut self) -> bool {
        self.chance.below(100) < 40
    }

    fn new_ask(&mut self) -> Ask {
        self.count += 1;
        self.log.new_ask(&mut self.chance, &format!("{}-{}", self.name, self.count))
    }

    /// One that was asked for before, mostly a late one.
    fn earlier(&mut self) -> Option<Ask> {
        self.log.earlier(&mut self.chance)
    }

    async fn send(&mut self, line: &mut Line, ask: &Ask) -> std::io::Result<()> {
        let accepted = self.is_accepted();
        send(line, ask, accepted, &self.log).await
    }

    async fn send_without_key(&mut self, line: &mut Line) -> std::io::Result<()> {
        self.count += 1;
        let body = format!("{{\"no key\":\"{}-{}\"}}", self.name, self.count);
        let path = "/keyed/chaos/things";
        let answer = line.ask("POST", &format!("/to{path}"), &[JSON], body.as_bytes()).await;
        match &answer {
            Ok(told) => {
                let key = told.header("idempotency-key").unwrap_or_default().to_owned();
                let ask = Ask { route: "keyed".into(), path: path.into(), key, body: body.into() };
                self.log.ask(&ask);
                self.log.told(&ask.key, &answer);
                Ok(())
            }
            Err(error) => Err(copy(error)),
        }
    }
}

fn copy(error: &std::io::Error) -> std::io::Error {
    error.kind().into()
}

pub(crate) async fn exchange(
    line: &mut Line,
    ask: &Ask,
    accepted: bool,
) -> std::io::Result<Message> {
    let mut headers = vec![("idempotency-key", ask.key.as_str()), JSON];
    if accepted {
        headers.push(("prefer", "respond-async"));
    }
    line.ask("POST", &format!("/to{}", ask.path), &headers, &ask.body).await
}

pub(crate) async fn send(
    line: &mut Line,
    ask: &Ask,
    accepted: bool,
    log: &Log,
) -> std::io::Result<()> {
    let answer = exchange(line, ask, accepted).await;
    log.told(&ask.key, &answer);
    answer.map(|_| ())
}

/// Once more every key that was acknowledged: each gets its first answer.
async fn ask_again_for_all(gateway: &Gateway, log: &Arc<Log>) {
    let acknowledged = log.acknowledged();
    let mut callers = Vec::new();
    for part in acknowledged.chunks(acknowledged.len().div_ceil(8).max(1)) {
        let (part, log, address) = (part.to_vec(), Arc::clone(log), gateway.address);
        callers.push(tokio::spawn(async move {
            let mut line = Line::connect(address).await.unwrap();
            for ask in part {
                send(&mut line, &ask, false, &log).await.unwrap();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Lets everything rest, asks again for all that was acknowledged, ends the gateway, and holds the
/// callers' log, the auditor and the ledger on disk against the promises.
pub(crate) async fn settle_and_check(
    world: &World,
    mut gateway: Gateway,
    log: &Arc<Log>,
) -> Checked {
    gateway.quiet().await;
    ask_again_for_all(&gateway, log).await;
    gateway.quiet().await;
    let mut checked = check(log, &world.auditor, &gateway.operations().await);
    let status = gateway.stop().await;
    if !status.success() {
        checked.violations.push(format!("it ended with {status}:\n{}", gateway.said()));
    }
    checked.violations.extend(world.examine().faults);
    checked
}

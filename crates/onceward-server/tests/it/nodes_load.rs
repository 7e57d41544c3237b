//! Callers of several nodes: half of what they ask for they ask of two nodes at once.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::check::{Ask, Log, Told};
use onceward_proof::line::{Line, Message};
use tokio::task::JoinHandle;

use crate::crash_load;
use crate::nodes_world::Places;

/// Longer than a node lets a caller wait for a ledger that is away.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);

/// Between two calls of a caller: two cores have to do for all nodes and their server.
const BREATH: Duration = Duration::from_millis(15);

/// What nodes said that they must not, whatever happens around them.
type Odd = Arc<Mutex<Vec<String>>>;

/// Callers that ask until they are told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
    odd: Odd,
}

impl Load {
    /// Begins with so many callers, who hang up when their patience is at its end.
    pub(crate) fn begin(
        log: &Arc<Log>,
        places: &Places,
        callers: u64,
        patience: Duration,
        seed: u64,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let odd = Odd::default();
        let caller = |number| Caller {
            log: Arc::clone(log),
            places: places.clone(),
            over: Arc::clone(&over),
            odd: Arc::clone(&odd),
            chance: Chance(seed ^ (number + 1) << 32),
            patience,
            name: format!("{number}"),
            count: 0,
        };
        let callers = (0..callers).map(|number| tokio::spawn(caller(number).run())).collect();
        Self { over, callers, odd }
    }

    /// Stops; tells what was odd.
    pub(crate) async fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Release);
        for caller in self.callers {
            caller.await.expect("a caller");
        }
        std::mem::take(&mut *self.odd.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Caller {
    log: Arc<Log>,
    places: Places,
    over: Arc<AtomicBool>,
    odd: Odd,
    chance: Chance,
    patience: Duration,
    name: String,
    count: u64,
}

impl Caller {
    async fn run(mut self) {
        while !self.over.load(Ordering::Acquire) {
            self.step().await;
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn step(&mut self) {
        let nodes = self.places.count();
        let node = self.chance.below(nodes as u64) as usize;
        let other = (node + 1 + self.chance.below(nodes as u64 - 1) as usize) % nodes;
        match self.chance.below(100) {
            0..50 => {
                let ask = self.new_ask();
                let (first, second) = (self.is_accepted(), self.is_accepted());
                tokio::join!(self.send(node, &ask, first), self.send(other, &ask, second));
            }
            50..75 => {
                let ask = self.earlier().unwrap_or_else(|| self.new_ask());
                let accepted = self.is_accepted();
                self.send(node, &ask, accepted).await;
            }
            _ => {
                let ask = self.new_ask();
                let accepted = self.is_accepted();
                self.send(node, &ask, accepted).await;
            }
        }
    }

    fn is_accepted(&mut self) -> bool {
        self.chance.percent(40)
    }

    fn new_ask(&mut self) -> Ask {
        self.count += 1;
        self.log.new_ask(&mut self.chance, &format!("{}-{}", self.name, self.count))
    }

    /// One that was asked for before, mostly a late one.
    fn earlier(&mut self) -> Option<Ask> {
        self.log.earlier(&mut self.chance)
    }

    async fn send(&self, node: usize, ask: &Ask, accepted: bool) {
        let answer = exchange(self.places.at(node), self.patience, ask, accepted).await;
        self.log.told(&ask.key, &answer);
        if let Some(odd) = answer.ok().and_then(|answer| oddity(&answer)) {
            let mut all = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(format!("{}: {odd}", ask.key));
        }
    }
}

/// What is wrong with an answer, whatever happens around the node: a refusal that may pass has to
/// say when to ask again, and nothing is an error of ours.
fn oddity(answer: &Message) -> Option<String> {
    let told = Told::of(answer);
    let says_when = answer.header("retry-after").is_some();
    let is_odd = match told.code.as_str() {
        "ledger-unavailable" | "limit" | "draining" | "breaker-open" | "upstream-held" => {
            told.status != 503 || !says_when
        }
        "" | "in-progress" | "outcome-unknown" | "no-answer" | "still-working" => false,
        "upstream-unreachable" => told.status != 503,
        _ => true,
    };
    is_odd.then(|| format!("{answer:?}"))
}

async fn exchange(
    place: SocketAddr,
    patience: Duration,
    ask: &Ask,
    accepted: bool,
) -> io::Result<Message> {
    let asked = async {
        let mut line = Line::connect(place).await?;
        crash_load::exchange(&mut line, ask, accepted).await
    };
    tokio::time::timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Once more every key that was acknowledged, at two nodes: each gives the first answer.
pub(crate) async fn ask_again_for_all(log: &Arc<Log>, places: &Places) {
    let acknowledged = log.acknowledged();
    let mut callers = Vec::new();
    for part in acknowledged.chunks(acknowledged.len().div_ceil(8).max(1)) {
        let (part, log, places) = (part.to_vec(), Arc::clone(log), places.clone());
        callers.push(tokio::spawn(async move {
            for (place, ask) in part.iter().enumerate() {
                for node in [place % places.count(), (place + 1) % places.count()] {
                    let answer = exchange(places.at(node), PATIENT, ask, false).await;
                    assert!(answer.is_ok(), "{}: {answer:?}", ask.key);
                    log.told(&ask.key, &answer);
                }
            }
        }));
    }
    for caller in callers {
        caller.await.expect("a caller");
    }
}

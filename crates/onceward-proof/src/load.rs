//! The load: callers that go on until they know, over a wire that duplicates and reorders.
//!
//! The same callers send through a gateway, each post with its key, and straight at an upstream
//! without one, as a naive retry loop does.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chance::{Chance, digest};
use crate::check::{Ask, Log, is_told};
use crate::line::Line;
use crate::plan::{Fault, Plan, Post};

/// Posts under way at once.
pub const CALLERS: usize = 32;

/// How often a caller tries before it gives up.
const TRIES: u32 = 8;

/// A connection through which no answer came because the gateway died is no try of its caller's;
/// after so many of them it is.
const DEATHS_MAX: u32 = 1000;

/// Between two tries: doubled each time, up to the last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// What a reordered request takes on its way, and after how much of it its caller tries again.
const LATE: Duration = Duration::from_millis(120);
const IMPATIENCE: Duration = Duration::from_millis(40);

/// How long a gateway that is away is waited for.
const AWAY: Duration = Duration::from_mins(1);

/// Where a load goes.
#[derive(Debug, Clone)]
pub enum Aim {
    /// Through a gateway that comes and goes, with keys.
    Gateway(watch::Receiver<Option<SocketAddr>>),
    /// Straight at the upstream, without keys.
    Upstream(SocketAddr),
}

/// What one request taught its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// There is nothing left to do: done, taken over, or nobody can know.
    Enough,
    /// It has to be tried again.
    Nothing,
    /// The same, and the gateway died meanwhile.
    Died,
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    aim: Aim,
    plan: Plan,
    /// Whether the wire has faults too.
    wire: bool,
    /// How long one answer is waited for.
    patience: Duration,
    /// What was asked and told.
    pub log: Arc<Log>,
    /// How many posts their callers have left.
    pub left: watch::Sender<usize>,
    met: Mutex<BTreeMap<Fault, u64>>,
}

impl Load {
    /// A load that writes into `log`.
    pub fn new(aim: Aim, plan: Plan, wire: bool, patience: Duration, log: Arc<Log>) -> Arc<Self> {
        Arc::new(Self {
            aim,
            plan,
            wire,
            patience,
            log,
            left: watch::Sender::new(0),
            met: Mutex::default(),
        })
    }

    /// The wire's faults that were met, by kind.
    pub fn met(&self) -> BTreeMap<Fault, u64> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends `posts` in their order, [`CALLERS`] at once, until each is left by its caller.
    pub async fn run(self: &Arc<Self>, posts: Vec<Post>) {
        let next = Arc::new(Mutex::new(posts.into_iter()));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (load, next) = (Arc::clone(self), Arc::clone(&next));
            callers.spawn(async move {
                // What is sent late arrives before its caller ends.
                let mut late = JoinSet::new();
                loop {
                    let post = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(post) = post else { break };
                    load.deliver(&Arc::new(post), &mut late).await;
                    load.left.send_modify(|left| *left += 1);
                }
                late.join_all().await;
            });
        }
        callers.join_all().await;
    }

    async fn deliver(self: &Arc<Self>, post: &Arc<Post>, late: &mut JoinSet<()>) {
        self.log.ask(&Ask {
            route: post.route.to_owned(),
            path: post.path(),
            key: post.name.clone(),
            body: post.body.clone(),
        });
        let mut chance = Chance(digest(&(self.plan.seed, "pause", &post.name)));
        let met = self.plan.wire(&post.name).filter(|_| self.wire);
        let (mut tries, mut deaths, mut is_first) = (0, 0, true);
        while tries < TRIES {
            let known = match met.filter(|_| std::mem::take(&mut is_first)) {
                Some(fault) => self.meet(fault, post, late).await,
                None => self.send(post).await,
            };
            match known {
                Known::Enough => return,
                Known::Died if deaths < DEATHS_MAX => deaths += 1,
                Known::Nothing | Known::Died => tries += 1,
            }
            let pause = (PAUSE * 2_u32.pow(tries)).min(PAUSE_MAX);
            // Half of it at least, so that callers do not come in step.
            let millis = pause.as_millis() as u64;
            let millis = millis / 2 + chance.below(millis / 2 + 1);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// The first request, on a wire that is not as it should be.
    async fn meet(
        self: &Arc<Self>,
        fault: Fault,
        post: &Arc<Post>,
        late: &mut JoinSet<()>,
    ) -> Known {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
        if fault == Fault::Duplicated {
            let (one, other) = tokio::join!(self.send(post), self.send(post));
            return if one == Known::Enough { one } else { other };
        }
        let (load, post) = (Arc::clone(self), Arc::clone(post));
        late.spawn(async move {
            tokio::time::sleep(LATE).await;
            load.send(&post).await;
        });
        tokio::time::sleep(IMPATIENCE).await;
        Known::Nothing
    }

    /// One request, and what its answer says.
    async fn send(&self, post: &Post) -> Known {
        let Some(mut line) = self.connect().await else { return Known::Nothing };
        let mut headers = vec![("content-type", "application/json")];
        let mut path = post.path();
        if let Aim::Gateway(_) = self.aim {
            path.insert_str(0, "/to");
            headers.push(("idempotency-key", post.name.as_str()));
            if post.accepted {
                headers.push(("prefer", "respond-async"));
            }
        }
        let asked = line.ask("POST", &path, &headers, &post.body);
        let answer = tokio::time::timeout(self.patience, asked).await;
        let answer = answer.unwrap_or_else(|late| Err(late.into()));
        self.log.told(&post.name, &answer);
        match answer {
            Ok(answer) if is_told(&answer) => Known::Enough,
            // One that lives and does not answer has had its try.
            Err(error) if error.kind() == ErrorKind::TimedOut => Known::Nothing,
            Err(_) if matches!(self.aim, Aim::Gateway(_)) => Known::Died,
            _ => Known::Nothing,
        }
    }

    /// A connection. A gateway that is away is waited for: nothing was tried meanwhile.
    async fn connect(&self) -> Option<Line> {
        let mut gateway = match &self.aim {
            Aim::Upstream(address) => return Line::connect(*address).await.ok(),
            Aim::Gateway(gateway) => gateway.clone(),
        };
        let found = tokio::time::timeout(AWAY, async {
            loop {
                let address = *gateway.wait_for(Option::is_some).await.ok()?;
                match Line::connect(address?).await {
                    Ok(line) => return Some(line),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        found.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auditor::Auditor;
    use crate::tally::{Story, Tally};

    /// What is counted of a load that goes through a "gateway" which only passes on: it listens to
    /// no key, as a route that nobody knows.
    async fn passed_on(seed: u64) -> Tally {
        let (plan, auditor) = (Plan { seed }, Auditor::start(seed).await);
        let address = watch::Sender::new(Some(auditor.address));
        let aim = Aim::Gateway(address.subscribe());
        let load = Load::new(aim, plan, true, Duration::from_millis(300), Arc::default());
        let posts = plan.posts("post", 200);
        load.run(posts.clone()).await;
        let asked = load.log.lock();
        let story = |post: &Post| Story {
            post: post.name.clone(),
            effects: auditor.effects("to", &post.name),
            told: asked.told.get(&post.name).cloned().unwrap_or_default(),
            in_doubt: false,
        };
        Tally::of(&posts.iter().map(story).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_gateway_that_only_passes_on_is_found() {
        let tally = passed_on(3).await;
        assert!(tally.doubled.len() > 10, "{tally:?}");
        assert!(!tally.given_up.is_empty() && !tally.differing.is_empty(), "{tally:?}");
        assert!(!tally.violations().is_empty());
    }
}

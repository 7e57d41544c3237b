//! Runs the scripts of the cases, and counts what they did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ask::{Api, Ask, Payload};
use super::caller::Caller;
use super::case::{Act, Case};
use super::control::{COUNT_LAG, Control, ask_probe};
use super::heard::{Effects, Heard, Observed, Reply};
use super::oracle::{Oracle, Probe};

/// How many cases run side by side, where their effects can be told apart.
const CASES_MAX: usize = 16;

/// How long a caller goes on asking what is said to be under way, at least.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two of its questions.
const ASKS_AGAIN: Duration = Duration::from_millis(100);

/// What runs a case needs.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) api: Api,
    pub(crate) caller: Caller,
    pub(crate) control: Control,
}

/// Runs all cases; what came of each stands in its place. `done` is called after each.
pub(crate) async fn run(
    runner: &Arc<Runner>,
    cases: &[Case],
    mut done: impl FnMut(),
) -> Result<Vec<Observed>, String> {
    let places = if runner.is_countable_apart() { CASES_MAX } else { 1 };
    let places = Arc::new(Semaphore::new(places));
    let mut running = JoinSet::new();
    for (n, case) in cases.iter().enumerate().filter(|(_, case)| runs(case)) {
        let (runner, case) = (Arc::clone(runner), case.clone());
        let places = Arc::clone(&places);
        running.spawn(async move {
            let _place = places.acquire_owned().await;
            (n, runner.observe(&case).await)
        });
    }
    let mut all: Vec<(Observed, u64)> = cases.iter().map(|_| Default::default()).collect();
    while let Some(ended) = running.join_next().await {
        let (n, observed) = ended.map_err(|error| error.to_string())?;
        all[n] = observed?;
        done();
    }
    for (case, (observed, before)) in cases.iter().zip(&mut all).filter(|(case, _)| runs(case)) {
        runner.count_late(case, *before, observed).await?;
    }
    Ok(all.into_iter().map(|(observed, _)| observed).collect())
}

/// Whether a case is sent here: the control was before.
fn runs(case: &Case) -> bool {
    case.skipped.is_none() && case.no > 0
}

impl Runner {
    fn is_countable_apart(&self) -> bool {
        match &self.control.oracle {
            Oracle::Probe(probe, _) => probe.is_marked(),
            Oracle::Identity(_) => true,
        }
    }

    /// What a case brought, and what was counted before it.
    async fn observe(&self, case: &Case) -> Result<(Observed, u64), String> {
        let before = match &self.control.oracle {
            Oracle::Probe(probe, _) => self.count(probe, case).await?,
            Oracle::Identity(_) => 0,
        };
        let mut observed = Observed::default();
        for (n, act) in case.script.iter().enumerate() {
            self.act(case, n, act, &mut observed.heard).await?;
        }
        observed.effects = match &self.control.oracle {
            Oracle::Identity(identity) => identity.count(&observed),
            Oracle::Probe(probe, unit) => {
                let has_success = observed.successes().next().is_some();
                let until = Instant::now() + COUNT_LAG;
                loop {
                    let count = self.count(probe, case).await?.saturating_sub(before) / unit;
                    if count >= case.effects || !has_success || Instant::now() > until {
                        break Effects::Counted(count);
                    }
                    sleep(ASKS_AGAIN).await;
                }
            }
        };
        Ok((observed, before))
    }

    /// Counts once more, after everything: an effect may come late.
    async fn count_late(
        &self,
        case: &Case,
        before: u64,
        observed: &mut Observed,
    ) -> Result<(), String> {
        let Oracle::Probe(probe, unit) = &self.control.oracle else { return Ok(()) };
        if probe.is_marked() {
            let late = self.count(probe, case).await?.saturating_sub(before) / unit;
            let seen = observed.effects.seen().unwrap_or_default();
            observed.effects = Effects::Counted(seen.max(late));
        }
        Ok(())
    }

    async fn count(&self, probe: &Probe, case: &Case) -> Result<u64, String> {
        let a = ask_probe(probe, &self.api.marker(case.no, Payload::A), &self.caller).await?;
        let has_b = case.script.iter().flat_map(Act::asks).any(|ask| ask.payload == Payload::B);
        if !has_b || !probe.is_marked() {
            return Ok(a);
        }
        let b = ask_probe(probe, &self.api.marker(case.no, Payload::B), &self.caller).await?;
        Ok(a + b)
    }

    async fn act(
        &self,
        case: &Case,
        act: usize,
        step: &Act,
        heard: &mut Vec<Heard>,
    ) -> Result<(), String> {
        let mut hear = |ask: &Ask, reply| heard.push(Heard { act, ask: ask.clone(), reply });
        match step {
            Act::Send(ask) => hear(ask, self.send(case, ask).await?),
            Act::Settle(ask) => hear(ask, self.settle(case, ask).await?),
            Act::HangUp(ask, part) => {
                let wire = self.api.wire(ask, case.no).map_err(|error| error.to_string())?;
                let after = self.control.latency.mul_f64(*part);
                hear(ask, self.caller.hang_up(&wire, after).await);
            }
            Act::Pause(pause) => sleep(*pause).await,
            Act::Together(asks) => {
                let barrier = Barrier::new(asks.len());
                let each = asks.iter().map(async |ask| {
                    barrier.wait().await;
                    self.send(case, ask).await
                });
                for (ask, reply) in asks.iter().zip(all(each).await) {
                    hear(ask, reply?);
                }
            }
            Act::Overlap(ask, times) => {
                let apart = self.control.latency / (times + 1);
                let each = (0..*times).map(async |n| {
                    sleep(apart * n).await;
                    self.send(case, ask).await
                });
                for reply in all(each).await {
                    hear(ask, reply?);
                }
            }
        }
        Ok(())
    }

    async fn send(&self, case: &Case, ask: &Ask) -> Result<Reply, String> {
        let wire = self.api.wire(ask, case.no).map_err(|error| error.to_string())?;
        Ok(self.caller.send(&wire).await)
    }

    /// Asks until the answer no longer says that the first is under way.
    async fn settle(&self, case: &Case, ask: &Ask) -> Result<Reply, String> {
        let until = Instant::now() + PATIENCE.max(self.control.latency * 4);
        loop {
            let reply = self.send(case, ask).await?;
            let waits = reply.answer().is_none_or(super::heard::Answer::says_wait);
            if !waits || Instant::now() > until {
                return Ok(reply);
            }
            sleep(ASKS_AGAIN).await;
        }
    }
}

/// Runs futures side by side; what they bring stands in their order.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if let Some(running) = future
                && let std::task::Poll::Ready(ready) = running.as_mut().poll(context)
            {
                (*future, *output) = (None, Some(ready));
            }
        }
        if waiting.iter().all(|(future, _)| future.is_none()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

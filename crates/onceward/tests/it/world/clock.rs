//! Time that stands still until a test moves it.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use onceward::clock::Clock;
use onceward::core::time::Timestamp;
use tokio::sync::oneshot;

use super::{Pulse, lock};

/// Time that passes only where a test says so.
pub(crate) struct ManualClock {
    time: Mutex<Time>,
    pulse: Pulse,
}

struct Time {
    now: Timestamp,
    sleepers: Vec<(Timestamp, oneshot::Sender<()>)>,
}

impl ManualClock {
    pub(super) fn new(now: Timestamp, pulse: Pulse) -> Self {
        Self { time: Mutex::new(Time { now, sleepers: Vec::new() }), pulse }
    }

    pub(crate) fn now(&self) -> Timestamp {
        lock(&self.time).now
    }

    pub(crate) fn advance(&self, by: Duration) {
        let to = self.now().plus(by);
        self.advance_to(to);
    }

    /// Never back.
    pub(crate) fn advance_to(&self, to: Timestamp) {
        let woken = {
            let mut time = lock(&self.time);
            time.now = time.now.max(to);
            let now = time.now;
            let (woken, asleep) = std::mem::take(&mut time.sleepers)
                .into_iter()
                .partition(|(until, _)| *until <= now);
            time.sleepers = asleep;
            woken
        };
        let woken: Vec<(Timestamp, oneshot::Sender<()>)> = woken;
        for (_, wake) in woken {
            // Whoever gave up needs no waking.
            let _ = wake.send(());
        }
        self.pulse.beat();
    }

    /// Whether somebody still sleeps for so long.
    pub(crate) fn is_anyone_asleep_for(&self, long: Range<Duration>) -> bool {
        self.asleep_for(long) > 0
    }

    /// How many do.
    pub(crate) fn asleep_for(&self, long: Range<Duration>) -> usize {
        let time = lock(&self.time);
        let asleep = time.sleepers.iter().filter(|(_, wake)| !wake.is_closed());
        asleep.filter(|(until, _)| long.contains(&until.since(time.now))).count()
    }

    /// Whether somebody sleeps until exactly this instant.
    pub(crate) fn is_awaited(&self, until: Timestamp) -> bool {
        lock(&self.time).sleepers.iter().any(|(at, wake)| *at == until && !wake.is_closed())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Self::now(self)
    }

    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let woken = {
            let mut time = lock(&self.time);
            (until > time.now).then(|| {
                let (wake, woken) = oneshot::channel();
                time.sleepers.push((until, wake));
                woken
            })
        };
        self.pulse.beat();
        Box::pin(async move {
            if let Some(woken) = woken {
                // A clock that is gone wakes nobody.
                if woken.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}

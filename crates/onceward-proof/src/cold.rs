//! A window of keys asked for again after a restart with cold caches: the same bytes, nothing sent,
//! and how much slower.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::{Ask, Log, Told};
use crate::line::Line;

/// Keys in the window, at most.
const WINDOW_MAX: usize = 500;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Cold {
    /// Keys in the window.
    pub window: usize,
    /// With warm caches.
    pub warm: Pass,
    /// After a restart with cold ones.
    pub cold: Pass,
    /// Requests that reached the upstream meanwhile.
    pub sent: usize,
    /// Whether the kernel let the ledger's pages go, beside the process its own caches.
    pub pages_dropped: bool,
}

/// One pass over the window, one key after the other.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The middle answer's time.
    pub median: Duration,
    /// The slowest answer's.
    pub slowest: Duration,
    /// All of them.
    pub all: Duration,
    /// Keys whose answer was not the one of before, from memory.
    pub differing: Vec<String>,
}

impl Cold {
    /// How many times as long the cold pass took.
    pub fn ratio(&self) -> f64 {
        self.cold.all.as_secs_f64() / self.warm.all.as_secs_f64().max(1e-9)
    }

    /// What was broken, in words.
    pub fn violations(&self) -> Vec<String> {
        let differing = self.warm.differing.iter().chain(&self.cold.differing);
        let mut all: Vec<String> =
            differing.map(|key| format!("{key}: another answer than before")).collect();
        if self.sent > 0 {
            all.push(format!("{} requests were sent for keys that were done", self.sent));
        }
        all
    }
}

/// Keys with a final answer, and its digest.
#[derive(Debug)]
pub struct Window(Vec<(Ask, u64)>);

impl Window {
    /// The last keys of the log whose final answer is known.
    pub fn of(log: &Log) -> Self {
        let asked = log.lock();
        let known = |ask: &Ask| {
            let told = asked.told.get(&ask.key)?.iter().find(|told| told.is_final())?;
            Some((ask.clone(), told.digest))
        };
        Self(asked.asks.iter().rev().filter_map(known).take(WINDOW_MAX).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks for each key once more.
    pub async fn replay(&self, gateway: SocketAddr) -> io::Result<Pass> {
        let mut line = Line::connect(gateway).await?;
        let (mut times, mut differing) = (Vec::new(), Vec::new());
        for (ask, digest) in &self.0 {
            let headers =
                [("content-type", "application/json"), ("idempotency-key", ask.key.as_str())];
            let began = Instant::now();
            let answer = line.ask("POST", &format!("/to{}", ask.path), &headers, &ask.body).await?;
            times.push(began.elapsed());
            let told = Told::of(&answer);
            if told.digest != *digest || !told.replayed {
                differing.push(ask.key.clone());
            }
        }
        times.sort_unstable();
        Ok(Pass {
            median: times.get(times.len() / 2).copied().unwrap_or_default(),
            slowest: times.last().copied().unwrap_or_default(),
            all: times.iter().sum(),
            differing,
        })
    }
}

/// Asks the kernel to let go what it holds of the files in `folder`; tells whether it can.
pub fn drop_pages(folder: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_pages(&path)?;
        } else {
            let file = File::open(&path)?;
            // Only what is on the disk can be let go.
            file.sync_all()?;
            #[cfg(target_os = "linux")]
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(cfg!(target_os = "linux"))
}

//! How an outbox is doing, for whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onceward::core::time::Timestamp;
use tokio::sync::Notify;

use crate::shape;

/// Where an outbox stands at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It was not opened yet.
    Starting,
    /// It is read here.
    Reading,
    /// Another node reads it.
    Standby,
    /// It cannot be read, or nothing can be remembered.
    Failing,
}

impl Stands {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::Standby => "standby",
            Self::Failing => "failing",
        }
    }
}

/// What became of rows since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) remembered: u64,
    pub(crate) duplicates: u64,
    pub(crate) parked: u64,
}

#[derive(Debug)]
struct State {
    stands: Stands,
    error: Option<(String, Timestamp)>,
    /// When the table was last read.
    read_at: Option<Timestamp>,
    /// The same, or the start: since then nobody knows what came.
    looked: Instant,
    /// When the oldest row was written that was seen and is not remembered.
    oldest: Option<Instant>,
    counts: Counts,
    parked_now: usize,
}

/// What is known of one.
#[derive(Debug)]
pub(crate) struct Seen {
    state: Mutex<State>,
    look_again: AtomicBool,
    routes_changed: AtomicBool,
    wake: Notify,
}

/// The same at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) stands: Stands,
    /// The last error, and when it was met first.
    pub(crate) error: Option<(String, Timestamp)>,
    pub(crate) read_at: Option<Timestamp>,
    /// The age of the oldest row that is not remembered; nothing where another node knows.
    pub(crate) lag: Option<Duration>,
    pub(crate) counts: Counts,
    pub(crate) parked_now: usize,
}

impl Seen {
    pub(super) fn new() -> Self {
        let state = State {
            stands: Stands::Starting,
            error: None,
            read_at: None,
            looked: Instant::now(),
            oldest: None,
            counts: Counts::default(),
            parked_now: 0,
        };
        let no = || AtomicBool::new(false);
        Self {
            state: Mutex::new(state),
            look_again: no(),
            routes_changed: no(),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shown(&self) -> Shown {
        let state = self.state();
        let waits = state.oldest.map(|oldest| oldest.elapsed()).unwrap_or_default();
        let lag = match state.stands {
            Stands::Reading => Some(waits),
            Stands::Standby => None,
            // What came meanwhile may be as old as the last look.
            Stands::Starting | Stands::Failing => Some(waits.max(state.looked.elapsed())),
        };
        Shown {
            stands: state.stands,
            error: state.error.clone(),
            read_at: state.read_at,
            lag,
            counts: state.counts,
            parked_now: state.parked_now,
        }
    }

    /// The table was read; the oldest row is of then.
    pub(super) fn read(&self, oldest: Option<Instant>) {
        let mut state = self.state();
        state.read_at = Some(shape::now());
        state.looked = Instant::now();
        state.oldest = oldest;
    }

    /// When the oldest row was written that is known of.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.state().oldest
    }

    /// Nothing but what is held back is left of what was read.
    pub(super) fn caught_up(&self, oldest: Option<Instant>) {
        self.state().oldest = oldest;
    }

    /// It goes well from now on; tells whether that is news.
    pub(super) fn stands(&self, stands: Stands) -> bool {
        let mut state = self.state();
        let is_news = state.stands != stands;
        state.stands = stands;
        is_news
    }

    /// It went wrong; tells whether that is news.
    pub(super) fn fails(&self, why: &str) -> bool {
        let mut state = self.state();
        let is_news = state.stands != Stands::Failing
            || state.error.as_ref().is_none_or(|(before, _)| before != why);
        if is_news {
            state.error = Some((why.to_owned(), shape::now()));
        }
        state.stands = Stands::Failing;
        is_news
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.state().counts);
    }

    pub(super) fn parked(&self, now: usize) {
        self.state().parked_now = now;
    }

    /// Has parked rows read again that somebody gave free.
    pub(super) fn look_again(&self) {
        self.look_again.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The routes are others now.
    pub(super) fn routes_changed(&self) {
        self.routes_changed.store(true, Ordering::Release);
        self.look_again();
    }

    pub(super) fn take_look_again(&self) -> bool {
        self.look_again.swap(false, Ordering::AcqRel)
    }

    pub(super) fn take_routes_changed(&self) -> bool {
        self.routes_changed.swap(false, Ordering::AcqRel)
    }

    /// Waits until somebody wants it looked at.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

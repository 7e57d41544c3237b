//! A line for each attempt and each duplicate, printed by a thread of its own: the gateway waits for no terminal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use onceward::core::attempt::Attempt;
use onceward::core::id::OperationId;
use onceward::core::operation::{Operation, State};
use onceward::core::time::Timestamp;
use onceward::observe::{Fact, Observer};
use serde_json::json;

use crate::cli::output::{Printer, clean, print};
use crate::shape;

/// Lines that wait to be printed; what comes while so many do is counted.
const WAITING_MAX: usize = 1024;

/// What happened to a webhook.
#[derive(Debug)]
enum What {
    Came,
    Attempted { n: u32, status: Option<u16>, error: Option<String>, took_ms: u128 },
    Duplicate,
    Rested,
}

/// Of which, and when.
#[derive(Debug)]
struct Line {
    id: OperationId,
    source: String,
    kind: Option<String>,
    key: String,
    state: &'static str,
    /// When it is tried again.
    due: Option<Timestamp>,
    at: Timestamp,
    what: What,
}

/// Whoever prints.
#[derive(Debug)]
pub(super) struct Lines {
    printing: JoinHandle<usize>,
    to: Teller,
}

/// Where lines are put.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    lines: SyncSender<Option<Line>>,
    missed: Arc<AtomicU64>,
}

/// Tells every fact on, and what it says of a webhook to whoever prints.
pub(super) struct Told {
    next: Arc<dyn Observer>,
    to: Teller,
}

impl Lines {
    /// Prints what is told from now on.
    pub(super) fn begin(out: Printer) -> (Self, Teller) {
        let (lines, heard) = sync_channel(WAITING_MAX);
        let to = Teller { lines, missed: Arc::default() };
        let missed = Arc::clone(&to.missed);
        let printing = std::thread::spawn(move || print_all(&heard, &missed, out));
        (Self { printing, to: to.clone() }, to)
    }

    /// Prints what is left; tells how many did not come to rest.
    pub(super) fn end(self) -> usize {
        // Where nobody reads any more, nothing is left to be printed.
        let _ = self.to.lines.send(None);
        self.printing.join().unwrap_or_default()
    }
}

impl Told {
    /// Before `next`.
    pub(super) fn before(next: Arc<dyn Observer>, to: Teller) -> Self {
        Self { next, to }
    }

    fn tell(&self, operation: &Operation, what: What) {
        let Some(source) = operation.route.strip_prefix("source/") else { return };
        let due = match operation.state {
            State::Pending { due } => Some(due),
            State::Delivering | State::InDoubt | State::Done | State::Dead(_) => None,
        };
        let line = Line {
            id: operation.id,
            source: source.to_owned(),
            kind: operation.label.clone(),
            key: operation.key.as_str().to_owned(),
            state: operation.state.name(),
            due,
            at: shape::now(),
            what,
        };
        if self.to.lines.try_send(Some(line)).is_err() {
            self.to.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn attempted(attempt: &Attempt) -> What {
    let ended = attempt.ended.as_ref();
    What::Attempted {
        n: attempt.n,
        status: ended.and_then(|ended| ended.status),
        error: ended.and_then(|ended| ended.error.clone()),
        took_ms: ended.map_or(0, |ended| ended.at.since(attempt.started_at).as_millis()),
    }
}

impl Observer for Told {
    fn observe(&self, fact: Fact<'_>) {
        match fact {
            Fact::Remembered(operation) => self.tell(operation, What::Came),
            Fact::Attempted(operation, attempt) => self.tell(operation, attempted(attempt)),
            Fact::Duplicate(operation, _) => self.tell(operation, What::Duplicate),
            Fact::Rested(operation) => self.tell(operation, What::Rested),
            _ => {}
        }
        self.next.observe(fact);
    }
}

/// Tells how many that came had not come to rest at the end.
fn print_all(heard: &Receiver<Option<Line>>, missed: &AtomicU64, out: Printer) -> usize {
    let mut open = BTreeSet::new();
    while let Ok(Some(line)) = heard.recv() {
        match line.what {
            What::Came => _ = open.insert(line.id),
            What::Rested => _ = open.remove(&line.id),
            What::Attempted { .. } | What::Duplicate => {}
        }
        let left_out = missed.swap(0, Ordering::Relaxed);
        let note = (left_out > 0).then(|| format!("… {left_out} lines left out: too many at once"));
        for text in note.into_iter().chain(line.shown(out)) {
            if print(&text).is_err() {
                return open.len();
            }
        }
    }
    open.len()
}

impl Line {
    /// How it is printed, where it is.
    fn shown(&self, out: Printer) -> Option<String> {
        let (n, status, error, took_ms) = match &self.what {
            What::Came | What::Rested => return None,
            What::Attempted { n, status, error, took_ms } => {
                (*n, *status, error.as_deref(), *took_ms)
            }
            What::Duplicate => (0, None, None, 0),
        };
        let is_duplicate = matches!(self.what, What::Duplicate);
        if out.is_json {
            let document = json!({
                "at": shape::time(self.at),
                "source": self.source,
                "type": self.kind,
                "key": self.key,
                "operation": self.id.to_string(),
                "duplicate": is_duplicate,
                "attempt": (!is_duplicate).then_some(n),
                "status": status,
                "error": error,
                "took_ms": (!is_duplicate).then_some(took_ms as u64),
                "state": self.state,
                "due": self.due.map(shape::time),
            });
            return Some(document.to_string());
        }
        let came_to = match (is_duplicate, status) {
            (true, _) => "duplicate".to_owned(),
            (false, Some(status)) => status.to_string(),
            (false, None) => "no answer".to_owned(),
        };
        let kind = self.kind.as_deref().map_or_else(|| "-".to_owned(), clean);
        let key = clean(&self.key);
        let then = match (is_duplicate, self.due) {
            (true, _) => "not delivered again".to_owned(),
            (false, Some(due)) => {
                let error = error.filter(|_| status.is_none()).map(clean).unwrap_or_default();
                let wait = due.since(self.at).as_millis().div_ceil(1000);
                let colon = if error.is_empty() { "" } else { ": " };
                format!("{error}{colon}again in {wait}s")
            }
            (false, None) => self.state.to_owned(),
        };
        if !out.is_terminal {
            let at = shape::time(self.at);
            let took = if is_duplicate { "-".to_owned() } else { took_ms.to_string() };
            return Some(
                [&at, &self.source, &kind, &key, &came_to, &took, &then]
                    .map(String::as_str)
                    .join("\t"),
            );
        }
        let took = if is_duplicate { String::new() } else { format!("{took_ms}ms") };
        Some(format!("→ {}  {kind:<30} {key}  {came_to} {took}  {then}", self.source))
    }
}

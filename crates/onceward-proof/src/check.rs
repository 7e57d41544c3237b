//! The checker: what callers were told, what the auditor saw, and what the ledger says in the
//! end, held against the promises. It knows nothing of how they are kept.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::auditor::Auditor;
use crate::chance::{Chance, digest};
use crate::line::Message;
use crate::plan::Fault;

/// The headers that are part of an answer and kept.
const KEPT: [&str; 3] = ["content-type", "location", "etag"];

/// One intended effect, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    /// `keyed` or `once`.
    pub route: String,
    /// The path behind `/to`.
    pub path: String,
    /// The idempotency key.
    pub key: String,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// What a caller was told about it.
#[derive(Debug, Clone)]
pub struct Told {
    /// The answer's status.
    pub status: u16,
    /// The problem's code, where it was one.
    pub code: String,
    /// Whether it came from memory.
    pub replayed: bool,
    /// The operation that it names.
    pub operation: String,
    /// Of status, kept headers and body.
    pub digest: u64,
    /// The body's length.
    pub length: usize,
}

impl Told {
    /// What this answer says.
    pub fn of(answer: &Message) -> Self {
        let text = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        let is_problem = text("content-type").starts_with("application/problem");
        Self {
            status: answer.status(),
            code: if is_problem { answer.code() } else { String::new() },
            replayed: text("idempotent-replayed") == "true",
            operation: text("onceward-operation"),
            digest: digest(&(answer.status(), KEPT.map(text), &answer.body)),
            length: answer.body.len(),
        }
    }

    /// A final answer that says it was done.
    pub fn is_final(&self) -> bool {
        (200..300).contains(&self.status) && self.status != 202
    }

    /// Done, and its own answer is not there to be told.
    pub fn is_not_retained(&self) -> bool {
        self.code == "response-not-retained"
    }

    /// An answer after which the operation must not be lost.
    pub fn is_acknowledged(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Whether an answer leaves its caller nothing to do: it was done, it was taken over, or nobody can
/// know. An upstream without a gateway before it says nothing of states.
pub fn is_told(answer: &Message) -> bool {
    matches!(answer.status(), 200..300)
        || answer.header("onceward-state") == Some("in_doubt")
        || matches!(answer.code().as_str(), "outcome-unknown" | "response-not-retained")
}

/// What callers asked for and were told, by key.
#[derive(Debug, Default)]
pub struct Log(Mutex<Asked>);

/// The same, open.
#[derive(Debug, Default)]
pub struct Asked {
    /// Everything that was asked for, oldest first.
    pub asks: Vec<Ask>,
    /// By key, every answer in the order in which they came.
    pub told: HashMap<String, Vec<Told>>,
    /// Answers to another request under a key that was taken.
    pub mismatches: Vec<(String, Told)>,
    /// Calls that got no answer.
    pub lost: u64,
}

impl Log {
    /// Opens the log.
    pub fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something new to ask for, noted; `name` is part of its key, and no other's.
    pub fn new_ask(&self, chance: &mut Chance, name: &str) -> Ask {
        let route = if chance.percent(60) { "keyed" } else { "once" };
        let key = format!("{route}-{name}");
        let pad = "y".repeat(chance.below(1500) as usize);
        let ask = Ask {
            route: route.to_owned(),
            path: format!("/{route}/chaos/things"),
            body: format!("{{\"ask\":\"{key}\",\"pad\":\"{pad}\"}}").into_bytes(),
            key,
        };
        self.ask(&ask);
        ask
    }

    /// One that was asked for before, mostly a late one.
    pub fn earlier(&self, chance: &mut Chance) -> Option<Ask> {
        let asked = self.lock();
        let count = asked.asks.len() as u64;
        let back = if chance.below(4) == 0 { count } else { count.min(100) };
        let place = count.checked_sub(1 + chance.next().checked_rem(back)?)?;
        asked.asks.get(place as usize).cloned()
    }

    /// Before it is sent: what was sent and never answered has to be known too.
    pub fn ask(&self, ask: &Ask) {
        self.lock().asks.push(ask.clone());
    }

    /// Whether somebody was told of an operation with this key.
    pub fn knows(&self, key: &str) -> bool {
        let asked = self.lock();
        asked.told.get(key).is_some_and(|told| told.iter().any(|told| !told.operation.is_empty()))
    }

    /// What was asked for and acknowledged, oldest first.
    pub fn acknowledged(&self) -> Vec<Ask> {
        let asked = self.lock();
        asked.asks.iter().filter(|ask| asked.was_acknowledged(ask)).cloned().collect()
    }

    /// How many these are.
    pub fn acknowledged_count(&self) -> usize {
        let asked = self.lock();
        asked.asks.iter().filter(|ask| asked.was_acknowledged(ask)).count()
    }

    /// Notes an answer, or that none came.
    pub fn told(&self, key: &str, answer: &std::io::Result<Message>) {
        let mut asked = self.lock();
        match answer {
            Ok(answer) => {
                asked.told.entry(key.to_owned()).or_default().push(Told::of(answer));
            }
            Err(_) => asked.lost += 1,
        }
    }
}

impl Asked {
    fn was_acknowledged(&self, ask: &Ask) -> bool {
        let told = self.told.get(&ask.key);
        told.is_some_and(|told| told.iter().any(Told::is_acknowledged))
    }
}

/// What a run amounts to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    /// Requests that callers made.
    pub asked: usize,
    /// Answers that were a promise.
    pub acknowledged: usize,
    /// Calls that got no answer.
    pub lost_answers: u64,
    /// Answers from memory.
    pub replayed: usize,
    /// Operations in the ledger.
    pub operations: usize,
    /// Requests that arrived at the auditor.
    pub arrivals: usize,
    /// Operations that are done.
    pub done: usize,
    /// Operations in doubt.
    pub in_doubt: usize,
    /// Dead operations.
    pub dead: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} asks, {} acknowledged, {} replayed, {} calls without an answer; {} operations: {} done, {} dead, {} in doubt; {} arrivals",
            self.asked,
            self.acknowledged,
            self.replayed,
            self.lost_answers,
            self.operations,
            self.done,
            self.dead,
            self.in_doubt,
            self.arrivals
        )
    }
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What the run amounts to.
    pub figures: Figures,
    /// Every promise that was broken, in words.
    pub violations: Vec<String>,
}

impl Checked {
    /// The figures of a run that broke nothing.
    ///
    /// # Panics
    ///
    /// Where a promise was broken, with the first violations: this is for tests.
    pub fn expect_kept(self) -> Figures {
        let Self { figures, violations } = self;
        let shown = violations.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            violations.is_empty(),
            "{} violations, the first of them:\n{shown}",
            violations.len()
        );
        figures
    }
}

/// Holds everything against the promises. `operations` is the whole ledger, as the gateway's API
/// tells it.
pub fn check(log: &Log, auditor: &Auditor, operations: &[Value]) -> Checked {
    let asked = log.lock();
    let mut wrong: Vec<String> = Vec::new();
    let text =
        |operation: &Value, name: &str| operation[name].as_str().unwrap_or_default().to_owned();
    let mut figures = Figures {
        asked: asked.asks.len(),
        lost_answers: asked.lost,
        operations: operations.len(),
        arrivals: auditor.arrivals(),
        ..Figures::default()
    };

    // At most one operation for each key, and none is left under way or without a reason.
    let mut by_key: HashMap<(String, String), &Value> = HashMap::new();
    let mut by_id: HashMap<String, &Value> = HashMap::new();
    for operation in operations {
        let (id, key) = (text(operation, "id"), text(operation, "key"));
        if by_key.insert((text(operation, "route"), key.clone()), operation).is_some() {
            wrong.push(format!("{key}: two operations"));
        }
        by_id.insert(id, operation);
        let attempts = operation["attempts"].as_array().cloned().unwrap_or_default();
        if attempts.iter().any(|attempt| attempt["ended_at"].is_null()) {
            wrong.push(format!("{key}: an attempt that never ended"));
        }
        match operation["state"].as_str().unwrap_or_default() {
            "done" => figures.done += 1,
            "in_doubt" => {
                figures.in_doubt += 1;
                let last = attempts.last().cloned().unwrap_or_default();
                if last["may_have_executed"] != true
                    || (last["error"].is_null() && last["status"].is_null())
                {
                    wrong.push(format!("{key}: in doubt without a reason: {operation}"));
                }
                if operation["effects"] == "keyed" {
                    wrong.push(format!("{key}: a keyed operation in doubt: {operation}"));
                }
            }
            "dead" => {
                figures.dead += 1;
                if operation["reason"].is_null() {
                    wrong.push(format!("{key}: dead without a reason"));
                }
            }
            state => wrong.push(format!("{key}: left {state}")),
        }
    }

    // What arrived was remembered before, with its attempt, and always with the same bytes.
    let asks: HashMap<&str, &Ask> = asked.asks.iter().map(|ask| (ask.key.as_str(), ask)).collect();
    let mut seen: HashMap<(String, String), (u64, String, HashSet<u32>)> = HashMap::new();
    let mut executed: HashMap<String, usize> = HashMap::new();
    for arrived in auditor.arrived() {
        let key = arrived.key.clone();
        let Some(operation) = by_id.get(&arrived.operation) else {
            wrong.push(format!("{key}: arrived, and its operation is not in the ledger"));
            continue;
        };
        if text(operation, "key") != key {
            wrong.push(format!("{key}: arrived under another key than its operation's"));
        }
        if asks.get(key.as_str()).is_some_and(|ask| {
            digest(&(
                format!("POST {} HTTP/1.1", arrived.path),
                "application/json".to_owned(),
                &ask.body,
            )) != arrived.digest
        }) {
            wrong.push(format!("{key}: arrived with other bytes than were asked for"));
        }
        let attempts = operation["attempts"].as_array().map_or(0, Vec::len);
        let place = (arrived.route.clone(), key.clone());
        let (bytes, id, numbers) = seen
            .entry(place)
            .or_insert_with(|| (arrived.digest, arrived.operation.clone(), HashSet::new()));
        if *bytes != arrived.digest || *id != arrived.operation {
            wrong.push(format!("{key}: two arrivals differ in bytes or in operation"));
        }
        if !numbers.insert(arrived.attempt) || arrived.attempt as usize > attempts {
            wrong.push(format!("{key}: arrived as attempt {} of {attempts}", arrived.attempt));
        }
        // What was answered 429 provably did nothing.
        if arrived.route == "once" && arrived.fault != Some(Fault::Limited) {
            *executed.entry(key.clone()).or_default() += 1;
        }
        if executed.get(&key).is_some_and(|times| *times > 1) {
            wrong.push(format!("{key}: a second arrival on a non-idempotent route"));
        }
    }

    for ((route, key), operation) in &by_key {
        let effects = auditor.effects(route, key);
        if effects > 1 {
            wrong.push(format!("{key}: {effects} effects"));
        }
        if operation["state"] == "done" && operation["ok"] == true && effects != 1 {
            wrong.push(format!("{key}: done, and {effects} effects"));
        }
    }

    // What was acknowledged is there, and every answer to a key is the same.
    let routes: HashMap<&str, &str> =
        asked.asks.iter().map(|ask| (ask.key.as_str(), ask.route.as_str())).collect();
    for (key, told) in &asked.told {
        let route = routes.get(key.as_str()).copied().unwrap_or("keyed");
        let operation = by_key.get(&(route.to_owned(), key.clone()));
        let mut first: Option<&Told> = None;
        for told in told {
            figures.replayed += usize::from(told.replayed);
            figures.acknowledged += usize::from(told.is_acknowledged());
            if told.operation.is_empty() && !told.is_acknowledged() {
                continue;
            }
            let Some(operation) = operation else {
                wrong.push(format!("{key}: told {} and not in the ledger", told.status));
                continue;
            };
            if text(operation, "id") != told.operation {
                wrong.push(format!("{key}: told of another operation: {}", told.operation));
            }
            if !told.is_final() {
                continue;
            }
            if operation["state"] != "done" || operation["outcome"]["status"] != told.status {
                wrong.push(format!("{key}: told {}, and it is {operation}", told.status));
            }
            let first = *first.get_or_insert(told);
            if first.digest != told.digest {
                wrong.push(format!(
                    "{key}: two different answers, of {} and {} bytes",
                    first.length, told.length
                ));
            }
        }
    }
    for (key, told) in &asked.mismatches {
        if told.is_acknowledged() {
            wrong.push(format!("{key}: another request was taken for it: {told:?}"));
        }
    }
    Checked { figures, violations: wrong }
}

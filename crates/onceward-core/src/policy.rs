//! What a route says: values only, checked where the configuration is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::fingerprint::FingerprintRule;
use crate::hint::HintHeader;
use crate::hours::Hours;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::key_template::KeyTemplate;
use crate::lookup::LookupRule;
use crate::pattern::Pattern;
use crate::redact::Redaction;
use crate::time::Timestamp;
use crate::upstream_key::KeyPlace;

/// What a second arrival at the upstream would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effects {
    /// Repeating is harmless.
    Idempotent,
    /// The upstream dedupes by a key that we send.
    Keyed,
    /// A second arrival is a second effect.
    NonIdempotent,
}

impl Effects {
    /// What the method alone says (RFC 9110, section 9.2.2).
    pub fn of_method(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::NonIdempotent,
        }
    }

    /// The word for it in configuration and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idempotent => "idempotent",
            Self::Keyed => "keyed",
            Self::NonIdempotent => "non-idempotent",
        }
    }

    /// Reads the word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Idempotent, Self::Keyed, Self::NonIdempotent]
            .into_iter()
            .find(|effects| effects.name() == name)
    }
}

/// Whether a method only reads, so that it passes through without a record (RFC 9110, 9.2.1).
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Who waits for the outcome, and so how long it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The caller waits for the real answer: a short horizon.
    Held,
    /// On disk, then 202: a long horizon.
    Accepted,
}

impl Mode {
    /// The word for it in configuration and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Accepted => "accepted",
        }
    }
}

/// How often and when to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// No attempt begins later than this after the operation was remembered.
    pub horizon: Duration,
    /// The bound of the first delay.
    pub base: Duration,
    /// No delay is shorter.
    pub floor: Duration,
    /// No bound of a delay is longer.
    pub cap: Duration,
    /// By how much the bound grows with each attempt.
    pub factor: f64,
    /// Fixed delays instead, the last repeated; empty for the formula.
    pub table: Vec<Duration>,
}

impl Backoff {
    /// What a caller waits for.
    pub fn held() -> Self {
        Self {
            attempts_max: 3,
            horizon: Duration::from_secs(10),
            base: Duration::from_millis(100),
            floor: Duration::from_millis(50),
            cap: Duration::from_secs(2),
            factor: 2.0,
            table: Vec::new(),
        }
    }

    /// What nobody waits for.
    pub fn accepted() -> Self {
        Self {
            attempts_max: 12,
            horizon: Duration::from_hours(72),
            base: Duration::from_secs(5),
            floor: Duration::from_secs(1),
            cap: Duration::from_hours(12),
            factor: 3.0,
            table: Vec::new(),
        }
    }
}

/// How our key reaches an upstream that dedupes by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamKeyRule {
    /// Where in the request it goes.
    pub place: KeyPlace,
    /// Which value.
    pub value: UpstreamKeyValue,
    /// The longest that the upstream takes, in bytes: a longer one of the caller's gives way to
    /// one that is derived.
    pub bytes_max: usize,
    /// How long the upstream remembers a key.
    pub window: Duration,
}

impl Default for UpstreamKeyRule {
    fn default() -> Self {
        Self {
            place: KeyPlace::Header("idempotency-key".to_owned()),
            value: UpstreamKeyValue::Passthrough,
            bytes_max: KEY_BYTES_MAX,
            window: Duration::from_hours(24),
        }
    }
}

/// Which value the upstream's key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKeyValue {
    /// The caller's key, bare.
    Passthrough,
    /// An HMAC of the operation's id: 43 characters, unique whatever callers choose.
    Derived,
}

/// What a status says about whether the upstream did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The answer, kept and replayed.
    Final,
    /// A refusal for now: nothing was done, the same key may run again, but not by our retry.
    Refused,
    /// Nothing was done, and asking again may help.
    NotProcessed,
    /// It may have been done.
    Ambiguous,
}

/// What happens to a request without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMissing {
    /// One is made, which protects our retries and not the caller's.
    Make,
    /// It is refused.
    Require,
    /// It passes through without a record.
    Pass,
}

/// What the same key gets where its operation is dead without a final outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// Attempts go on under the same operation.
    Revive,
    /// The stored failure.
    Replay,
}

/// What the same key gets after its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpired {
    /// 410: used, ended, forgotten; nothing is sent.
    Refuse,
    /// It is a new operation.
    Execute,
}

/// Whether operations about one subject come one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Only those that have a sequence.
    None,
    /// All of them.
    Subject,
}

/// Where a key comes from that no header carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFrom {
    /// From nowhere: what [`KeyMissing`] says.
    Headers,
    /// Made of the request; where that lacks a part, it is refused.
    Template(KeyTemplate),
}

/// What the time is good for that a key bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTime {
    /// Nothing.
    Ignore,
    /// A key of which nothing is known, and that is older than keys are kept, is a late duplicate.
    RefuseLate,
    /// The same, and a key that bears no time is refused.
    Require,
}

/// What a caller's key has to look like: a weak one is another's before long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRule {
    /// No shorter than this, in bytes.
    pub length_min: usize,
    /// Like this.
    pub pattern: Option<Pattern>,
    /// And like none of these.
    pub refuse: Vec<Pattern>,
}

impl KeyRule {
    /// What the rule has against `key`.
    pub fn objection(&self, key: &Key) -> Option<String> {
        let key = key.as_str();
        if key.len() < self.length_min {
            return Some(format!("this route wants keys of at least {} signs", self.length_min));
        }
        if let Some(wanted) = self.pattern.as_ref().filter(|pattern| !pattern.matches(key)) {
            return Some(format!("this route wants keys like {}", wanted.as_str()));
        }
        let unwanted = self.refuse.iter().find(|pattern| pattern.matches(key))?;
        Some(format!("this route refuses keys like {}", unwanted.as_str()))
    }
}

/// A second identity of an effect: two calls with two keys, and the same of this, are one effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueRule {
    /// What names the effect; a call that lacks it has no second identity.
    pub name: KeyTemplate,
    /// How long after the first call.
    pub within: Duration,
}

/// Which shape our own refusals take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// RFC 9457 alone.
    Problem,
    /// Stripe's error object beside the problem's members, and its hint: an SDK of Stripe's that
    /// is not changed has to throw.
    Stripe,
}

/// The policy that governs one request: a route's, with its matching rule laid over it.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What a second arrival would do; where nothing says, the method does.
    pub effects: Option<Effects>,
    /// How our key reaches the upstream, where `effects` is keyed.
    pub upstream_key: UpstreamKeyRule,
    /// Who waits, where the request does not say.
    pub mode: Mode,
    /// What a request without a key gets.
    pub key_missing: KeyMissing,
    /// Headers (lower case) that may carry the key, the first that is there counts.
    pub key_headers: Vec<String>,
    /// Where a key comes from that no header carries.
    pub key_from: KeyFrom,
    /// What a caller's key has to look like.
    pub key_rule: KeyRule,
    /// What the time is good for that a key bears.
    pub key_time: KeyTime,
    /// What names an effect beside its key.
    pub unique: Option<UniqueRule>,
    /// For how long the same request under another key is told of; zero for never.
    pub suspect_within: Duration,
    /// Where in a JSON body the key stands where no header has it (RFC 6901).
    pub key_pointer: Option<String>,
    /// How two requests are compared.
    pub fingerprint: FingerprintRule,
    /// Statuses that meet the caller's intent; empty means 2xx.
    pub success: Vec<u16>,
    /// What this upstream means by a status, where that differs from what is usual.
    pub statuses: BTreeMap<u16, Meaning>,
    /// Headers of its answers that are believed about asking again, beside the standard ones.
    pub hints: Vec<HintHeader>,
    /// Whether 404 and 410 to a DELETE mean that it is done.
    pub delete_gone: bool,
    /// Attempts while a caller waits.
    pub held: Backoff,
    /// Attempts while nobody waits.
    pub accepted: Backoff,
    /// How long an outcome is replayed, counted from completion.
    pub window: Duration,
    /// How long the mark of a used key stays after that.
    pub tombstone: Duration,
    /// What a dead operation's key does.
    pub on_dead: OnDead,
    /// What an expired key does.
    pub on_expired: OnExpired,
    /// The status of a mismatch: 409, or 422 as the IETF draft has it.
    pub mismatch_status: u16,
    /// Which shape our refusals take.
    pub error_shape: ErrorShape,
    /// Response headers (lower case) kept beside the fixed ones.
    pub keep_headers: Vec<String>,
    /// Whether all of requests and answers is sealed in the ledger, and not the credentials alone.
    pub seal_bodies: bool,
    /// Request headers (lower case) sealed beside the fixed ones.
    pub seal_headers: Vec<String>,
    /// Whether operations about one subject come one after the other.
    pub order: Order,
    /// How long one that is dead or in doubt keeps those behind it from going.
    pub order_block_max: Duration,
    /// How long one whose predecessors in the caller's count have not come waits for them.
    pub order_gap_max: Duration,
    /// Operations about one subject that wait, at most.
    pub subject_max: usize,
    /// How the upstream is asked whether it was done.
    pub lookup: Option<Arc<LookupRule>>,
    /// When attempts of accepted operations may begin; without it always.
    pub hours: Option<Hours>,
    /// How long requests and answers are kept after the end, where that is less than the window.
    pub retain_bodies: Option<Duration>,
    /// What people do not see of requests and answers.
    pub redact: Redaction,
    /// What an answer made: a name, and the JSON pointer to it.
    pub ids: Vec<(String, String)>,
    /// Whom to tell when an operation ends, where its caller names nobody.
    pub callback: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            effects: None,
            upstream_key: UpstreamKeyRule::default(),
            mode: Mode::Held,
            key_missing: KeyMissing::Make,
            key_headers: vec!["idempotency-key".to_owned()],
            key_from: KeyFrom::Headers,
            key_rule: KeyRule::default(),
            key_time: KeyTime::Ignore,
            unique: None,
            suspect_within: Duration::from_mins(10),
            key_pointer: None,
            fingerprint: FingerprintRule::default(),
            success: Vec::new(),
            statuses: BTreeMap::new(),
            hints: Vec::new(),
            delete_gone: false,
            held: Backoff::held(),
            accepted: Backoff::accepted(),
            window: Duration::from_hours(72),
            tombstone: Duration::from_hours(720),
            on_dead: OnDead::Revive,
            on_expired: OnExpired::Refuse,
            mismatch_status: 409,
            error_shape: ErrorShape::Problem,
            keep_headers: Vec::new(),
            seal_bodies: false,
            seal_headers: Vec::new(),
            order: Order::None,
            order_block_max: Duration::from_hours(1),
            order_gap_max: Duration::ZERO,
            subject_max: 1000,
            lookup: None,
            hours: None,
            retain_bodies: None,
            redact: Redaction::default(),
            ids: Vec::new(),
            callback: None,
        }
    }
}

impl Policy {
    /// What a second arrival of `method` would do.
    pub fn effects_of(&self, method: &str) -> Effects {
        self.effects.unwrap_or_else(|| Effects::of_method(method))
    }

    /// Whether `status` meets the caller's intent.
    pub fn is_success(&self, status: u16) -> bool {
        if self.success.is_empty() {
            (200..300).contains(&status)
        } else {
            self.success.contains(&status)
        }
    }

    /// When an attempt of an operation in `mode` may begin that is due at `due`.
    pub fn opening(&self, mode: Mode, due: Timestamp) -> Timestamp {
        match (&self.hours, mode) {
            (Some(hours), Mode::Accepted) => hours.next_open(due),
            (Some(_), Mode::Held) | (None, _) => due,
        }
    }

    /// How often and when to try in `mode`.
    pub fn backoff(&self, mode: Mode) -> &Backoff {
        match mode {
            Mode::Held => &self.held,
            Mode::Accepted => &self.accepted,
        }
    }
}

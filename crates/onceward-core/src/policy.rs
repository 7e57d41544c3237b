//! What a route says: values only, checked where the configuration is read.

use std::time::Duration;

use crate::fingerprint::FingerprintRule;

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
    /// The header it goes in (lower case).
    pub header: String,
    /// Which value.
    pub value: UpstreamKeyValue,
    /// How long the upstream remembers a key.
    pub window: Duration,
}

impl Default for UpstreamKeyRule {
    fn default() -> Self {
        Self {
            header: "idempotency-key".to_owned(),
            value: UpstreamKeyValue::Passthrough,
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
    /// How two requests are compared.
    pub fingerprint: FingerprintRule,
    /// Statuses that meet the caller's intent; empty means 2xx.
    pub success: Vec<u16>,
    /// Statuses that the upstream gives only before it does anything.
    pub not_processed: Vec<u16>,
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
    /// Response headers (lower case) kept beside the fixed ones.
    pub keep_headers: Vec<String>,
    /// Request headers (lower case) sealed beside the fixed ones.
    pub seal_headers: Vec<String>,
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
            fingerprint: FingerprintRule::default(),
            success: Vec::new(),
            not_processed: Vec::new(),
            delete_gone: false,
            held: Backoff::held(),
            accepted: Backoff::accepted(),
            window: Duration::from_hours(72),
            tombstone: Duration::from_hours(720),
            on_dead: OnDead::Revive,
            on_expired: OnExpired::Refuse,
            mismatch_status: 409,
            keep_headers: Vec::new(),
            seal_headers: Vec::new(),
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

    /// How often and when to try in `mode`.
    pub fn backoff(&self, mode: Mode) -> &Backoff {
        match mode {
            Mode::Held => &self.held,
            Mode::Accepted => &self.accepted,
        }
    }
}

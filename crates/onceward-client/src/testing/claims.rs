//! The claims of the double.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{MISMATCH, nothing_there, refuse, refuse_with, said, set};
use crate::units::read_duration;

/// Whoever waits comes back in a moment: nobody is held up in the double.
const BUSY: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Acquired,
    Done,
    InDoubt,
    /// Its holder did nothing, and gave it back.
    Unsent,
    /// Its lease is over, or its holder does not know; another run is harmless.
    OwnerGone,
}

/// What a word about how it ended is worth, as the gateway weighs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It is believed.
    Holds,
    /// It was said before.
    Said,
    Stale,
}

impl Stand {
    fn complete(self) -> Word {
        match self {
            Self::Acquired | Self::InDoubt | Self::OwnerGone => Word::Holds,
            Self::Done => Word::Said,
            Self::Unsent => Word::Stale,
        }
    }

    fn release(self) -> Word {
        match self {
            Self::Acquired | Self::InDoubt => Word::Holds,
            Self::Unsent | Self::OwnerGone => Word::Said,
            Self::Done => Word::Stale,
        }
    }

    fn give_up(self) -> Word {
        match self {
            Self::Acquired => Word::Holds,
            Self::InDoubt | Self::OwnerGone => Word::Said,
            Self::Done | Self::Unsent => Word::Stale,
        }
    }

    fn renew(self) -> Word {
        if self == Self::Acquired { Word::Holds } else { Word::Stale }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::Done => "done",
            Self::InDoubt => "in_doubt",
            Self::Unsent => "released",
            Self::OwnerGone => "lapsed",
        }
    }
}

#[derive(Debug, Clone)]
struct Claim {
    key: String,
    stand: Stand,
    attempt: u64,
    effects: Value,
    operation: String,
    fence: u64,
    fingerprint: Option<Value>,
    nonce: Option<Value>,
    outcome: Value,
    ok: bool,
    /// When it may be begun again that was given back for later.
    free_at: Option<Instant>,
}

impl Claim {
    fn is_harmless(&self) -> bool {
        self.effects != "non-idempotent"
    }

    /// How it stands where nobody knows whether it was done.
    fn lapsed(&self) -> Stand {
        if self.is_harmless() { Stand::OwnerGone } else { Stand::InDoubt }
    }

    /// For how long nobody may begin it.
    fn left(&self) -> Option<Duration> {
        let left = self.free_at?.saturating_duration_since(Instant::now());
        (self.stand == Stand::Unsent && !left.is_zero()).then_some(left)
    }

    /// The claim, with what belongs to how it stands.
    fn shown(&self) -> Value {
        let mut shown = json!({
            "key": self.key, "status": self.stand.as_str(), "attempt": self.attempt,
            "effects": self.effects, "operation": self.operation,
        });
        match self.stand {
            Stand::Acquired => {
                shown["fence"] = self.fence.into();
                shown["lease_until"] = "1970-01-01T00:00:30.000Z".into();
            }
            Stand::Done => {
                shown["outcome"] = self.outcome.clone();
                shown["ok"] = self.ok.into();
            }
            Stand::InDoubt | Stand::Unsent | Stand::OwnerGone => {}
        }
        shown
    }
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    by_place: HashMap<(String, String), Claim>,
    fence: u64,
}

impl Claims {
    pub(super) fn lapse(&mut self, scope: &str, key: &str) -> bool {
        match self.by_place.get_mut(&(scope.to_owned(), key.to_owned())) {
            Some(claim) if claim.stand == Stand::Acquired => {
                claim.stand = claim.lapsed();
                true
            }
            _ => false,
        }
    }

    pub(super) fn get(&self, scope: &str, key: &str) -> Response<Bytes> {
        match self.by_place.get(&(scope.to_owned(), key.to_owned())) {
            Some(claim) => {
                let mut shown = claim.shown();
                if claim.stand == Stand::Acquired {
                    shown["status"] = "busy".into();
                }
                said(200, &shown)
            }
            None => nothing_there(&format!("Nobody has begun {key}.")),
        }
    }

    /// What is said of a claim; `made` names an operation that nothing else has.
    pub(super) fn said(
        &mut self,
        scope: &str,
        key: &str,
        verb: &str,
        words: &Value,
        made: u64,
    ) -> Response<Bytes> {
        let place = (scope.to_owned(), key.to_owned());
        if verb == "begin" {
            return self.begin(place, words, made);
        }
        let Some(claim) = self.by_place.get_mut(&place) else {
            return nothing_there(&format!("Nobody has begun {key}."));
        };
        let outcome = words["outcome"].clone();
        let ok = words["ok"].as_bool().unwrap_or(true);
        let gives_up = words["may_have_executed"] == true;
        let worth = match verb {
            _ if words["fence"] != claim.fence => Word::Stale,
            "complete" => claim.stand.complete(),
            "release" if gives_up => claim.stand.give_up(),
            "release" => claim.stand.release(),
            _ => claim.stand.renew(),
        };
        let is_other = verb == "complete" && (&claim.outcome, claim.ok) != (&outcome, ok);
        match (worth, verb) {
            (Word::Stale, _) => return stale(claim),
            (Word::Said, _) if is_other => return stale(claim),
            (Word::Holds, "complete") => {
                claim.stand = Stand::Done;
                (claim.outcome, claim.ok) = (outcome, ok);
            }
            (Word::Holds, "release") if gives_up => claim.stand = claim.lapsed(),
            (Word::Holds, "release") => {
                claim.stand = Stand::Unsent;
                let wait = words["retry_after"].as_str().and_then(read_duration);
                claim.free_at = wait.and_then(|wait| Instant::now().checked_add(wait));
            }
            _ => {}
        }
        let mut shown = claim.shown();
        if verb == "release" && claim.stand == Stand::OwnerGone {
            shown["status"] = "released".into();
        }
        said(200, &shown)
    }

    fn begin(&mut self, place: (String, String), words: &Value, made: u64) -> Response<Bytes> {
        let word = |name: &str| words.get(name).filter(|word| !word.is_null()).cloned();
        let (fingerprint, nonce) = (word("fingerprint"), word("nonce"));
        let known = self.by_place.get(&place);
        if let Some(claim) = known {
            let is_other = |first: &Value| fingerprint.as_ref().is_some_and(|said| said != first);
            if claim.fingerprint.as_ref().is_some_and(is_other) {
                let detail = "It differs in: fingerprint. Nothing was sent.";
                let more = json!({ "differs": ["fingerprint"], "paths": [] });
                return refuse_with("key-mismatch", 409, "new-key", MISMATCH, detail, more);
            }
            let is_others =
                claim.stand == Stand::Acquired && (nonce.is_none() || nonce != claim.nonce);
            let wait = is_others.then_some(BUSY).or_else(|| claim.left());
            if let Some(wait) = wait {
                let mut busy = Claim { stand: Stand::Unsent, ..claim.clone() }.shown();
                busy["status"] = "busy".into();
                let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                busy["retry_after_ms"] = millis.max(1).into();
                let mut answer = said(200, &busy);
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                set(&mut answer, "retry-after", &seconds.to_string());
                return answer;
            }
            if !matches!(claim.stand, Stand::Unsent | Stand::OwnerGone) {
                return said(200, &claim.shown());
            }
        }
        // As the gateway's: larger than any before, and not guessed from how many there were.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.fence = (self.fence + 1).max(now.as_secs());
        // What it is about, and what a second run would do, is remembered with the first begin.
        let effects = known.map(|claim| claim.effects.clone()).or_else(|| word("effects"));
        let claim = Claim {
            key: place.1.clone(),
            stand: Stand::Acquired,
            attempt: known.map_or(1, |claim| claim.attempt + 1),
            effects: effects.unwrap_or_else(|| "non-idempotent".into()),
            operation: known
                .map_or_else(|| format!("op_{made:026}"), |claim| claim.operation.clone()),
            fence: self.fence,
            fingerprint: known.map_or(fingerprint, |claim| claim.fingerprint.clone()),
            nonce,
            outcome: Value::Null,
            ok: true,
            free_at: None,
        };
        let shown = claim.shown();
        self.by_place.insert(place, claim);
        said(200, &shown)
    }
}

fn stale(claim: &Claim) -> Response<Bytes> {
    let stand = claim.stand.as_str();
    let detail = format!(
        "Somebody has begun it since, or it has ended: it is {stand}. Nothing was changed."
    );
    refuse("fence-stale", 409, "escalate", "Its holder has it in hand no more", &detail)
}

//! The claims of the double.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::{MISMATCH, nothing_there, refuse, refuse_with, said, set};

/// Whoever waits comes back in a moment: nobody is held up in the double.
const BUSY_MILLIS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Acquired,
    Done,
    InDoubt,
    Released,
}

impl Stand {
    fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::Done => "done",
            Self::InDoubt => "in_doubt",
            Self::Released => "released",
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
}

impl Claim {
    fn is_harmless(&self) -> bool {
        self.effects != "non-idempotent"
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
            Stand::InDoubt | Stand::Released => {}
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
                claim.stand = if claim.is_harmless() { Stand::Released } else { Stand::InDoubt };
                true
            }
            _ => false,
        }
    }

    pub(super) fn get(&self, scope: &str, key: &str) -> Response<Bytes> {
        match self.by_place.get(&(scope.to_owned(), key.to_owned())) {
            Some(claim) => said(200, &claim.shown()),
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
        let is_told_again = claim.outcome == outcome && claim.ok == ok;
        let fits = match claim.stand {
            Stand::Acquired => true,
            Stand::Done => verb == "complete" && is_told_again,
            Stand::InDoubt => verb == "complete",
            Stand::Released => false,
        };
        if words["fence"] != claim.fence || !fits {
            let stand = claim.stand.as_str();
            let detail = format!(
                "Somebody has begun it since, or it has ended: it is {stand}. Nothing was changed."
            );
            let title = "Its holder has it in hand no more";
            return refuse("fence-stale", 409, "escalate", title, &detail);
        }
        match verb {
            "complete" => {
                claim.stand = Stand::Done;
                (claim.outcome, claim.ok) = (outcome, ok);
            }
            "release" => {
                let is_open = words["may_have_executed"] == true && !claim.is_harmless();
                claim.stand = if is_open { Stand::InDoubt } else { Stand::Released };
            }
            _ => {}
        }
        said(200, &claim.shown())
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
            if claim.stand == Stand::Acquired && (nonce.is_none() || nonce != claim.nonce) {
                let mut busy = Claim { stand: Stand::Released, ..claim.clone() }.shown();
                busy["status"] = "busy".into();
                busy["retry_after_ms"] = BUSY_MILLIS.into();
                let mut answer = said(200, &busy);
                set(&mut answer, "retry-after", "1");
                return answer;
            }
            if claim.stand != Stand::Released {
                return said(200, &claim.shown());
            }
        }
        // As the gateway's: larger than any before, and not guessed from how many there were.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.fence = (self.fence + 1).max(now.as_secs());
        let effects = word("effects").or_else(|| known.map(|claim| claim.effects.clone()));
        let claim = Claim {
            key: place.1.clone(),
            stand: Stand::Acquired,
            attempt: known.map_or(1, |claim| claim.attempt + 1),
            effects: effects.unwrap_or_else(|| "non-idempotent".into()),
            operation: known
                .map_or_else(|| format!("op_{made:026}"), |claim| claim.operation.clone()),
            fence: self.fence,
            fingerprint: fingerprint.or_else(|| known.and_then(|claim| claim.fingerprint.clone())),
            nonce,
            outcome: Value::Null,
            ok: true,
        };
        let shown = claim.shown();
        self.by_place.insert(place, claim);
        said(200, &shown)
    }
}

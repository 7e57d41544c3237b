//! A login that is under way: what the browser keeps of it, sealed, so that any node can end it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward::secret::{Secrets, is_same, random, sha256};
use serde::{Deserialize, Serialize};

use crate::shape;

/// How long a login may take.
const TIME: Duration = Duration::from_mins(10);

/// What it is sealed for.
const CONTEXT: &[u8] = b"onceward/oidc/1";

/// The longest place that one goes on to: a browser takes 4 KiB of cookie.
const NEXT_BYTES_MAX: usize = 1024;

/// Past so many ended logins the oldest is forgotten.
const CONSUMED_MAX: usize = 4096;

/// A login that is under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) state: String,
    pub(super) nonce: String,
    /// RFC 7636, section 4.1.
    pub(super) verifier: String,
    pub(super) redirect: String,
    pub(super) next: String,
    /// In seconds.
    at: i64,
}

impl Begun {
    pub(super) fn new(redirect: String, next: &str) -> Self {
        let chance = || URL_SAFE_NO_PAD.encode(random::<32>());
        let next = if next.len() <= NEXT_BYTES_MAX { next } else { "/" };
        Self {
            state: chance(),
            nonce: chance(),
            verifier: chance(),
            redirect,
            next: next.to_owned(),
            at: now(),
        }
    }

    /// What the provider is told of the verifier.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.verifier.as_bytes()))
    }

    pub(super) fn sealed(&self, secrets: &Secrets) -> String {
        let plain = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(secrets.seal(&plain, CONTEXT))
    }

    /// What was sealed, while it may go on.
    pub(super) fn opened(cookie: &str, secrets: &Secrets) -> Option<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let plain = secrets.open(&sealed, CONTEXT).ok()?;
        let begun: Self = serde_json::from_slice(&plain).ok()?;
        let age = now().checked_sub(begun.at)?;
        // A node's clock may be a little behind that of the one where it began.
        (-60..TIME.as_secs() as i64).contains(&age).then_some(begun)
    }

    /// Whether what came back belongs to it.
    pub(super) fn is_answered_by(&self, state: Option<&str>) -> bool {
        state.is_some_and(|state| is_same(state.as_bytes(), self.state.as_bytes()))
    }
}

fn now() -> i64 {
    shape::now().as_micros().div_euclid(1_000_000)
}

/// The logins that have ended here: none does twice. At another node the provider sees to it, which takes
/// a code once.
#[derive(Debug, Default)]
pub(super) struct Consumed(Mutex<HashMap<String, Instant>>);

impl Consumed {
    /// Takes this state; tells whether nobody had.
    pub(super) fn take(&self, state: &str) -> bool {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= CONSUMED_MAX {
            // Those of before are none by their time.
            taken.retain(|_, at| at.elapsed() < TIME + TIME);
            let oldest = taken.iter().min_by_key(|(_, at)| **at).map(|(state, _)| state.clone());
            if let Some(oldest) = oldest.filter(|_| taken.len() >= CONSUMED_MAX) {
                taken.remove(&oldest);
            }
        }
        taken.insert(state.to_owned(), Instant::now()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_under_way_is_only_what_was_sealed_here_and_of_late() {
        let (ours, others) = (Secrets::new([1; 32]), Secrets::new([2; 32]));
        let mut begun = Begun::new("https://a.example".to_owned(), "/dead");
        let cookie = begun.sealed(&ours);
        let opened = Begun::opened(&cookie, &ours).unwrap();
        assert_eq!((&opened.state, opened.next.as_str()), (&begun.state, "/dead"));
        assert!(Begun::opened(&cookie, &others).is_none());
        assert!(Begun::opened(&cookie[1..], &ours).is_none() && Begun::opened("", &ours).is_none());
        assert!(opened.is_answered_by(Some(&begun.state)));
        for other in [None, Some(""), Some(&begun.nonce), Some(&begun.state[1..])] {
            assert!(!opened.is_answered_by(other));
        }
        begun.at -= TIME.as_secs() as i64;
        assert!(Begun::opened(&begun.sealed(&ours), &ours).is_none(), "it took too long");
        let far = Begun::new(String::new(), &format!("/{}", "x".repeat(NEXT_BYTES_MAX)));
        assert_eq!(far.next, "/");
    }

    #[test]
    fn a_state_is_taken_once_and_what_is_kept_of_them_is_bounded() {
        let consumed = Consumed::default();
        assert!(consumed.take("last") && !consumed.take("last"));
        for n in 0..2 * CONSUMED_MAX {
            assert!(consumed.take(&n.to_string()));
        }
        assert_eq!(consumed.0.lock().unwrap().len(), CONSUMED_MAX);
    }
}

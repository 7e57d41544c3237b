//! An effect of one's own, run once for its key: through retries, crashes and several processes on
//! one ledger.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::claim::fence_of;
use onceward_core::exchange::Response;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, KeyError, TENANT};
use onceward_core::operation::{Fence, Operation};
use onceward_core::policy::Effects;
use onceward_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::claim::{Beginning, Begun, ClaimKey, Ended, GivenBack};
use crate::engine::Engine;
use crate::refusal::Refusal;

/// How long somebody else's outcome is waited for, where nothing says otherwise.
const WAIT: Duration = Duration::from_mins(1);

/// How long a ledger that is away is waited for before it is told again how an effect ended.
const SAY_AGAIN: Duration = Duration::from_millis(250);

/// Runs `effect` once for `key` within `scope`, and gives everybody who asks its outcome: whoever
/// comes while it runs waits, whoever comes later gets what was kept. See [`Once`] for what else
/// there is to say.
///
/// ```
/// use onceward::{Onceward, once};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = Onceward::memory().await?;
/// let mut sent = 0;
/// for _delivery in 0..3 {
///     let id: String = once(ledger.engine(), "mails", "welcome/anna", async |_fence| {
///         sent += 1;
///         Ok::<_, std::io::Error>(format!("mail-{sent}"))
///     })
///     .await?;
///     assert_eq!(id, "mail-1");
/// }
/// assert_eq!(sent, 1);
/// # Ok(())
/// # }
/// ```
pub async fn once<T, E, F>(
    engine: &Arc<Engine>,
    scope: &str,
    key: &str,
    effect: impl FnOnce(Fence) -> F,
) -> Result<T, OnceError<E>>
where
    T: Serialize + DeserializeOwned,
    F: Future<Output = Result<T, E>>,
{
    Once::new(engine, scope, key).run(effect).await
}

/// An effect that is run once for its key, and what holds for it.
///
/// While it runs, its lease is renewed. Where its process ends meanwhile, or it panics or is dropped,
/// the lease ends by itself, and what follows is what [`effects`](Self::effects) says.
#[derive(Debug, Clone)]
#[must_use = "nothing is done before it is run"]
pub struct Once {
    engine: Arc<Engine>,
    tenant: String,
    scope: String,
    key: String,
    beginning: Beginning,
    on_error: OnError,
}

/// What an error of an effect says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Nothing was done: whoever asks next runs it.
    #[default]
    Undone,
    /// It may have been done: where doing it again could do it twice it is in doubt, and a person
    /// finds out.
    Unknown,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The effect failed; whoever asks next gets what [`OnError`] says.
    #[error("the effect failed: {0}")]
    Effect(E),
    /// Somebody else runs it, for longer than was waited.
    #[error("somebody else has it in hand")]
    Busy(Timestamp),
    /// It may have been done, and nobody knows; a person resolves this operation.
    #[error("nobody knows whether it was done: {0} waits for a person")]
    InDoubt(OperationId),
    /// It is done, and its outcome is not what is asked for, or was not kept.
    #[error("its outcome cannot be read: {0}")]
    Outcome(String),
    /// The key or the scope cannot be used.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The ledger refused it.
    #[error("refused: {0}")]
    Refused(#[source] Box<Refusal>),
}

/// How an effect ended.
enum LastWord {
    Done(Ended),
    GivenBack(GivenBack),
}

impl<E> From<Refusal> for OnceError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl Once {
    /// What has this key within this scope: 1 to 255 visible letters each.
    pub fn new(engine: &Arc<Engine>, scope: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            engine: Arc::clone(engine),
            tenant: TENANT.to_owned(),
            scope: scope.into(),
            key: key.into(),
            beginning: Beginning { wait: WAIT, ..Beginning::default() },
            on_error: OnError::default(),
        }
    }

    /// Whose data it is; `default` where nothing is said.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// What running it again would do, where nobody knows whether it was done: harmless effects are
    /// run again, others are in doubt. Non-idempotent, where neither this nor the scope says.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.beginning.effects = Some(effects);
        self
    }

    /// How long it is in hand after each sign of life.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.beginning.lease = Some(lease);
        self
    }

    /// What it is about: the same key with another is refused.
    pub fn about(mut self, what: impl Into<Bytes>) -> Self {
        self.beginning.fingerprint = Some(what.into());
        self
    }

    /// Who runs it, for people who look.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.beginning.holder = Some(holder.into());
        self
    }

    /// How long somebody else's outcome is waited for; a minute where nothing is said.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.beginning.wait = wait;
        self
    }

    /// What an error of the effect says of it. A failure that is final is no error but an outcome:
    /// make it part of the type, and everybody gets it.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Runs `effect` unless somebody has, and gives its outcome, which is kept as JSON. The effect
    /// gets its fence: it grows with each run, so that what is written to can refuse a late one.
    pub async fn run<T, E, F>(&self, effect: impl FnOnce(Fence) -> F) -> Result<T, OnceError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        Key::new(&self.scope)?;
        let key = Key::new(&self.key)?;
        let which = ClaimKey { tenant: self.tenant.clone(), scope: self.scope.clone(), key };
        match self.engine.begin_claim(&which, &self.beginning).await? {
            Begun::Acquired(claim) => self.do_it(&which, &claim, effect).await,
            Begun::Busy(_, until) => Err(OnceError::Busy(until)),
            Begun::InDoubt(claim) => Err(OnceError::InDoubt(claim.id)),
            Begun::Done(_, outcome) => read(outcome),
        }
    }

    async fn do_it<T, E, F>(
        &self,
        which: &ClaimKey,
        claim: &Operation,
        effect: impl FnOnce(Fence) -> F,
    ) -> Result<T, OnceError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        let fence = fence_of(claim).unwrap_or_default();
        let now = self.engine.clock.now();
        let lease = claim.lease_until.map_or(Duration::ZERO, |until| until.since(now));
        let done = tokio::select! {
            biased;
            done = effect(fence) => done,
            never = self.renew(which, fence, lease / 3) => match never {},
        };
        match done {
            Ok(outcome) => {
                let text = serde_json::to_vec(&outcome)
                    .map_err(|error| OnceError::Outcome(error.to_string()))?;
                let ended = Ended {
                    ok: true,
                    outcome: text.into(),
                    content_type: Some("application/json".to_owned()),
                };
                self.say(which, fence, &LastWord::Done(ended)).await?;
                Ok(outcome)
            }
            Err(error) => {
                let may_have_executed = self.on_error == OnError::Unknown;
                let back = GivenBack { may_have_executed, ..GivenBack::default() };
                self.say(which, fence, &LastWord::GivenBack(back)).await?;
                Err(OnceError::Effect(error))
            }
        }
    }

    /// Signs of life, for ever. One that is refused, or does not get through, stops nothing: what
    /// runs cannot be called back, and what it says at its end counts as long as nobody has begun
    /// since.
    async fn renew(&self, which: &ClaimKey, fence: Fence, every: Duration) -> Infallible {
        let clock = &self.engine.clock;
        loop {
            clock.sleep_until(clock.now().plus(every)).await;
            let lease = self.beginning.lease;
            // What became of it is seen at the end.
            let _ = self.engine.renew_claim(which, fence, lease).await;
        }
    }

    /// How it ended is said until the ledger hears it: a ledger that is away comes back.
    async fn say(&self, which: &ClaimKey, fence: Fence, word: &LastWord) -> Result<(), Refusal> {
        loop {
            let heard = match word {
                LastWord::Done(ended) => self.engine.complete_claim(which, fence, ended).await,
                LastWord::GivenBack(back) => self.engine.release_claim(which, fence, back).await,
            };
            match heard {
                Err(Refusal::Ledger(error)) if error.may_pass() => {
                    let clock = &self.engine.clock;
                    clock.sleep_until(clock.now().plus(SAY_AGAIN)).await;
                }
                heard => return heard.map(drop),
            }
        }
    }
}

fn read<T: DeserializeOwned, E>(outcome: Option<Response>) -> Result<T, OnceError<E>> {
    let Some(outcome) = outcome else {
        return Err(OnceError::Outcome("it is not kept".to_owned()));
    };
    serde_json::from_slice(&outcome.body).map_err(|error| OnceError::Outcome(error.to_string()))
}

//! Claims: the ledger as a service for handlers, consumers and jobs of one's own.

mod hold;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::client::{Onceward, in_path, unreadable};
use crate::error::{BoxError, Error, Refusal, problem};
use crate::keys::new_key;
use crate::layer::OnceLayer;
use crate::retry::Repeat;
use crate::shapes::{Advice, Claim, ClaimStatus, Effects, Problem, ProblemCode};
use crate::units::duration;
pub(crate) use hold::{Granted, Hold};

pub use hold::Held;

/// What the gateway waits for somebody else's outcome in one request, at most; and how long it is
/// waited for where nothing is said.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How long a claim is in hand after each sign of life, where nothing is said.
const LEASE: Duration = Duration::from_secs(30);

/// How long a busy claim is left alone, where the gateway does not say.
pub(crate) const BUSY: Duration = Duration::from_secs(1);

/// The longest reason that is kept of a release, in letters.
const REASON_MAX: usize = 256;

/// Of an effect that knows that nothing was done: its key is free again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDone {
    why: String,
    retry_after: Option<Duration>,
}

impl NotDone {
    /// Nothing was done, and why; people can read it.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), retry_after: None }
    }

    /// Nobody shall begin it before that much time is over.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// When it may be begun again, where that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NotDone {}

/// What a begin says beside its key; nothing is required.
#[derive(Debug, Clone, Default)]
#[must_use = "it says nothing before a claim is begun with it"]
pub struct Begin {
    fingerprint: Option<Value>,
    effects: Option<Effects>,
    wait: Option<Duration>,
    nonce: Option<String>,
}

impl Begin {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What must be equal for the same key: a text, or any JSON of up to 1,024 bytes.
    pub fn fingerprint(mut self, what: impl Into<Value>) -> Self {
        self.fingerprint = Some(what.into());
        self
    }

    /// What doing it again would do, where nobody knows whether it was done; what the scope says where
    /// this does not.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.effects = Some(effects);
        self
    }

    /// How long somebody else's outcome is waited for. Where nothing is said, [`Claims::once`] waits a
    /// minute, and [`Claims::begin`] (a minute at most) not at all. Repeats to a gateway that is away come
    /// on top: to give up on a begin that may be heard would leave a claim in nobody's hand.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Names this begin, so that it can be sent again by whoever made it; drawn anew where nothing is
    /// said, and by [`Claims::once`] always.
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }
}

/// The claims of one scope; made by [`Onceward::claims`]. It is its own builder.
#[derive(Debug, Clone)]
#[must_use = "nothing is begun before it is asked to"]
pub struct Claims {
    client: Onceward,
    scope: String,
    lease: Duration,
    effects: Option<Effects>,
    holder: Option<String>,
}

impl Claims {
    pub(crate) fn new(client: Onceward, scope: String) -> Self {
        Self { client, scope, lease: LEASE, effects: None, holder: None }
    }

    /// How long a claim is in hand after each sign of life: 30 seconds where nothing is said.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// What doing it again would do, where a begin does not say.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.effects = Some(effects);
        self
    }

    /// Who has it in hand, for people who look.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// A tower layer that has the handlers behind it run once for a key; see [`crate::layer`].
    pub fn layer(&self) -> OnceLayer {
        OnceLayer::new(self.clone())
    }

    /// Runs `effect` unless somebody has, and gives its outcome, which is kept as JSON: whoever comes
    /// while it runs waits, whoever comes later gets what was kept. Its lease is renewed meanwhile.
    ///
    /// An effect that ends in an error *may have been done*, unless the error is [`NotDone`]; what
    /// follows is what its effects say. Where its process dies, or it panics or is dropped, the lease
    /// ends by itself, and the same follows.
    ///
    /// ```
    /// use onceward_client::testing::FakeGateway;
    /// use onceward_client::{BoxError, Onceward};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let onceward = Onceward::builder().transport(FakeGateway::new()).build()?;
    /// let mails = onceward.claims("mails");
    /// let mut sent = 0;
    /// for _delivery in 0..3 {
    ///     let mail: String = mails
    ///         .once("welcome/anna", async |_held| {
    ///             sent += 1;
    ///             Ok::<_, BoxError>(format!("mail-{sent}"))
    ///         })
    ///         .await?;
    ///     assert_eq!(mail, "mail-1");
    /// }
    /// assert_eq!(sent, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InProgress`]: somebody else has it in hand, for longer than was waited.
    /// [`Error::OutcomeUnknown`]: it may have been done, and only a person can tell.
    /// [`Error::EffectFailed`]: it was done, and did not succeed. [`Error::NotDone`] and
    /// [`Error::Effect`]: the effect's own error. [`Error::Unwritten`]: it ran, and the ledger does not
    /// know its outcome.
    pub async fn once<T, E, F>(&self, key: &str, effect: impl FnOnce(Held) -> F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
        F: Future<Output = Result<T, E>>,
    {
        self.once_with(key, &Begin::new(), effect).await
    }

    /// The same, with more to say of it.
    pub async fn once_with<T, E, F>(
        &self,
        key: &str,
        begin: &Begin,
        effect: impl FnOnce(Held) -> F,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        E: Into<BoxError>,
        F: Future<Output = Result<T, E>>,
    {
        let unfit = |source| Error::Outcome { key: key.to_owned(), source };
        let granted = self.acquire(key, begin).await?;
        if granted.claim.status == ClaimStatus::Done {
            let outcome = granted.claim.outcome.unwrap_or_default();
            return match granted.claim.ok {
                Some(false) => Err(Error::EffectFailed { key: key.to_owned(), outcome }),
                _ => serde_json::from_value(outcome).map_err(unfit),
            };
        }
        let hold = Hold::new(self.clone(), granted, Duration::MAX);
        let fence = hold.held().fence;
        match effect(hold.held()).await {
            Ok(outcome) => {
                // It stays in hand until that is heard: a gateway that is away comes back.
                let heard = match serde_json::to_value(&outcome) {
                    Ok(value) => self.complete(key, fence, value).await.map(|_| outcome),
                    Err(source) => Err(unfit(source)),
                };
                if let Err(Error::Outcome { .. } | Error::Refused(_)) = &heard {
                    // No further try could write it. A lease that ends by itself says the same, later.
                    let why = "its outcome cannot be written down";
                    let _ = self.release_unknown(key, fence, why).await;
                }
                drop(hold);
                heard.map_err(|error| match error {
                    stale_or_unfit @ (Error::FenceStale(_) | Error::Outcome { .. }) => {
                        stale_or_unfit
                    }
                    error => {
                        let (key, source) = (key.to_owned(), Box::new(error));
                        Error::Unwritten { key, fence, source }
                    }
                })
            }
            Err(error) => {
                drop(hold);
                Err(self.give_back(key, fence, error.into()).await)
            }
        }
    }

    /// Begins an effect: [`ClaimStatus::Acquired`] says that it is in hand, [`ClaimStatus::Done`] that
    /// somebody did it. A begin that is sent again because its answer was lost is the same begin.
    pub async fn begin(&self, key: &str, begin: &Begin) -> Result<Claim, Error> {
        Ok(self.begin_for(key, begin).await?.claim)
    }

    pub(crate) async fn begin_for(&self, key: &str, begin: &Begin) -> Result<Granted, Error> {
        let nonce = begin.nonce.clone().unwrap_or_else(new_key);
        let mut body = Map::new();
        body.insert("nonce".to_owned(), nonce.into());
        body.insert("lease".to_owned(), duration(self.lease).into());
        let mut say = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        say("fingerprint", begin.fingerprint.clone());
        say(
            "effects",
            begin.effects.as_ref().or(self.effects.as_ref()).map(|it| it.as_str().into()),
        );
        say("holder", self.holder.clone().map(Value::from));
        let wait = begin.wait.map(|wait| wait.min(WAIT_MAX));
        say("wait", wait.map(|wait| duration(wait).into()));
        self.say(key, "begin", &Value::Object(body), wait.unwrap_or_default()).await
    }

    /// Begins an effect that is to run here, with most of its lease before it. An answer that was long
    /// on its way says little of what is left of the lease: it is renewed before anything runs, and given
    /// back where that cannot be.
    pub(crate) async fn take(&self, key: &str, begin: &Begin) -> Result<Granted, Error> {
        let granted = self.begin_for(key, begin).await?;
        if granted.claim.status != ClaimStatus::Acquired || !granted.is_late() {
            return Ok(granted);
        }
        let fence = granted.claim.fence.unwrap_or_default();
        match self.renew_for(key, fence).await {
            Ok(renewed) => Ok(Granted { claim: granted.claim, ..renewed }),
            Err(error) => {
                // A lease that ends by itself says the same, later; what went wrong first is what counts.
                let _ = self.release(key, fence, &NotDone::new("it was begun too late")).await;
                Err(match error {
                    // Of a claim under which nothing was done.
                    stale @ Error::FenceStale(_) => {
                        Error::Unreachable { key: Some(key.to_owned()), source: Box::new(stale) }
                    }
                    other => other,
                })
            }
        }
    }

    /// Says that it was done, and what all shall get.
    ///
    /// # Errors
    ///
    /// [`Error::FenceStale`]: somebody else has it in hand by now, or it has ended otherwise.
    pub async fn complete(&self, key: &str, fence: u64, outcome: Value) -> Result<Claim, Error> {
        let body = json!({ "fence": fence, "outcome": outcome });
        self.end(key, "complete", &body, &[ClaimStatus::Done]).await
    }

    /// Says that it was done and did not succeed, for good: all get that.
    pub async fn fail(&self, key: &str, fence: u64, outcome: Value) -> Result<Claim, Error> {
        let body = json!({ "fence": fence, "outcome": outcome, "ok": false });
        self.end(key, "complete", &body, &[ClaimStatus::Done]).await
    }

    /// Gives it back: nothing was done.
    pub async fn release(&self, key: &str, fence: u64, not_done: &NotDone) -> Result<Claim, Error> {
        let mut body = json!({ "fence": fence, "reason": short(&not_done.why) });
        if let Some(wait) = not_done.retry_after {
            body["retry_after"] = duration(wait).into();
        }
        self.end(key, "release", &body, &GIVEN_BACK).await
    }

    /// Gives it back, and nobody knows whether it was done.
    pub async fn release_unknown(&self, key: &str, fence: u64, why: &str) -> Result<Claim, Error> {
        let body = json!({ "fence": fence, "reason": short(why), "may_have_executed": true });
        self.end(key, "release", &body, &GIVEN_BACK).await
    }

    /// Keeps it in hand for another lease.
    pub async fn renew(&self, key: &str, fence: u64) -> Result<Claim, Error> {
        Ok(self.renew_for(key, fence).await?.claim)
    }

    async fn renew_for(&self, key: &str, fence: u64) -> Result<Granted, Error> {
        let body = json!({ "fence": fence, "lease": duration(self.lease) });
        let renewed = self.say(key, "renew", &body, Duration::ZERO).await?;
        said_as(&[ClaimStatus::Acquired], &renewed.claim)?;
        Ok(renewed)
    }

    /// How it stands.
    pub async fn get(&self, key: &str) -> Result<Claim, Error> {
        let claim: Claim = self.client.ask(Method::GET, &self.path(key), None).await?;
        if claim.key == key { Ok(claim) } else { Err(unreadable(None, NO_CLAIM)) }
    }

    async fn acquire(&self, key: &str, begin: &Begin) -> Result<Granted, Error> {
        let wait = begin.wait.unwrap_or(WAIT_MAX);
        let asked = Instant::now();
        loop {
            let left = wait.saturating_sub(asked.elapsed());
            let once = Begin { wait: Some(left), nonce: None, ..begin.clone() };
            let granted = self.take(key, &once).await?;
            let claim = match granted.claim.status {
                ClaimStatus::Acquired | ClaimStatus::Done => return Ok(granted),
                _ => granted.claim,
            };
            if claim.status == ClaimStatus::InDoubt {
                return Err(in_doubt(claim));
            }
            let pause = claim.retry_after_ms.map_or(BUSY, Duration::from_millis);
            if asked.elapsed().saturating_add(pause) >= wait {
                return Err(busy(claim, pause));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Says that an effect ended in an error, and gives that error.
    async fn give_back(&self, key: &str, fence: u64, error: BoxError) -> Error {
        // A lease that ends by itself says the same, later; what went wrong first is what counts.
        match error.downcast::<NotDone>() {
            Ok(not_done) => {
                let _ = self.release(key, fence, &not_done).await;
                Error::NotDone(*not_done)
            }
            Err(error) => {
                // An error's words may hold what nobody should read there.
                let _ = self.release_unknown(key, fence, "the effect failed").await;
                Error::Effect(error)
            }
        }
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/claims/{}/{}", in_path(&self.scope), in_path(key))
    }

    async fn say(
        &self,
        key: &str,
        verb: &str,
        body: &Value,
        extra: Duration,
    ) -> Result<Granted, Error> {
        let asked = Instant::now();
        let path = format!("{}/{verb}", self.path(key));
        // A nonce or a fence tells a second arrival.
        let how = (None, Repeat::Safe);
        let answer = self.client.ask_for(Method::POST, &path, Some(body), how, extra).await?;
        let claim: Claim = answer.json().map_err(|error| unreadable(None, error))?;
        if claim.key != key || claim.status == ClaimStatus::default() {
            return Err(unreadable(None, NO_CLAIM));
        }
        let lease = hold::granted(&claim, answer.header("date"), self.lease);
        Ok(Granted { claim, lease, asked })
    }

    /// Says how it ended, and believes that it was heard where the answer says so.
    async fn end(
        &self,
        key: &str,
        verb: &str,
        body: &Value,
        heard: &[ClaimStatus],
    ) -> Result<Claim, Error> {
        let Granted { claim, .. } = self.say(key, verb, body, Duration::ZERO).await?;
        said_as(heard, &claim)?;
        Ok(claim)
    }
}

const NO_CLAIM: &str = "it is not the claim that was asked for";

/// What a release comes to.
const GIVEN_BACK: [ClaimStatus; 2] = [ClaimStatus::Released, ClaimStatus::InDoubt];

fn said_as(heard: &[ClaimStatus], claim: &Claim) -> Result<(), Error> {
    if heard.contains(&claim.status) {
        return Ok(());
    }
    Err(unreadable(None, format!("the claim is {}", claim.status)))
}

fn short(why: &str) -> String {
    why.chars().take(REASON_MAX).collect()
}

/// What a busy claim is to whoever asked for it.
pub(crate) fn busy(claim: Claim, wait: Duration) -> Error {
    let title = "The first call with this key is under way";
    let detail = "Somebody else has it in hand. Ask again with the same key to get its outcome.";
    let said = problem(ProblemCode::InProgress, 409, Advice::Wait, title, detail);
    let said = Problem { operation: Some(claim.operation), ..said };
    Error::InProgress(Refusal::new(said, Some(claim.key)).after(Some(wait)))
}

/// What a claim in doubt is to whoever asked for it.
pub(crate) fn in_doubt(claim: Claim) -> Error {
    let title = "Nobody knows whether it was done";
    let detail = "It was begun, and nobody said how it ended. A person resolves it.";
    let said = problem(ProblemCode::OutcomeUnknown, 409, Advice::Escalate, title, detail);
    let said = Problem { operation: Some(claim.operation), ..said };
    Error::OutcomeUnknown(Refusal::new(said, Some(claim.key)))
}

//! What is written of an operation, and what follows where the ledger does not take it: what is known
//! is kept until it is on disk.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::exchange::{self, Request};
use onceward_core::id::OperationId;
use onceward_core::operation::{Event, Fence, Illegal, Operation};
use onceward_core::policy::Mode;
use onceward_core::time::Timestamp;
use onceward_core::verdict::Verdict;

use super::Engine;
use crate::call::Arrival;
use crate::identity::Identity;
use crate::observe::Fact;
use crate::refusal::Refusal;
use crate::store::{Birth, Remembered, Slot, StoreError, Which, Write};
use crate::suspects::Watch;
use crate::wire::{self, Credentials, Sealing};

/// How long a ledger that is full or away is waited for before it is asked again.
const LEDGER_RETRY: Duration = Duration::from_millis(250);

impl Engine {
    /// A dead operation runs again: the remembered bytes, with the caller's credentials and
    /// bounds of now. Nothing where it has moved on.
    pub(super) async fn revival(
        &self,
        known: &Operation,
        arrival: &Arrival,
        start: bool,
        now: Timestamp,
    ) -> Result<Option<(Write, Arc<Request>)>, Refusal> {
        let mut request = self.request_of(known).await?;
        let before = request.headers.clone();
        // What came another way has other credentials, or none.
        // Of a mail every line is ours: its envelope stands for all of its attempts.
        let is_same_way = known.via == arrival.options.via && arrival.mail.is_none();
        let sealing = Sealing::of(&arrival.policy);
        let is_secret = |name: &str| exchange::is_credential(name, sealing.headers);
        if is_same_way {
            request.headers.0.retain(|(name, _)| !is_secret(name));
            let given = arrival.request.headers.0.iter().filter(|(name, _)| is_secret(name));
            request.headers.0.extend(given.cloned());
        }
        // A later attempt may be made from the ledger, so that has the new credentials too.
        let answer = (request.headers != before).then(|| {
            (Slot::Request, wire::encode_request(&request, known.id, &self.secrets, sealing))
        });
        let mode = if self.is_in_order(known) { Mode::Accepted } else { arrival.mode };
        let due = arrival.policy.opening(mode, now);
        let revived = known.after(Event::Revived { due, mode, act: None }, now);
        let Ok(mut operation) = revived else { return Ok(None) };
        operation.deadline = arrival.options.deadline;
        operation.attempts_max = arrival.options.attempts_max;
        let start = start && arrival.policy.opening(arrival.mode, now) <= now;
        if start && let Ok(started) = operation.after(Event::Started(self.session), now) {
            operation = started;
        }
        // Both facts are one write.
        operation.fence = Fence(known.fence.0 + 1);
        Ok(Some((Write { operation, answer, visible: false }, Arc::new(request))))
    }

    /// Writes what the core decided about an operation that others may write too; nothing where that
    /// cannot follow any more, or where one of them was faster.
    pub(crate) async fn write(
        &self,
        decided: Result<Operation, Illegal>,
        answer: Option<(Slot, Bytes)>,
        visible: bool,
    ) -> Result<Option<Operation>, StoreError> {
        let Ok(operation) = decided else { return Ok(None) };
        match self.store.commit(Write { operation, answer, visible }).await {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A dead operation that is too old to be sent again safely goes into doubt; nothing where somebody
    /// was faster.
    pub(super) async fn doubt(
        &self,
        known: &Operation,
        now: Timestamp,
    ) -> Result<Option<Operation>, StoreError> {
        let decided = known.after(Event::Ruled(Verdict::Doubt), now);
        let Some(doubted) = self.write(decided, None, true).await? else { return Ok(None) };
        self.rested(&doubted);
        self.advance(&doubted).await;
        Ok(Some(doubted))
    }

    /// Writes a birth, under the call's second identity where it has one, and watches for doubles.
    pub(super) async fn write_one(
        self: Arc<Self>,
        newborn: Box<Birth>,
        identity: Option<Identity>,
        watch: Option<Watch>,
    ) -> Result<Remembered, StoreError> {
        self.write_watched(newborn, identity, watch).await
    }

    /// The same, for whoever has the engine still.
    pub(crate) async fn write_watched(
        &self,
        newborn: Box<Birth>,
        identity: Option<Identity>,
        watch: Option<Watch>,
    ) -> Result<Remembered, StoreError> {
        let written = match identity {
            // Few routes have one, and what all calls carry has to be small.
            Some(identity) => Box::pin(self.write_identified(newborn, identity)).await,
            None => self.write_birth(newborn).await,
        };
        if let (Ok(Remembered::Fresh(operation)), Some(watch)) = (&written, watch) {
            self.suspect(operation, &watch);
        }
        written
    }

    /// Writes a birth, marks whom to tell of its end before that, and puts it in line.
    pub(crate) async fn write_birth(&self, newborn: Box<Birth>) -> Result<Remembered, StoreError> {
        if newborn.operation.callback.is_some() {
            Box::pin(self.mark_callback(&newborn.operation)).await?;
        }
        match self.store.remember(*newborn).await? {
            Remembered::Fresh(operation) => {
                self.observer.observe(Fact::Remembered(&operation));
                Ok(Remembered::Fresh(self.lined_up(operation).await))
            }
            known @ Remembered::Known(_) => Ok(known),
        }
    }

    /// Writes a revival as a birth is written.
    pub(super) async fn write_revival(
        self: Arc<Self>,
        write: Write,
    ) -> Result<Remembered, StoreError> {
        if write.operation.callback.is_some() {
            Box::pin(self.mark_callback(&write.operation)).await?;
        }
        let revived = self.store.commit(write).await?;
        Ok(Remembered::Fresh(self.lined_up(revived).await))
    }

    /// The operation that was just remembered or revived, once its line has it.
    async fn lined_up(&self, operation: Operation) -> Operation {
        // Few have one, and what all calls carry has to be small.
        if operation.is_first() { operation } else { Box::pin(self.put_in_line(operation)).await }
    }

    /// What is known is kept until it is on disk: a full ledger is waited for, and then `again` makes
    /// the same write anew.
    pub(super) fn commit_when_there_is_room(
        &self,
        write: Write,
        again: impl Fn() -> Result<Write, Illegal> + Send,
    ) -> impl Future<Output = Result<Operation, StoreError>> + Send {
        let mut commit = self.store.commit(write);
        async move {
            loop {
                match commit.await {
                    Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                    done => return done,
                }
                commit = self.store.commit(again().map_err(|_| StoreError::Stale)?);
            }
        }
    }

    /// The operation as somebody else wrote it meanwhile: a person, or a node that took this one
    /// for gone.
    pub(super) async fn find_overtaken(&self, id: OperationId) -> Result<Operation, StoreError> {
        self.find_when_back(id).await?.ok_or(StoreError::Stale)
    }

    /// The same for an operation that is in hand, as it stands.
    pub(super) async fn find_when_back(
        &self,
        id: OperationId,
    ) -> Result<Option<Operation>, StoreError> {
        loop {
            match self.store.find(Which::Id(id)).await {
                Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                done => return done,
            }
        }
    }

    /// The remembered request of an operation, its credentials opened.
    pub(crate) async fn request_of(&self, operation: &Operation) -> Result<Request, StoreError> {
        let kept = self.request_kept(operation, Credentials::Opened).await?;
        kept.ok_or_else(|| StoreError::Damaged("an operation without a request".to_owned()))
    }

    /// The request of an operation in hand: a ledger that is away is waited for.
    pub(super) async fn request_when_back(
        &self,
        operation: &Operation,
    ) -> Result<Request, StoreError> {
        loop {
            match self.request_of(operation).await {
                Err(error) if error.may_pass() => self.wait_for_the_ledger().await,
                done => return done,
            }
            // Whoever took it over may have brought another request, and then this one is gone.
            let now = self.find_when_back(operation.id).await?;
            if now.is_none_or(|now| now.request != operation.request) {
                return Err(StoreError::Stale);
            }
        }
    }

    async fn wait_for_the_ledger(&self) {
        self.clock.sleep_until(self.clock.now().plus(LEDGER_RETRY)).await;
    }

    /// An error that leaves the ledger's state unknown ends the process: no answer, stop, recover.
    pub(crate) fn heed(&self, error: StoreError) -> Refusal {
        if let StoreError::Unavailable(_) | StoreError::Damaged(_) = &error {
            self.observer.observe(Fact::Trouble(&format!("the ledger cannot be used: {error}")));
            self.broken.notify_one();
        }
        Refusal::Ledger(error)
    }

    /// Whether what goes on for ever goes on although the ledger refused it once: it does, except
    /// after what the engine has to heed.
    pub(crate) fn goes_on_after(&self, error: &StoreError) -> bool {
        let may_pass = error.may_pass() || *error == StoreError::Stale;
        if !may_pass {
            self.heed(error.clone());
        }
        may_pass
    }
}

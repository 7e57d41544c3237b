//! A bulk in hand: page after page, at its rate, and each second in the ledger how far it is. One
//! node has it; another goes on where that one has not been heard of for a lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::lease::{BEAT, LEASE};
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

use super::acted::Acted;
use super::{Bulk, BulkStanding, RATE_MAX, bears, row};
use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::store::{Page, StoreError, Which};

/// Operations read at once.
const PAGE: usize = 200;

/// How often it is written how far a bulk is, and looked whether it may go on.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How long a ledger that is full or away is waited for before it is asked again.
const LEDGER_RETRY: Duration = Duration::from_secs(1);

/// The bulks that this node has in hand, and what it has seen of others'.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    seen: Mutex<HashMap<OperationId, Seen>>,
    /// One was begun.
    begun: Notify,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    /// It was begun here, and waits to be taken up.
    Begun,
    /// This node is at it.
    Ours,
    /// Another is: it stood at this beat, seen first then.
    Beating(u64, Timestamp),
}

impl InHand {
    /// Lets one that was begun here be taken up.
    pub(super) fn begin(&self, id: OperationId) {
        self.set(id, Some(Seen::Begun));
        self.begun.notify_one();
    }

    fn set(&self, id: OperationId, seen: Option<Seen>) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) => all.insert(id, seen),
            None => all.remove(&id),
        };
    }

    fn get(&self, id: OperationId) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

/// Takes up bulks that nobody is at, for ever.
pub(crate) async fn look_after(engine: Arc<Engine>) {
    while !engine.is_halted() {
        if take_up(&engine).await.is_err_and(|error| !engine.goes_on_after(&error)) {
            return;
        }
        tokio::select! {
            () = engine.bulks.begun.notified() => {}
            () = engine.clock.sleep_until(engine.clock.now().plus(BEAT)) => {}
        }
    }
}

async fn take_up(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let now = engine.clock.now();
    for bulk in engine.bulks().await? {
        if bulk.standing != BulkStanding::Running {
            continue;
        }
        let is_left = match engine.bulks.get(bulk.id) {
            Some(Seen::Ours) => false,
            Some(Seen::Begun) => {
                engine.take_bulk_in_hand(bulk);
                continue;
            }
            // Nobody else has this ledger: whoever was at it is gone.
            _ if !engine.store.is_shared() => true,
            Some(Seen::Beating(beats, since)) if beats == bulk.beats => now.since(since) >= LEASE,
            _ => {
                engine.bulks.set(bulk.id, Some(Seen::Beating(bulk.beats, now)));
                false
            }
        };
        if is_left {
            engine.take_over(bulk).await?;
        }
    }
    Ok(())
}

/// What became of one operation.
enum Became {
    Done,
    LeftOut,
    Failed(String),
    /// It is none of those that the bulk is for.
    Other,
}

impl Engine {
    /// Goes on with a bulk, unless another node was faster.
    async fn take_over(self: &Arc<Self>, mut bulk: Bulk) -> Result<(), StoreError> {
        bulk.turn += 1;
        if self.keep_bulk(&mut bulk).await? {
            self.take_bulk_in_hand(bulk);
        }
        Ok(())
    }

    fn take_bulk_in_hand(self: &Arc<Self>, bulk: Bulk) {
        self.bulks.set(bulk.id, Some(Seen::Ours));
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let id = bulk.id;
            if let Err(error) = engine.run_bulk(bulk).await
                && !error.may_pass()
            {
                engine.heed(error);
            }
            engine.bulks.set(id, None);
        });
    }

    /// Runs to its end, or until it is stopped or another's.
    async fn run_bulk(self: &Arc<Self>, mut bulk: Bulk) -> Result<(), StoreError> {
        let step = Duration::from_secs(1) / bulk.order.rate.clamp(1, RATE_MAX);
        let mut next_act = self.clock.now();
        let mut next_check = next_act;
        let mut acted = self.kept_acted(bulk.id).await?;
        self.count_what_was_in_hand(&mut bulk, &mut acted).await?;
        loop {
            let Some(page) = self.page_when_back(&mut bulk, &mut acted).await? else {
                return Ok(());
            };
            for operation in page.operations {
                if !self.checks(&mut bulk, &mut acted, &mut next_check).await? {
                    return Ok(());
                }
                if !self.skips(&bulk, &operation) {
                    self.clock.sleep_until(next_act).await;
                    next_act = next_act.max(self.clock.now()).plus(step);
                    bulk.at = Some(operation.id);
                    if !self.keep_progress(&mut bulk).await? {
                        return Ok(());
                    }
                }
                match self.do_one(&bulk, &operation).await? {
                    Became::Done => {
                        bulk.done += 1;
                        acted.add(operation.id);
                    }
                    Became::LeftOut => bulk.left_out += 1,
                    Became::Failed(why) => {
                        bulk.failed += 1;
                        bulk.trouble = Some(format!("{}: {why}", operation.id));
                    }
                    Became::Other => {}
                }
                (bulk.cursor, bulk.at) = (operation.id, None);
            }
            // A page may have none and still a next.
            match page.next {
                Some(next) => bulk.cursor = next.min(bulk.cursor),
                None => break,
            }
            if !self.checks(&mut bulk, &mut acted, &mut next_check).await? {
                return Ok(());
            }
        }
        self.end_bulk(&mut bulk, &mut acted, BulkStanding::Done).await
    }

    /// Writes how far it is, where a second has passed; tells whether it goes on.
    async fn checks(
        &self,
        bulk: &mut Bulk,
        acted: &mut Acted,
        next: &mut Timestamp,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        if now < *next {
            return Ok(true);
        }
        *next = now.plus(CHECK_EVERY);
        if self.is_halted() {
            return Ok(false);
        }
        if self.is_to_stop(bulk).await? {
            self.end_bulk(bulk, acted, BulkStanding::Stopped).await?;
            return Ok(false);
        }
        self.keep_acted(bulk.id, acted).await?;
        self.keep_progress(bulk).await
    }

    /// Writes how far it is; where the ledger does not take that now, with the next: an older place
    /// does no harm. Tells whether it is this node's still.
    async fn keep_progress(&self, bulk: &mut Bulk) -> Result<bool, StoreError> {
        bulk.beats += 1;
        self.keep_bulk(bulk)
            .await
            .or_else(|error| if error.may_pass() { Ok(true) } else { Err(error) })
    }

    /// What was seen to when the bulk was cut off may not match any more, and counts all the same.
    async fn count_what_was_in_hand(
        &self,
        bulk: &mut Bulk,
        acted: &mut Acted,
    ) -> Result<(), StoreError> {
        let Some(id) = bulk.at.take() else { return Ok(()) };
        let found = self.store.find(Which::Id(id)).await?;
        if found.is_some_and(|found| bears(&found, &bulk.mark())) {
            bulk.done += 1;
            acted.add(id);
            bulk.cursor = id;
        }
        Ok(())
    }

    async fn end_bulk(
        &self,
        bulk: &mut Bulk,
        acted: &mut Acted,
        standing: BulkStanding,
    ) -> Result<(), StoreError> {
        self.keep_acted(bulk.id, acted).await?;
        bulk.standing = standing;
        bulk.ended_at = Some(self.clock.now());
        bulk.beats += 1;
        self.keep_bulk(bulk).await.map(drop)
    }

    /// Whether somebody wants it stopped.
    async fn is_to_stop(&self, bulk: &Bulk) -> Result<bool, StoreError> {
        Ok(self.store.setting(row::stop_of(bulk.id)).await?.is_some())
    }

    /// The next page, once it can be read; nothing where the bulk was stopped meanwhile. It may be one row that
    /// cannot, of a later release: so nothing is written meanwhile, and a node that can read it takes the bulk over.
    async fn page_when_back(
        &self,
        bulk: &mut Bulk,
        acted: &mut Acted,
    ) -> Result<Option<Page>, StoreError> {
        loop {
            match self.bulk_page(&bulk.order, bulk.cursor, PAGE).await {
                Err(error) if error.may_pass() && !self.is_halted() => {
                    self.clock.sleep_until(self.clock.now().plus(LEDGER_RETRY)).await;
                    match self.is_to_stop(bulk).await {
                        Ok(false) => {}
                        Ok(true) => {
                            self.end_bulk(bulk, acted, BulkStanding::Stopped).await?;
                            return Ok(None);
                        }
                        Err(error) if error.may_pass() => {}
                        Err(error) => return Err(error),
                    }
                }
                done => return done.map(Some),
            }
        }
    }

    /// Whether nothing is done to it, so that it costs none of the rate.
    fn skips(&self, bulk: &Bulk, operation: &Operation) -> bool {
        !bulk.order.deed.fits(operation)
            || bears(operation, &bulk.mark())
            || bulk.order.leaves_out(operation, self.clock.now())
    }

    async fn do_one(
        self: &Arc<Self>,
        bulk: &Bulk,
        operation: &Operation,
    ) -> Result<Became, StoreError> {
        if bears(operation, &bulk.mark()) {
            return Ok(Became::Done);
        }
        if !bulk.order.deed.fits(operation) {
            return Ok(Became::Other);
        }
        if bulk.order.leaves_out(operation, self.clock.now()) {
            return Ok(Became::LeftOut);
        }
        loop {
            return Ok(match self.act_in_bulk(bulk, operation.id).await {
                Ok(_) => Became::Done,
                Err(Refusal::Ledger(error)) if error.may_pass() && !self.is_halted() => {
                    self.clock.sleep_until(self.clock.now().plus(LEDGER_RETRY)).await;
                    continue;
                }
                Err(Refusal::Ledger(error)) => return Err(error),
                Err(Refusal::Conflict { operation, .. }) if bears(&operation, &bulk.mark()) => {
                    Became::Done
                }
                Err(Refusal::Conflict { why, .. }) => Became::Failed(why),
                Err(Refusal::RiskUnaccepted { .. }) => Became::LeftOut,
                Err(Refusal::SecondWanted { what, .. }) => Became::Failed(format!(
                    "it waits for a second person ({what}): the same bulk, begun by somebody else within a day, does it"
                )),
                Err(_) => Became::Failed("it is not there any more".to_owned()),
            });
        }
    }
}

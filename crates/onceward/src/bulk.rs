//! Bulk: what a person does to all operations that match. First a plan, which counts and does
//! nothing; then a run at a limited rate, which tells how far it is, can be stopped, and outlives
//! its process.
//!
//! A bulk goes from the newest operation that was there when it began (of those that somebody selected: from
//! the newest of them) to the oldest, so it meets none twice. Whoever has it in hand writes its row by compare and swap, so that another node that
//! took it over is noticed before the next act. Its acts bear its id: whoever goes on after a crash
//! does nothing to an operation that has it already.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::operation::{Forgotten, Operation, State};
use onceward_core::risk::{Risk, risk};
use onceward_core::time::Timestamp;

use crate::engine::Engine;
use crate::people::{
    Decided, Hindrance, Person, Resolution, can_be_retried, cancellation, forgetting, redelivery,
    resolved, retrial,
};
use crate::refusal::Refusal;
use crate::store::{Page, Query, Standing, StoreError, Which};

mod acted;
mod row;
mod run;

pub use acted::BulkOutcomes;
pub(crate) use run::{InHand, look_after};

/// Operations that a plan looks at in one page, and pages: what is beyond is not counted.
const PLAN_PAGE: usize = 1000;
const PLAN_PAGES_MAX: usize = 200;

/// The highest rate, in acts a second.
pub(crate) const RATE_MAX: u32 = 1000;

/// How many bulks are kept that have ended.
const ENDED_MAX: usize = 100;

/// What a bulk does to each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkDeed {
    /// Sends it again.
    Redeliver,
    /// Gives it up.
    Cancel,
    /// Has its next attempt now.
    Retry,
    /// Says that it was done.
    ResolveDone,
    /// Says that it was not sent.
    ResolveNotSent,
    /// Drops its key: from now on it is refused, or new.
    Forget(Forgotten),
}

impl BulkDeed {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Redeliver,
        Self::Cancel,
        Self::ResolveDone,
        Self::ResolveNotSent,
        Self::Forget(Forgotten::Refuse),
        Self::Forget(Forgotten::New),
        Self::Retry,
    ];

    /// The verb.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::ResolveDone | Self::ResolveNotSent => "resolve",
            Self::Forget(_) => "forget",
        }
    }

    /// Where the operations stand that it is for.
    fn standing(self) -> Vec<Standing> {
        match self {
            Self::Redeliver => vec![Standing::DeadLetter, Standing::Told, Standing::InDoubt],
            Self::Cancel => vec![Standing::Pending, Standing::Held],
            Self::Retry => vec![Standing::Pending],
            Self::ResolveDone | Self::ResolveNotSent => vec![Standing::InDoubt],
            Self::Forget(_) => vec![Standing::Done, Standing::DeadLetter, Standing::Told],
        }
    }

    /// Whether it can be done to `operation`.
    fn fits(self, operation: &Operation) -> bool {
        match self {
            Self::Redeliver => {
                matches!(operation.state, State::Dead(_) | State::InDoubt)
                    && operation.request.is_some()
            }
            Self::Cancel => matches!(operation.state, State::Pending { .. }),
            Self::Retry => can_be_retried(operation),
            Self::ResolveDone | Self::ResolveNotSent => operation.state == State::InDoubt,
            Self::Forget(_) => operation.state.is_ended() && operation.forgotten.is_none(),
        }
    }
}

/// What a person wants done to many.
#[derive(Debug, Clone)]
pub struct BulkOrder {
    /// What.
    pub deed: BulkDeed,
    /// To which: its place and limit count for nothing.
    pub filter: Query,
    /// Of these only those that somebody selected; all where it is empty. All of them are written with each step of its
    /// progress: the gateway takes at most [`BulkOrder::SELECTED_MAX`].
    pub selected: Vec<OperationId>,
    /// The risks that are taken; what has another is left out.
    pub taken: Vec<Risk>,
    /// Acts a second, at most.
    pub rate: u32,
    /// Who, and why.
    pub person: Person,
}

/// What a bulk would do; nothing was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkPlan {
    /// Operations that match and that the deed can be done to.
    pub matched: u64,
    /// Of these, what a redelivery could do.
    pub by_risk: BTreeMap<Risk, u64>,
    /// Of these, by route.
    pub by_route: BTreeMap<String, u64>,
    /// Of these, how many are left out because nobody takes their risk.
    pub left_out: u64,
    /// Whether all were looked at: else there are more.
    pub is_exact: bool,
}

/// Where a bulk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkStanding {
    /// A node is at it, or will be.
    Running,
    /// It went through.
    Done,
    /// A person stopped it.
    Stopped,
}

impl BulkStanding {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Stopped];

    /// The word for it in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// A bulk that has begun.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Its identity.
    pub id: OperationId,
    /// What was ordered.
    pub order: BulkOrder,
    /// Where it stands.
    pub standing: BulkStanding,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Operations that matched when it began, and whether all were counted.
    pub matched: u64,
    /// Whether these are all.
    pub is_exact: bool,
    /// Operations that it was done to.
    pub done: u64,
    /// Operations that it could not be done to any more.
    pub failed: u64,
    /// Operations that were left out because nobody takes their risk.
    pub left_out: u64,
    /// Why the last one failed.
    pub trouble: Option<String>,
    /// Everything from this place on has been seen to.
    cursor: OperationId,
    /// The operation that is seen to now: after a crash it says whether it was.
    at: Option<OperationId>,
    /// How often another node took it over.
    turn: u32,
    /// It grows while somebody has it in hand.
    beats: u64,
    /// Its row as it was written or read last: whoever writes it over another's has not got it.
    kept: Option<Bytes>,
}

impl Bulk {
    /// Its name.
    pub fn name(&self) -> String {
        name_of(self.id)
    }

    /// Whether what it acts on is sent again, so that there is still something to become of it.
    pub fn sends(&self) -> bool {
        matches!(self.order.deed, BulkDeed::Redeliver | BulkDeed::Retry | BulkDeed::ResolveNotSent)
    }

    /// What its acts bear in their reasons.
    fn mark(&self) -> String {
        format!("[{}]", self.name())
    }
}

/// The name of the bulk with this id.
fn name_of(id: OperationId) -> String {
    id.to_string().replacen("op_", "bulk_", 1)
}

/// The id in the name of a bulk.
fn id_of(name: &str) -> Option<OperationId> {
    format!("op_{}", name.strip_prefix("bulk_")?).parse().ok()
}

impl BulkOrder {
    /// How many can be selected: of as many it is told what became of them.
    pub const SELECTED_MAX: usize = acted::ACTED_MAX;

    /// The query for one page that goes on behind `before`.
    fn page(&self, before: OperationId, limit: usize) -> Query {
        let mut query = Query { before: Some(before), limit, ..self.filter.clone() };
        if query.standing.is_empty() {
            query.standing = self.deed.standing();
        }
        query
    }

    /// Whether it is left out, because nobody takes its risk.
    fn leaves_out(&self, operation: &Operation, now: Timestamp) -> bool {
        let risk = risk(operation, now);
        self.deed == BulkDeed::Redeliver && risk.wants_a_word() && !self.taken.contains(&risk)
    }

    /// What it makes of `operation`.
    fn decide(&self, operation: &Operation, engine: &Engine, person: &Person) -> Decided {
        match self.deed {
            BulkDeed::Redeliver => redelivery(operation, engine, person, &self.taken),
            BulkDeed::Cancel => cancellation(operation, engine, person),
            BulkDeed::Retry => retrial(operation, engine, person),
            BulkDeed::ResolveDone => resolved(operation, engine, &Resolution::Done(None), person),
            BulkDeed::ResolveNotSent => resolved(operation, engine, &Resolution::NotSent, person),
            BulkDeed::Forget(then) => Ok(forgetting(engine, then, person)),
        }
    }
}

impl Engine {
    /// Counts what `order` would be done to; nothing is done.
    pub async fn plan_bulk(&self, order: &BulkOrder) -> Result<BulkPlan, StoreError> {
        let now = self.clock.now();
        let mut plan = BulkPlan::default();
        let mut before = OperationId::from_u128(u128::MAX);
        for _ in 0..PLAN_PAGES_MAX {
            let page = self.bulk_page(order, before, PLAN_PAGE).await?;
            for operation in page.operations.iter().filter(|it| order.deed.fits(it)) {
                plan.matched += 1;
                if order.deed == BulkDeed::Redeliver {
                    *plan.by_risk.entry(risk(operation, now)).or_default() += 1;
                }
                *plan.by_route.entry(operation.route.clone()).or_default() += 1;
                plan.left_out += u64::from(order.leaves_out(operation, now));
            }
            let Some(next) = page.next else {
                plan.is_exact = true;
                break;
            };
            before = next;
        }
        Ok(plan)
    }

    /// The newest operations behind `before` that `order` is for. Those that were selected are looked up, however
    /// old they are.
    async fn bulk_page(
        &self,
        order: &BulkOrder,
        before: OperationId,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let query = order.page(before, limit);
        if order.selected.is_empty() {
            return self.store.list(query).await;
        }
        let mut left: Vec<_> = order.selected.iter().copied().filter(|id| *id < before).collect();
        left.sort_unstable_by_key(|id| Reverse(*id));
        left.dedup();
        let mut page = Page::default();
        if left.len() > limit {
            left.truncate(limit);
            page.next = left.last().copied();
        }
        for id in left {
            let found = self.store.find(Which::Id(id)).await?;
            page.operations.extend(found.filter(|operation| query.wants(operation)));
        }
        Ok(page)
    }

    /// Begins a bulk: it is in the ledger, and runs.
    pub async fn begin_bulk(self: &Arc<Self>, order: BulkOrder) -> Result<Bulk, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        let plan = self.plan_bulk(&order).await?;
        self.forget_ended_bulks().await?;
        let now = self.clock.now();
        let id = self.next_id(now);
        // Whoever names an operation means it, though the clock of the node that had it was ahead.
        let is_all = order.selected.is_empty();
        let mut bulk = Bulk {
            id,
            standing: BulkStanding::Running,
            began_at: now,
            ended_at: None,
            matched: plan.matched,
            is_exact: plan.is_exact,
            done: 0,
            failed: 0,
            left_out: 0,
            trouble: None,
            cursor: if is_all { id } else { OperationId::from_u128(u128::MAX) },
            at: None,
            turn: 0,
            beats: 0,
            kept: None,
            order,
        };
        let deed = format!("began to {} in bulk", bulk.order.deed.name());
        self.note(&bulk.order.person, &deed, &bulk.name()).await?;
        self.keep_bulk(&mut bulk).await?;
        self.bulks.begin(id);
        Ok(bulk)
    }

    /// Every bulk that is known, the newest first; what a later release ordered in words of its own is not.
    pub async fn bulks(&self) -> Result<Vec<Bulk>, StoreError> {
        let mut bulks = Vec::new();
        for prefix in row::PREFIXES {
            for (name, value) in self.store.settings(prefix.to_owned()).await? {
                bulks.extend(row::decode(&name, &value)?);
            }
        }
        bulks.sort_by_key(|bulk| Reverse(bulk.id));
        Ok(bulks)
    }

    /// The bulk of this name.
    pub async fn bulk(&self, name: &str) -> Result<Option<Bulk>, StoreError> {
        let Some(id) = id_of(name) else { return Ok(None) };
        for setting in row::names_of(id) {
            if let Some(value) = self.store.setting(setting.clone()).await? {
                return row::decode(&setting, &value);
            }
        }
        Ok(None)
    }

    /// Stops a bulk: whoever has it in hand does nothing more within about a second.
    pub async fn stop_bulk(self: &Arc<Self>, name: &str, person: &Person) -> Result<Bulk, Refusal> {
        let bulk = self.bulk(name).await?.ok_or(Refusal::NotFound)?;
        if bulk.standing == BulkStanding::Running {
            self.note(person, "stopped", name).await?;
            let who = Bytes::from(person.who.clone());
            self.store.set(row::stop_of(bulk.id), Some(who)).await?;
        }
        Ok(bulk)
    }

    /// Writes how far it is; tells whether nobody else did meanwhile.
    async fn keep_bulk(&self, bulk: &mut Bulk) -> Result<bool, StoreError> {
        let row = row::encode(bulk)?;
        let before = bulk.kept.clone();
        let is_kept = self.store.swap(row::name_of(bulk), before, Some(row.clone())).await?;
        if is_kept {
            bulk.kept = Some(row);
        }
        Ok(is_kept)
    }

    /// Of those that have ended only the newest are kept.
    async fn forget_ended_bulks(&self) -> Result<(), StoreError> {
        let ended = |bulk: &Bulk| bulk.standing != BulkStanding::Running;
        let all = self.bulks().await?;
        for old in all.iter().filter(|bulk| ended(bulk)).skip(ENDED_MAX) {
            self.store.set(row::stop_of(old.id), None).await?;
            self.store.set(acted::name_of(old.id), None).await?;
            self.store.set(row::name_of(old), None).await?;
        }
        Ok(())
    }

    /// Does it to one operation, unless this bulk has done it already.
    async fn act_in_bulk(
        self: &Arc<Self>,
        bulk: &Bulk,
        id: OperationId,
    ) -> Result<Operation, Refusal> {
        let Person { who, reason } = &bulk.order.person;
        let mark = bulk.mark();
        let person = Person { who: who.clone(), reason: format!("{reason} {mark}") };
        self.act_noting(id, false, |operation, engine| {
            if bears(operation, &mark) {
                return Err(Hindrance::Why("this bulk has done it already".to_owned()));
            }
            bulk.order.decide(operation, engine, &person)
        })
        .await
    }
}

/// Whether a bulk has acted on `operation`.
fn bears(operation: &Operation, mark: &str) -> bool {
    operation.acts.iter().any(|act| act.reason.contains(mark))
}

//! What each tenant may have of the gateway: requests in a time, calls at once, work that waits, keys and
//! bytes that are kept. What a tenant has is counted from the ledger; between two counts, each node adds
//! what it remembered itself. Nothing is held for a tenant without a limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onceward_core::admission::{self, is_expired};
use onceward_core::operation::Operation;
use onceward_core::rate::{Meter, Rate};
use onceward_core::time::Timestamp;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::refusal::Refusal;
use crate::sabotage::Sabotage;
use crate::store::{Backlog, Lane, Query, Standing, StoreError};

/// The name of what holds for tenants of which nothing is said.
pub const OTHERS: &str = "*";

/// Operations read at once while they are counted.
const PAGE: usize = 1000;

/// How often what is kept is counted anew, where that takes no longer than a twentieth of it.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How much longer than a count the time to the next one is.
const COUNT_REST: u32 = 19;

/// How long the first call waits for the first count.
const COUNT_WAIT: Duration = Duration::from_secs(1);

/// How long a count of what waits is believed, as far as what has left it is not known.
const WAITING_AGAIN: Duration = Duration::from_secs(1);

/// Operations that wait are counted no further.
const WAITING_MAX: u64 = 1_000_000;

/// When to come back where a backlog has no room, or all places are taken.
const SOON: Duration = Duration::from_secs(1);

/// When to come back where as much is kept as may be.
const LATER: Duration = Duration::from_mins(1);

/// What a tenant may have; without a limit, as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantLimits {
    /// New requests in a time, of all nodes together.
    pub rate: Option<Rate>,
    /// Calls of its callers under way, at each node.
    pub concurrency_max: Option<usize>,
    /// Accepted operations that wait.
    pub backlog_max: Option<u64>,
    /// Operations that are remembered within their windows.
    pub keys_max: Option<u64>,
    /// Bytes of their requests and answers.
    pub kept_bytes_max: Option<u64>,
}

impl TenantLimits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn has_kept(&self) -> bool {
        self.keys_max.is_some() || self.kept_bytes_max.is_some()
    }
}

/// The limits of all tenants, by name; [`OTHERS`] are those of which nothing is said.
pub type TenantRules = BTreeMap<String, TenantLimits>;

/// What tenants with limits have.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    has_limits: AtomicBool,
    inner: Mutex<Inner>,
    /// How many nodes there are beside this one.
    others: AtomicU32,
    counted: Notify,
    /// That there is something else to count.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    rules: TenantRules,
    tenants: HashMap<String, Tenant>,
    /// Whether what is kept was counted to its end.
    is_counted: bool,
}

/// What one tenant has at this node.
#[derive(Debug, Default)]
struct Tenant {
    meter: Meter,
    busy: usize,
    room: Option<Room>,
    /// What was kept when it was last counted.
    counted: Kept,
    /// What this node has remembered since that count began.
    since: Kept,
}

/// Operations and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kept {
    keys: u64,
    bytes: u64,
}

/// How many more may wait, since they were last counted.
#[derive(Debug, Clone, Copy)]
struct Room {
    operations: u64,
    counted_at: Timestamp,
}

/// What is wanted of a tenant's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Whether it is remembered, and how many bytes that are.
    pub(crate) bytes: Option<u64>,
    /// Whether it may have to wait in the ledger.
    pub(crate) may_wait: bool,
}

/// What stands in the way.
#[derive(Debug)]
pub(crate) struct Full {
    what: &'static str,
    retry_after: Duration,
}

impl Full {
    /// As its caller is told it.
    pub(crate) fn refusal(&self, tenant: &str) -> Refusal {
        let Self { what, retry_after } = *self;
        Refusal::TenantLimit { tenant: tenant.to_owned(), what, retry_after }
    }
}

/// A tenant's place for one call: of a call that is let by, until its work is over.
#[derive(Debug)]
pub(crate) struct Presence {
    tenants: Arc<Tenants>,
    tenant: String,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(tenant) = self.tenants.inner().tenants.get_mut(&self.tenant) {
            tenant.busy = tenant.busy.saturating_sub(1);
        }
    }
}

/// What one call takes of its tenant's limits; given back where nothing new came of it.
#[derive(Debug)]
pub(crate) struct Share {
    tenants: Arc<Tenants>,
    tenant: String,
    rate: Option<Rate>,
    wanted: Wanted,
    is_spent: bool,
}

impl Share {
    /// Something new came of it.
    pub(crate) fn spend(&mut self) {
        self.is_spent = true;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.is_spent {
            return;
        }
        let mut inner = self.tenants.inner();
        let Some(tenant) = inner.tenants.get_mut(&self.tenant) else { return };
        if let Some(rate) = self.rate {
            tenant.meter.give_back(rate);
        }
        if let Some(room) = tenant.room.as_mut().filter(|_| self.wanted.may_wait) {
            room.operations += 1;
        }
        if let Some(bytes) = self.wanted.bytes {
            tenant.since.keys = tenant.since.keys.saturating_sub(1);
            tenant.since.bytes = tenant.since.bytes.saturating_sub(bytes);
        }
    }
}

/// Who is let by. Boxed: every call carries it along, and few tenants have limits.
pub(crate) type Admitted = (Box<Share>, Box<Presence>);

/// What a look at a tenant's limits comes to.
enum Look {
    /// It may go on.
    Free(Admitted),
    Full(Full),
    /// What waits has to be counted first.
    CountWaiting,
    /// What is kept has to be counted first.
    CountKept,
}

impl Tenants {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, rules: TenantRules) {
        let mut inner = self.inner();
        self.has_limits.store(rules.values().any(|limits| !limits.is_none()), Ordering::Release);
        inner.rules = rules;
        // How much may wait is what it says now.
        inner.tenants.values_mut().for_each(|tenant| tenant.room = None);
        drop(inner);
        self.changed.notify_one();
    }

    /// From now on a rate is for so many nodes, and this one has its share of it.
    pub(crate) fn share_with(&self, nodes: u32) {
        self.others.store(nodes.saturating_sub(1), Ordering::Relaxed);
    }

    /// Whether any tenant has a rate.
    pub(crate) fn have_rates(&self) -> bool {
        self.inner().rules.values().any(|limits| limits.rate.is_some())
    }

    fn share_of(&self, rate: Rate) -> Rate {
        let nodes = self.others.load(Ordering::Relaxed) + 1;
        Rate { interval: rate.interval.saturating_mul(nodes), burst: (rate.burst / nodes).max(1) }
    }

    /// Takes what is wanted, where all of it may be had.
    fn look(self: &Arc<Self>, name: &str, wanted: Wanted, now: Timestamp, patient: bool) -> Look {
        let mut inner = self.inner();
        let limits = inner.limits_of(name);
        let is_counted = inner.is_counted || !patient;
        let tenant = inner.tenants.entry(name.to_owned()).or_default();
        if limits.concurrency_max.is_some_and(|most| tenant.busy >= most) {
            return Look::Full(Full { what: "concurrency_max", retry_after: SOON });
        }
        let rate = limits.rate.map(|rate| self.share_of(rate));
        if let Some(ready_at) = rate.map(|rate| tenant.meter.ready_at(rate)).filter(|at| *at > now)
        {
            return Look::Full(Full { what: "rate", retry_after: ready_at.since(now) });
        }
        if let Some(bytes) = wanted.bytes.filter(|_| limits.has_kept()) {
            if !is_counted {
                return Look::CountKept;
            }
            let most = |most: Option<u64>| most.unwrap_or(u64::MAX);
            if tenant.counted.keys + tenant.since.keys >= most(limits.keys_max) {
                return Look::Full(Full { what: "keys_max", retry_after: LATER });
            }
            let kept = tenant.counted.bytes + tenant.since.bytes;
            if kept.saturating_add(bytes) > most(limits.kept_bytes_max) {
                return Look::Full(Full { what: "kept_bytes_max", retry_after: LATER });
            }
        }
        if wanted.may_wait && limits.backlog_max.is_some() {
            match tenant.room.as_mut() {
                Some(room) if now.since(room.counted_at) < WAITING_AGAIN => {
                    if room.operations == 0 {
                        return Look::Full(Full { what: "backlog_max", retry_after: SOON });
                    }
                    room.operations -= 1;
                }
                _ => return Look::CountWaiting,
            }
        }
        if let Some(rate) = rate {
            tenant.meter.take(rate, now);
        }
        if let Some(bytes) = wanted.bytes {
            tenant.since.keys += 1;
            tenant.since.bytes += bytes;
        }
        tenant.busy += 1;
        let (tenants, tenant) = (Arc::clone(self), name.to_owned());
        let presence = Presence { tenants: Arc::clone(self), tenant: tenant.clone() };
        let share = Share { tenants, tenant, rate, wanted, is_spent: false };
        Look::Free((Box::new(share), Box::new(presence)))
    }

    /// The next turn of `name`'s rate, of what is never refused but waits for it; kept once that is spent.
    /// Nothing where it has no rate.
    pub(crate) fn turn(self: &Arc<Self>, name: &str, now: Timestamp) -> Option<(Timestamp, Share)> {
        if !self.has_limits.load(Ordering::Acquire) || Sabotage::TenantLimitIgnored.is_on() {
            return None;
        }
        let mut inner = self.inner();
        let rate = self.share_of(inner.limits_of(name).rate?);
        let turn = inner.tenants.entry(name.to_owned()).or_default().meter.take(rate, now);
        let wanted = Wanted { bytes: None, may_wait: false };
        let (tenants, tenant) = (Arc::clone(self), name.to_owned());
        Some((turn, Share { tenants, tenant, rate: Some(rate), wanted, is_spent: false }))
    }

    fn waiting(&self, name: &str, backlog: Backlog, now: Timestamp) {
        let mut inner = self.inner();
        let most = inner.limits_of(name).backlog_max.unwrap_or(u64::MAX);
        let operations = most.saturating_sub(backlog.operations);
        let tenant = inner.tenants.entry(name.to_owned()).or_default();
        tenant.room = Some(Room { operations, counted_at: now });
    }

    /// What each tenant has remembered up to now is going to be counted.
    fn begin_counting(&self) -> HashMap<String, Kept> {
        let inner = self.inner();
        inner.tenants.iter().map(|(name, tenant)| (name.clone(), tenant.since)).collect()
    }

    /// All that is kept was counted; `before` was in the ledger when that began.
    fn counted(&self, kept: &HashMap<String, Kept>, before: &HashMap<String, Kept>) {
        let mut inner = self.inner();
        for name in kept.keys() {
            if !inner.limits_of(name).is_none() {
                inner.tenants.entry(name.clone()).or_default();
            }
        }
        for (name, tenant) in &mut inner.tenants {
            let before = before.get(name).copied().unwrap_or_default();
            tenant.counted = kept.get(name).copied().unwrap_or_default();
            tenant.since.keys = tenant.since.keys.saturating_sub(before.keys);
            tenant.since.bytes = tenant.since.bytes.saturating_sub(before.bytes);
        }
        inner.is_counted = true;
        drop(inner);
        self.counted.notify_waiters();
    }

    fn counts_kept(&self) -> bool {
        self.inner().rules.values().any(TenantLimits::has_kept)
    }
}

impl Inner {
    fn limits_of(&self, name: &str) -> TenantLimits {
        let said = self.rules.get(name).or_else(|| self.rules.get(OTHERS));
        said.copied().unwrap_or_default()
    }
}

impl Kept {
    fn add(&mut self, operation: &Operation, now: Timestamp) {
        let is_over = operation.state.is_ended() && is_expired(operation, now);
        if is_over || Standing::of(operation) == Standing::Tombstone {
            return;
        }
        self.keys += 1;
        if !admission::are_bodies_over(operation, now) {
            self.bytes += operation.bodies().map(|body| u64::from(body.length)).sum::<u64>();
        }
    }
}

impl Engine {
    /// Sets what each tenant may have.
    pub fn set_tenants(&self, rules: TenantRules) {
        self.tenants.set(rules);
    }

    /// A place for one more of a tenant's, or what is in the way of it; nothing of either where it has
    /// no limits.
    pub(crate) async fn admit_tenant(
        &self,
        tenant: &str,
        wanted: Wanted,
    ) -> Result<Result<Option<Admitted>, Full>, StoreError> {
        // Where nobody has any, nothing is asked.
        if !self.tenants.has_limits.load(Ordering::Acquire) {
            return Ok(Ok(None));
        }
        Box::pin(self.admit_limited(tenant, wanted)).await
    }

    async fn admit_limited(
        &self,
        tenant: &str,
        wanted: Wanted,
    ) -> Result<Result<Option<Admitted>, Full>, StoreError> {
        let is_free = self.tenants.inner().limits_of(tenant).is_none();
        if is_free || Sabotage::TenantLimitIgnored.is_on() {
            return Ok(Ok(None));
        }
        let mut patient = true;
        loop {
            let counted = self.tenants.counted.notified();
            match self.tenants.look(tenant, wanted, self.clock.now(), patient) {
                Look::Free(admitted) => return Ok(Ok(Some(admitted))),
                Look::Full(full) => return Ok(Err(full)),
                Look::CountWaiting => {
                    // A route of no name is all of them.
                    let lane = Lane { tenant: tenant.to_owned(), ..Lane::default() };
                    let backlog = self.store.backlog(lane, WAITING_MAX).await?;
                    self.tenants.waiting(tenant, backlog, self.clock.now());
                }
                Look::CountKept => {
                    let until = self.clock.now().plus(COUNT_WAIT);
                    tokio::select! {
                        () = counted => {}
                        () = self.clock.sleep_until(until) => {}
                    }
                    patient = false;
                }
            }
        }
    }

    /// The same for what is let by or refused at once; what it takes counts whatever comes of it.
    pub(crate) async fn admit_passing(
        &self,
        tenant: &str,
    ) -> Result<Option<Box<Presence>>, Refusal> {
        let wanted = Wanted { bytes: None, may_wait: false };
        match self.admit_tenant(tenant, wanted).await? {
            Ok(Some((mut share, presence))) => {
                share.spend();
                Ok(Some(presence))
            }
            Ok(None) => Ok(None),
            Err(full) => Err(full.refusal(tenant)),
        }
    }

    /// Counts what is kept of each tenant, from the newest on.
    async fn count_kept(&self) -> Result<(), StoreError> {
        let before = self.tenants.begin_counting();
        let mut kept: HashMap<String, Kept> = HashMap::new();
        let mut place = None;
        loop {
            let query = Query { before: place, limit: PAGE, ..Query::default() };
            let page = self.store.list(query).await?;
            let now = self.clock.now();
            for operation in &page.operations {
                match kept.get_mut(&operation.scope.tenant) {
                    Some(of) => of.add(operation, now),
                    None => {
                        kept.entry(operation.scope.tenant.clone()).or_default().add(operation, now);
                    }
                }
            }
            place = page.next;
            if place.is_none() || self.is_halted() {
                self.tenants.counted(&kept, &before);
                return Ok(());
            }
        }
    }
}

/// Counts again and again what tenants keep, where one has a limit to it.
pub(crate) async fn count(engine: Arc<Engine>) {
    while !engine.is_halted() {
        let began = engine.clock.now();
        let counts = engine.tenants.counts_kept();
        if counts {
            match engine.count_kept().await {
                Ok(()) => {}
                // It is counted with the next turn.
                Err(error) if engine.goes_on_after(&error) => {}
                Err(_) => return,
            }
        }
        let now = engine.clock.now();
        let rest = COUNT_EVERY.max(now.since(began).saturating_mul(COUNT_REST));
        let next = if counts { now.plus(rest) } else { Timestamp::from_micros(i64::MAX) };
        tokio::select! {
            () = engine.tenants.changed.notified() => {}
            () = engine.clock.sleep_until(next) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);
    const KEPT: Wanted = Wanted { bytes: Some(100), may_wait: false };

    fn tenants(limits: TenantLimits) -> Arc<Tenants> {
        let tenants = Arc::new(Tenants::default());
        tenants.set([("acme".to_owned(), limits)].into());
        tenants.counted(&HashMap::new(), &HashMap::new());
        tenants
    }

    fn reached(tenants: &Arc<Tenants>, now: Timestamp) -> Option<&'static str> {
        match tenants.look("acme", KEPT, now, true) {
            Look::Full(full) => Some(full.what),
            Look::Free((mut share, _presence)) => {
                share.spend();
                None
            }
            Look::CountKept | Look::CountWaiting => Some("not counted"),
        }
    }

    #[test]
    fn what_came_to_nothing_new_is_given_back() {
        let rate = Some(Rate { interval: Duration::from_secs(1), burst: 1 });
        let tenants = tenants(TenantLimits { rate, keys_max: Some(1), ..TenantLimits::default() });
        let Look::Free((share, presence)) = tenants.look("acme", KEPT, NOW, true) else { panic!() };
        assert_eq!(reached(&tenants, NOW), Some("rate"));
        drop((share, presence));
        assert_eq!(reached(&tenants, NOW), None, "a duplicate took nothing");
        assert_eq!(reached(&tenants, NOW.plus(Duration::from_secs(1))), Some("keys_max"));
    }

    #[test]
    fn what_is_remembered_while_it_is_counted_counts_once() {
        let tenants = tenants(TenantLimits { keys_max: Some(3), ..TenantLimits::default() });
        assert_eq!(reached(&tenants, NOW), None);
        let before = tenants.begin_counting();
        assert_eq!(reached(&tenants, NOW), None);
        let counted = Kept { keys: 1, bytes: 100 };
        tenants.counted(&[("acme".to_owned(), counted)].into(), &before);
        assert_eq!(reached(&tenants, NOW), None, "one was counted, and one came meanwhile");
        assert_eq!(reached(&tenants, NOW), Some("keys_max"));
        tenants.counted(&HashMap::new(), &tenants.begin_counting());
        assert_eq!(reached(&tenants, NOW), None, "they were forgotten");
    }

    #[test]
    fn who_has_no_limits_of_its_own_has_those_of_all_and_nodes_share_a_rate() {
        let tenants = Arc::new(Tenants::default());
        let rate = Some(Rate { interval: Duration::from_millis(100), burst: 4 });
        let few = TenantLimits { rate, ..TenantLimits::default() };
        tenants
            .set([(OTHERS.to_owned(), few), ("acme".to_owned(), TenantLimits::default())].into());
        assert!(tenants.inner().limits_of("acme").is_none());
        assert_eq!(tenants.inner().limits_of("bolt"), few);
        tenants.share_with(2);
        let mut taken = 0;
        while let Look::Free((mut share, _)) = tenants.look("bolt", KEPT, NOW, true) {
            share.spend();
            taken += 1;
        }
        assert_eq!(taken, 2, "half of the burst");
    }
}

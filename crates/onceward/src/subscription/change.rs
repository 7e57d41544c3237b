//! Making, changing and ending subscriptions: each is noted, and a row is changed by comparing and swapping.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::operation::Operation;

use super::book::REVISION;
use super::{
    OF_TENANT_MAX, SIGNING_MAX, SUBSCRIPTIONS_MAX, Signing, Subscription, WISH_BYTES_MAX, Wish,
    name_of, name_of_route, route_name, row,
};
use crate::bulk::{BulkDeed, BulkOrder};
use crate::engine::{Engine, RACES_MAX};
use crate::people::{Person, cancellation};
use crate::refusal::Refusal;
use crate::secret::random;
use crate::store::{Lane, Query, Standing, StoreError};

/// Deliveries of a subscription that ended are given up at this rate, a second.
const CANCEL_RATE: u32 = 1000;

/// Of those that are left on a lane, so many are given up at once.
const ENDED_PAGE: usize = 64;

impl Engine {
    /// Makes a subscription; without a secret of its own it has one made here.
    pub async fn subscribe(
        &self,
        tenant: &str,
        wish: Wish,
        secret: Option<Vec<u8>>,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        check_size(&wish)?;
        let all = self.subscriptions().await?;
        let own = all.iter().filter(|it| it.tenant == tenant).count();
        if all.len() >= SUBSCRIPTIONS_MAX || own >= OF_TENANT_MAX {
            let what = if own >= OF_TENANT_MAX {
                format!("tenant {tenant} has {OF_TENANT_MAX} subscriptions")
            } else {
                format!("there are {SUBSCRIPTIONS_MAX} subscriptions")
            };
            return Err(Refusal::Limit { what, retry_after: Duration::from_mins(1) });
        }
        let now = self.clock.now();
        let subscription = Subscription {
            name: name_of(self.next_id(now)),
            tenant: tenant.to_owned(),
            wish,
            signing: vec![Signing { secret: secret.unwrap_or_else(made_secret), until: None }],
            created_at: now,
            changed_at: now,
            version: 1,
            failing_since: None,
        };
        self.note(person, "subscribed", &subscription.about()).await?;
        let setting = subscription.route_name();
        let row = row::encode(&setting, &subscription, &self.secrets)?;
        self.store.set(setting, Some(row)).await?;
        self.subscriptions_changed().await?;
        Ok(subscription)
    }

    /// Changes what is wanted: events that are fanned out from now on are chosen by it. Where deliveries go,
    /// and with which headers, it says of those that wait too.
    pub async fn change_subscription(
        &self,
        name: &str,
        change: impl Fn(&mut Wish) + Send + Sync,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        let before = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        let mut wanted = before.wish.clone();
        change(&mut wanted);
        check_size(&wanted)?;
        self.note(person, "changed a subscription", &before.about()).await?;
        let now = self.clock.now();
        let changed = self.rewrite(name, |subscription| {
            change(&mut subscription.wish);
            subscription.version += 1;
            subscription.changed_at = now;
        });
        let changed = changed.await?.ok_or(Refusal::NotFound)?;
        // What was heard of another receiver says nothing of this one.
        if changed.wish.to != before.wish.to {
            self.forgive(name).await?;
        }
        Ok(self.as_it_does(changed))
    }

    /// Signs with another secret from now on, and with those before it for `overlap` more.
    pub async fn rotate_signing(
        &self,
        name: &str,
        secret: Option<Vec<u8>>,
        overlap: Duration,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        let before = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        self.note(person, "rotated a subscription's secret", &before.about()).await?;
        let (now, secret) = (self.clock.now(), secret.unwrap_or_else(made_secret));
        let until = now.plus(overlap);
        let rotated = self.rewrite(name, |subscription| {
            subscription.signing.retain(|it| it.until.is_none_or(|until| until > now));
            for old in &mut subscription.signing {
                old.until = Some(old.until.map_or(until, |before| before.min(until)));
            }
            subscription.signing.insert(0, Signing { secret: secret.clone(), until: None });
            subscription.signing.truncate(SIGNING_MAX);
            subscription.changed_at = now;
        });
        Ok(self.as_it_does(rotated.await?.ok_or(Refusal::NotFound)?))
    }

    /// Ends a subscription: no event goes to it any more, and what waits for it is given up.
    pub async fn unsubscribe(
        self: &Arc<Self>,
        name: &str,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        let ended = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        self.note(person, "ended a subscription", &ended.about()).await?;
        let route = route_name(name);
        self.store.set(route.clone(), None).await?;
        self.subscriptions_changed().await?;
        self.forgive(name).await?;
        if self.paused().contains_key(&route) {
            self.resume(&route, person).await?;
        }
        // It goes on after a crash, and is told of as any bulk is.
        self.begin_bulk(BulkOrder {
            deed: BulkDeed::Cancel,
            filter: Query {
                tenant: Some(ended.tenant.clone()),
                route: Some(route),
                ..Query::default()
            },
            selected: Vec::new(),
            taken: Vec::new(),
            rate: CANCEL_RATE,
            person: person.clone(),
        })
        .await?;
        Ok(ended)
    }

    /// Whether a route was that of a subscription that ended, whichever node ended it.
    pub(crate) async fn has_ended(&self, route: &str) -> Result<bool, StoreError> {
        let is_one = name_of_route(route).is_some() && self.subscriptions.of_route(route).is_none();
        Ok(is_one && self.store.setting(route.to_owned()).await?.is_none())
    }

    /// Gives up what is due on the lane of a subscription that ended: it came to wait after all else was
    /// given up, or the process died before that.
    pub(crate) async fn give_up(self: &Arc<Self>, lane: &Lane) -> Result<(), StoreError> {
        let mut waiting = Query {
            standing: vec![Standing::Pending],
            tenant: Some(lane.tenant.clone()),
            route: Some(lane.route.clone()),
            limit: ENDED_PAGE,
            ..Query::default()
        };
        // They may stand far behind those of others.
        let found = loop {
            let page = self.store.list(waiting.clone()).await?;
            waiting.before = page.next;
            if !page.operations.is_empty() || page.next.is_none() {
                break page.operations;
            }
        };
        let person =
            Person { who: "onceward".to_owned(), reason: "its subscription has ended".to_owned() };
        for operation in found {
            let cancel = |found: &Operation, engine: &Self| cancellation(found, engine, &person);
            // Else it is given up, or was a moment ago.
            if let Err(Refusal::Ledger(error)) = self.act_noting(operation.id, false, cancel).await
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what `change` makes of a subscription, again where another node came between; nothing where
    /// it is not there.
    async fn rewrite(
        &self,
        name: &str,
        change: impl Fn(&mut Subscription),
    ) -> Result<Option<Subscription>, StoreError> {
        let setting = route_name(name);
        for _ in 0..RACES_MAX {
            let Some(kept) = self.store.setting(setting.clone()).await? else { return Ok(None) };
            let Some(mut subscription) = row::decode(&setting, &kept, &self.secrets)? else {
                return Err(StoreError::Away("a later release wrote this subscription".to_owned()));
            };
            change(&mut subscription);
            let row = row::encode(&setting, &subscription, &self.secrets)?;
            if self.store.swap(setting.clone(), Some(kept), Some(row)).await? {
                self.subscriptions_changed().await?;
                return Ok(Some(subscription));
            }
        }
        Err(StoreError::Away("others write to this subscription without an end".to_owned()))
    }

    /// A row has changed: the revision says so, here and to other nodes.
    pub(crate) async fn subscriptions_changed(&self) -> Result<(), StoreError> {
        // An id is never given twice.
        let mark = self.next_id(self.clock.now()).as_u128();
        let revision = Bytes::from(format!("{mark:032x}"));
        self.store.set(REVISION.to_owned(), Some(revision.clone())).await?;
        self.read_subscriptions(Some(revision)).await
    }
}

/// Every node holds every wish in memory.
fn check_size(wish: &Wish) -> Result<(), Refusal> {
    let filter = wish.selection.filter.as_ref();
    let filter = filter.map_or(0, |filter| filter.source().to_string().len());
    let header = |(name, value): &(String, Bytes)| name.len() + value.len();
    let headers: usize = wish.headers.0.iter().map(header).sum();
    if filter + headers > WISH_BYTES_MAX {
        return Err(Refusal::BodyTooLarge { bytes_max: WISH_BYTES_MAX });
    }
    Ok(())
}

/// As long as the digest that it keys (RFC 2104, section 3).
fn made_secret() -> Vec<u8> {
    random::<32>().to_vec()
}

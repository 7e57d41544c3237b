//! Making, changing and ending subscriptions: each is noted, and a row is changed by comparing and swapping.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::time::Timestamp;

use super::book::REVISION;
use super::{
    SIGNING_MAX, SUBSCRIPTIONS_MAX, Signing, Subscription, Wish, name_of, route_name, row,
};
use crate::bulk::{BulkDeed, BulkOrder};
use crate::engine::{Engine, RACES_MAX};
use crate::people::Person;
use crate::refusal::Refusal;
use crate::secret::random;
use crate::store::{Query, StoreError};

/// Deliveries of a subscription that ended are given up at this rate, a second.
const CANCEL_RATE: u32 = 1000;

impl Engine {
    /// Makes a subscription; without a secret of its own it has one made here.
    pub async fn subscribe(
        &self,
        tenant: &str,
        wish: Wish,
        secret: Option<Vec<u8>>,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        if self.subscriptions().await?.len() >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::Limit {
                what: format!("there are {SUBSCRIPTIONS_MAX} subscriptions"),
                retry_after: Duration::from_mins(1),
            });
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
        self.note(person, "subscribed", &about(&subscription)).await?;
        let setting = subscription.route_name();
        let row = row::encode(&setting, &subscription, &self.secrets)?;
        self.store.set(setting, Some(row)).await?;
        self.subscriptions_changed().await?;
        Ok(subscription)
    }

    /// Changes what is wanted: events that are fanned out from now on go by it. What was born before goes
    /// where it was to go.
    pub async fn change_subscription(
        &self,
        name: &str,
        change: impl Fn(&mut Wish) + Send + Sync,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        let before = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        self.note(person, "changed a subscription", &about(&before)).await?;
        let now = self.clock.now();
        let changed = self.rewrite(name, |subscription| {
            change(&mut subscription.wish);
            subscription.version += 1;
            subscription.changed_at = now;
            true
        });
        changed.await?.ok_or(Refusal::NotFound)
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
        self.note(person, "rotated a subscription's secret", &about(&before)).await?;
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
            true
        });
        rotated.await?.ok_or(Refusal::NotFound)
    }

    /// Ends a subscription: no event goes to it any more, and what waits for it is given up.
    pub async fn unsubscribe(
        self: &Arc<Self>,
        name: &str,
        person: &Person,
    ) -> Result<Subscription, Refusal> {
        let ended = self.subscription(name).await?.ok_or(Refusal::NotFound)?;
        self.note(person, "ended a subscription", &about(&ended)).await?;
        let route = route_name(name);
        self.store.set(route.clone(), None).await?;
        self.subscriptions_changed().await?;
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
            taken: Vec::new(),
            rate: CANCEL_RATE,
            person: person.clone(),
        })
        .await?;
        Ok(ended)
    }

    /// Since when its receiver fails is written anew, unless that was known.
    pub(super) async fn set_failing(
        &self,
        name: &str,
        since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let write = self.rewrite(name, |subscription| {
            let is_new = subscription.failing_since.is_some() != since.is_some();
            subscription.failing_since = since;
            is_new
        });
        write.await.map(drop)
    }

    /// Writes what `change` makes of a subscription, again where another node came between; nothing where
    /// it is not there. What `change` says is nothing new is not written.
    async fn rewrite(
        &self,
        name: &str,
        change: impl Fn(&mut Subscription) -> bool,
    ) -> Result<Option<Subscription>, StoreError> {
        let setting = route_name(name);
        for _ in 0..RACES_MAX {
            let Some(kept) = self.store.setting(setting.clone()).await? else { return Ok(None) };
            let Some(mut subscription) = row::decode(&setting, &kept, &self.secrets)? else {
                return Err(StoreError::Away("a later release wrote this subscription".to_owned()));
            };
            if !change(&mut subscription) {
                return Ok(Some(subscription));
            }
            let row = row::encode(&setting, &subscription, &self.secrets)?;
            if self.store.swap(setting.clone(), Some(kept), Some(row)).await? {
                self.subscriptions_changed().await?;
                return Ok(Some(subscription));
            }
        }
        Err(StoreError::Away("others write to this subscription without an end".to_owned()))
    }

    /// A row has changed: the revision says so, here and to other nodes.
    async fn subscriptions_changed(&self) -> Result<(), StoreError> {
        // An id is never given twice.
        let mark = self.next_id(self.clock.now()).as_u128();
        let revision = Bytes::from(format!("{mark:032x}"));
        self.store.set(REVISION.to_owned(), Some(revision.clone())).await?;
        self.read_subscriptions(Some(revision)).await
    }
}

fn about(subscription: &Subscription) -> String {
    format!("{} of {}", subscription.name, subscription.tenant)
}

/// As long as the digest that it keys (RFC 2104, section 3).
fn made_secret() -> Vec<u8> {
    random::<32>().to_vec()
}

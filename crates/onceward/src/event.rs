//! Events: a published fact is an operation, whose key is its publisher's and whose delivery is its
//! fan-out. It is acknowledged once it is on disk; what it is delivered to is born of it then, each delivery
//! an operation of its own on the lane of its subscription (`event/fan_out.rs`).
//!
//! A delivery refers to its event and does not repeat it: one body is kept, however many it goes to. An
//! event is kept for as long as its deliveries may take, because none of them begins an attempt later.

mod fan_out;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::event::{Event, Form};
use onceward_core::exchange::{Headers, Request};
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::Operation;
use onceward_core::policy::Effects;
use onceward_core::trace::TraceContext;

use crate::call::{Arrival, Aside, CallOptions};
use crate::engine::{Answer, Engine};
use crate::receive::made_key;
use crate::refusal::Refusal;
use crate::store::{Lane, StoreError, Which};
use crate::subscription::route_name;
use crate::wire::{self, Credentials};

/// The route of events, which leads nowhere.
pub(crate) const EVENT_ROUTE: &str = "events/fan-out";

/// The name of the scope of publishers' keys.
pub const EVENT_SCOPE: &str = "events";

/// How long a receiver is taken to remember an id: its own code decides that.
pub(crate) const RECEIVER_WINDOW: Duration = Duration::from_hours(24 * 30);

/// An event, as an edge hands it in.
#[derive(Debug)]
pub struct Publication {
    /// Whose.
    pub tenant: String,
    /// Who publishes it: keys of two do not meet.
    pub principal: String,
    /// The event.
    pub event: Event,
    /// The publisher's key; without it a CloudEvent has its source and id, and any other one that is made.
    pub key: Option<Key>,
    /// The only subscription that it goes to, whatever that wants: a test.
    pub only: Option<String>,
    /// The span that it comes from.
    pub trace: Option<TraceContext>,
}

/// An event that is on disk.
#[derive(Debug)]
pub struct Published {
    /// It, as it stands.
    pub operation: Operation,
    /// Whether its key was known, so that nothing new came of it.
    pub is_duplicate: bool,
    /// Whether its key was made here.
    pub key_made: bool,
}

impl Engine {
    /// Publishes an event: once this answers it is on disk, and goes to all who want it. Its key is compared
    /// before all else: the same event again is the one that is there.
    pub async fn publish(self: &Arc<Self>, publication: Publication) -> Result<Published, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        let Publication { tenant, principal, event, key, only, trace } = publication;
        let route = self.find_route(EVENT_ROUTE)?;
        if event.body.len() > route.body_bytes_max {
            return Err(Refusal::BodyTooLarge { bytes_max: route.body_bytes_max });
        }
        let policy = Arc::clone(&route.policy);
        let given = match (key, &event.origin) {
            (Some(key), _) => Some(key),
            // A source has no spaces: no two of these run together.
            (None, Some((source, id))) => {
                Some(Key::new(&format!("{source} {id}")).map_err(Refusal::KeyInvalid)?)
            }
            (None, None) => None,
        };
        let key_made = given.is_none();
        let key = given.unwrap_or_else(made_key);
        let media_type = Bytes::from_static(event.form.media_type().as_bytes());
        let request = Arc::new(Request {
            method: "POST".to_owned(),
            target: "/v1/events".to_owned(),
            headers: Headers(vec![("content-type".to_owned(), media_type)]),
            body: event.body.clone(),
        });
        let kind = ScopeKind::Event;
        let scope = Scope { kind, tenant: tenant.clone(), name: EVENT_SCOPE.to_owned(), principal };
        let aside = Arc::new(Aside::default());
        let options = CallOptions {
            respond_async: true,
            deadline: Some(self.clock.now().plus(policy.window)),
            label: Some(event.kind.as_str().to_owned()),
            subject: event.subject.clone(),
            via: only.map(|name| route_name(&name)),
            aside: Arc::clone(&aside),
            ..CallOptions::default()
        };
        let lane = Lane { tenant, route: route.name.clone(), flow: String::new() };
        let effects = Effects::Idempotent;
        let arrival = Arrival {
            key_made,
            options,
            trace,
            ..Arrival::of_ours(scope, key, request, effects, policy, route, &self.secrets)
        };
        let operation = match self.remember(Box::new(arrival), Arc::new(lane)).await? {
            Answer::Accepted(operation) => *operation,
            Answer::Upstream(answered) => answered.operation,
            // It has a key: it never passes.
            Answer::Passed { .. } => return Err(Refusal::NotFound),
        };
        Ok(Published { operation, is_duplicate: aside.made.get().is_none(), key_made })
    }

    /// The request of an operation as it is kept, that of a delivery with its event's body; nothing where it
    /// was forgotten.
    pub async fn request_kept(
        &self,
        operation: &Operation,
        credentials: Credentials,
    ) -> Result<Option<Request>, StoreError> {
        let Some(place) = operation.request else { return Ok(None) };
        let kept = self.store.body_of(operation, place).await?;
        let mut request = wire::decode_request(&kept, operation.id, &self.secrets, credentials)?;
        if operation.scope.kind == ScopeKind::Delivery {
            let Some(body) = self.payload_of(operation).await? else { return Ok(None) };
            request.body = body;
        }
        Ok(Some(request))
    }

    /// What a delivery carries: its event's payload, while that is kept.
    async fn payload_of(&self, delivery: &Operation) -> Result<Option<Bytes>, StoreError> {
        let Some(id) = delivery.parent else { return Ok(None) };
        let Some(event) = self.store.find(Which::Id(id)).await? else { return Ok(None) };
        let Some(place) = event.request else { return Ok(None) };
        let kept = self.store.body_of(&event, place).await?;
        let request = wire::decode_request(&kept, event.id, &self.secrets, Credentials::Left)?;
        let read = Event::read(form_of(&request), request.body);
        let read = read.map_err(|error| StoreError::Damaged(format!("{id}: {error}")))?;
        Ok(Some(read.payload(event.created_at)))
    }
}

/// How the event in a request is written.
pub(crate) fn form_of(request: &Request) -> Form {
    Form::of(request.headers.text("content-type").unwrap_or_default())
}

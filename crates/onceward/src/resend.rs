//! Edit and resend: what was asked once is asked anew, changed or not, by an operation of its own
//! with a key of its own. It names the one that it is born of, and that one stays as it is.

use std::sync::Arc;

use bytes::Bytes;
use onceward_core::exchange::Request;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::{Deed, Operation};
use onceward_core::risk::{Risk, risk_anew};

use crate::call::{Arrival, Call, CallOptions, Received};
use crate::engine::Engine;
use crate::observe::Fact;
use crate::people::{Person, deed, take_risk};
use crate::receive::made_key;
use crate::refusal::Refusal;
use crate::remember::birth;
use crate::store::{Remembered, Which};

/// The letters that tell one request that is asked anew from another, of six bits each.
const WHAT_LETTERS: usize = 16;

/// What is asked otherwise than before; what it does not name stays as it was.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// The new operation's key; without it one is made.
    pub key: Option<String>,
    /// The path and query.
    pub target: Option<String>,
    /// Headers (lower case) with their values; without a value they are left out.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The body.
    pub body: Option<Bytes>,
}

impl Engine {
    /// Asks again what `id` asked, as a new operation, where nobody has to doubt whether the first was done. The
    /// caller's credentials go with it. The same edit with the same key finds what the first one made.
    pub async fn resend(
        self: &Arc<Self>,
        id: OperationId,
        edit: Edit,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        self.resend_at_risk(id, edit, person, &[]).await
    }

    /// The same, also where the first may have been done, if the person takes that risk by its name.
    pub async fn resend_at_risk(
        self: &Arc<Self>,
        id: OperationId,
        edit: Edit,
        person: &Person,
        taken: &[Risk],
    ) -> Result<Operation, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        let original = self.store.find(Which::Id(id)).await?.ok_or(Refusal::NotFound)?;
        let arrival = self.rearrival(&original, edit).await?;
        let is_it = |known: &Operation| {
            known.parent == Some(id) && known.fingerprint == arrival.fingerprint
        };
        let known = self.store.find(Which::Key(arrival.digest)).await?;
        if let Some(known) = known.filter(is_it) {
            return Ok(known);
        }
        let mut act = deed(Deed::Resent, person, self);
        let risk = risk_anew(&original);
        // That it was done is known, and then nobody asks for it anew by mistake.
        if risk.wants_a_word() && risk.can_be_taken() {
            if !taken.contains(&risk) {
                return Err(Refusal::RiskUnaccepted { operation: Box::new(original), risk });
            }
            take_risk(&mut act, risk);
        }
        // All of the request is read for it.
        let what =
            if self.wants_two(act.deed) { self.what_of(&arrival.request) } else { String::new() };
        let act = self.approve_noting(&original, &what, &act).await?;
        let now = self.clock.now();
        let born = self.next_id(now);
        let request = arrival.remembered(born, now);
        let mut newborn = birth(&arrival, &request, born, None, None, &self.secrets, now);
        newborn.operation.intent_mut().parent = Some(id);
        newborn.operation.acts.push(act);
        let note = self.note(person, Deed::Resent.name(), &id.to_string()).await?;
        let written = self.write_birth(Box::new(newborn)).await;
        match written.map_err(|error| self.heed(error))? {
            Remembered::Fresh(operation) => {
                self.settle_approval(id, Deed::Resent).await?;
                self.observer.observe(Fact::Acted(&operation));
                Ok(operation)
            }
            Remembered::Known(known) if is_it(&known) => Ok(known),
            Remembered::Known(known) => {
                self.note_refused(note).await?;
                Err(Refusal::conflict(&known, "its key belongs to another operation"))
            }
        }
    }

    /// What two persons have to ask for alike: all that would be sent, by a name that tells nothing of it.
    fn what_of(&self, request: &Request) -> String {
        let headers = request.headers.0.iter();
        let headers = headers.flat_map(|(name, value)| [name.as_bytes(), value.as_ref()]);
        let parts = [request.method.as_bytes(), request.target.as_bytes(), request.body.as_ref()];
        let mut said = Vec::new();
        for part in parts.into_iter().chain(headers) {
            said.extend((part.len() as u64).to_be_bytes());
            said.extend(part);
        }
        let name = self.secrets.name(&said);
        format!("{} {}", Deed::Resent.name(), name.get(..WHAT_LETTERS).unwrap_or(&name))
    }

    /// The remembered request with the changes, as if it had just been received.
    async fn rearrival(
        self: &Arc<Self>,
        original: &Operation,
        edit: Edit,
    ) -> Result<Arrival, Refusal> {
        let conflict = |why: &str| Refusal::conflict(original, why);
        if original.request.is_none() {
            return Err(conflict("its request was forgotten with its window"));
        }
        if original.scope.kind == ScopeKind::Claim {
            return Err(conflict("it is a claim: only its own handler begins it again"));
        }
        if matches!(original.scope.kind, ScopeKind::Saga | ScopeKind::Step) {
            return Err(conflict("a saga and its steps are asked anew by another saga"));
        }
        if original.scope.kind == ScopeKind::Callback {
            return Err(conflict("a callback is redelivered as it is, or not at all"));
        }
        if matches!(original.scope.kind, ScopeKind::Event | ScopeKind::Delivery) {
            return Err(conflict(
                "an event is published anew, and a delivery redelivered as it is",
            ));
        }
        let route = self.find_route_for(&original.scope.tenant, &original.route)?;
        let mut request = self.request_of(original).await?;
        request.target = edit.target.unwrap_or(request.target);
        request.body = edit.body.unwrap_or(request.body);
        for (name, value) in edit.headers {
            match value {
                Some(value) => request.headers.set(&name, value),
                None => request.headers.remove(&name),
            }
        }
        let options = CallOptions {
            respond_async: true,
            label: original.label.clone(),
            effects: Some(original.effects),
            key: Some(edit.key.unwrap_or_else(|| made_key().as_str().to_owned())),
            callback: original.callback.clone(),
            scope: (original.scope.name != original.route).then(|| original.scope.name.clone()),
            via: original.via.clone(),
            ..CallOptions::default()
        };
        let call = Call {
            tenant: original.scope.tenant.clone(),
            principal: original.scope.principal.clone(),
            route: original.route.clone(),
            request,
            options,
        };
        match self.receive(call, route).await? {
            Received::Keyed(arrival) => Ok(*arrival),
            Received::Pass(_) => Err(conflict("a request that only reads has no operation")),
        }
    }
}

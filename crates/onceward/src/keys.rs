//! What a person does about keys: make one last longer, give an operation another key, drop all
//! keys of a principal.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::operation::{Deed, Event, Forgotten, Operation};
use onceward_core::time::Timestamp;

use crate::alias::{self, Name};
use crate::engine::Engine;
use crate::people::{Decided, Person, deed, forgetting};
use crate::refusal::Refusal;
use crate::store::{Query, Remembered, Which};
use crate::wire::Sealing;

/// Keys of an operation beside its own, at most.
const ALIASES_MAX: usize = 16;

/// Operations that one step of a revocation looks at.
const STEP: usize = 500;

/// Open operations that a step names.
const OPEN_MAX: usize = 100;

/// How much longer a key is to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Longer {
    /// So long, from completion.
    Window(Duration),
    /// Until then.
    Until(Timestamp),
}

/// What a step of a revocation did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Revoked {
    /// Keys that are refused from now on.
    pub keys: u64,
    /// Operations that have not ended, whose keys are as they were: the first of them.
    pub open: Vec<OperationId>,
    /// Where to go on, where there may be more.
    pub next: Option<OperationId>,
}

impl Engine {
    /// Makes a key last longer: its outcome is replayed until then, under all of its names.
    pub async fn extend(
        self: &Arc<Self>,
        scope: &Scope,
        key: &Key,
        longer: Longer,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        let found = self.operation_of(scope, key).await?;
        let window = |operation: &Operation| match (longer, operation.ended_at) {
            (Longer::Window(window), _) => Ok(window),
            (Longer::Until(at), Some(ended_at)) => Ok(at.since(ended_at)),
            (Longer::Until(_), None) => Err("it has not ended: give a window".to_owned()),
        };
        let decide = |operation: &Operation, engine: &Self| -> Decided {
            Ok((Event::Extended(deed(Deed::Extended, person, engine), window(operation)?), None))
        };
        // Its other names first: whoever tries again after a crash goes on where this broke off.
        for alias in &found.aliases {
            match self.act(*alias, decide).await {
                // It is gone, or as far already.
                Ok(_) | Err(Refusal::NotFound | Refusal::Conflict { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.act(found.id, decide).await
    }

    /// Gives an operation another key beside its own: a call with either gets its answer.
    pub async fn rotate(
        self: &Arc<Self>,
        scope: &Scope,
        key: &Key,
        to: &Key,
        person: &Person,
    ) -> Result<Operation, Refusal> {
        let found = self.as_kept(self.operation_of(scope, key).await?);
        let conflict = |why: &str| Refusal::conflict(&found, why);
        if scope.kind == ScopeKind::Claim {
            return Err(conflict("it is a claim: it has one key"));
        }
        let now = self.clock.now();
        let (Some(ended_at), Some(expires_at)) = (found.ended_at, found.key_expires_at()) else {
            return Err(conflict("it has not ended: a key in use is not rotated"));
        };
        if found.forgotten.is_some() || now >= expires_at || found.request.is_none() {
            return Err(conflict("its key is over: there is nothing left that another could name"));
        }
        if found.aliases.len() >= ALIASES_MAX {
            return Err(conflict("it has as many keys as an operation may have"));
        }
        let act = deed(Deed::Rotated, person, self);
        let act = self.approve_noting(&found, &format!("rotated {to}"), &act).await?;
        let id = self.next_id(now);
        let request = self.request_of(&found).await?;
        let (_, policy) = self.route_of(&found);
        let name = Name {
            id,
            scope: found.scope.clone(),
            key: to.clone(),
            request: &request,
            fingerprint: found.fingerprint,
            ended_at,
            window: expires_at.since(ended_at),
            tombstone: found.tombstone,
        };
        let birth = alias::birth(name, found.id, None, &self.secrets, Sealing::of(&policy), now);
        let alias = match self.store.remember(birth).await.map_err(|error| self.heed(error))? {
            Remembered::Fresh(alias) => alias,
            // An earlier try broke off behind this.
            Remembered::Known(known) if known.alias_of == Some(found.id) => known,
            Remembered::Known(known) => {
                let why = format!("the key {to} belongs to {} already", known.id);
                return Err(Refusal::conflict(&found, why));
            }
        };
        self.act(found.id, |operation, _| {
            if operation.aliases.contains(&alias.id) {
                return Err(format!("{to} is its key already").into());
            }
            Ok((Event::Rotated(act.clone(), alias.id), None))
        })
        .await
    }

    /// Drops the keys of a principal whose operations have ended: from now on they are refused.
    /// One bounded step, from the newest on or from `before`.
    pub async fn revoke(
        self: &Arc<Self>,
        tenant: &str,
        principal: &str,
        before: Option<OperationId>,
        person: &Person,
    ) -> Result<Revoked, Refusal> {
        let query = Query {
            tenant: Some(tenant.to_owned()),
            principal: Some(principal.to_owned()),
            before,
            limit: STEP,
            ..Query::default()
        };
        let page = self.store.list(query).await?;
        let mut revoked = Revoked { next: page.next, ..Revoked::default() };
        for operation in page.operations {
            let is_over = operation.key_expires_at().is_some_and(|at| self.clock.now() >= at);
            if operation.forgotten.is_some() || (operation.state.is_ended() && is_over) {
                continue;
            }
            let dropped = self
                .act(operation.id, |_, engine| Ok(forgetting(engine, Forgotten::Refuse, person)));
            match dropped.await {
                Ok(_) => revoked.keys += 1,
                Err(Refusal::Conflict { operation, .. }) => {
                    if revoked.open.len() < OPEN_MAX {
                        revoked.open.push(operation.id);
                    }
                }
                Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(revoked)
    }

    /// The operation that `key` is a name of.
    pub async fn operation_of(
        self: &Arc<Self>,
        scope: &Scope,
        key: &Key,
    ) -> Result<Operation, Refusal> {
        let found = self.store.find(Which::Key(scope.digest(key))).await?;
        let owner = Box::new(found.ok_or(Refusal::NotFound)?);
        Ok(*self.follow(owner).await?.into_operation())
    }
}

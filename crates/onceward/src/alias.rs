//! Another name of an operation: a small operation of its own, which owns the other key, is done
//! from the first, and is nothing else. Whoever finds it goes on to the one that it names.

use std::time::Duration;

use onceward_core::exchange::Request;
use onceward_core::fingerprint::Fingerprint;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope};
use onceward_core::operation::{Intent, Operation, State};
use onceward_core::policy::Effects;
use onceward_core::time::Timestamp;

use crate::engine::Engine;
use crate::secret::Secrets;
use crate::store::{Birth, StoreError, Which};
use crate::wire::{self, Sealing};

/// What another name is made of.
pub(crate) struct Name<'a> {
    pub(crate) id: OperationId,
    pub(crate) scope: Scope,
    pub(crate) key: Key,
    /// What a call with this key is compared with.
    pub(crate) request: &'a Request,
    pub(crate) fingerprint: Fingerprint,
    /// Since when, and how long it lasts.
    pub(crate) ended_at: Timestamp,
    pub(crate) window: Duration,
    pub(crate) tombstone: Duration,
}

/// The birth of another name of the operation `of`.
pub(crate) fn birth(
    name: Name<'_>,
    of: OperationId,
    replaces: Option<&Operation>,
    secrets: &Secrets,
    sealing: Sealing<'_>,
    now: Timestamp,
) -> Birth {
    let intent = Intent {
        effects: Effects::Idempotent,
        method: name.request.method.clone(),
        target: name.request.target.clone(),
        tombstone: name.tombstone,
        alias_of: Some(of),
        ..Intent::new(name.id, name.scope, name.key, name.fingerprint, now)
    };
    let operation = Operation {
        state: State::Done,
        window: name.window,
        ended_at: Some(name.ended_at),
        told: true,
        ..Operation::new(intent)
    };
    Birth {
        request: wire::encode_request(name.request, name.id, secrets, sealing),
        operation,
        replaces: replaces.map(|old| (old.id, old.fence)),
    }
}

/// A key that is taken: the operation that owns it, and the one that it stands for. Boxed: calls carry it
/// along.
pub(crate) struct Holder {
    /// Whose request a call with this key is compared with, and who gives the key up.
    pub(crate) owner: Box<Operation>,
    /// What was done under it, where the owner is only another name of that.
    pub(crate) named: Option<Box<Operation>>,
}

impl Holder {
    /// What was done under the key.
    pub(crate) fn operation(&self) -> &Operation {
        self.named.as_ref().unwrap_or(&self.owner)
    }

    /// The same.
    pub(crate) fn into_operation(self) -> Box<Operation> {
        self.named.unwrap_or(self.owner)
    }

    /// The owner, as whoever takes its key has to see it.
    pub(crate) fn gives_way(self) -> Operation {
        let forgotten = self.operation().forgotten;
        Operation { forgotten, ..*self.owner }
    }
}

impl Engine {
    /// What `owner` is another name of; itself where it is none, or where that is gone.
    pub(crate) async fn follow(&self, owner: Box<Operation>) -> Result<Holder, StoreError> {
        let named = match owner.alias_of {
            Some(id) => self.store.find(Which::Id(id)).await?.map(Box::new),
            None => None,
        };
        Ok(Holder { owner, named })
    }
}

//! Sagas: several effects of one cause, one after the other, undone in reverse where one fails. A saga is an
//! operation whose request is its definition and how far it came; its steps and their compensations are
//! operations too, accepted and delivered as any other.
//!
//! There is no loop that drives sagas. Whoever lets a step come to rest moves its saga on, by `saga/advance`:
//! what is to be at hand is written under the saga's fence, then the step is remembered under a key that says
//! which it is. Where a process dies between the two, whoever looks through the sagas that are open finds what
//! is missing. What follows is decided in the core.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward_core::claim::{self, Begin};
use onceward_core::exchange::{Headers, Request};
use onceward_core::fingerprint::{Fingerprint, FingerprintRule, Part};
use onceward_core::id::OperationId;
use onceward_core::key::{Key, KeyDigest, Scope, ScopeKind};
use onceward_core::operation::{Event, Intent, Operation, Subject};
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::saga::{Definition, Place, Plan, SagaEvent, Standing};
use onceward_core::time::Timestamp;
use onceward_core::trace::TraceContext;

use crate::engine::{Engine, RACES_MAX};
use crate::observe::{Fact, Repeat};
use crate::receive::made_key;
use crate::refusal::Refusal;
use crate::store::{Birth, Query, Remembered, StoreError, Which};
use crate::tenants::Wanted;
use crate::wire::{self, Sealing};

mod advance;
mod birth;
mod census;
mod kept;
mod people;

pub(crate) use advance::{look_for_open, take_turns};
pub(crate) use census::Census;
pub use census::OpenSagas;
pub use kept::{Kept, SagaDeed};

/// The name of every saga's scope: they belong to no route.
const SCOPE: &str = "saga";

/// The method of a saga's request: it is none of HTTP's, because the saga itself is not sent.
const METHOD: &str = "SAGA";

/// The largest definition, in bytes as it is kept: each move of a saga writes it anew.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;

/// Sagas on one page: each may be as large as its definition and what it took.
const PAGE_MAX: usize = 100;

/// A saga that is wanted.
#[derive(Debug, Clone)]
pub struct NewSaga {
    /// Whose data this is.
    pub tenant: String,
    /// Who asks: a stable name, never a credential.
    pub principal: String,
    /// The caller's key; without it one is made.
    pub key: Option<Key>,
    /// What the caller calls it.
    pub label: Option<String>,
    /// What it is about: whose data is erased is found by that.
    pub subject: Option<String>,
    /// What it is to do.
    pub definition: Definition,
    /// Whom to tell when it ends.
    pub callback: Option<String>,
    /// The span that it comes from.
    pub trace: Option<TraceContext>,
}

/// A saga as it stands.
#[derive(Debug, Clone)]
pub struct Saga {
    /// The operation that it is.
    pub operation: Operation,
    /// What it is to do and how far it came; nothing once that is forgotten with its window.
    pub kept: Option<Kept>,
}

/// What a start got.
#[derive(Debug, Clone)]
pub struct Started {
    /// The saga.
    pub saga: Saga,
    /// Whether an earlier start with the same key began it.
    pub is_known: bool,
    /// Whether its key was made here.
    pub key_made: bool,
}

impl Saga {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        match (&self.kept, &self.operation.outcome) {
            (Some(kept), _) => kept.progress.standing,
            (None, Some(outcome)) if outcome.ok => Standing::Done,
            // What is kept of it cannot be read.
            (None, _) if !self.operation.state.is_ended() => Standing::Stuck,
            (None, _) => Standing::Unwound,
        }
    }

    /// What is at hand: a step's name, or `NAME/undo`.
    pub fn at_hand(&self) -> Option<String> {
        self.name_of(self.kept.as_ref()?.progress.at?)
    }

    /// What a person may be asked about: what is at hand or, where a person holds it, would be next.
    fn spoken_of(&self) -> Option<Place> {
        let progress = &self.kept.as_ref()?.progress;
        progress.at.or_else(|| self.plan().held_at(progress))
    }

    fn name_of(&self, at: Place) -> Option<String> {
        let kept = self.kept.as_ref()?;
        let undo = if at.undo { "/undo" } else { "" };
        Some(format!("{}{undo}", kept.definition.steps.get(at.step)?.name))
    }

    /// The order of its steps.
    pub(crate) fn plan(&self) -> Plan {
        self.kept.as_ref().map_or_else(Plan::default, |kept| kept.definition.plan())
    }
}

/// The key of a step of the saga `id`, or of its compensation: `{saga}/{step}`, `{saga}/{step}/undo`.
fn key_of(id: OperationId, name: &str, undo: bool) -> Option<Key> {
    let undo = if undo { "/undo" } else { "" };
    Key::new(&format!("{id}/{name}{undo}")).ok()
}

/// Within what the key of a step is unique. The saga's id is part of it, so that no step's route matters.
fn scope_of(saga: &Operation) -> Scope {
    Scope { kind: ScopeKind::Step, ..saga.scope.clone() }
}

/// What the operation of a step is found by.
fn digest_of(saga: &Operation, definition: &Definition, place: Place) -> Option<KeyDigest> {
    let step = definition.steps.get(place.step)?;
    Some(scope_of(saga).digest(&key_of(saga.id, &step.name, place.undo)?))
}

impl Engine {
    /// Starts a saga. A late or duplicate start with the same key and definition gets the same saga; with
    /// another definition it is refused. Nothing has been sent once this answers.
    pub async fn start_saga(self: &Arc<Self>, wanted: NewSaga) -> Result<Started, Refusal> {
        if self.is_halted() {
            return Err(Refusal::Draining);
        }
        for step in &wanted.definition.steps {
            for ask in [Some(&step.ask), step.undo.as_ref()].into_iter().flatten() {
                self.find_route_for(&wanted.tenant, &ask.route)?;
            }
        }
        let kept = Kept::new(wanted.definition.clone());
        let definition = kept.definition_bytes();
        if definition.len() > DEFINITION_BYTES_MAX {
            return Err(Refusal::BodyTooLarge { bytes_max: DEFINITION_BYTES_MAX });
        }
        let bytes = definition.len() as u64;
        let about = Request {
            method: METHOD.to_owned(),
            target: String::new(),
            headers: Headers::default(),
            body: definition,
        };
        let print =
            Fingerprint::of(&about, &FingerprintRule::default(), self.secrets.fingerprint());
        let key_made = wanted.key.is_none();
        let key = wanted.key.clone().unwrap_or_else(made_key);
        let scope = Scope {
            kind: ScopeKind::Saga,
            tenant: wanted.tenant.clone(),
            name: SCOPE.to_owned(),
            principal: wanted.principal.clone(),
        };
        let digest = scope.digest(&key);
        let limits = Wanted { bytes: Some(bytes), may_wait: true };
        let (mut share, full) = match self.admit_tenant(&wanted.tenant, limits).await? {
            Ok(admitted) => (admitted.map(|(share, _)| share), None),
            Err(full) => (None, Some(full)),
        };
        let mut replaces: Option<Operation> = None;
        for _ in 0..RACES_MAX {
            let now = self.clock.now();
            let known = if let Some(full) = &full {
                let found = self.store.find(Which::Key(digest)).await?;
                match found.filter(|_| replaces.is_none()) {
                    Some(known) => known,
                    None => return Err(full.refusal(&wanted.tenant)),
                }
            } else {
                let intent = Intent {
                    effects: Effects::Idempotent,
                    // It goes nowhere itself.
                    route: String::new(),
                    method: METHOD.to_owned(),
                    target: "/v1/sagas".to_owned(),
                    tombstone: Policy::default().tombstone,
                    callback: wanted.callback.clone(),
                    trace: wanted.trace,
                    ..Intent::new(self.next_id(now), scope.clone(), key.clone(), print, now)
                };
                match self.remember_saga(intent, &wanted, &kept, replaces.take(), now).await? {
                    Some(Remembered::Fresh(operation)) => {
                        if let Some(share) = &mut share {
                            share.spend();
                        }
                        let saga = Saga { operation, kept: Some(kept) };
                        return Ok(Started { saga, is_known: false, key_made });
                    }
                    Some(Remembered::Known(known)) => known,
                    None => continue,
                }
            };
            let boxed = || Box::new(known.clone());
            // A saga is begun as a claim is, but that nobody else can have it in hand.
            match claim::begin(&known, &print, now) {
                Begin::Fresh => replaces = Some(known),
                Begin::Mismatch => {
                    self.note_asked(&known, Repeat::Mismatch);
                    return Err(Refusal::KeyMismatch {
                        operation: boxed(),
                        parts: vec![Part::Body],
                        paths: Vec::new(),
                        status: 409,
                    });
                }
                Begin::Expired => {
                    self.note_asked(&known, Repeat::Late);
                    return Err(Refusal::KeyExpired(boxed()));
                }
                Begin::Invalidated => {
                    self.note_asked(&known, Repeat::Refused);
                    return Err(Refusal::KeyInvalidated(boxed()));
                }
                Begin::Acquire | Begin::Busy { .. } | Begin::Lapse | Begin::InDoubt => {
                    self.note_asked(&known, Repeat::Joined);
                    let saga = self.saga_of(known).await?;
                    return Ok(Started { saga, is_known: true, key_made });
                }
                Begin::Done => {
                    self.note_asked(&known, Repeat::Replayed);
                    let saga = self.saga_of(known).await?;
                    return Ok(Started { saga, is_known: true, key_made });
                }
            }
        }
        Err(Refusal::Limit {
            what: "too many starts race for this key".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// Writes a new saga and lets it go on; nothing where the key's last one has moved on.
    async fn remember_saga(
        self: &Arc<Self>,
        intent: Intent,
        wanted: &NewSaga,
        kept: &Kept,
        replaces: Option<Operation>,
        now: Timestamp,
    ) -> Result<Option<Remembered>, Refusal> {
        let policy = Policy::default();
        let mut operation = Operation {
            mode: Mode::Accepted,
            window: policy.window,
            label: wanted.label.clone(),
            subject: wanted.subject.clone().map(|name| {
                Box::new(Subject { name, sequence: None, is_first: true, superseded_by: None })
            }),
            ..Operation::new(intent)
        };
        // From pending it may begin.
        if let Ok(begun) = operation.after(Event::Saga(SagaEvent::Begun), now) {
            operation = begun;
        }
        let request = self.request_of_saga(&operation, kept);
        let replaces = replaces.map(|old| (old.id, old.fence));
        let birth = Box::new(Birth { operation, request, replaces });
        let engine = Arc::clone(self);
        self.see_through(async move {
            match engine.write_birth(birth).await {
                Err(StoreError::Stale) => Ok(None),
                Err(error) => Err(engine.heed(error)),
                Ok(remembered) => {
                    if let Remembered::Fresh(saga) = &remembered {
                        engine.observer.observe(Fact::Saga(saga, Some(Standing::Running)));
                        engine.spawn_saga(saga.id);
                    }
                    Ok(Some(remembered))
                }
            }
        })
        .await
    }

    /// A saga as it stands.
    pub async fn saga(&self, id: OperationId) -> Result<Saga, Refusal> {
        let found = self.store.find(Which::Id(id)).await?;
        let found = found.filter(|found| found.scope.kind == ScopeKind::Saga);
        Ok(self.saga_of(found.ok_or(Refusal::NotFound)?).await?)
    }

    /// The saga that `operation` is. One that cannot be read is told of, and stands without what is kept of it:
    /// it holds none of the others.
    pub async fn saga_of(&self, operation: Operation) -> Result<Saga, StoreError> {
        let mut operation = self.as_kept(operation);
        for _ in 0..RACES_MAX {
            let kept = self.kept_of(&operation).await;
            // Each move takes the place of what was kept before, which may be gone by now.
            if let Err(StoreError::Away(_)) = kept
                && let Some(now) = self.store.find(Which::Id(operation.id)).await?
                && now.fence != operation.fence
            {
                operation = self.as_kept(now);
                continue;
            }
            return Ok(Saga { kept: kept?, operation });
        }
        Err(StoreError::Away("a saga moves on as it is read".to_owned()))
    }

    async fn kept_of(&self, saga: &Operation) -> Result<Option<Kept>, StoreError> {
        if saga.request.is_none() {
            return Ok(None);
        }
        match self.request_of(saga).await.and_then(|asked| Kept::read(&asked.body)) {
            Err(StoreError::Damaged(why)) => {
                let told = format!("{}: what is kept of it cannot be read: {why}", saga.id);
                self.observer.observe(Fact::Trouble(&told));
                Ok(None)
            }
            kept => kept.map(Some),
        }
    }

    /// Sagas, newest first, a hundred at most at once: the query's other members as anywhere.
    pub async fn sagas(
        &self,
        query: Query,
    ) -> Result<(Vec<Saga>, Option<OperationId>), StoreError> {
        let limit = query.limit.min(PAGE_MAX);
        let query = Query { kind: Some(ScopeKind::Saga), limit, ..query };
        let page = self.store.list(query).await?;
        let mut sagas = Vec::with_capacity(page.operations.len());
        for operation in page.operations {
            sagas.push(self.saga_of(operation).await?);
        }
        Ok((sagas, page.next))
    }

    /// The operations of a saga's steps, each with its compensation, as far as they are in the ledger.
    pub async fn steps_of(
        &self,
        saga: &Saga,
    ) -> Result<Vec<(Option<Operation>, Option<Operation>)>, StoreError> {
        let Some(kept) = &saga.kept else { return Ok(Vec::new()) };
        let mut steps = Vec::with_capacity(kept.definition.steps.len());
        for step in 0..kept.definition.steps.len() {
            let mut found = [None, None];
            for (undo, found) in [false, true].into_iter().zip(&mut found) {
                let place = Place { step, undo };
                if let Some(digest) = digest_of(&saga.operation, &kept.definition, place) {
                    *found = self.store.find(Which::Key(digest)).await?;
                }
            }
            let [ask, undo] = found;
            steps.push((ask, undo));
        }
        Ok(steps)
    }

    /// A saga as it is kept.
    fn request_of_saga(&self, saga: &Operation, kept: &Kept) -> Bytes {
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        let request = Request {
            method: saga.method.clone(),
            target: saga.target.clone(),
            headers,
            body: kept.bytes(),
        };
        let sealing = Sealing::plain(self.seals_bodies());
        wire::encode_request(&request, saga.id, &self.secrets, sealing)
    }
}

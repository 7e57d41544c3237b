//! Operations as rows: the store's own shape of them, small and versioned. The first byte says
//! which shape follows; a row of a later version is refused, never guessed at. A checksum comes
//! next: SQLite has none, and a row that was changed on disk must not be replayed.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::attempt::{Attempt, BodyRef, Ended, Ending, Reached, Timings};
use onceward_core::fingerprint::Fingerprint;
use onceward_core::id::OperationId;
use onceward_core::key::{Key, Scope, ScopeKind};
use onceward_core::lease::Session;
use onceward_core::operation::{
    Act, Death, Deed, Fence, Forgotten, Intent, Looks, Operation, Outcome, Run, Source, State,
    Subject, UpstreamKey,
};
use onceward_core::policy::{Effects, Mode};
use onceward_core::time::Timestamp;
use onceward_core::trace::TraceContext;
use onceward_core::upstream_key::KeyPlace;
use serde::{Deserialize, Serialize};

pub(crate) use self::signs::Signs;
use super::{Standing, StoreError};

mod signs;
mod timings;

/// The latest shape that is read; the database compares it with a row's first byte.
pub(crate) const VERSION: i32 = 2;

/// The shape that is written: what knows nothing of events, sagas and mails reads the first, and passes over what it
/// could not read.
fn version_of(operation: &Operation) -> u8 {
    // Who has a mail already would be forgotten, and served again.
    if operation.served.is_empty() { version_of_kind(operation.scope.kind) } else { 2 }
}

/// The first shape in which there is an operation of this kind.
fn version_of_kind(kind: ScopeKind) -> u8 {
    match kind {
        ScopeKind::Call | ScopeKind::Unique | ScopeKind::Callback | ScopeKind::Claim => 1,
        ScopeKind::Event | ScopeKind::Delivery | ScopeKind::Saga | ScopeKind::Step => 2,
    }
}

/// The kinds by their numbers in a row: each keeps its own for good.
const KINDS: [ScopeKind; 8] = [
    ScopeKind::Call,
    ScopeKind::Unique,
    ScopeKind::Callback,
    ScopeKind::Claim,
    ScopeKind::Event,
    ScopeKind::Delivery,
    ScopeKind::Saga,
    ScopeKind::Step,
];

/// A CRC-32 of what follows it.
const CHECKSUM_BYTES: usize = 4;

/// The number of a standing in the column `kind` of every store.
pub(crate) fn kind(standing: Standing) -> u8 {
    match standing {
        Standing::Pending => 0,
        Standing::Delivering => 1,
        Standing::InDoubt => 2,
        Standing::Done => 3,
        Standing::DeadLetter => 4,
        Standing::Told => 5,
        Standing::Held => 6,
        Standing::Tombstone => 7,
    }
}

/// Times are signed microseconds, durations whole milliseconds; an absent time is `None`.
#[derive(Serialize, Deserialize)]
struct Row<'a> {
    id: u128,
    fence: u64,
    tenant: &'a str,
    name: &'a str,
    principal: &'a str,
    key: &'a str,
    print_version: u8,
    print: [[u8; 16]; 4],
    accepted: bool,
    effects: u8,
    upstream_key: Option<(&'a str, &'a str)>,
    method: &'a str,
    target: &'a str,
    label: Option<&'a str>,
    created_at: i64,
    /// 0 pending, 1 delivering, 2 in doubt, 3 done, 4 and on: dead, by cause.
    state: u8,
    due: i64,
    attempts: Vec<AttemptRow>,
    run_since: i64,
    run_before: u32,
    deadline: Option<i64>,
    attempts_max: Option<u32>,
    send_by: Option<i64>,
    upstream_window: u64,
    window: u64,
    tombstone: u64,
    ended_at: Option<i64>,
    told: bool,
    outcome: Option<OutcomeRow>,
    acts: Vec<ActRow>,
    request: Option<Body>,
    forgotten: Option<bool>,
    flow: Option<&'a str>,
    /// Name, sequence, whether it is first, and which one superseded it.
    subject: Option<(&'a str, Option<u64>, bool, Option<u128>)>,
    parent: Option<u128>,
    alias_of: Option<u128>,
    callback: Option<&'a str>,
    ids: Vec<(&'a str, &'a str)>,
    /// Made, absent, next.
    looks: (u32, u32, Option<i64>),
    kind: u8,
    aliases: Vec<u128>,
    retain: Option<u64>,
    /// Where its scope has another name.
    route: Option<&'a str>,
    via: Option<&'a str>,
    lease_until: Option<i64>,
}

/// What follows a row, where there is anything to say: rows of releases that knew nothing of it end before
/// it, and those releases read past it.
#[derive(Serialize, Deserialize)]
struct Tail {
    /// Trace, span, flags.
    trace: Option<(u128, u64, u8)>,
}

/// What follows that, where there is anything to say, for the same reason.
#[derive(Serialize, Deserialize, Default)]
struct MailTail {
    /// The recipients that have it.
    served: Vec<u16>,
}

type Body = (u32, u32, u32, u32);

#[derive(Serialize, Deserialize)]
struct AttemptRow {
    n: u32,
    by: u64,
    started_at: i64,
    ended: Option<EndedRow>,
}

#[derive(Serialize, Deserialize)]
struct EndedRow {
    at: i64,
    ending: u8,
    reached: u8,
    status: Option<u16>,
    error: Option<String>,
    may_have_executed: bool,
    answer: Option<Body>,
}

#[derive(Serialize, Deserialize)]
struct OutcomeRow {
    status: Option<u16>,
    ok: bool,
    source: u8,
    answer: Option<Body>,
}

#[derive(Serialize, Deserialize)]
struct ActRow {
    deed: u8,
    at: i64,
    who: String,
    reason: String,
}

const ENDINGS: [Ending; 4] =
    [Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered];
const EFFECTS: [Effects; 3] = [Effects::Idempotent, Effects::Keyed, Effects::NonIdempotent];

fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).unwrap_or_default() as u8
}

fn at<T: Copy>(all: &[T], place: u8) -> Result<T, StoreError> {
    all.get(usize::from(place)).copied().ok_or_else(|| damaged("a word of a later version"))
}

fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a row of the index cannot be read: {what}"))
}

fn body(body: BodyRef) -> Body {
    (body.segment, body.offset, body.length, body.crc)
}

fn body_ref((segment, offset, length, crc): Body) -> BodyRef {
    BodyRef { segment, offset, length, crc }
}

/// Appends the row of `operation` to `to`.
pub(crate) fn encode(operation: &Operation, to: &mut Vec<u8>) {
    let (state, due) = match operation.state {
        State::Pending { due } => (0, due.as_micros()),
        State::Delivering => (1, 0),
        State::InDoubt => (2, 0),
        State::Done => (3, 0),
        State::Dead(death) => (4 + place(&Death::ALL, &death), 0),
    };
    let upstream_key =
        operation.upstream_key.as_ref().map(|key| (key.place.to_string(), key.value.as_str()));
    let row = Row {
        id: operation.id.as_u128(),
        fence: operation.fence.0,
        tenant: &operation.scope.tenant,
        name: &operation.scope.name,
        principal: &operation.scope.principal,
        key: operation.key.as_str(),
        print_version: operation.fingerprint.version,
        print: operation.fingerprint.parts,
        accepted: operation.mode == Mode::Accepted,
        effects: place(&EFFECTS, &operation.effects),
        upstream_key: upstream_key.as_ref().map(|(place, value)| (place.as_str(), *value)),
        method: &operation.method,
        target: &operation.target,
        label: operation.label.as_deref(),
        created_at: operation.created_at.as_micros(),
        state,
        due,
        attempts: operation.attempts.iter().map(attempt_row).collect(),
        run_since: operation.run.since.as_micros(),
        run_before: operation.run.before,
        deadline: operation.deadline.map(Timestamp::as_micros),
        attempts_max: operation.attempts_max,
        send_by: operation.send_by.map(Timestamp::as_micros),
        upstream_window: operation.upstream_window.as_millis() as u64,
        window: operation.window.as_millis() as u64,
        tombstone: operation.tombstone.as_millis() as u64,
        ended_at: operation.ended_at.map(Timestamp::as_micros),
        told: operation.told,
        outcome: operation.outcome.as_ref().map(|outcome| OutcomeRow {
            status: outcome.status,
            ok: outcome.ok,
            source: place(&Source::ALL, &outcome.source),
            answer: outcome.answer.map(body),
        }),
        acts: operation.acts.iter().map(act_row).collect(),
        request: operation.request.map(body),
        forgotten: operation.forgotten.map(|forgotten| forgotten == Forgotten::New),
        flow: operation.flow.as_deref(),
        subject: operation.subject.as_ref().map(|subject| {
            let superseded_by = subject.superseded_by.map(OperationId::as_u128);
            (subject.name.as_str(), subject.sequence, subject.is_first, superseded_by)
        }),
        parent: operation.parent.map(OperationId::as_u128),
        alias_of: operation.alias_of.map(OperationId::as_u128),
        callback: operation.callback.as_deref(),
        ids: operation.ids.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect(),
        looks: (
            operation.looks.made,
            operation.looks.absent,
            operation.looks.next.map(Timestamp::as_micros),
        ),
        kind: place(&KINDS, &operation.scope.kind),
        aliases: operation.aliases.iter().map(|alias| alias.as_u128()).collect(),
        retain: operation.retain.map(|span| span.as_millis() as u64),
        route: (operation.route != operation.scope.name).then_some(operation.route.as_str()),
        via: operation.via.as_deref(),
        lease_until: operation.lease_until.map(Timestamp::as_micros),
    };
    to.push(version_of(operation));
    let at = to.len();
    to.extend([0; CHECKSUM_BYTES]);
    put(to, &row);
    let is_measured = timings::are_there(&operation.attempts);
    let is_served = !operation.served.is_empty();
    if operation.trace.is_some() || is_served || is_measured {
        let trace = operation.trace.map(|TraceContext { trace, span, flags }| (trace, span, flags));
        put(to, &Tail { trace });
    }
    if is_served || is_measured {
        put(to, &MailTail { served: operation.served.clone() });
    }
    if is_measured {
        timings::encode(&operation.attempts, to);
    }
    let (head, row) = to.split_at_mut(at + CHECKSUM_BYTES);
    head[at..].copy_from_slice(&crc32fast::hash(row).to_le_bytes());
}

/// Appends a value to `to`.
fn put(to: &mut Vec<u8>, value: &impl Serialize) {
    // Writing into memory does not fail.
    if let Ok(written) = postcard::to_extend(value, mem::take(to)) {
        *to = written;
    }
}

fn attempt_row(attempt: &Attempt) -> AttemptRow {
    AttemptRow {
        n: attempt.n,
        by: attempt.by.0,
        started_at: attempt.started_at.as_micros(),
        ended: attempt.ended.as_ref().map(|ended| EndedRow {
            at: ended.at.as_micros(),
            ending: place(&ENDINGS, &ended.ending),
            reached: place(&Reached::ALL, &ended.reached),
            status: ended.status,
            error: ended.error.clone(),
            may_have_executed: ended.may_have_executed,
            answer: ended.answer.map(body),
        }),
    }
}

fn act_row(act: &Act) -> ActRow {
    ActRow {
        deed: place(&Deed::ALL, &act.deed),
        at: act.at.as_micros(),
        who: act.who.clone(),
        reason: act.reason.clone(),
    }
}

/// Whether a row has the shape of a later release.
pub(crate) fn is_later(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| i32::from(*version) > VERSION)
}

/// What a row says, where it is as it was written.
pub(crate) fn holds(bytes: &[u8]) -> Result<&[u8], StoreError> {
    let (_, bytes) = bytes
        .split_first()
        .filter(|(version, _)| (1..=VERSION).contains(&i32::from(**version)))
        .ok_or_else(|| damaged("a version of a later release"))?;
    let (checksum, bytes) = bytes.split_first_chunk().ok_or_else(|| damaged("too short"))?;
    if u32::from_le_bytes(*checksum) != crc32fast::hash(bytes) {
        return Err(damaged("it is not what was written"));
    }
    Ok(bytes)
}

/// Reads a row.
pub(crate) fn decode(bytes: &[u8]) -> Result<Operation, StoreError> {
    let bytes = holds(bytes)?;
    let (row, rest): (Row<'_>, _) = postcard::take_from_bytes(bytes).map_err(damaged)?;
    let (Tail { trace }, rest) = match rest {
        [] => (Tail { trace: None }, rest),
        rest => postcard::take_from_bytes(rest).map_err(damaged)?,
    };
    let (MailTail { served }, rest) = match rest {
        [] => (MailTail::default(), rest),
        rest => postcard::take_from_bytes(rest).map_err(damaged)?,
    };
    let mut attempts = row.attempts.into_iter().map(attempt).collect::<Result<Vec<_>, _>>()?;
    timings::decode(rest, &mut attempts)?;
    let state = match row.state {
        0 => State::Pending { due: Timestamp::from_micros(row.due) },
        1 => State::Delivering,
        2 => State::InDoubt,
        3 => State::Done,
        dead => State::Dead(at(&Death::ALL, dead - 4)?),
    };
    let time = Timestamp::from_micros;
    let intent = Intent {
        id: OperationId::from_u128(row.id),
        scope: Scope {
            kind: at(&KINDS, row.kind)?,
            tenant: row.tenant.to_owned(),
            name: row.name.to_owned(),
            principal: row.principal.to_owned(),
        },
        key: Key::new(row.key).map_err(damaged)?,
        fingerprint: Fingerprint { version: row.print_version, parts: row.print },
        effects: at(&EFFECTS, row.effects)?,
        upstream_key: row.upstream_key.map(|(place, value)| UpstreamKey {
            place: KeyPlace::from_text(place),
            value: value.to_owned(),
        }),
        upstream_window: Duration::from_millis(row.upstream_window),
        route: row.route.unwrap_or(row.name).to_owned(),
        via: row.via.map(str::to_owned),
        method: row.method.to_owned(),
        target: row.target.to_owned(),
        created_at: time(row.created_at),
        tombstone: Duration::from_millis(row.tombstone),
        retain: row.retain.map(Duration::from_millis),
        flow: row.flow.map(str::to_owned),
        parent: row.parent.map(OperationId::from_u128),
        alias_of: row.alias_of.map(OperationId::from_u128),
        callback: row.callback.map(str::to_owned),
        trace: trace.map(|(trace, span, flags)| TraceContext { trace, span, flags }),
    };
    Ok(Operation {
        intent: Arc::new(intent),
        fence: Fence(row.fence),
        mode: if row.accepted { Mode::Accepted } else { Mode::Held },
        state,
        attempts,
        run: Run { since: time(row.run_since), before: row.run_before },
        deadline: row.deadline.map(time),
        attempts_max: row.attempts_max,
        send_by: row.send_by.map(time),
        window: Duration::from_millis(row.window),
        ended_at: row.ended_at.map(time),
        told: row.told,
        outcome: row.outcome.as_ref().map(outcome).transpose()?,
        request: row.request.map(body_ref),
        label: row.label.map(str::to_owned),
        acts: row.acts.into_iter().map(act).collect::<Result<_, _>>()?,
        forgotten: row.forgotten.map(|new| if new { Forgotten::New } else { Forgotten::Refuse }),
        subject: row.subject.map(|(name, sequence, is_first, superseded_by)| {
            Box::new(Subject {
                name: name.to_owned(),
                sequence,
                is_first,
                superseded_by: superseded_by.map(OperationId::from_u128),
            })
        }),
        ids: row.ids.into_iter().map(|(name, id)| (name.to_owned(), id.to_owned())).collect(),
        served,
        looks: Looks { made: row.looks.0, absent: row.looks.1, next: row.looks.2.map(time) },
        aliases: row.aliases.into_iter().map(OperationId::from_u128).collect(),
        lease_until: row.lease_until.map(time),
    })
}

fn attempt(row: AttemptRow) -> Result<Attempt, StoreError> {
    let ended = match row.ended {
        None => None,
        Some(ended) => Some(Ended {
            at: Timestamp::from_micros(ended.at),
            ending: at(&ENDINGS, ended.ending)?,
            reached: at(&Reached::ALL, ended.reached)?,
            status: ended.status,
            error: ended.error,
            may_have_executed: ended.may_have_executed,
            answer: ended.answer.map(body_ref),
            timings: Timings::default(),
        }),
    };
    Ok(Attempt {
        n: row.n,
        by: Session(row.by),
        started_at: Timestamp::from_micros(row.started_at),
        ended,
    })
}

fn outcome(row: &OutcomeRow) -> Result<Outcome, StoreError> {
    Ok(Outcome {
        status: row.status,
        ok: row.ok,
        source: at(&Source::ALL, row.source)?,
        answer: row.answer.map(body_ref),
    })
}

fn act(row: ActRow) -> Result<Act, StoreError> {
    Ok(Act {
        deed: at(&Deed::ALL, row.deed)?,
        at: Timestamp::from_micros(row.at),
        who: row.who,
        reason: row.reason,
    })
}

#[cfg(test)]
mod fuzz;

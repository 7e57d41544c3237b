//! Bulks as settings of the ledger: what was ordered, and how far it is.

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::risk::Risk;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bulk, BulkDeed, BulkOrder, BulkStanding};
use crate::people::Person;
use crate::setting;
use crate::store::{Query, Standing, StoreError};

/// What the settings of bulks are called: the id follows, so that names are in the order of time.
pub(super) const PREFIX: &str = "bulk/";

pub(super) fn name_of(id: OperationId) -> String {
    setting::name_of(PREFIX, id)
}

/// The setting that stops a bulk.
pub(super) fn stop_of(id: OperationId) -> String {
    setting::name_of("bulk.stop/", id)
}

#[derive(Serialize, Deserialize)]
struct BulkRow {
    deed: u8,
    filter: FilterRow,
    taken: Vec<u8>,
    rate: u32,
    who: String,
    reason: String,
    standing: u8,
    began_at: i64,
    ended_at: Option<i64>,
    matched: u64,
    is_exact: bool,
    done: u64,
    failed: u64,
    left_out: u64,
    trouble: Option<String>,
    cursor: u128,
    at: Option<u128>,
    turn: u32,
    beats: u64,
}

#[derive(Serialize, Deserialize)]
struct FilterRow {
    standing: Vec<u8>,
    tenant: Option<String>,
    route: Option<String>,
    key: Option<String>,
    label: Option<String>,
    text: Option<String>,
    status: Option<u16>,
    parent: Option<u128>,
    made: Option<(Option<String>, String)>,
    since: Option<i64>,
    until: Option<i64>,
}

/// What a filter says beside, behind the row: an earlier release wrote none.
#[derive(Default, Serialize, Deserialize)]
struct FurtherRow {
    principal: Option<String>,
    subject: Option<String>,
    kind: Option<u8>,
    scope: Option<String>,
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).unwrap_or_default() as u8
}

pub(super) fn encode(bulk: &Bulk) -> Result<Bytes, StoreError> {
    let (order, filter) = (&bulk.order, &bulk.order.filter);
    let row = BulkRow {
        deed: place(&BulkDeed::ALL, &order.deed),
        filter: FilterRow {
            standing: filter.standing.iter().map(|it| place(&Standing::ALL, it)).collect(),
            tenant: filter.tenant.clone(),
            route: filter.route.clone(),
            key: filter.key.clone(),
            label: filter.label.clone(),
            text: filter.text.clone(),
            status: filter.status,
            parent: filter.parent.map(OperationId::as_u128),
            made: filter.made.clone(),
            since: filter.since.map(Timestamp::as_micros),
            until: filter.until.map(Timestamp::as_micros),
        },
        taken: order.taken.iter().map(|risk| place(&Risk::ALL, risk)).collect(),
        rate: order.rate,
        who: order.person.who.clone(),
        reason: order.person.reason.clone(),
        standing: place(&BulkStanding::ALL, &bulk.standing),
        began_at: bulk.began_at.as_micros(),
        ended_at: bulk.ended_at.map(Timestamp::as_micros),
        matched: bulk.matched,
        is_exact: bulk.is_exact,
        done: bulk.done,
        failed: bulk.failed,
        left_out: bulk.left_out,
        trouble: bulk.trouble.clone(),
        cursor: bulk.cursor.as_u128(),
        at: bulk.at.map(OperationId::as_u128),
        turn: bulk.turn,
        beats: bulk.beats,
    };
    let further = FurtherRow {
        principal: filter.principal.clone(),
        subject: filter.subject.clone(),
        kind: filter.kind.map(|kind| place(&ScopeKind::ALL, &kind)),
        scope: filter.scope.clone(),
    };
    setting::encode(&(row, further))
}

pub(super) fn decode(name: &str, value: &[u8]) -> Result<Bulk, StoreError> {
    let id = setting::id_of(PREFIX, name)?;
    let (row, behind) = postcard::take_from_bytes::<BulkRow>(value)
        .map_err(|error| setting::damaged(name, error))?;
    let further: FurtherRow =
        if behind.is_empty() { FurtherRow::default() } else { setting::decode(name, behind)? };
    let filter = row.filter;
    let unknown = || setting::damaged(name, "a word of a later release");
    let all_of = |places: &[u8]| -> Option<Vec<Standing>> {
        places.iter().map(|place| Standing::ALL.get(usize::from(*place)).copied()).collect()
    };
    let risks: Option<Vec<Risk>> =
        row.taken.iter().map(|place| Risk::ALL.get(usize::from(*place)).copied()).collect();
    let kind = match further.kind {
        None => None,
        Some(place) => Some(*ScopeKind::ALL.get(usize::from(place)).ok_or_else(unknown)?),
    };
    let time = Timestamp::from_micros;
    Ok(Bulk {
        id,
        order: BulkOrder {
            deed: *BulkDeed::ALL.get(usize::from(row.deed)).ok_or_else(unknown)?,
            filter: Query {
                standing: all_of(&filter.standing).ok_or_else(unknown)?,
                tenant: filter.tenant,
                route: filter.route,
                key: filter.key,
                label: filter.label,
                text: filter.text,
                status: filter.status,
                parent: filter.parent.map(OperationId::from_u128),
                made: filter.made,
                since: filter.since.map(time),
                until: filter.until.map(time),
                principal: further.principal,
                subject: further.subject,
                kind,
                scope: further.scope,
                // A bulk has its own place, and goes through all of them.
                before: None,
                limit: 0,
            },
            taken: risks.ok_or_else(unknown)?,
            rate: row.rate,
            person: Person { who: row.who, reason: row.reason },
        },
        standing: *BulkStanding::ALL.get(usize::from(row.standing)).ok_or_else(unknown)?,
        began_at: time(row.began_at),
        ended_at: row.ended_at.map(time),
        matched: row.matched,
        is_exact: row.is_exact,
        done: row.done,
        failed: row.failed,
        left_out: row.left_out,
        trouble: row.trouble,
        cursor: OperationId::from_u128(row.cursor),
        at: row.at.map(OperationId::from_u128),
        turn: row.turn,
        beats: row.beats,
        kept: Some(Bytes::copy_from_slice(value)),
    })
}

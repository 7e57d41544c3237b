//! Bulks as settings of the ledger: what was ordered, and how far it is.

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::key::ScopeKind;
use onceward_core::operation::Death;
use onceward_core::risk::Risk;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bulk, BulkDeed, BulkOrder, BulkStanding};
use crate::people::Person;
use crate::setting;
use crate::store::{Query, Standing, StoreError};

/// What the settings of bulks are called: the id follows, so that names are in the order of time. Those
/// whose filter says why an operation is dead stand apart, and so do those that are for what was selected, or for
/// a range: a release that does not know that would go through more than is meant, and does not look there.
pub(super) const PREFIXES: [&str; 3] = ["bulk/", "bulk.cause/", "bulk.selected/"];

/// What stands behind the row of a bulk whose name has the prefix in this place, and in those before it.
const CAUSE: usize = 1;
const SELECTED: usize = 2;

/// The names that a bulk with this id may have: it has one of them.
pub(super) fn names_of(id: OperationId) -> [String; 3] {
    PREFIXES.map(|prefix| setting::name_of(prefix, id))
}

/// The name of the setting of `bulk`.
pub(super) fn name_of(bulk: &Bulk) -> String {
    setting::name_of(PREFIXES[apart(&bulk.order)], bulk.id)
}

/// The place of the prefix of a bulk's name.
fn apart(order: &BulkOrder) -> usize {
    let filter = &order.filter;
    if !order.selected.is_empty() || filter.attempts_min.is_some() || range_of(filter).is_some() {
        SELECTED
    } else if has_cause(filter) {
        CAUSE
    } else {
        0
    }
}

/// The statuses of a filter that wants more than one.
fn range_of(filter: &Query) -> Option<(u16, u16)> {
    let range = filter.status.as_ref().filter(|_| filter.one_status().is_none())?;
    Some((*range.start(), *range.end()))
}

fn has_cause(filter: &Query) -> bool {
    filter.reason.is_some()
        || filter.error.is_some()
        || filter.error_is.is_some()
        || filter.no_status
        || filter.no_error
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

/// And behind that, of those that stand apart for it.
#[derive(Default, Serialize, Deserialize)]
struct CauseRow {
    reason: Option<u8>,
    error: Option<String>,
    error_is: Option<String>,
    no_status: bool,
    no_error: bool,
}

/// And behind that, of those that stand apart for this.
#[derive(Default, Serialize, Deserialize)]
struct SelectedRow {
    selected: Vec<u128>,
    statuses: Option<(u16, u16)>,
    attempts_min: Option<u32>,
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
            status: filter.one_status(),
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
    let apart = apart(order);
    if apart < CAUSE {
        return setting::encode(&(row, further));
    }
    let cause = CauseRow {
        reason: filter.reason.map(|reason| place(&Death::ALL, &reason)),
        error: filter.error.clone(),
        error_is: filter.error_is.clone(),
        no_status: filter.no_status,
        no_error: filter.no_error,
    };
    if apart < SELECTED {
        return setting::encode(&(row, further, cause));
    }
    let selected = SelectedRow {
        selected: order.selected.iter().map(|id| id.as_u128()).collect(),
        statuses: range_of(filter),
        attempts_min: filter.attempts_min,
    };
    setting::encode(&(row, further, cause, selected))
}

/// The bulk that is kept under `name`; none where it has a word of a later release, whose nodes see to it.
pub(super) fn decode(name: &str, value: &[u8]) -> Result<Option<Bulk>, StoreError> {
    let apart = PREFIXES.iter().position(|prefix| name.starts_with(prefix)).unwrap_or_default();
    let id = setting::id_of(PREFIXES[apart], name)?;
    let (row, behind) = part(name, value)?;
    let (further, behind) =
        if behind.is_empty() { (FurtherRow::default(), behind) } else { part(name, behind)? };
    let (cause, behind) =
        if apart < CAUSE { (CauseRow::default(), behind) } else { part(name, behind)? };
    let selected = if apart < SELECTED { SelectedRow::default() } else { part(name, behind)?.0 };
    let kept = Bytes::copy_from_slice(value);
    Ok(read(id, row, further, cause, selected).map(|bulk| Bulk { kept: Some(kept), ..bulk }))
}

/// A part of what is kept under `name`, and what stands behind it.
fn part<'a, T: Deserialize<'a>>(name: &str, value: &'a [u8]) -> Result<(T, &'a [u8]), StoreError> {
    postcard::take_from_bytes(value).map_err(|error| setting::damaged(name, error))
}

/// The one of `all` in this place; nothing where it is a word of a later release.
fn at<T: Copy>(all: &[T], place: u8) -> Option<T> {
    all.get(usize::from(place)).copied()
}

fn read(
    id: OperationId,
    row: BulkRow,
    further: FurtherRow,
    cause: CauseRow,
    selected: SelectedRow,
) -> Option<Bulk> {
    let filter = row.filter;
    let statuses = filter.status.map(|status| (status, status)).or(selected.statuses);
    let standings = filter.standing.iter().map(|place| at(&Standing::ALL, *place));
    let risks = row.taken.iter().map(|place| at(&Risk::ALL, *place));
    let kind = match further.kind {
        None => None,
        Some(place) => Some(at(&ScopeKind::ALL, place)?),
    };
    let reason = match cause.reason {
        None => None,
        Some(place) => Some(at(&Death::ALL, place)?),
    };
    let time = Timestamp::from_micros;
    Some(Bulk {
        id,
        order: BulkOrder {
            deed: at(&BulkDeed::ALL, row.deed)?,
            filter: Query {
                standing: standings.collect::<Option<_>>()?,
                tenant: filter.tenant,
                route: filter.route,
                key: filter.key,
                label: filter.label,
                text: filter.text,
                status: statuses.map(|(first, last)| first..=last),
                attempts_min: selected.attempts_min,
                reason,
                error: cause.error,
                error_is: cause.error_is,
                no_status: cause.no_status,
                no_error: cause.no_error,
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
            selected: selected.selected.into_iter().map(OperationId::from_u128).collect(),
            taken: risks.collect::<Option<_>>()?,
            rate: row.rate,
            person: Person { who: row.who, reason: row.reason },
        },
        standing: at(&BulkStanding::ALL, row.standing)?,
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
        kept: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(filter: Query) -> Bulk {
        let person = Person { who: "ada".to_owned(), reason: "why".to_owned() };
        let (deed, taken) = (BulkDeed::Redeliver, Vec::new());
        Bulk {
            id: OperationId::from_u128(7),
            order: BulkOrder { deed, filter, selected: Vec::new(), taken, rate: 10, person },
            standing: BulkStanding::Running,
            began_at: Timestamp::from_micros(1),
            ended_at: None,
            matched: 3,
            is_exact: true,
            done: 0,
            failed: 0,
            left_out: 0,
            trouble: None,
            cursor: OperationId::from_u128(9),
            at: None,
            turn: 0,
            beats: 0,
            kept: None,
        }
    }

    #[test]
    fn a_cause_comes_back_and_a_release_that_does_not_know_it_does_not_leave_it_out() {
        let standing = vec![Standing::DeadLetter];
        let plain = Query { standing: standing.clone(), ..Query::default() };
        let (reason, error) = (Some(Death::Refused), Some("no answer".to_owned()));
        let caused = bulk(Query { reason, error: error.clone(), ..plain.clone() });
        let name = name_of(&caused);
        assert!(!name.starts_with("bulk/"), "it reads all that stands there");
        let read = decode(&name, &encode(&caused).unwrap()).unwrap().unwrap().order.filter;
        assert_eq!((read.standing, read.reason, read.error), (standing, reason, error));
        let plain = bulk(plain);
        let (name, kept) = (name_of(&plain), encode(&plain).unwrap());
        assert!(name.starts_with("bulk/"));
        assert_eq!(decode(&name, &kept).unwrap().unwrap().order.filter.reason, None);
        for exact in [
            Query { error_is: Some("no answer".to_owned()), ..plain.order.filter.clone() },
            Query { no_status: true, ..plain.order.filter.clone() },
            Query { no_error: true, ..plain.order.filter.clone() },
        ] {
            let caused = bulk(exact.clone());
            let name = name_of(&caused);
            assert!(!name.starts_with("bulk/"), "{exact:?}");
            let read = decode(&name, &encode(&caused).unwrap()).unwrap().unwrap().order.filter;
            assert_eq!(format!("{read:?}"), format!("{exact:?}"));
        }
    }

    #[test]
    fn what_was_selected_and_a_range_come_back_and_a_release_that_does_not_know_them_reads_none() {
        let statuses = |range| Query { status: Some(range), ..Query::default() };
        let mut some = bulk(Query { no_error: true, ..statuses(404..=404) });
        some.order.selected = vec![OperationId::from_u128(5), OperationId::from_u128(3)];
        let attempts_min = Some(3);
        for wanted in
            [some, bulk(statuses(500..=599)), bulk(Query { attempts_min, ..Query::default() })]
        {
            let name = name_of(&wanted);
            assert!(!name.starts_with("bulk/") && !name.starts_with("bulk.cause/"), "{name}");
            let read = decode(&name, &encode(&wanted).unwrap()).unwrap().unwrap().order;
            assert_eq!(format!("{read:?}"), format!("{:?}", wanted.order));
        }
        assert!(name_of(&bulk(statuses(404..=404))).starts_with("bulk/"));
    }

    #[test]
    fn a_word_of_a_later_release_is_no_damage_and_what_cannot_be_read_is() {
        let plain = bulk(Query::default());
        let (name, mut kept) = (name_of(&plain), encode(&plain).unwrap().to_vec());
        kept[0] = BulkDeed::ALL.len() as u8;
        assert!(decode(&name, &kept).unwrap().is_none());
        let cut = decode(&name, &kept[..9]);
        assert!(matches!(cut, Err(StoreError::Damaged(_))), "{cut:?}");
    }
}

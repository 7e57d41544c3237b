//! A line as a cell of the ledger.

use bytes::Bytes;
use onceward_core::id::OperationId;
use onceward_core::line::{Block, Line, Place, Turn};
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The shape of a cell.
const VERSION: u8 = 1;

type PlaceRow = (Option<u64>, u128);

#[derive(Default, Serialize, Deserialize)]
struct Row {
    version: u8,
    /// Whose, and whether it is being taken back.
    turn: Option<(PlaceRow, bool)>,
    newest: Option<PlaceRow>,
    passed: Option<u64>,
    block: Option<(PlaceRow, i64)>,
    waiting: Vec<PlaceRow>,
    ends_at: i64,
}

fn row(place: Place) -> PlaceRow {
    (place.sequence, place.id.as_u128())
}

fn place((sequence, id): PlaceRow) -> Place {
    Place { sequence, id: OperationId::from_u128(id) }
}

pub(super) fn encode(line: &Line) -> Bytes {
    let row = Row {
        version: VERSION,
        turn: match line.turn {
            Turn::Free => None,
            Turn::Of(head) => Some((row(head), false)),
            Turn::BackFrom(head) => Some((row(head), true)),
        },
        newest: line.newest.map(row),
        passed: line.passed,
        block: line.block.map(|block| (row(block.place), block.until.as_micros())),
        waiting: line.waiting.iter().copied().map(row).collect(),
        ends_at: line.ends_at.as_micros(),
    };
    // Writing into memory does not fail.
    postcard::to_allocvec(&row).unwrap_or_default().into()
}

/// The line of a cell; an empty one where there is none.
pub(super) fn decode(cell: Option<&Bytes>) -> Result<Line, StoreError> {
    let Some(cell) = cell else { return Ok(Line::default()) };
    match cell.first() {
        Some(&VERSION) => {}
        Some(later) if *later > VERSION => {
            return Err(StoreError::Away("a later release wrote this line".to_owned()));
        }
        _ => return Err(StoreError::Damaged("a line cannot be read".to_owned())),
    }
    let row: Row = postcard::from_bytes(cell)
        .map_err(|error| StoreError::Damaged(format!("a line cannot be read: {error}")))?;
    Ok(Line {
        turn: match row.turn {
            None => Turn::Free,
            Some((head, false)) => Turn::Of(place(head)),
            Some((head, true)) => Turn::BackFrom(place(head)),
        },
        newest: row.newest.map(place),
        passed: row.passed,
        block: row.block.map(|(blocked, until)| Block {
            place: place(blocked),
            until: Timestamp::from_micros(until),
        }),
        waiting: row.waiting.into_iter().map(place).collect(),
        ends_at: Timestamp::from_micros(row.ends_at),
    })
}

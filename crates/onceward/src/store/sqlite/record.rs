//! What a frame of the journal carries: what becomes of rows, decided before it is written, so that
//! applying it again changes nothing.

use onceward_core::key::KeyDigest;

use crate::store::{Lane, StoreError};

/// A record of the journal.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// Bytes that something refers to.
    Body(&'a [u8]),
    /// An operation as it is from now on.
    Put(Put<'a>),
    /// An operation that is gone.
    Remove(u64),
    /// A lane that operations name by its number.
    Lane(i64, LaneRow<'a>),
    /// A named value, or its absence.
    Setting(&'a str, Option<&'a [u8]>),
    /// How often an operation was asked for again, in all.
    Asked(u64, u64, &'a [u8]),
    /// What an operation's answer said that it made: names and ids, one after the other.
    Made(u64, &'a [u8]),
}

/// The columns of a lane's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneRow<'a> {
    pub(super) tenant: &'a str,
    pub(super) route: &'a str,
    pub(super) flow: &'a str,
}

impl<'a> From<&'a Lane> for LaneRow<'a> {
    fn from(Lane { tenant, route, flow }: &'a Lane) -> Self {
        Self { tenant, route, flow }
    }
}

/// The columns of an operation's row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Put<'a> {
    pub(super) seq: u64,
    pub(super) key: Option<KeyDigest>,
    pub(super) lane: i64,
    pub(super) kind: u8,
    pub(super) due: Option<i64>,
    pub(super) fence: u64,
    pub(super) row: &'a [u8],
}

/// The tags of records in a frame.
mod tag {
    pub(super) const BODY: u8 = 1;
    pub(super) const PUT: u8 = 2;
    pub(super) const REMOVE: u8 = 3;
    pub(super) const LANE: u8 = 4;
    pub(super) const SETTING: u8 = 5;
    pub(super) const ASKED: u8 = 6;
    pub(super) const MADE: u8 = 7;
}

/// Bytes that a record takes in a frame beside its contents, at most.
pub(super) const RECORD_OVERHEAD: usize = 64;

impl Record<'_> {
    /// Appends the record to a frame; returns where in the frame its last member begins.
    pub(super) fn write(&self, frame: &mut Vec<u8>) -> usize {
        let last: &[u8] = match self {
            Self::Body(bytes) => {
                frame.push(tag::BODY);
                bytes
            }
            Self::Put(put) => {
                frame.push(tag::PUT);
                frame.extend(put.seq.to_le_bytes());
                frame.extend(put.lane.to_le_bytes());
                frame.extend(put.due.unwrap_or(i64::MIN).to_le_bytes());
                frame.extend(put.fence.to_le_bytes());
                frame.push(put.kind);
                frame.push(u8::from(put.key.is_some()));
                frame.extend(put.key.map_or([0; 16], |key| key.0));
                put.row
            }
            Self::Remove(seq) => {
                frame.push(tag::REMOVE);
                frame.extend(seq.to_le_bytes());
                &[]
            }
            Self::Lane(id, LaneRow { tenant, route, flow }) => {
                frame.push(tag::LANE);
                frame.extend(id.to_le_bytes());
                piece(frame, tenant.as_bytes());
                piece(frame, route.as_bytes());
                flow.as_bytes()
            }
            Self::Setting(name, value) => {
                frame.push(tag::SETTING);
                frame.push(u8::from(value.is_some()));
                piece(frame, name.as_bytes());
                value.unwrap_or_default()
            }
            Self::Asked(seq, count, times) => {
                frame.push(tag::ASKED);
                frame.extend(seq.to_le_bytes());
                frame.extend(count.to_le_bytes());
                times
            }
            Self::Made(seq, pieces) => {
                frame.push(tag::MADE);
                frame.extend(seq.to_le_bytes());
                pieces
            }
        };
        piece(frame, last)
    }
}

/// What an answer made, as a record has it.
pub(super) fn pieces(ids: &[(String, String)]) -> Vec<u8> {
    let mut pieces = Vec::new();
    for (name, id) in ids {
        piece(&mut pieces, name.as_bytes());
        piece(&mut pieces, id.as_bytes());
    }
    pieces
}

fn piece(frame: &mut Vec<u8>, bytes: &[u8]) -> usize {
    frame.extend((bytes.len() as u32).to_le_bytes());
    let at = frame.len();
    frame.extend_from_slice(bytes);
    at
}

/// Reads the records of a frame's payload.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Records<'a> {
    /// The next record; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'a>>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| damaged());
        let record = match self.take(1)?[0] {
            tag::BODY => Record::Body(self.piece()?),
            tag::PUT => {
                let (seq, lane, due, fence) =
                    (self.number()?, self.number()? as i64, self.number()? as i64, self.number()?);
                let (kind, has_key) = (self.take(1)?[0], self.take(1)?[0] == 1);
                let key = KeyDigest(self.take(16)?.try_into().map_err(|_| damaged())?);
                let due = (due != i64::MIN).then_some(due);
                Record::Put(Put {
                    seq,
                    key: has_key.then_some(key),
                    lane,
                    kind,
                    due,
                    fence,
                    row: self.piece()?,
                })
            }
            tag::REMOVE => {
                let seq = self.number()?;
                self.piece()?;
                Record::Remove(seq)
            }
            tag::LANE => {
                let id = self.number()? as i64;
                let (tenant, route) = (text(self.piece()?)?, text(self.piece()?)?);
                Record::Lane(id, LaneRow { tenant, route, flow: text(self.piece()?)? })
            }
            tag::SETTING => {
                let is_set = self.take(1)?[0] == 1;
                let (name, value) = (text(self.piece()?)?, self.piece()?);
                Record::Setting(name, is_set.then_some(value))
            }
            tag::ASKED => Record::Asked(self.number()?, self.number()?, self.piece()?),
            tag::MADE => Record::Made(self.number()?, self.piece()?),
            _ => {
                return Err(StoreError::Unavailable(
                    "the journal was written by a later release".to_owned(),
                ));
            }
        };
        Ok(Some(record))
    }

    /// The next piece as text; nothing at the end.
    pub(super) fn text(&mut self) -> Result<Option<&'a str>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        std::str::from_utf8(self.piece()?).map(Some).map_err(|_| damaged())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| damaged())?))
    }

    fn piece(&mut self) -> Result<&'a [u8], StoreError> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| damaged())?);
        self.take(length as usize)
    }
}

fn damaged() -> StoreError {
    StoreError::Damaged("a frame of the journal holds and cannot be read".to_owned())
}

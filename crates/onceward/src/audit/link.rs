//! One note of the chain as it is kept: its line, which is what the chain is about, and the line's digest.
//!
//! A line is one JSON object in the form of RFC 8785: its members by name, no space between. The digest of
//! a note is the SHA-256 of its line, and the line has the digest of the note before it as `previous`. So
//! whoever has the lines can recompute all of it, and needs nothing but SHA-256.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut as _, Bytes, BytesMut};
use onceward_core::hex;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Note, Place};
use crate::secret::sha256;
use crate::setting;
use crate::store::StoreError;

/// What the setting of a note is called: its number follows, so that names are in the order of numbers.
pub(super) const PLACES: &str = "chain/";

/// The setting that has the place and the digest of the last note that its retention took.
pub(super) const ANCHOR: &str = "chain-anchor";

/// A SHA-256.
pub type Digest = [u8; 32];

/// The end of a chain, as somebody may have noted it: a number and a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last note, from 1; 0 where there is none.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Head {
    /// What the first note follows.
    pub const NONE: Self = Self { number: 0, digest: [0; 32] };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(&self.digest))
    }
}

/// What was given is not `NUMBER:DIGEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not NUMBER:HASH, a number and 64 hexadecimal digits")]
pub struct NotAHead;

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (number, digest) = text.split_once(':').ok_or(NotAHead)?;
        let number = number.parse().map_err(|_| NotAHead)?;
        let digest = hex::decode(digest).and_then(|digest| digest.try_into().ok());
        Ok(Self { number, digest: digest.ok_or(NotAHead)? })
    }
}

/// A line: its members are in the order of their names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) about: String,
    pub(super) at: String,
    pub(super) deed: String,
    /// Which life of a process wrote it.
    pub(super) node: String,
    pub(super) number: u64,
    /// What was noted before there was a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) older: Option<Older>,
    pub(super) previous: String,
    pub(super) reason: String,
    /// The number of the note that came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refuses: Option<u64>,
    pub(super) who: String,
}

/// Notes from before there was a chain, as its first note answers for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Older {
    pub(super) count: u64,
    /// The name of the last of them.
    pub(super) last: String,
    pub(super) sha256: String,
}

/// The name of the note with this number.
pub(super) fn place_of(number: u64) -> String {
    format!("{PLACES}{number:016x}")
}

/// The note as it is kept: the digest of its line, then the line.
pub(super) fn encode(said: &Link) -> Result<Bytes, StoreError> {
    let line = serde_json::to_vec(said);
    let line = line.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let mut kept = BytesMut::with_capacity(32 + line.len());
    kept.put_slice(&sha256(&line));
    kept.put_slice(&line);
    Ok(kept.freeze())
}

/// The number by its name, the digest that was kept, and the line; nothing is judged.
pub(super) fn read<'a>(name: &str, kept: &'a [u8]) -> Result<(u64, Digest, &'a str), StoreError> {
    let number = name.strip_prefix(PLACES).unwrap_or_default();
    let number = u64::from_str_radix(number, 16);
    let number = number.map_err(|error| setting::damaged(name, error))?;
    let (digest, line) =
        kept.split_first_chunk().ok_or_else(|| setting::damaged(name, "it is cut short"))?;
    let line = std::str::from_utf8(line).map_err(|error| setting::damaged(name, error))?;
    Ok((number, *digest, line))
}

/// The note as people see it.
pub(super) fn note(name: &str, kept: &[u8]) -> Result<Note, StoreError> {
    let (number, digest, line) = read(name, kept)?;
    let said: Link = serde_json::from_str(line).map_err(|error| setting::damaged(name, error))?;
    let at = Timestamp::from_rfc3339(&said.at);
    Ok(Note {
        place: Place::Number(number),
        head: Some(Head { number, digest }),
        at: at.ok_or_else(|| setting::damaged(name, "its time"))?,
        who: said.who,
        deed: said.deed,
        about: said.about,
        reason: said.reason,
        refused: said.refuses.is_some(),
        refuses: said.refuses,
    })
}

pub(super) fn read_anchor(kept: &[u8]) -> Result<Head, StoreError> {
    let text = std::str::from_utf8(kept).unwrap_or_default();
    text.parse().map_err(|error| setting::damaged(ANCHOR, error))
}

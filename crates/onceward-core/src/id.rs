//! Operation ids: `op_` and a UUIDv7, in the base32 of the TypeID specification, so that they
//! sort by time and say what they are. Never derived from a key.

use std::fmt;
use std::str::FromStr;

use crate::time::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The identity of an operation. The high 63 usable bits (milliseconds, then a 15-bit counter)
/// are its place in time order, unique within a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(u128);

/// A string that is not an operation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an operation id: it looks like op_01kb2n9f5nep3b8m6wq6r9t2vx")]
pub struct NotAnId;

impl OperationId {
    /// The id at place `sequence` (see [`OperationId::sequence`]) with 59 bits of `chance`.
    /// RFC 9562, section 5.7, with the counter in `rand_a` and the head of `rand_b`.
    pub fn new(sequence: u64, chance: u64) -> Self {
        let millis = u128::from(sequence >> 15);
        let counter = u128::from(sequence & 0x7fff);
        let tail = u128::from(chance & ((1 << 59) - 1));
        Self(
            millis << 80
                | 0x7 << 76
                | (counter >> 3) << 64
                | 0b10 << 62
                | (counter & 7) << 59
                | tail,
        )
    }

    /// The place in time order: 48 bits of milliseconds, 15 bits of counter. Fits an `i64`.
    pub fn sequence(self) -> u64 {
        let millis = (self.0 >> 80) as u64;
        let counter = ((self.0 >> 64) as u64 & 0xfff) << 3 | (self.0 >> 59) as u64 & 7;
        millis << 15 | counter
    }

    /// The first of all ids that are made at or after the millisecond of `time`.
    pub fn first_at(time: Timestamp) -> Self {
        Self::new(place_at(time), 0)
    }

    /// When the id was made, to the millisecond.
    pub fn made_at(self) -> Timestamp {
        Timestamp::from_micros((self.0 >> 80) as i64 * 1000)
    }

    /// The id as it is written everywhere, in ASCII.
    pub fn text(self) -> [u8; 29] {
        let mut text = *b"op_00000000000000000000000000";
        let mut rest = self.0;
        for place in text[3..].iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }

    /// The UUID as a number.
    pub fn as_u128(self) -> u128 {
        self.0
    }

    /// The id with this UUID.
    pub const fn from_u128(uuid: u128) -> Self {
        Self(uuid)
    }
}

/// The first place of the millisecond of `time`.
pub fn place_at(time: Timestamp) -> u64 {
    // An id has 48 bits of milliseconds: to the year 10889.
    time.as_millis().min((1 << 48) - 1) << 15
}

/// The place after `last`, not before `now`: time order holds even where the clock goes back.
pub fn next_sequence(last: u64, now: Timestamp) -> u64 {
    (last + 1).max(place_at(now))
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OperationId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.strip_prefix("op_").ok_or(NotAnId)?.as_bytes();
        // 26 digits hold 130 bits: the first may not exceed 7.
        if digits.len() != 26 || !(b'0'..=b'7').contains(&digits[0]) {
            return Err(NotAnId);
        }
        let mut uuid = 0u128;
        for digit in digits {
            let value = ALPHABET.iter().position(|letter| letter == digit).ok_or(NotAnId)?;
            uuid = uuid << 5 | value as u128;
        }
        Ok(Self(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_keeps_its_place() {
        let id = OperationId::new(1_790_000_000_123 << 15 | 0x7abc, u64::MAX);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.sequence(), 1_790_000_000_123 << 15 | 0x7abc);
        assert_eq!(id.as_u128() >> 76 & 0xf, 7, "the version of a UUIDv7");
        assert_eq!(id.as_u128() >> 62 & 3, 2, "the variant of RFC 9562");
    }

    #[test]
    fn ids_sort_by_their_place() {
        let mut last = 0;
        let mut before = OperationId::new(0, 0);
        for chance in [u64::MAX, 0, 7, 1 << 58] {
            last = next_sequence(last, Timestamp::from_micros(5_000_000));
            let id = OperationId::new(last, chance);
            assert!(id > before && id.to_string() > before.to_string());
            before = id;
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in
            ["", "op_", "op_8zzzzzzzzzzzzzzzzzzzzzzzzz", "op_01", "ow_01kb2n9f5nep3b8m6wq6r9t2vx"]
        {
            assert_eq!(text.parse::<OperationId>(), Err(NotAnId), "{text}");
        }
    }
}

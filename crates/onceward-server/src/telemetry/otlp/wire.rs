//! Protocol buffers, as far as telemetry is written in them (the encoding of version 3): fields one after
//! another into one buffer, and nothing is built before.

/// How what follows a field's number is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Wire(Vec<u8>);

impl Wire {
    /// An empty one, with room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn field(&mut self, number: u32, kind: Kind) {
        self.varint(u64::from(number << 3 | kind as u32));
    }

    /// A number of any of the integer types, or an enumeration's.
    pub(super) fn number(&mut self, field: u32, number: u64) {
        self.field(field, Kind::Varint);
        self.varint(number);
    }

    /// A `fixed64`.
    pub(super) fn fixed64(&mut self, field: u32, number: u64) {
        self.field(field, Kind::Fixed64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A `double`.
    pub(super) fn double(&mut self, field: u32, number: f64) {
        self.fixed64(field, number.to_bits());
    }

    /// A `repeated fixed64`, or a `repeated double` by its bits, packed.
    pub(super) fn packed64(&mut self, field: u32, numbers: impl ExactSizeIterator<Item = u64>) {
        self.field(field, Kind::Bytes);
        self.varint(8 * numbers.len() as u64);
        for number in numbers {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A `fixed32`.
    pub(super) fn fixed32(&mut self, field: u32, number: u32) {
        self.field(field, Kind::Fixed32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// `bytes`.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.field(field, Kind::Bytes);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A `string` that has these parts.
    pub(super) fn text(&mut self, field: u32, parts: &[&str]) {
        self.field(field, Kind::Bytes);
        self.varint(parts.iter().map(|part| part.len() as u64).sum());
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.field(field, Kind::Bytes);
        let place = self.0.len();
        // Its length is known when it is written: most have one byte of it.
        self.0.push(0);
        write(self);
        let length = self.0.len() - place - 1;
        let mut said = Self::default();
        if length < 0x80 {
            self.0[place] = length as u8;
        } else {
            said.varint(length as u64);
            self.0.splice(place..=place, said.0);
        }
    }

    /// Fields that were written before.
    pub(super) fn fields(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_encoding_says() {
        let mut wire = Wire::default();
        wire.number(1, 150);
        wire.text(2, &["test", "ing"]);
        wire.message(3, |within| within.number(1, 150));
        wire.fixed32(5, 7);
        // The first three are the examples of the encoding's own page.
        let said = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x2d\x07\0\0\0";
        assert_eq!(wire.into_bytes(), said);
    }

    #[test]
    fn a_message_may_be_longer_than_one_byte_of_its_length_says() {
        for length in [0, 1, 123, 124, 125, 126, 127, 128, 16_383, 16_384, 300_000] {
            let (mut within, mut alone) = (Wire::default(), Wire::default());
            within.message(9, |wire| wire.bytes(1, &vec![7; length]));
            let mut inner = Wire::default();
            inner.bytes(1, &vec![7; length]);
            alone.bytes(9, &inner.into_bytes());
            assert_eq!(within.into_bytes(), alone.into_bytes(), "{length}");
        }
    }
}

//! Operation ids: a text is one id, spelt in one way, or none.

use onceward::core::id::OperationId;
use onceward_fuzz::Fuzz;

const WORDS: &[&str] = &[
    "op_",
    "01kb2n9f5nep3b8m6wq6r9t2vx",
    "7zzzzzzzzzzzzzzzzzzzzzzzzz",
    "8",
    "i",
    "l",
    "o",
    "u",
    "O",
];

#[test]
fn a_text_is_one_id_spelt_in_one_way_or_none() {
    Fuzz::new("id", 20_000, WORDS).bytes_max(64).run(|input| {
        let mut bits = [0; 16];
        bits.iter_mut().zip(input).for_each(|(bit, byte)| *bit = *byte);
        let made = OperationId::from_u128(u128::from_be_bytes(bits));
        assert_eq!(made.to_string().parse(), Ok(made), "every id reads back");
        let (sequence, chance) = (made.as_u128() as u64 >> 1, (made.as_u128() >> 64) as u64);
        let placed = OperationId::new(sequence, chance);
        assert_eq!(placed.sequence(), sequence, "an id keeps its place");
        let Ok(text) = std::str::from_utf8(input) else { return None };
        let read = text.parse::<OperationId>().ok()?;
        assert_eq!(read.to_string(), text, "two spellings of one id would be two links to it");
        assert!(i64::try_from(read.sequence()).is_ok(), "a place fits the row's key");
        Some(read.as_u128().leading_zeros() / 8)
    });
}

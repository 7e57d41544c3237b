//! An exchange as it is sealed in the ledger: in pieces, so that a large answer is opened as its caller
//! takes it. What it belongs to (its operation, and what of that it is) has to be named to open it, and
//! so has each piece's place: bytes that were moved do not open.
//!
//! The version, the number of the data key, seven bytes of chance; then the pieces, each with its tag.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use onceward_core::id::OperationId;

use crate::sabotage::Sabotage;
use crate::secret::{NotOurs, Purpose, Secrets, TAG_BYTES, Unopened, random};
use crate::store::StoreError;

/// What a sealed exchange begins with; one that is not sealed begins with another number.
const VERSION: u8 = 2;

/// The bytes of chance that the nonces of an exchange share.
const CHANCE_BYTES: usize = 7;

/// What stands before the pieces.
pub(crate) const START_BYTES: usize = 5 + CHANCE_BYTES;

/// What a piece holds; only the last one may hold less.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

const SEALED_PIECE_BYTES: usize = PIECE_BYTES + TAG_BYTES;

/// What of an operation an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// What was asked.
    Request,
    /// The answer of its outcome.
    Outcome,
    /// What the attempt of this number brought.
    Attempt(u32),
}

impl Field {
    fn bytes(self) -> [u8; 5] {
        let (kind, n) = match self {
            Self::Request => (0, 0),
            Self::Outcome => (1, 0),
            Self::Attempt(n) => (2, n),
        };
        let mut bytes = [kind; 5];
        bytes[1..].copy_from_slice(&u32::to_be_bytes(n));
        bytes
    }
}

/// Whether an exchange that begins so is sealed.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

/// Seals what stands behind the first [`START_BYTES`] of `bytes`, where it lies.
pub(crate) fn seal(
    mut bytes: Vec<u8>,
    id: OperationId,
    field: Field,
    secrets: &Secrets,
) -> Vec<u8> {
    let (number, key) = secrets.key_now(Purpose::Exchange, &context(id));
    let sealed = Sealed { key, chance: random(), field };
    if let Some((start, plain)) = bytes.split_first_chunk_mut::<START_BYTES>() {
        start[0] = VERSION;
        start[1..5].copy_from_slice(&number.to_le_bytes());
        start[5..].copy_from_slice(&sealed.chance);
        if plain.len() <= PIECE_BYTES {
            let tag = sealed.seal_piece(0, true, plain);
            bytes.extend(tag);
            return bytes;
        }
    }
    // A large one needs room between its pieces.
    let start = START_BYTES.min(bytes.len());
    let (start, plain) = bytes.split_at_mut(start);
    let pieces = plain.len().div_ceil(PIECE_BYTES);
    let mut whole = Vec::with_capacity(start.len() + plain.len() + pieces * TAG_BYTES);
    whole.extend_from_slice(start);
    for (n, piece) in plain.chunks_mut(PIECE_BYTES).enumerate() {
        let tag = sealed.seal_piece(n, n + 1 == pieces, piece);
        whole.extend_from_slice(piece);
        whole.extend(tag);
    }
    whole
}

/// What was sealed, all of it.
pub(crate) fn open(
    bytes: &[u8],
    id: OperationId,
    field: Field,
    secrets: &Secrets,
) -> Result<Vec<u8>, StoreError> {
    let sealed = Sealed::of(bytes, id, field, secrets)?;
    let pieces = bytes.get(START_BYTES..).unwrap_or_default();
    let mut plain = vec![0; plain_length(bytes.len())];
    let last = pieces.len().div_ceil(SEALED_PIECE_BYTES).saturating_sub(1);
    let mut rest = plain.as_mut_slice();
    for (n, piece) in pieces.chunks(SEALED_PIECE_BYTES).enumerate() {
        rest = sealed.open_into(n, n == last, piece, rest)?;
    }
    // One without a piece was cut off.
    if pieces.is_empty() || !rest.is_empty() {
        return Err(Unopened::NotOurs(NotOurs).into());
    }
    Ok(plain)
}

/// How long what a sealed exchange of `length` bytes holds is.
pub(crate) fn plain_length(length: usize) -> usize {
    let pieces = length.saturating_sub(START_BYTES);
    pieces.saturating_sub(pieces.div_ceil(SEALED_PIECE_BYTES) * TAG_BYTES)
}

/// Where the piece with the byte `at` of what is sealed lies in an exchange of `length` bytes: its
/// number, its first byte and its length.
pub(crate) fn piece_with(at: usize, length: usize) -> (usize, usize, usize) {
    let n = at / PIECE_BYTES;
    let from = START_BYTES + n * SEALED_PIECE_BYTES;
    (n, from, length.saturating_sub(from).min(SEALED_PIECE_BYTES))
}

/// What an exchange's pieces are sealed with.
pub(crate) struct Sealed {
    key: LessSafeKey,
    chance: [u8; CHANCE_BYTES],
    field: Field,
}

impl Sealed {
    /// Of an exchange that begins with `start`.
    pub(crate) fn of(
        start: &[u8],
        id: OperationId,
        field: Field,
        secrets: &Secrets,
    ) -> Result<Self, StoreError> {
        let not_ours = || StoreError::from(Unopened::NotOurs(NotOurs));
        let (start, _) = start.split_first_chunk::<START_BYTES>().ok_or_else(not_ours)?;
        let [_, head @ ..] = *start;
        let (number, chance) = head.split_first_chunk::<4>().ok_or_else(not_ours)?;
        let number = u32::from_le_bytes(*number);
        let chance = chance.try_into().map_err(|_| not_ours())?;
        let key = secrets
            .key_of(number, Purpose::Exchange, &context(id))
            .ok_or(Unopened::Unread(number))?;
        Ok(Self { key, chance, field })
    }

    fn seal_piece(&self, n: usize, is_last: bool, piece: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut bytes = [0; TAG_BYTES];
        // Sealing fails only beyond 64 GiB.
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(n, is_last), self.aad(), piece)
            .unwrap_or_else(|_| std::process::abort());
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// What a piece holds.
    pub(crate) fn open_piece(
        &self,
        n: usize,
        is_last: bool,
        piece: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let mut plain = vec![0; piece.len().saturating_sub(TAG_BYTES)];
        self.open_into(n, is_last, piece, &mut plain)?;
        Ok(plain)
    }

    /// Opens a piece into the beginning of `plain`, and gives the rest of that.
    fn open_into<'a>(
        &self,
        n: usize,
        is_last: bool,
        piece: &[u8],
        plain: &'a mut [u8],
    ) -> Result<&'a mut [u8], StoreError> {
        let not_ours = || StoreError::from(Unopened::NotOurs(NotOurs));
        let (piece, tag) = piece.split_last_chunk::<TAG_BYTES>().ok_or_else(not_ours)?;
        let (plain, rest) = plain.split_at_mut_checked(piece.len()).ok_or_else(not_ours)?;
        self.key
            .open_separate_gather(self.nonce(n, is_last), self.aad(), piece, tag, plain)
            .map_err(|_| not_ours())?;
        Ok(rest)
    }

    /// Its place is in it: no piece poses as another, and none but the last as the last.
    fn nonce(&self, n: usize, is_last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..CHANCE_BYTES].copy_from_slice(&self.chance);
        nonce[CHANCE_BYTES..NONCE_LEN - 1].copy_from_slice(&(n as u32).to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(is_last);
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self) -> Aad<[u8; 5]> {
        let is_bound = !Sabotage::SealUnbound.is_on();
        Aad::from(if is_bound { self.field.bytes() } else { [0; 5] })
    }
}

fn context(id: OperationId) -> [u8; 16] {
    if Sabotage::SealUnbound.is_on() { [0; 16] } else { id.as_u128().to_be_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> OperationId {
        OperationId::new(1, 7)
    }

    fn sealed(plain: &[u8], secrets: &Secrets) -> Vec<u8> {
        let bytes = [&[0; START_BYTES], plain].concat();
        seal(bytes, id(), Field::Outcome, secrets)
    }

    #[test]
    fn what_is_sealed_comes_back_whole_and_piece_by_piece_whatever_its_length() {
        let secrets = Secrets::new([1; 32]);
        for length in [1, 2, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5] {
            let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let bytes = sealed(&plain, &secrets);
            assert!(is_sealed(&bytes));
            assert_eq!(plain_length(bytes.len()), length);
            assert_eq!(open(&bytes, id(), Field::Outcome, &secrets).unwrap(), plain);
            let stream = Sealed::of(&bytes, id(), Field::Outcome, &secrets).unwrap();
            for at in [0, length / 2, length - 1] {
                let (n, from, length) = piece_with(at, bytes.len());
                let is_last = from + length == bytes.len();
                let piece = stream.open_piece(n, is_last, &bytes[from..from + length]).unwrap();
                assert_eq!(piece[at % PIECE_BYTES], plain[at]);
            }
        }
    }

    #[test]
    fn what_was_moved_cut_or_changed_does_not_open() {
        let secrets = Secrets::new([1; 32]);
        let plain = vec![7; 2 * PIECE_BYTES];
        let bytes = sealed(&plain, &secrets);
        let is_damage = |bytes: &[u8], id, field| {
            matches!(open(bytes, id, field, &secrets), Err(StoreError::Damaged(_)))
        };
        assert!(
            is_damage(&bytes, OperationId::from_u128(8), Field::Outcome),
            "of another operation"
        );
        for field in [Field::Request, Field::Attempt(1), Field::Attempt(2)] {
            assert!(is_damage(&bytes, id(), field), "{field:?}");
        }
        let pieces = |order: &[usize]| {
            let piece = |n: &usize| {
                let from = START_BYTES + n * SEALED_PIECE_BYTES;
                bytes[from..from + SEALED_PIECE_BYTES].to_vec()
            };
            [bytes[..START_BYTES].to_vec(), order.iter().flat_map(piece).collect()].concat()
        };
        assert!(!is_damage(&pieces(&[0, 1]), id(), Field::Outcome));
        for order in [&[1, 0][..], &[0], &[1], &[0, 0], &[0, 1, 1], &[]] {
            assert!(is_damage(&pieces(order), id(), Field::Outcome), "{order:?}");
        }
        for at in [0, 5, START_BYTES, START_BYTES + PIECE_BYTES, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            // Its first byte says that it is sealed, and is looked at before.
            assert_eq!(is_damage(&changed, id(), Field::Outcome), at > 0, "byte {at}");
        }
        let mut unread = bytes;
        unread[1] = 9;
        let why = open(&unread, id(), Field::Outcome, &secrets).unwrap_err();
        assert!(matches!(why, StoreError::Away(_)), "another process may have made key 9: {why}");
    }

    #[test]
    fn the_same_text_is_never_the_same_bytes() {
        let secrets = Secrets::new([1; 32]);
        assert_ne!(sealed(b"text", &secrets), sealed(b"text", &secrets));
    }
}

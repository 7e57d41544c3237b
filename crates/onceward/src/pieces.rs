//! A kept answer's body, read from the ledger piece by piece: whoever takes it slowly costs a piece and
//! not the whole.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::operation::Operation;
use tokio::sync::OnceCell;

use crate::engine::Engine;
use crate::seal::{self, Field, PIECE_BYTES, START_BYTES, Sealed};
use crate::store::{StoreError, Which};

/// The body of an operation's outcome. Clones are the same one.
#[derive(Clone)]
pub struct Pieces {
    engine: Arc<Engine>,
    id: OperationId,
    answer: BodyRef,
    /// What opens it; nothing where it is not sealed.
    sealed: Arc<OnceCell<Option<Sealed>>>,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Pieces {
    /// How much a piece holds at most.
    pub const BYTES: usize = PIECE_BYTES;

    /// Of what is kept of `operation`; nothing where it has no answer.
    pub fn of(engine: &Arc<Engine>, operation: &Operation) -> Option<Self> {
        let answer = operation.outcome.as_ref()?.answer?;
        let (engine, sealed) = (Arc::clone(engine), Arc::default());
        Some(Self { engine, id: operation.id, answer, sealed })
    }

    /// A piece that begins `left` bytes before the body's end, and is not empty before that.
    pub async fn read(&self, left: usize) -> Result<Bytes, StoreError> {
        let store = self.engine.store();
        let length = self.answer.length as usize;
        let sealed = self.sealed.get_or_try_init(async || {
            let start = store.part(self.answer, 0, START_BYTES as u32).await?;
            let of = || Sealed::of(&start, self.id, Field::Outcome, self.engine.secrets());
            seal::is_sealed(&start).then(of).transpose()
        });
        let Some(sealed) = sealed.await? else {
            let at = length.saturating_sub(left);
            let piece = store.part(self.answer, at as u32, PIECE_BYTES as u32).await?;
            // What is erased is written over: a mark is there before that, and no seal tells.
            let found = store.find(Which::Id(self.id)).await?;
            if found.is_none_or(|operation| operation.bodies().next().is_none()) {
                return Err(StoreError::Away("it was erased while it was read".to_owned()));
            }
            return Ok(piece);
        };
        let at = seal::plain_length(length).saturating_sub(left);
        let (n, from, piece_length) = seal::piece_with(at, length);
        let piece = store.part(self.answer, from as u32, piece_length as u32).await?;
        let plain = sealed.open_piece(n, from + piece_length == length, &piece)?;
        Ok(Bytes::from(plain).split_off(at % PIECE_BYTES))
    }
}

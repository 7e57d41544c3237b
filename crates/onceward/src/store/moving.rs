//! Moving a ledger: from the embedded store of a stopped node into an empty shared one, so that
//! who began with one node can go on with several.
//!
//! Operations keep their ids, fences and keys; bodies keep their bytes, and get places of the new
//! store's. The old ledger stays as it is. The new one has all of it or nothing.

use onceward_core::attempt::BodyRef;
use onceward_core::operation::Operation;

use super::postgres::{Intake, PostgresOptions};
use super::sqlite::SqliteStore;
use super::{Asked, Store as _, StoreError};

/// Operations read at once.
const PAGE: usize = 256;

/// Bytes of bodies that are read back at once, beyond which no more are asked for.
const BACK_BYTES: usize = 4 << 20;

/// An operation and what a store keeps beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    /// It.
    pub(crate) operation: Operation,
    /// Whether its key is still its own: no successor has it.
    pub(crate) has_key: bool,
    /// How often it was asked for again.
    pub(crate) asked: Asked,
}

/// Why a ledger was not moved. Nothing is in the new one then, except where it says so.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The old ledger cannot be read.
    #[error("the old ledger: {0}")]
    From(#[source] StoreError),
    /// The new ledger cannot be written.
    #[error("the new ledger: {0}")]
    To(#[from] StoreError),
    /// The new ledger has something in it already: in this table.
    #[error("the new ledger is not empty: there is something in its table {0}")]
    NotEmpty(&'static str),
    /// Another process has the new ledger open.
    #[error("a node runs on the new ledger, or another move into it is under way")]
    InUse,
    /// What was read back is not what was written.
    #[error("{0} is not the same in the new ledger")]
    Different(String),
    /// The connection broke while the move became durable, and the new ledger cannot be asked.
    #[error("nobody knows whether the move was kept: {0}")]
    Unknown(StoreError),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done now.
    pub step: Step,
    /// Operations of which it is done.
    pub operations: u64,
    /// Operations in all.
    pub of: u64,
}

/// The steps of a move, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading the old ledger and writing the new one; only reading where it is tried.
    Copy,
    /// Reading the new ledger back beside the old one.
    Compare,
}

/// What was moved, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Operations.
    pub operations: u64,
    /// Keys that lead to one of them.
    pub keys: u64,
    /// Requests and answers.
    pub bodies: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Settings, access keys among them.
    pub settings: u64,
}

/// Reads all of `from` and looks whether it can be moved to `to`; writes nothing.
pub async fn try_move(
    from: &SqliteStore,
    to: &PostgresOptions,
    told: impl FnMut(Progress),
) -> Result<Moved, MoveError> {
    Intake::look(to).await?;
    copy(from, None, told).await
}

/// Moves all of `from` into the empty ledger `to`, in one transaction, and reads it back before
/// that ends.
pub async fn move_ledger(
    from: &SqliteStore,
    to: &PostgresOptions,
    mut told: impl FnMut(Progress),
) -> Result<Moved, MoveError> {
    let first = from.kept(0, 1).await.map_err(MoveError::From)?;
    let since = first.first().map(|kept| kept.operation.id.made_at());
    let mut intake = Intake::begin(to, since).await?;
    let moved = copy(from, Some(&mut intake), &mut told).await?;
    compare(from, &intake, moved.operations, told).await?;
    intake.commit(moved.operations).await?;
    Ok(moved)
}

/// Reads the old ledger from one end to the other, and puts what it reads into the new one.
async fn copy(
    from: &SqliteStore,
    mut to: Option<&mut Intake>,
    mut told: impl FnMut(Progress),
) -> Result<Moved, MoveError> {
    let of = from.operations().await.map_err(MoveError::From)?;
    let settings = from.settings(String::new()).await.map_err(MoveError::From)?;
    let mut moved = Moved { settings: settings.len() as u64, ..Moved::default() };
    if let Some(to) = to.as_deref_mut() {
        to.settings(settings).await?;
    }
    let mut after = 0;
    loop {
        let page = from.kept(after, PAGE).await.map_err(MoveError::From)?;
        let Some(last) = page.last() else { break };
        after = last.operation.id.sequence();
        for mut kept in page {
            let day = kept.operation.id.made_at();
            let mut places = Vec::new();
            for body in kept.operation.bodies() {
                let bytes = from.body(body).await.map_err(MoveError::From)?;
                moved.bodies += 1;
                moved.bytes += bytes.len() as u64;
                if let Some(to) = to.as_deref_mut() {
                    places.push(to.body(day, bytes).await?);
                }
            }
            moved.operations += 1;
            moved.keys += u64::from(kept.has_key);
            if let Some(to) = to.as_deref_mut() {
                let mut places = places.into_iter();
                each_body(&mut kept.operation, |body| *body = places.next().unwrap_or(*body));
                to.operation(&kept).await?;
            }
        }
        told(Progress { step: Step::Copy, operations: moved.operations, of });
    }
    if let Some(to) = to {
        to.flush().await?;
    }
    Ok(moved)
}

/// Reads both ledgers from one end to the other: every operation with its key and its counts, and
/// every body by its checksum.
async fn compare(
    from: &SqliteStore,
    to: &Intake,
    of: u64,
    mut told: impl FnMut(Progress),
) -> Result<(), MoveError> {
    let (mut after, mut operations) = (0, 0);
    loop {
        let old = from.kept(after, PAGE).await.map_err(MoveError::From)?;
        let new = to.kept(after, PAGE).await?;
        let mut bodies = Vec::new();
        for (old, mut new) in old.iter().zip(new.iter().cloned()) {
            bodies.extend(new.operation.bodies());
            let mut places = old.operation.bodies();
            each_body(&mut new.operation, |new| {
                // The place may be another: what lies there may not.
                let same =
                    places.next().filter(|old| (old.length, old.crc) == (new.length, new.crc));
                *new = same.unwrap_or(*new);
            });
            if new != *old {
                return Err(MoveError::Different(old.operation.id.to_string()));
            }
        }
        if old.len() != new.len() {
            return Err(MoveError::Different("the number of operations".to_owned()));
        }
        read_back(to, &bodies).await?;
        operations += old.len() as u64;
        let Some(last) = old.last() else { break };
        after = last.operation.id.sequence();
        told(Progress { step: Step::Compare, operations, of });
    }
    if operations == of {
        Ok(())
    } else {
        Err(MoveError::Different("the number of operations".to_owned()))
    }
}

/// Reads bodies as nodes will, a few at a time.
async fn read_back(to: &Intake, bodies: &[BodyRef]) -> Result<(), MoveError> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for (place, body) in bodies.iter().enumerate() {
        some.push(*body);
        bytes += body.length as usize;
        if bytes > BACK_BYTES || place + 1 == bodies.len() {
            if !to.holds(&some).await? {
                return Err(MoveError::Different("a request or an answer".to_owned()));
            }
            (some, bytes) = (Vec::new(), 0);
        }
    }
    Ok(())
}

/// Every reference to a body, in the order of [`Operation::bodies`].
fn each_body(operation: &mut Operation, mut put: impl FnMut(&mut BodyRef)) {
    operation.request.iter_mut().for_each(&mut put);
    let ended = operation.attempts.iter_mut().filter_map(|attempt| attempt.ended.as_mut());
    ended.filter_map(|ended| ended.answer.as_mut()).for_each(&mut put);
    let outcome = operation.outcome.as_mut().and_then(|outcome| outcome.answer.as_mut());
    outcome.into_iter().for_each(put);
}

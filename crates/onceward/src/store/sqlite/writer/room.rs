//! Room: new work is refused before what is under way would be, and an error that leaves the state
//! unknown ends all work.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Writer;
use crate::store::sqlite::inbox::{Answer, Command};
use crate::store::sqlite::journal::{HEADER_BYTES, full_or_unavailable};
use crate::store::sqlite::record::RECORD_OVERHEAD;
use crate::store::{Remembered, StoreError, Which, digest_of};
use crate::tally;

/// What is left of the last segment when no other can be had is for what is under way.
const RESERVE_BYTES: usize = 8 << 20;

/// A row's bytes, and the place of an answer in it, change little with what is filled in.
const ROW_BYTES_MAX: usize = 64 << 10;

impl Writer {
    /// A full ledger takes nothing new, and still knows what it has: a duplicate is answered.
    pub(super) fn refuse(&mut self, command: Command, error: &StoreError) {
        if let (Command::Remember(birth, _), StoreError::Full(_)) = (&command, error)
            && birth.replaces.is_none()
        {
            let digest = digest_of(&birth.operation);
            match (self.find(Which::Key(digest)).transpose(), command) {
                (Some(known), Command::Remember(_, answer)) => {
                    self.answer(answer, known.map(Remembered::Known));
                }
                (_, command) => refuse(command, error),
            }
        } else {
            refuse(command, error);
        }
    }

    /// An error that leaves the state unknown ends the writer's work: no answer, stop, recover.
    pub(super) fn heed(&mut self, error: &StoreError) {
        match error {
            StoreError::Stale | StoreError::Away(_) => {}
            StoreError::Full(why) => {
                self.full = Some((why.clone(), Instant::now() + Duration::from_secs(1)));
            }
            StoreError::Unavailable(_) | StoreError::Damaged(_) => {
                self.broken = Some(error.clone());
            }
        }
    }

    /// What a checkpoint had no room for, the next one takes; what failed otherwise may have left
    /// the index in any state.
    pub(super) fn heed_checkpoint(&mut self, error: &StoreError) {
        if !matches!(error, StoreError::Full(_)) {
            self.heed(error);
        }
    }

    /// How many bytes of a frame a command may take; nothing where it only reads.
    pub(super) fn bytes_of(&self, command: &Command) -> Option<usize> {
        let bytes = match command {
            Command::Remember(birth, _) => birth.request.len() + 2 * ROW_BYTES_MAX,
            Command::Commit(write, _) => {
                write.answer.as_ref().map_or(0, |(_, bytes)| bytes.len()) + ROW_BYTES_MAX
            }
            Command::Take(_, _, max, _, _) | Command::Sweep(_, _, max, _) => {
                // Rows are small; where a segment is too, what is more makes it a little longer.
                (max * 4096 + ROW_BYTES_MAX).min(self.journal.payload_bytes_max() / 2)
            }
            Command::NoteAsked(asked, _) => asked.len() * 256,
            Command::Set(name, value, _) | Command::Swap(name, _, value, _) => {
                name.len() + value.as_ref().map_or(0, Bytes::len)
            }
            Command::Find(..)
            | Command::Lanes(_)
            | Command::Setting(..)
            | Command::Publish(_)
            | Command::Seal(_)
            | Command::Rewrite(..)
            | Command::Fail(_)
            | Command::Close => return None,
        };
        Some(bytes + RECORD_OVERHEAD * 4)
    }

    /// Makes sure that a command fits which takes so many `bytes`, and that new work is refused before
    /// what is under way would be.
    pub(super) fn make_room(&mut self, command: &Command, bytes: usize) -> Result<(), StoreError> {
        if bytes > self.journal.payload_bytes_max() {
            return Err(StoreError::Full(format!(
                "{bytes} bytes do not fit a segment of the journal"
            )));
        }
        let is_new = is_new(command);
        if let Some((why, again_at)) = self.full.clone() {
            let retry = Instant::now() >= again_at;
            if is_new && !(retry && self.recover_room()) {
                return Err(StoreError::Full(why));
            }
        }
        if self.journal.room() < self.frame.len() + bytes {
            self.flush();
            if self.journal.room() < bytes + HEADER_BYTES {
                self.journal.roll().map_err(|error| full_or_unavailable(&error))?;
            }
        }
        if !self.journal.has_spare()
            && self.journal.room() < self.frame.len() + bytes + RESERVE_BYTES
            && let Err(error) = self.journal.prepare()
        {
            let error = full_or_unavailable(&error);
            self.heed(&error);
            if is_new {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tries whether there is room again.
    fn recover_room(&mut self) -> bool {
        self.full = None;
        self.flush();
        self.keep(true);
        let prepared = self.journal.room() >= RESERVE_BYTES || self.journal.prepare().is_ok();
        if !prepared {
            self.full = Some((
                "no further segment can be allocated".to_owned(),
                Instant::now() + Duration::from_secs(1),
            ));
        }
        self.full.is_none()
    }
}

/// Whether a command is none of what is under way: what is left of a full ledger is not for it. Statistics
/// are not, as long as there is room for nothing else.
fn is_new(command: &Command) -> bool {
    match command {
        Command::Remember(..) | Command::Take(..) => true,
        Command::Set(name, Some(_), _) | Command::Swap(name, _, Some(_), _) => {
            name.starts_with(tally::PREFIX)
        }
        _ => false,
    }
}

pub(super) fn refuse(command: Command, error: &StoreError) {
    fn send<T>(answer: Answer<T>, error: &StoreError) {
        // A caller that went away needs no answer.
        let _ = answer.send(Err(error.clone()));
    }
    match command {
        Command::Remember(_, answer) => send(answer, error),
        Command::Commit(_, answer) => send(answer, error),
        Command::Find(_, answer) => send(answer, error),
        Command::Setting(_, answer) => send(answer, error),
        Command::Swap(.., answer) => send(answer, error),
        Command::Lanes(answer) => send(answer, error),
        Command::Take(.., answer) => send(answer, error),
        Command::NoteAsked(_, answer)
        | Command::Set(_, _, answer)
        | Command::Rewrite(_, answer) => send(answer, error),
        Command::Sweep(.., answer) => send(answer, error),
        Command::Publish(answer) => send(answer, error),
        Command::Seal(answer) => send(answer, error),
        Command::Fail(_) | Command::Close => {}
    }
}

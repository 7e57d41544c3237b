//! A copy of the ledger while it is in use.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::inbox::Command;
use super::journal::{Position, Segments, path_of};
use super::{SqliteStore, journal_of};
use crate::store::StoreError;

impl SqliteStore {
    pub(super) async fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        // An index of before an erasure and segments of after it would be no ledger.
        let _nothing_is_erased = self.shared.changes_segments.lock().await;
        let _no_segment_goes = Copying::begin(&self.shared.copying);
        let (readers, segments) = (Arc::clone(&self.readers), self.segments.clone());
        self.ask(Command::Publish).await?;
        let index = to.join("ledger.db");
        let (from, into) = (journal_of(&self.path), journal_of(&index));
        let io =
            |error: std::io::Error| StoreError::Unavailable(format!("writing the backup: {error}"));
        fs::create_dir_all(&into).map_err(io)?;
        if index.exists() {
            return Err(StoreError::Unavailable(format!(
                "{} is there already: a backup goes into a folder of its own",
                index.display()
            )));
        }
        let index_copy = tokio::task::spawn_blocking(move || {
            readers.with_patience(|reader| reader.copy_to(&index))
        });
        index_copy.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        // The journal's end is asked for after the index was copied, so that the copy goes as far.
        let end = self.ask(Command::Publish).await?;
        let copy = move || copy_segments(&segments, &from, &into, end);
        tokio::task::spawn_blocking(copy)
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
            .map_err(io)
    }
}

/// While it lives, a backup is under way.
pub(super) struct Copying(Arc<AtomicUsize>);

impl Copying {
    pub(super) fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Copies what is durable: a frame that is being written meanwhile is left out.
fn copy_segments(
    segments: &Segments,
    from: &Path,
    to: &Path,
    end: Position,
) -> std::io::Result<()> {
    use std::io::{Read as _, copy};
    for segment in segments.numbers().into_iter().filter(|segment| *segment <= end.segment) {
        let source = File::open(path_of(from, segment))?;
        let whole = source.metadata()?.len();
        let length = if segment == end.segment { u64::from(end.offset) } else { whole };
        let mut target = File::create(path_of(to, segment))?;
        copy(&mut source.take(length), &mut target)?;
        target.set_len(whole)?;
        target.sync_all()?;
    }
    File::open(to)?.sync_all()
}

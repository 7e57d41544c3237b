//! The master key of a ledger: the file that it lies in, and whether it is the right one.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::sabotage::Sabotage;
use crate::secret::{Secrets, random};
use crate::store::{Store, StoreError};

/// The setting that only the right key opens.
const CHECK: &str = "secret/check";

/// Reads the key in the file `path`, or makes one where there is none (mode 0600).
///
/// # Errors
/// Where it cannot be read or written, and `InvalidData` where it is no key.
pub fn read_or_make(path: &Path) -> io::Result<[u8; 32]> {
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            io::Error::new(
                ErrorKind::InvalidData,
                "it is not 32 bytes: restore it from a backup; without it, what is sealed in the ledger cannot be opened",
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = random();
            write_secret(path, &key)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner reads, whole or not at all.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mode = if Sabotage::KeyFileOpen.is_on() { 0o644 } else { 0o600 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| {
        fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?
            .sync_all()
    })
}

/// Whether `secrets` are those of the ledger in `store`; a new ledger takes them as its own. Under
/// others every duplicate would be taken for a mismatch.
pub async fn is_of(store: &dyn Store, secrets: &Secrets) -> Result<bool, StoreError> {
    // Of nodes that start together on a new ledger one says which key it has.
    let offered = secrets.seal(b"onceward", CHECK.as_bytes());
    let sealed = store.offer(CHECK.to_owned(), offered.into()).await?;
    Ok(secrets.open(&sealed, CHECK.as_bytes()).is_ok())
}

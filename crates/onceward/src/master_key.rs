//! The master keys of a ledger: a ring of them, of which the first wraps the ledger's own keys and any
//! opens them; and the file that they lie in.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use onceward_core::hex;

use crate::sabotage::Sabotage;
use crate::secret::{derived, random};

/// What a master key is called: it tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId(pub(crate) u32);

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MasterKey(pub(crate) [u8; 32]);

impl MasterKey {
    pub(crate) fn id(&self) -> MasterKeyId {
        let [a, b, c, d, ..] = derived(&self.0, "onceward/id/1");
        MasterKeyId(u32::from_be_bytes([a, b, c, d]))
    }
}

/// One or several master keys: the first is the current one, the others still open what they wrapped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    pub(crate) current: MasterKey,
    others: Vec<MasterKey>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl From<[u8; 32]> for KeyRing {
    fn from(key: [u8; 32]) -> Self {
        Self { current: MasterKey(key), others: Vec::new() }
    }
}

impl KeyRing {
    /// Reads keys as people write them: 64 hexadecimal digits each, between commas or white space, the
    /// current one first.
    pub fn of_text(text: &str) -> Option<Self> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let keys =
            words.filter(|word| !word.is_empty()).map(|word| hex::decode(word)?.try_into().ok());
        let mut keys = keys.collect::<Option<Vec<[u8; 32]>>>()?.into_iter();
        let ring = Self::from(keys.next()?);
        Some(keys.fold(ring, |ring, key| ring.with_last(MasterKey(key))))
    }

    /// Reads a file of keys: such a text, or the 32 bytes of one.
    pub fn of_file(bytes: &[u8]) -> Option<Self> {
        // A key whose bytes are all digits and white space is not met by chance.
        let text = std::str::from_utf8(bytes).ok().and_then(Self::of_text);
        text.or_else(|| Some(<[u8; 32]>::try_from(bytes).ok()?.into()))
    }

    /// The keys as [`Self::of_text`] reads them, one a line.
    pub fn to_text(&self) -> String {
        self.keys().map(|key| hex::encode(&key.0) + "\n").collect()
    }

    /// The ring with a new key, made of chance, before the others.
    #[must_use]
    pub fn with_new(self) -> Self {
        let others = [vec![self.current], self.others].concat();
        Self { current: MasterKey(random()), others }
    }

    fn with_last(mut self, key: MasterKey) -> Self {
        if self.keys().all(|other| *other != key) {
            self.others.push(key);
        }
        self
    }

    /// The current key alone.
    #[must_use]
    pub fn without_old(self) -> Self {
        Self { others: Vec::new(), ..self }
    }

    /// What the current key is called.
    pub fn current(&self) -> MasterKeyId {
        self.current.id()
    }

    /// What all of them are called, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = MasterKeyId> {
        self.keys().map(MasterKey::id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        [&self.current].into_iter().chain(&self.others)
    }
}

/// Reads the keys in the file `path`, or makes one where there is none (mode 0600).
///
/// # Errors
/// Where it cannot be read or written, and `InvalidData` where it holds no key.
pub fn read_or_make(path: &Path) -> io::Result<KeyRing> {
    match fs::read(path) {
        Ok(bytes) => KeyRing::of_file(&bytes).ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidData,
                "it is neither 32 bytes nor lines of 64 hexadecimal digits: restore it from a backup; without it, what is sealed in the ledger cannot be opened",
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = random();
            write_secret(path, &key)?;
            Ok(key.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_read_in_whichever_form_people_write_it() {
        let (a, b) = ("0a".repeat(32), "0b".repeat(32));
        let ids = |text: &str| KeyRing::of_text(text).map(|ring| ring.ids().collect::<Vec<_>>());
        let one = KeyRing::from([10; 32]).current();
        let two = KeyRing::from([11; 32]).current();
        assert_ne!(one, two);
        assert_eq!(ids(&a), Some(vec![one]));
        for text in [format!("{b},{a}"), format!("{b}\n{a}\n"), format!(" {b} , {a},{b}")] {
            assert_eq!(ids(&text), Some(vec![two, one]), "{text:?}");
        }
        for wrong in [String::new(), ",".into(), a[1..].into(), format!("{a},x"), format!("{a}{b}")]
        {
            assert_eq!(ids(&wrong), None, "{wrong:?}");
        }
        assert_eq!(KeyRing::of_file(&[10; 32]), KeyRing::of_text(&a), "its bytes themselves");
        let ring = KeyRing::of_text(&a).unwrap().with_new();
        assert_eq!(KeyRing::of_file(ring.to_text().as_bytes()), Some(ring.clone()));
        assert_eq!(ring.ids().nth(1), Some(one));
        assert_eq!(ring.clone().without_old().ids().collect::<Vec<_>>(), [ring.current()]);
        assert!(!format!("{ring:?}").contains(&a[..10]));
    }
}

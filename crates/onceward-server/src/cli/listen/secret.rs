//! The secret that `listen` and `trigger` share: made once for a person and kept with what else their programs
//! keep, so that it stands in the settings of what they develop and holds tomorrow too.

use std::io::ErrorKind;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onceward::master_key::write_secret;
use onceward::secret::random;

use super::unusable;
use crate::exit::Exit;
use crate::node::make_folder;

/// Where it lies, below what the XDG base directories call state.
const PLACE: &str = "onceward/listen.secret";

fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    state.map(|state| state.join(PLACE))
}

/// The secret, where one was made.
pub(in crate::cli) fn kept() -> Result<Option<String>, Exit> {
    let Some(path) = path() else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(secret) => Ok(Some(secret.trim().to_owned()).filter(|secret| !secret.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// The secret; from now on the same each time.
pub(super) fn kept_or_made() -> Result<String, Exit> {
    if let Some(kept) = kept()? {
        return Ok(kept);
    }
    let path = path().ok_or_else(|| {
        Exit::failed(
            "there is no home to keep a secret in\nhelp: give one with --secret, or set HOME",
        )
    })?;
    let made = format!("whsec_{}", STANDARD.encode(random::<24>()));
    let folder = path.parent().map(make_folder);
    folder
        .unwrap_or(Ok(()))
        .and_then(|()| write_secret(&path, format!("{made}\n").as_bytes()))
        .map_err(|error| unusable(&path, &error))?;
    Ok(made)
}

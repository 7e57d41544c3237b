//! `--version`: which release this is, and of what it is made.

use serde_json::json;

use super::output::print;
use crate::contract::Contract;
use crate::exit::Exit;

/// The commit that a release was built from, where its build knew it.
const COMMIT: Option<&str> = option_env!("ONCEWARD_COMMIT");

pub(super) fn version(is_json: bool) -> Result<(), Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if !is_json {
        return print(&format!("onceward {version}"));
    }
    let document = json!({
        "version": version,
        "commit": COMMIT,
        "contract": Contract::newest().name(),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    });
    print(&document.to_string())
}

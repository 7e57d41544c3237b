//! axe-core, which looks whether everybody can use the dashboard's pages: as its makers ship it, in a
//! folder of its own below the target folder.

use std::path::PathBuf;

use crate::{Outcome, sdks, steps};

const MEND: &str = "let npm reach its registry once, or set TEST_AXE to where an axe.min.js is";

/// The script that tests put into pages; nothing where it cannot be had: then the test that wants it says so.
pub(crate) fn find_or_install() -> Option<PathBuf> {
    match found() {
        Ok(script) => {
            println!("axe: {}", script.display());
            Some(script)
        }
        Err(error) => {
            println!(
                "axe: NOT there ({error}): the test that everybody can use the pages will FAIL\nmend: {MEND}"
            );
            None
        }
    }
}

fn found() -> Outcome<PathBuf> {
    let script = if let Some(named) = std::env::var_os("TEST_AXE") {
        named.into()
    } else {
        let wanted = steps::root().join("crates/onceward-server/tests/axe");
        sdks::node_with(&wanted, "axe")?.join("node_modules/axe-core/axe.min.js")
    };
    if script.is_file() { Ok(script) } else { Err(format!("no file {}", script.display()).into()) }
}

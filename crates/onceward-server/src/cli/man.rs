//! `man`: the manual pages, of the same words as `--help`.

use std::path::PathBuf;

use clap::{Args, Command};

use super::output::say;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Pages {
    /// The folder that they are written into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// A page of `command` and one of each verb of it: onceward.1, onceward-serve.1, …
pub(super) fn man(flags: &Pages, command: Command) -> Result<(), Exit> {
    let folder = &flags.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| {
            Exit::failed(format!("no pages can be written to {}: {error}", folder.display()))
        })?;
    say(&format!("the manual pages are in {}; man -l shows one", folder.display()));
    Ok(())
}

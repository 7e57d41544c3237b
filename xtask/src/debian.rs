//! Programs that tests need, and Debian's packages of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Outcome, steps};

/// The first file of this name on the search path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Installs packages, where there is an apt-get and it may.
pub(crate) fn install(packages: &[&str]) -> Outcome<()> {
    if on_path("apt-get").is_none() {
        return Err("there is no apt-get here".into());
    }
    apt_get(&["update", "-q"])?;
    let mut args = vec!["install", "-q", "-y", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Outcome<()> {
    let root = steps::output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = if root {
        Command::new("apt-get")
    } else {
        // -n: a test run must not stop at a question for a password.
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // Its pages of progress are of interest only when it fails.
    steps::output(&mut command).map(drop)
}

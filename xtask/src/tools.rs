//! The programs with which tests trace, cut the power, set clocks, read units and follow guides. Where one is missing and
//! cannot be installed, its tests are skipped, and say so.

use std::path::PathBuf;

use crate::debian::{self, on_path};

/// What is looked for, and the package that has it.
const TOOLS: [(&str, &str); 11] = [
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("sqlite3", "sqlite3"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("unshare", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_io", "xfsprogs"),
    (FAKETIME, "libfaketime"),
    ("promtool", "prometheus"),
];

const FAKETIME: &str = "libfaketimeMT.so.1";

/// Installs what is missing, where that can be done.
pub(crate) fn find_or_install() {
    let mut missing = missing();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        println!("tools: installing {} with apt-get", packages.join(", "));
        if let Err(error) = debian::install(&packages) {
            println!("tools: {error}");
        }
        missing = self::missing();
    }
    for (tool, package) in missing {
        println!("tools: NO {tool} (Debian: {package}): the tests that need it are SKIPPED");
    }
}

/// Whether a program is there, or could be installed; says so where it could not.
pub(crate) fn there_or_installed(tool: &str, package: &str) -> bool {
    if on_path(tool).is_none() {
        println!("tools: installing {package} with apt-get");
        if let Err(error) = debian::install(&[package]) {
            println!("tools: {error}");
        }
    }
    on_path(tool).is_some()
}

fn missing() -> Vec<(&'static str, &'static str)> {
    TOOLS.into_iter().filter(|(tool, _)| !is_there(tool)).collect()
}

fn is_there(tool: &str) -> bool {
    if tool != FAKETIME {
        return on_path(tool).is_some();
    }
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places
        .map(|place| place.path())
        .chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")])
        .any(|place| place.join("faketime").join(tool).is_file())
}

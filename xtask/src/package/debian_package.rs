//! The Debian package: a staged tree, packed by `dpkg-deb`; the same bytes from the same sources.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NAME, dated, dist, epoch, folder, sbom};
use crate::debian::on_path;
use crate::{Outcome, steps};

/// Debian's own number behind ours.
const REVISION: &str = "1";

/// Where what is copied from `deploy/` goes.
const COPIES: [(&str, &str); 5] = [
    ("systemd/onceward.service", "usr/lib/systemd/system/onceward.service"),
    ("systemd/onceward.socket", "usr/lib/systemd/system/onceward.socket"),
    ("systemd/sysusers.conf", "usr/lib/sysusers.d/onceward.conf"),
    ("systemd/onceward.toml", "etc/onceward/onceward.toml"),
    ("debian/copyright", "usr/share/doc/onceward/copyright"),
];

/// Each shell, and where it looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/onceward"),
    ("zsh", "usr/share/zsh/vendor-completions/_onceward"),
    ("fish", "usr/share/fish/vendor_completions.d/onceward.fish"),
];

/// Files that an administrator may change.
const CONFFILES: &str = "/etc/onceward/onceward.toml\n";

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds the package, of the binary that is named, else of one that is built for it.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let root = steps::root();
    let binary = match args {
        [] => dist::build(&root)?,
        [flag] if flag == "--rehearse" => return rehearse(),
        [flag, file] if flag == "--binary" => PathBuf::from(file),
        _ => return Err("usage: cargo xtask deb [--binary FILE | --rehearse]".into()),
    };
    let package = pack(&root, &binary, &folder(&root)?, "-z6")?;
    println!("{}", package.display());
    lint(&package)
}

/// Packs the debug binary twice, and holds the packages against each other and against lintian's rules.
pub(crate) fn rehearse() -> Outcome<()> {
    if on_path("dpkg-deb").is_none() {
        println!("package: NO dpkg-deb (Debian: dpkg): nothing is packed");
        return Ok(());
    }
    let root = steps::root();
    let binary = steps::gateway()?;
    let target = folder(&root)?;
    let mut packages = Vec::new();
    for name in ["once", "again"] {
        let to = target.join(name);
        fs::create_dir_all(&to)?;
        packages.push(pack(&root, &binary, &to, "-z0")?);
    }
    if fs::read(&packages[0])? != fs::read(&packages[1])? {
        return Err("two packages of one binary differ: a time or an order got into them".into());
    }
    let linted = lint(&packages[0]);
    for name in ["once", "again"] {
        fs::remove_dir_all(target.join(name))?;
    }
    println!("package: two of one binary are the same");
    linted
}

/// Packs `binary` into a package in the folder `to`, as small as `effort` makes it.
fn pack(root: &Path, binary: &Path, to: &Path, effort: &str) -> Outcome<PathBuf> {
    let (version, epoch) = (format!("{}-{REVISION}", env!("CARGO_PKG_VERSION")), epoch(root)?);
    let architecture = steps::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let tree = to.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let deploy = root.join("deploy");
    put(&tree, "usr/bin/onceward", &fs::read(binary)?, 0o755)?;
    if on_path("strip").is_some() {
        // Symbols are as large as the rest; a `dist` binary has none.
        let file = tree.join("usr/bin/onceward");
        steps::succeed(
            Command::new("strip").args(["--strip-unneeded", "-R", ".comment"]).arg(file),
        )?;
    }
    for (from, place) in COPIES {
        put(&tree, place, &fs::read(deploy.join(from))?, 0o644)?;
    }
    for (shell, place) in COMPLETIONS {
        let script = steps::output(Command::new(binary).args(["completions", shell]))?;
        put(&tree, place, script.as_bytes(), 0o644)?;
    }
    let pages = tree.join("usr/share/man/man1");
    steps::output(Command::new(binary).arg("man").arg(&pages))?;
    for page in sorted(&pages)? {
        zip(&page)?;
    }
    let date = dated(&epoch, &["-R"])?;
    let changelog = fs::read_to_string(deploy.join("debian/changelog"))?;
    let changelog = changelog.replace("${version}", &version).replace("${date}", &date);
    put(&tree, "usr/share/doc/onceward/changelog.Debian", changelog.as_bytes(), 0o644)?;
    put(&tree, "usr/share/doc/onceward/changelog", &fs::read(root.join("CHANGELOG.md"))?, 0o644)?;
    let list = fs::read(sbom::write(root)?)?;
    put(&tree, "usr/share/doc/onceward/onceward.cdx.json", &list, 0o644)?;
    for name in ["changelog.Debian", "changelog", "onceward.cdx.json"] {
        zip(&tree.join("usr/share/doc/onceward").join(name))?;
    }
    let files = all(&tree)?;
    let (sums, size) = (sums(&tree, &files)?, size(&files)?);
    put(&tree, "DEBIAN/md5sums", sums.as_bytes(), 0o644)?;
    put(&tree, "DEBIAN/conffiles", CONFFILES.as_bytes(), 0o644)?;
    for script in SCRIPTS {
        put(
            &tree,
            &format!("DEBIAN/{script}"),
            &fs::read(deploy.join("debian").join(script))?,
            0o755,
        )?;
    }
    let control = fs::read_to_string(deploy.join("debian/control"))?
        .replace("${version}", &version)
        .replace("${architecture}", architecture)
        .replace("${size}", &size.to_string())
        .replace("${libc}", &oldest_libc(&fs::read(binary)?).ok_or("the binary names no glibc")?);
    put(&tree, "DEBIAN/control", control.as_bytes(), 0o644)?;
    let package = to.join(format!("{NAME}_{version}_{architecture}.deb"));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", effort, "--build"]).arg(&tree).arg(&package);
    steps::output(dpkg.env("SOURCE_DATE_EPOCH", epoch))?;
    fs::remove_dir_all(&tree)?;
    Ok(package)
}

/// Whether lintian finds anything, where it is there.
fn lint(package: &Path) -> Outcome<()> {
    if on_path("lintian").is_none() {
        println!(
            "package: NO lintian (Debian: lintian): the package is not held against its rules"
        );
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    // It warns of root; a package that nobody asked Debian for closes no report there.
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    lintian.args(["--suppress-tags", "initial-upload-closes-no-bugs"]).arg(package);
    steps::succeed(&mut lintian)
}

/// Writes a file of the tree.
fn put(tree: &Path, place: &str, bytes: &[u8], mode: u32) -> Outcome<()> {
    let file = tree.join(place);
    fs::create_dir_all(file.parent().unwrap_or(tree))?;
    fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Packs a file, without its time.
fn zip(file: &Path) -> Outcome<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    steps::succeed(Command::new("gzip").args(["-9", "-n", "-f"]).arg(file))
}

fn sorted(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut entries =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Outcome<Vec<_>>>()?;
    entries.sort_unstable();
    Ok(entries)
}

/// Every file below a folder, in order. The folders themselves may be entered by all.
fn all(folder: &Path) -> Outcome<Vec<PathBuf>> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let mut files = Vec::new();
    for entry in sorted(folder)? {
        if entry.is_dir() {
            files.extend(all(&entry)?);
        } else {
            files.push(entry);
        }
    }
    Ok(files)
}

/// The files' MD5, as dpkg verifies them; what it guards itself is left out.
fn sums(tree: &Path, files: &[PathBuf]) -> Outcome<String> {
    let mut command = Command::new("md5sum");
    let within = files.iter().filter_map(|file| file.strip_prefix(tree).ok());
    command.args(within.filter(|file| !file.starts_with("etc"))).current_dir(tree);
    steps::output(&mut command)
}

/// What they take, in KiB.
fn size(files: &[PathBuf]) -> Outcome<u64> {
    let mut bytes = 0;
    for file in files {
        bytes += fs::metadata(file)?.len();
    }
    Ok(bytes.div_ceil(1024))
}

/// The newest version of glibc of which the binary wants a symbol.
fn oldest_libc(binary: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let starts = binary.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let minors = starts.filter_map(|(at, _)| {
        let rest = &binary[at + MARK.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&rest[..digits]).ok()?.parse::<u32>().ok()
    });
    minors.max().map(|minor| format!("2.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_that_is_wanted_is_the_oldest_that_will_do() {
        let binary = b"\0GLIBC_2.17\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
        assert_eq!(oldest_libc(binary).as_deref(), Some("2.34"));
        assert_eq!(oldest_libc(b"nothing"), None);
    }
}

//! The image without its builder: a root that nobody may write to, no shell, no accounts, a numeric
//! user, and the gateway in it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onceward_proof::figures::tell;
use rustix::process::{Signal, getuid};

use crate::world::{BINARY, World};

/// The user of the image.
const USER: u32 = 65532;

/// What a container is made of, by hand: the root is read-only, the data is not.
const CONTAIN: &str = "mount --bind \"$1\" \"$1\" && mount --bind \"$2\" \"$1/data\" \
    && mount -o remount,ro,bind \"$1\" && shift 2 && exec \"$@\"";

/// Copies the binary and the libraries that it asks for, where the image has them.
fn fill(image: &Path) {
    let put = |from: &Path| {
        let to = image.join(from.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    let asked = Command::new("ldd").arg(BINARY).output().unwrap();
    for line in String::from_utf8_lossy(&asked.stdout).lines() {
        if let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) {
            put(Path::new(library));
        }
    }
    fs::create_dir_all(image.join("usr/bin")).unwrap();
    fs::copy(BINARY, image.join("usr/bin/onceward")).unwrap();
    fs::create_dir(image.join("data")).unwrap();
}

/// The command that runs the gateway in the image.
fn contained(world: &World, image: &Path, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", CONTAIN, "sh"]).arg(image).arg(data);
    command.args(["unshare", "--root"]).arg(image).arg("--wd=/data");
    command.args([format!("--setgid={USER}"), format!("--setuid={USER}")]);
    command.arg("/usr/bin/onceward").args(arguments);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("ONCEWARD_LISTEN", "0.0.0.0:0");
    command.current_dir(world.path(".")).stdin(Stdio::null());
    command
}

#[test]
fn the_gateway_needs_no_more_than_the_image_has() {
    let world = World::new();
    let (image, data): (PathBuf, PathBuf) = (world.path("image"), world.path("volume"));
    let mounts = Command::new("unshare").args(["--mount", "true"]).status();
    if !getuid().is_root() || !mounts.is_ok_and(|status| status.success()) {
        return tell("SKIPPED, no image is run: that takes root and unshare (Debian: util-linux)");
    }
    // The temporary folder is its maker's alone.
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fill(&image);
    fs::create_dir(&data).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    let gateway = world.serve_by(contained(&world, &image, &data, &["serve"]));
    let key = gateway.log.until("shown this once");
    let key = key.rsplit_once(": ").unwrap().1;
    let authorization = format!("Bearer {key}");
    let headers = [("idempotency-key", "k"), ("onceward-authorization", &authorization)];
    let answer = gateway.call("POST", "/to/demo/orders?script=503,201", &headers, "{}");
    assert_eq!(answer.status, 201, "{answer:?}");
    let url = format!("http://127.0.0.1:{}", gateway.address.port());
    let health = contained(&world, &image, &data, &["check", "--ready", "--url", &url]).output();
    let health = health.unwrap();
    assert_eq!(health.status.code(), Some(0), "{}", String::from_utf8_lossy(&health.stderr));
    let verb = |data: &Path, verb: &[&str]| {
        let done = contained(&world, &image, data, verb).output().unwrap();
        assert!(done.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    verb(&data, &["backup", "/data/copy", "--url", &url]);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0));
    // Into a volume that is new.
    let other = world.path("other-volume");
    fs::create_dir(&other).unwrap();
    chown(&other, Some(USER), Some(USER)).unwrap();
    fs::rename(data.join("copy"), other.join("copy")).unwrap();
    verb(&other, &["restore", "/data/copy"]);
    let gateway = world.serve_by(contained(&world, &image, &other, &["serve"]));
    assert_eq!(gateway.call("GET", "/readyz", &[], "").text(), "quarantine\n");
    let url = format!("http://127.0.0.1:{}", gateway.address.port());
    verb(&other, &["restore", "--release", "--url", &url]);
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200);
    let answer = gateway.call("POST", "/to/demo/orders?script=503,201", &headers, "{}");
    assert_eq!(answer.header("idempotent-replayed"), Some("true"), "{answer:?}");
    gateway.kill();
    let ledger = data.join("onceward-data/ledger.db");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(ledger).unwrap()), USER);
}

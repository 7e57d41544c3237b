//! The unit under systemd itself, which runs in namespaces of its own on a copy of this machine's files
//! that is gone afterwards.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onceward_proof::figures::tell;
use rustix::process::getuid;

use crate::world::{BINARY, World, until};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// What systemd is to have of its own, beside this machine's files.
const NAMESPACES: [&str; 6] = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net"];

/// Lays a writable layer over this machine's files, puts the binary and what is deployed there, and
/// becomes systemd. A root that is changed by `chroot` would do without user namespaces.
const BOOT: &str = r#"
set -e
base=$1 binary=$2 deploy=$3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/up" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" overlay "$base/root"
cd "$base/root"
rm -rf etc/systemd/system/*.wants etc/onceward var/lib/onceward
mkdir -p etc/onceward
cp "$binary" usr/bin/onceward
cp "$deploy/systemd/onceward.service" "$deploy/systemd/onceward.socket" etc/systemd/system/
cp "$deploy/systemd/sysusers.conf" usr/lib/sysusers.d/onceward.conf
{ cat "$deploy/systemd/onceward.toml"; echo 'demo = true'; } | sed '/^# /d' > etc/onceward/onceward.toml
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    set -- $node
    mknod -m 666 "dev/$1" c "$2" "$3"
done
mkdir dev/shm dev/pts old
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . old
umount -l old
cd /
# As systemd has it on a machine of its own: credentials are mounted for a service.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=no
"#;

/// A running systemd; all that it started ends with it.
struct Machine {
    child: Child,
    init: u32,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `--kill-child`: with the outer process ends the first of the namespace, and so all in it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// Boots; the reason where this machine does not let it.
    fn boot(base: &Path) -> Result<Self, String> {
        if !getuid().is_root() || !Path::new(SYSTEMD).exists() {
            return Err("that takes root and systemd (Debian: systemd)".to_owned());
        }
        fs::create_dir(base).unwrap();
        let deploy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        // Where this test is ended, it all ends with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]).args(NAMESPACES).args([
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            BOOT,
            "boot",
        ]);
        command.arg(base).arg(BINARY).arg(deploy);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let booted = until("systemd runs, or does not", || {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Err(format!("no namespaces, or no layer over the files ({status})")));
            }
            let init =
                fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()?;
            let state = enter(init, &["systemctl", "is-system-running"]).output().unwrap();
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"].contains(&state.as_str()).then_some(Ok(init))
        });
        booted.map(|init| Self { child, init })
    }

    fn run(&self, words: &[&str]) -> Output {
        enter(self.init, words).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A property of the service.
    fn shown(&self, property: &str) -> String {
        let words = ["systemctl", "show", "--value", "--property", property, "onceward"];
        self.ok(&words).trim().to_owned()
    }

    /// A verb of ours, as the gateway's own user.
    fn verb(&self, words: &[&str]) -> Output {
        self.run(&[&["runuser", "-u", "onceward", "--", "onceward"], words].concat())
    }
}

fn enter(init: u32, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--root", "--wd"]).args(NAMESPACES);
    command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"]).args(words);
    command.stdin(Stdio::null());
    command
}

#[test]
fn under_systemd_the_unit_does_what_it_says() {
    let world = World::new();
    let machine = match Machine::boot(&world.path("machine")) {
        Ok(machine) => Arc::new(machine),
        Err(why) => return tell(&format!("SKIPPED, no unit is run: {why}")),
    };
    machine.ok(&["systemd-sysusers"]);

    // It is started once it is ready, with all that is taken from it.
    machine.ok(&["systemctl", "start", "onceward"]);
    assert!(machine.verb(&["check", "--ready"]).status.success());
    let status = machine.ok(&["cat", &format!("/proc/{}/status", machine.shown("MainPID"))]);
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        assert!(status.lines().any(|had| had == line), "{line}: {status}");
    }
    assert!(!status.contains("Uid:\t0\t"), "{status}");
    assert_eq!(machine.shown("StatusText"), "takes calls");
    machine.ok(&["systemctl", "reload", "onceward"]);

    // A master key in the credential store is the ledger's, and lies in no folder of the gateway.
    machine.ok(&["systemctl", "stop", "onceward"]);
    assert_eq!(machine.shown("Result"), "success");
    let key = "mkdir -p -m 700 /etc/credstore && rm -rf /var/lib/onceward/* \
        && printf %064d 7 > /etc/credstore/onceward.master-key";
    machine.ok(&["sh", "-c", key]);
    machine.ok(&["systemctl", "start", "onceward.socket", "onceward"]);
    assert!(!machine.ok(&["ls", "/var/lib/onceward"]).contains("master.key"));

    // Systemd holds the socket: restarted again and again it refuses no caller.
    let is_over = Arc::new(AtomicBool::new(false));
    let caller = {
        let (machine, is_over) = (Arc::clone(&machine), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut calls = 0;
            while !is_over.load(Ordering::Relaxed) {
                let key = format!("call-{calls}");
                let sent = machine.verb(&["send", "demo/orders", "--key", &key, "--body", "{}"]);
                assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
                calls += 1;
            }
            calls
        })
    };
    for _ in 0..7 {
        machine.ok(&["systemctl", "restart", "onceward"]);
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(caller.join().unwrap() > 0);

    // What shows no life is started again, and a bad configuration is not.
    let drop_in = "mkdir -p /run/systemd/system/onceward.service.d \
        && printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/onceward.service.d/life.conf \
        && systemctl daemon-reload && systemctl restart onceward";
    machine.ok(&["sh", "-c", drop_in]);
    machine.ok(&["kill", "-STOP", &machine.shown("MainPID")]);
    until("it is started again", || (machine.shown("NRestarts") == "1").then_some(()));
    until("it is ready again", || (machine.shown("ActiveState") == "active").then_some(()));
    machine.ok(&["sh", "-c", "echo 'nonsense = 1' >> /etc/onceward/onceward.toml"]);
    assert!(!machine.run(&["systemctl", "restart", "onceward"]).status.success());
    assert_eq!(machine.shown("ExecMainStatus"), "78");
    assert_eq!(machine.shown("ActiveState"), "failed");
}

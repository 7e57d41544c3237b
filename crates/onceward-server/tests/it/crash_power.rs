//! Power cuts: the gateway stands still, its file system is shut down under it without writing
//! anything more, and comes back as the disk has it. Nothing that was acknowledged is lost; with a
//! sync that does nothing, much is, so the cut is one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::crash_load::{Load, settle_and_check, until_acknowledged};
use crate::crash_world::{Gateway, World, until};
use onceward_proof::chance::Chance;
use onceward_proof::check::{Log, Told};
use onceward_proof::figures::{Figures, number, seed, tell};

const CALLERS: u64 = 8;

/// Cuts before a disk is made anew, so that it does not fill.
const CUTS_A_DISK: u64 = 40;

/// A file system of its own in a file, mounted where the data folder is.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Disk {
    /// Makes a file system of this kind and mounts it at `at`.
    fn new(kind: &str, image: PathBuf, at: PathBuf) -> Result<Self, String> {
        // No smaller one is an XFS.
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(320 << 20).map_err(|error| error.to_string())?;
        let force = if kind == "xfs" { "-f" } else { "-F" };
        run(&format!("mkfs.{kind}"), &["-q", force, &image.display().to_string()])?;
        let disk = Self { image, at };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let (image, at) = (self.image.display().to_string(), self.at.display().to_string());
        run("mount", &["-o", "loop", &image, &at])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.at.display().to_string()])
    }

    /// Whether a loop device still has the image.
    fn is_attached(&self) -> bool {
        let devices = Command::new("losetup").arg("-j").arg(&self.image).output().unwrap();
        !devices.stdout.is_empty()
    }

    /// The file system takes nothing more, and what it had not written is gone.
    fn shut_down(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", &self.at.display().to_string()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where it is not mounted there is nothing to do.
        let _ = self.unmount();
    }
}

/// A world whose data folder is a disk of its own; the disk goes first.
struct Powered {
    disk: Disk,
    world: World,
}

impl Powered {
    /// Nothing, and the reason said loudly, where no disk can be made here.
    async fn new(kind: &str, seed: u64) -> Option<Self> {
        let world = World::new(seed).await;
        match Disk::new(kind, world.folder.path().join("image"), world.data()) {
            Ok(disk) => Some(Self { disk, world }),
            Err(why) => {
                tell(&format!("SKIPPED, no power is cut: {kind} cannot be mounted here: {why}"));
                None
            }
        }
    }

    /// Stops the gateway where it stands, and cuts the power.
    async fn cut(&self, gateway: &mut Gateway) {
        gateway.signal(Signal::STOP);
        let threads = PathBuf::from(format!("/proc/{}/task", gateway.id()));
        until("every thread to stand still", async || all_stand(&threads).then_some(())).await;
        self.disk.shut_down().unwrap();
        gateway.kill();
    }

    /// Power comes back. The old file system has to be gone altogether: whoever made a mount
    /// namespace meanwhile still has it, and mounting would only give it to us again.
    async fn restore(&self) {
        self.disk.unmount().unwrap();
        until("the file system to be gone", async || (!self.disk.is_attached()).then_some(()))
            .await;
        self.disk.mount().unwrap();
    }
}

/// Whether every thread of a process is stopped: one in a system call ends that first.
fn all_stand(threads: &Path) -> bool {
    fs::read_dir(threads).unwrap().flatten().all(|thread| {
        let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = state.rsplit(')').next().unwrap_or_default().trim_start();
        state.starts_with('T') || state.starts_with('t')
    })
}

/// Calls, and a power cut among them.
async fn burst(
    powered: &Powered,
    gateway: &mut Gateway,
    log: &Arc<Log>,
    chance: &mut Chance,
    name: u64,
) {
    let before = log.acknowledged_count();
    let load = Load::start(gateway.address, log, chance, &name.to_string(), CALLERS);
    tokio::time::sleep(Duration::from_millis(30 + chance.below(170))).await;
    until_acknowledged(log, before + 10).await;
    powered.cut(gateway).await;
    load.end().await;
    powered.restore().await;
}

/// How many keys were acknowledged whose operation is not in the ledger, or not done though its
/// answer was given.
fn lost(log: &Log, operations: &[Value]) -> usize {
    let is_there = |told: &Told| {
        operations.iter().any(|operation| {
            operation["id"] == told.operation && (!told.is_final() || operation["state"] == "done")
        })
    };
    let asked = log.lock();
    let acknowledged = |told: &&Told| told.is_acknowledged();
    asked.told.values().filter(|told| !told.iter().filter(acknowledged).all(is_there)).count()
}

async fn cut_the_power_of(kind: &'static str, suite: &'static str) {
    let seed = seed();
    let cuts = number("TEST_CUTS", 4);
    let mut told = Figures::of(suite, seed);
    let mut chance = Chance(seed);
    let (mut done, mut violations, mut lost_in_all) = (0, Vec::new(), 0);
    let (mut acknowledged, mut operations, mut lost_answers) = (0, 0, 0);
    while done < cuts {
        let Some(powered) = Powered::new(kind, chance.next()).await else { return };
        let log = Arc::new(Log::default());
        for _ in 0..CUTS_A_DISK.min(cuts - done) {
            let mut gateway = powered.world.start().await;
            burst(&powered, &mut gateway, &log, &mut chance, done).await;
            done += 1;
        }
        let gateway = powered.world.start().await;
        gateway.quiet().await;
        lost_in_all += lost(&log, &gateway.operations().await);
        let checked = settle_and_check(&powered.world, gateway, &log).await;
        violations.extend(checked.violations);
        acknowledged += checked.figures.acknowledged;
        operations += checked.figures.operations;
        lost_answers += checked.figures.lost_answers;
    }
    told.count("cuts", cuts);
    told.count("acknowledged", acknowledged);
    told.count("operations", operations);
    told.count("lost_answers", lost_answers);
    told.count("lost", lost_in_all);
    told.tell(violations.len() + lost_in_all);
    assert_eq!(lost_in_all, 0, "acknowledged and lost");
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(acknowledged as u64 >= 10 * cuts, "too little acknowledged: {acknowledged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged_on_ext4() {
    cut_the_power_of("ext4", "power-ext4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged_on_xfs() {
    cut_the_power_of("xfs", "power-xfs").await;
}

/// The control: the very same cuts, and a tracer that lets the journal's sync do nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_sync_does_nothing_a_power_cut_loses_what_was_acknowledged() {
    if !crate::crash_world::can_trace() {
        return;
    }
    let seed = seed();
    let cuts = number("TEST_CONTROL_CUTS", 3);
    let mut told = Figures::of("power-control", seed);
    let mut chance = Chance(seed);
    let (mut lost_in_all, mut acknowledged, mut refused) = (0, 0, 0u64);
    let sync = "inject=fdatasync:retval=0";
    let wrapper = ["strace", "-f", "-D", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", sync];
    for cut in 0..cuts {
        let Some(powered) = Powered::new("ext4", chance.next()).await else { return };
        let log = Arc::new(Log::default());
        let mut gateway = powered.world.start_behind(&wrapper).await.unwrap();
        burst(&powered, &mut gateway, &log, &mut chance, cut).await;
        let is_acknowledged = |told: &&Vec<Told>| told.iter().any(Told::is_acknowledged);
        let before = log.lock().told.values().filter(is_acknowledged).count();
        acknowledged += before;
        if let Ok(gateway) = powered.world.start_behind(&[]).await {
            lost_in_all += lost(&log, &gateway.operations().await);
        } else {
            refused += 1;
            lost_in_all += before;
        }
    }
    told.count("cuts", cuts);
    told.count("acknowledged", acknowledged);
    told.count("lost", lost_in_all);
    told.count("refused_to_start", refused);
    told.tell(0);
    assert!(lost_in_all > 0, "nothing was lost of {acknowledged}: the cut is none");
}

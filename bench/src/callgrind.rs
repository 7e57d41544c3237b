//! Callgrind: runs a program, and says how many instructions it took between two moments, and how
//! often it asked for memory.
//!
//! Instructions are counted in user space and one thread at a time, so that nothing else on the
//! machine is in the figure. Callgrind shows a processor without the newest instructions, for
//! which reason machines of different ages agree.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::Outcome;
use crate::meter::Usage;
use crate::subject::on_path;

/// A program does nothing any more when its processor time stood still over so many looks.
const QUIET_LOOKS: u32 = 4;
/// Longer than a tick of the kernel's clock for processor time.
const LOOK: Duration = Duration::from_millis(25);

/// What was done between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) instructions: u64,
    /// Calls of the allocator that may return new memory, the C library's included.
    pub(crate) allocations: u64,
}

/// One program under callgrind.
pub(crate) struct Callgrind {
    /// Where its files are put.
    folder: TempDir,
    /// They stay there under their phase's name.
    keep: Option<PathBuf>,
}

impl Callgrind {
    /// Files go to `data`, and what is counted is kept in `keep`.
    pub(crate) fn new(data: &Path, keep: Option<&Path>) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("bench-callgrind-").tempdir_in(data)?;
        Ok(Self { folder, keep: keep.map(Path::to_owned) })
    }

    /// What starts `program`; its arguments follow.
    pub(crate) fn command(&self, program: &Path) -> Outcome<Command> {
        let valgrind = on_path("valgrind").ok_or("valgrind is not installed (Debian: valgrind)")?;
        let mut file = std::ffi::OsString::from("--callgrind-out-file=");
        file.push(self.folder.path().join("out"));
        let mut command = Command::new(valgrind);
        command.args(["--quiet", "--tool=callgrind", "--cache-sim=no", "--fair-sched=yes"]);
        command.arg(file).arg(program);
        // With one worker the same load is the same work, whatever the number of cores.
        command.env("TOKIO_WORKER_THREADS", "1");
        Ok(command)
    }

    /// What process `pid` did since it was started or last asked; `name` is the phase.
    pub(crate) fn counts(&self, pid: u32, name: &str) -> Outcome<Counts> {
        quiet(pid);
        let said =
            Command::new("vgdb").arg(format!("--pid={pid}")).args(["dump", name]).output()?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            return Err(format!("vgdb cannot reach process {pid}: {text}").into());
        }
        let part = self.newest()?;
        let counts = read(&fs::read_to_string(&part)?)?;
        if let Some(keep) = &self.keep {
            fs::create_dir_all(keep)?;
            fs::copy(&part, keep.join(format!("callgrind.{name}")))?;
        }
        fs::remove_file(part)?;
        Ok(counts)
    }

    /// Each part is a file with a number of its own.
    fn newest(&self) -> Outcome<PathBuf> {
        let files = fs::read_dir(self.folder.path())?.flatten().map(|entry| entry.path());
        let mut parts = files.filter(|file| file.extension().is_some());
        parts.next().ok_or_else(|| "callgrind wrote nothing".into())
    }
}

/// Waits until a process does nothing any more.
fn quiet(pid: u32) {
    let mut used = Usage::of(&[pid]).cpu;
    let mut still = 0;
    while still < QUIET_LOOKS {
        std::thread::sleep(LOOK);
        let now = Usage::of(&[pid]).cpu;
        still = if now == used { still + 1 } else { 0 };
        used = now;
    }
}

/// Reads one part of callgrind's profile: its sum, and the calls of allocators.
///
/// A function is `(number) name` where it is met first, and `(number)` from then on; a line of
/// `calls=` belongs to the last `fn=` and `cfn=` before it.
fn read(profile: &str) -> Outcome<Counts> {
    let mut names = HashMap::new();
    let (mut caller, mut called) = ("", "");
    let mut counts = Counts::default();
    for line in profile.lines() {
        let Some((field, value)) = line.split_once('=').or_else(|| line.split_once(": ")) else {
            continue;
        };
        match field {
            "totals" => counts.instructions = value.trim().parse()?,
            "fn" => caller = name(value, &mut names),
            "cfn" => called = name(value, &mut names),
            "calls" if is_allocation(caller, called) => {
                let count = value.split(' ').next().unwrap_or_default();
                counts.allocations += count.parse::<u64>()?;
            }
            _ => {}
        }
    }
    Ok(counts)
}

fn name<'a>(value: &'a str, names: &mut HashMap<&'a str, &'a str>) -> &'a str {
    match value.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(value).copied().unwrap_or_default(),
    }
}

/// Whether a call asks for memory: of mimalloc, which calls itself, or of the C library.
fn is_allocation(caller: &str, called: &str) -> bool {
    const ENDS: [&str; 3] = ["alloc", "alloc_aligned", "memalign"];
    let within = caller.starts_with("mi_") || caller.starts_with("_mi_");
    called.strip_prefix("mi_").map_or_else(
        || matches!(called, "malloc" | "calloc" | "realloc" | "aligned_alloc" | "posix_memalign"),
        |name| !within && ENDS.iter().any(|end| name.ends_with(end)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_its_sum_and_who_asked_for_memory() {
        let profile = "\
desc: Trigger: dump held
events: Ir
summary: 900

fn=(1) handle
0 20
cfn=(2) mi_malloc_aligned
calls=7 0
0 70
cfn=(3) mi_free
calls=9 0
0 90

fn=(2)
cfn=(4) mi_theap_malloc_aligned
calls=7 0
0 60

fn=(5) sqlite3MemMalloc
cfn=(6) malloc
calls=3 0
0 30

fn=(1)
cfn=(2)
calls=2 0
0 20
totals: 1000
";
        assert_eq!(read(profile).unwrap(), Counts { instructions: 1000, allocations: 12 });
    }
}

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
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::subject::on_path;
use crate::{Outcome, meter};

/// Between two looks at whether a program still runs.
const LOOK: Duration = Duration::from_millis(2);
/// Longer than anything that a program begins by itself takes to follow on what it did.
const PAUSE: Duration = Duration::from_millis(150);

/// What was done between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Without those of `hashing`.
    pub(crate) instructions: u64,
    /// Instructions of SHA-256 in software: a processor that has instructions of its own for it,
    /// which callgrind does not know, needs a small part of them.
    pub(crate) hashing: u64,
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
        quiet(pid, PAUSE);
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

/// Waits until no thread of a process has run for so long.
pub(crate) fn quiet(pid: u32, pause: Duration) {
    let mut ran = meter::ran(pid);
    let mut since = Instant::now();
    while since.elapsed() < pause {
        std::thread::sleep(LOOK);
        let now = meter::ran(pid);
        if now != ran {
            (ran, since) = (now, Instant::now());
        }
    }
}

/// Reads one part of callgrind's profile: the functions' own instructions, and the calls of
/// allocators.
///
/// A function is `(number) name` where it is met first, and `(number)` from then on. Behind its
/// `fn=` are lines of its own cost, `line cost`, and for each function that it called three:
/// `cfn=`, `calls=`, and what the call cost.
fn read(profile: &str) -> Outcome<Counts> {
    let mut names = HashMap::new();
    let (mut within, mut to) = ("", "");
    let mut is_of_call = false;
    let mut counts = Counts::default();
    for line in profile.lines() {
        match line.split_once('=') {
            Some(("fn", value)) => within = name(value, &mut names),
            Some(("cfn", value)) => to = name(value, &mut names),
            Some(("calls", value)) => {
                is_of_call = true;
                if is_allocation(within, to) {
                    let count = value.split(' ').next().unwrap_or_default();
                    counts.allocations += count.parse::<u64>()?;
                }
            }
            Some(_) => {}
            None if std::mem::take(&mut is_of_call) => {}
            None => {
                let is_hashing = within.contains("sha256");
                let cost = cost(line);
                *(if is_hashing { &mut counts.hashing } else { &mut counts.instructions }) += cost;
            }
        }
    }
    Ok(counts)
}

/// What a line of cost says; every other line says nothing.
fn cost(line: &str) -> u64 {
    let mut words = line.split(' ');
    let at = words
        .next()
        .is_some_and(|at| at.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)));
    words.next().filter(|_| at).and_then(|cost| cost.parse().ok()).unwrap_or_default()
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
fn is_allocation(within: &str, to: &str) -> bool {
    const ENDS: [&str; 3] = ["alloc", "alloc_aligned", "memalign"];
    let is_own = within.starts_with("mi_") || within.starts_with("_mi_");
    to.strip_prefix("mi_").map_or_else(
        || matches!(to, "malloc" | "calloc" | "realloc" | "aligned_alloc" | "posix_memalign"),
        |name| !is_own && ENDS.iter().any(|end| name.ends_with(end)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_who_ran_and_who_asked_for_memory() {
        let profile = "\
desc: Trigger: dump held
positions: line
events: Ir
summary: 900

fn=(1) handle<a = b>
0 20
cfn=(2) mi_malloc_aligned
calls=7 0
0 70
+3 5
cfn=(3) mi_free
calls=9 0
* 90

fn=(2)
0 300
cfn=(4) mi_theap_malloc_aligned
calls=7 0
0 60

fn=(5) sqlite3MemMalloc
cfn=(6) malloc
calls=3 0
0 30

fn=(7) sha2::sha256::soft::compress
0 1000

fn=(1)
cfn=(2)
calls=2 0
0 20
totals: 1325
";
        let counts = Counts { instructions: 325, hashing: 1000, allocations: 12 };
        assert_eq!(read(profile).unwrap(), counts);
    }
}

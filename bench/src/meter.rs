//! What the kernel says about a process: time, memory, bytes written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

/// How many syncs the disk is asked for before the run.
const SYNCS: usize = 200;

/// What a subject had used when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its processes, dead threads included.
    pub(crate) cpu: Duration,
    /// What it caused to be sent to the disk.
    pub(crate) written: u64,
}

impl Usage {
    /// Reads the sum over `pids`; who is gone counts as nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let ticks = rustix::param::clock_ticks_per_second();
        pids.iter().fold(Self::default(), |sum, pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            Self {
                cpu: sum.cpu + Duration::from_secs_f64(ticks_used(&stat) as f64 / ticks as f64),
                written: sum.written + field(&io, "write_bytes:"),
            }
        })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.written += other.written;
    }
}

/// What the whole machine's cores did, ours and others'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Running some program, or held back by a hypervisor.
    pub(crate) busy: Duration,
    /// All the time there was.
    pub(crate) all: Duration,
}

impl Cores {
    /// Reads the sums since the machine was started.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::parse(&stat, rustix::param::clock_ticks_per_second())
    }

    /// What was done since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            all: self.all.saturating_sub(earlier.all),
        }
    }

    fn parse(stat: &str, ticks: u64) -> Self {
        let first = stat.lines().next().unwrap_or_default();
        let times: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|time| time.parse().ok()).collect();
        let [user, nice, system, idle, wait, hard, soft, steal] = times[..] else {
            return Self::default();
        };
        let time = |count: u64| Duration::from_secs_f64(count as f64 / ticks as f64);
        Self {
            // Interrupts are left out: the loopback's belong to the load, and to no process.
            busy: time(user + nice + system + steal),
            all: time(user + nice + system + idle + wait + hard + soft + steal),
        }
    }
}

impl std::ops::AddAssign for Cores {
    fn add_assign(&mut self, other: Self) {
        self.busy += other.busy;
        self.all += other.all;
    }
}

/// How long all threads of a process ran so far, to the nanosecond; waiting for a core is not
/// in it.
pub(crate) fn ran(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| {
            let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// Memory in bytes: now, and the most there was.
pub(crate) fn memory(pids: &[u32]) -> (u64, u64) {
    pids.iter().fold((0, 0), |(now, most), pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (now + 1024 * field(&status, "VmRSS:"), most + 1024 * field(&status, "VmHWM:"))
    })
}

/// A process and its children: a master with workers counts as one.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut pids = vec![pid];
    pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    pids
}

/// Bytes that a folder takes on disk, holes and preallocation as the file system counts them.
pub(crate) fn disk(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            // `st_blocks` is in units of 512 bytes, whatever the file system's own block is.
            Ok(metadata) => metadata.blocks() * 512,
            // A log that was dropped between listing and looking.
            Err(_) => 0,
        })
        .sum()
}

/// The median time of writing 4 KiB and syncing it: the floor of every durable answer here.
pub(crate) fn sync_time(folder: &Path) -> Outcome<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for n in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(&[n as u8; 4096], (n as u64 * 4096) % (1 << 20))?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// User plus system time from `/proc/PID/stat`: fields 14 and 15, counted after the name, which
/// may hold spaces and parentheses itself.
fn ticks_used(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0;
    };
    rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 4 0 100";
        assert_eq!(ticks_used(stat), 300);
        assert_eq!(ticks_used(""), 0);
    }

    #[test]
    fn a_field_is_the_first_number_of_its_line() {
        assert_eq!(field("VmHWM:\t   2048 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"), 1024);
        assert_eq!(field("", "VmRSS:"), 0);
    }

    #[test]
    fn interrupts_and_waiting_are_time_but_not_work() {
        let cores = Cores::parse("cpu  100 20 30 400 50 6 7 10 0 0\ncpu0 1 1\n", 100);
        assert_eq!(cores.busy, Duration::from_millis(1600));
        assert_eq!(cores.all, Duration::from_millis(6230));
        assert_eq!(Cores::parse("", 100), Cores::default());
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(memory(&[pid]).0 > 0);
        assert_eq!(family(pid)[0], pid);
    }
}

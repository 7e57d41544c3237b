//! What the service manager is told, in systemd's words (sd_notify): on the datagram socket that
//! `NOTIFY_SOCKET` names. Where nobody listens nothing is told.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

/// How long a manager may take to make room for a message: it is meant to be there at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The time that is asked for with each try while the ledger is away; a try takes less.
const WAIT: Duration = Duration::from_mins(1);

/// What a stop takes beside its grace: outboxes that let go, and the last writes.
const STOP: Duration = Duration::from_secs(30);

/// The service manager, where there is one.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Supervisor {
    /// Finds it, and shows it from now on that the process is alive, where it wants to see that.
    pub(crate) fn begin() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let found = named.and_then(|name| match open(&name) {
            Ok(there) => Some(Arc::new(there)),
            Err(error) => {
                warn!(%error, "the service manager cannot be told anything: NOTIFY_SOCKET");
                None
            }
        });
        let supervisor = Self(found);
        let variable = |name: &str| std::env::var(name).ok();
        if let Some(every) = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID")) {
            tokio::spawn(supervisor.clone().show_life(every));
        }
        supervisor
    }

    /// It listens, and sends what is due.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=takes calls");
    }

    /// The ledger is away: the start takes longer, and has not failed.
    pub(crate) fn waits(&self) {
        self.tell(&format!(
            "EXTEND_TIMEOUT_USEC={}\nSTATUS=waits for the ledger; callers are told to come back",
            WAIT.as_micros()
        ));
    }

    /// It reads its configuration again; `ready` is the end of that.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reads the configuration again"
        ));
    }

    /// It drains: the manager must not end it before the grace is over.
    pub(crate) fn stopping(&self, grace: Duration) {
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=draining: what is under way runs to its end",
            (grace + STOP).as_micros()
        ));
    }

    /// That the runtime gets round to it is what is shown.
    async fn show_life(self, every: Duration) {
        let mut beat = tokio::time::interval(every);
        loop {
            beat.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        let Some((socket, to)) = self.0.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), to) {
            warn!(%error, "the service manager was not told: {}", state.replace('\n', ", "));
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address(name)?))
}

/// A path, or `@` and a name that is in no file system.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(rest)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is neither a path nor an abstract name", name.display()),
        )),
    }
}

/// How often life has to be shown, where it has to be, and by this process: twice in the manager's time.
fn watchdog(usec: Option<String>, of: Option<String>) -> Option<Duration> {
    let ours = of.is_none_or(|of| of == std::process::id().to_string());
    let time: u64 = usec?.parse().ok()?;
    (ours && time > 1).then(|| Duration::from_micros(time / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_found_by_path_or_abstract_name_and_nowhere_else() {
        let path = address(OsStr::new("/run/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/notify"));
        assert!(address(OsStr::new("@notify")).unwrap().is_unnamed() != cfg!(target_os = "linux"));
        assert!(address(OsStr::new("vsock:2:1")).is_err());
    }

    #[test]
    fn life_is_shown_twice_in_the_time_that_is_asked_of_this_process() {
        let some = |text: &str| Some(text.to_owned());
        let own = some(&std::process::id().to_string());
        assert_eq!(watchdog(some("30000000"), own), Some(Duration::from_secs(15)));
        assert_eq!(watchdog(some("30000000"), None), Some(Duration::from_secs(15)));
        assert_eq!(watchdog(some("30000000"), some("1")), None);
        assert_eq!(watchdog(some("0"), None), None);
        assert_eq!(watchdog(None, None), None);
    }
}

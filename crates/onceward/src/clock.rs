//! Door 3, time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use onceward_core::time::Timestamp;

/// Whatever tells the time and lets time pass.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Completes when `until` has come; at once where it is past.
    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's clock, without its jumps: it is read when the process starts, and from then on
/// time passes as it does since the machine's boot. A wall clock that was set meanwhile is
/// approached slowly, so that a key's window, a due time and a deadline stay about as long as
/// they were meant to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// How slowly: a second in a minute at most.
const APPROACH: u32 = 60;

/// How often the wall clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    since_boot: Duration,
    at: Timestamp,
}

/// One process has one time.
static ANCHOR: Mutex<Option<Anchor>> = Mutex::new(None);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Timestamp {
        let since_boot = since_boot();
        let mut anchor = ANCHOR.lock().unwrap_or_else(PoisonError::into_inner);
        match *anchor {
            Some(last) if since_boot.saturating_sub(last.since_boot) < LOOK_EVERY => {
                last.at.plus(since_boot.saturating_sub(last.since_boot))
            }
            last => {
                let wall = SystemTime::now().into();
                let at = last.map_or(wall, |last| {
                    approach(last.at, since_boot.saturating_sub(last.since_boot), wall)
                });
                *anchor = Some(Anchor { since_boot, at });
                at
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn sleep_until(&self, until: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(until.since(self.now())))
    }
}

/// The time that has passed since boot, sleep of the machine included; nobody sets it.
fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(CLOCK);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The time `passed` after `last`, a little nearer to what the wall clock says.
fn approach(last: Timestamp, passed: Duration, wall: Timestamp) -> Timestamp {
    let now = last.plus(passed);
    let most = passed / APPROACH;
    if wall > now {
        wall.min(now.plus(most))
    } else {
        wall.max(last.plus(passed.saturating_sub(most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_is_approached_by_a_second_in_a_minute() {
        let last = Timestamp::from_micros(1_000_000_000);
        let minute = Duration::from_mins(1);
        let far = Duration::from_hours(72);
        let after = |seconds: u64| last.plus(Duration::from_secs(seconds));
        assert_eq!(approach(last, minute, last.plus(far)), after(61));
        assert_eq!(approach(last, minute, Timestamp::from_micros(0)), after(59));
        assert_eq!(approach(last, minute, after(60)), after(60));
        assert_eq!(
            approach(last, minute, after(59).plus(Duration::from_millis(500))),
            after(59).plus(Duration::from_millis(500))
        );
    }
}

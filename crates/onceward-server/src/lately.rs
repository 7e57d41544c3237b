//! What every page shows and is read of the ledger: read anew each time, but for what takes long, which is
//! kept for a multiple of that. So a page is never behind where reading is cheap, and pages cannot keep
//! the ledger busy where it is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceward::core::time::Timestamp;
use tokio::sync::Mutex;

use crate::shape;

/// For how many times as long as it took to read something is kept: of eleven parts of the time one may
/// be spent on reading.
const KEPT_TIMES: u32 = 10;

/// The longest that something is kept.
const KEPT_MAX: Duration = Duration::from_secs(10);

/// Something that was read lately.
#[derive(Debug)]
pub(crate) struct Lately<T> {
    kept: Mutex<Option<Kept<T>>>,
    /// Whether this process has changed it since it began to be read.
    is_old: AtomicBool,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    read: Timestamp,
    until: Timestamp,
}

impl<T> Kept<T> {
    fn new(value: T, began: Timestamp, read: Timestamp) -> Self {
        let until = read.plus((read.since(began) * KEPT_TIMES).min(KEPT_MAX));
        Self { value, read, until }
    }

    /// A clock that was set back ends it.
    fn holds(&self, now: Timestamp) -> bool {
        self.read <= now && now < self.until
    }
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self { kept: Mutex::new(None), is_old: AtomicBool::new(false) }
    }
}

impl<T: Clone> Lately<T> {
    /// What was read lately, or what `read` reads now; who comes meanwhile waits for that.
    pub(crate) async fn get<E>(&self, read: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut kept = self.kept.lock().await;
        let began = shape::now();
        let is_old = self.is_old.swap(false, Ordering::AcqRel);
        if let Some(kept) = kept.as_ref().filter(|kept| !is_old && kept.holds(began)) {
            return Ok(kept.value.clone());
        }
        *kept = None;
        let value = read.await?;
        *kept = Some(Kept::new(value.clone(), began, shape::now()));
        Ok(value)
    }

    /// It is another one now: whoever comes next reads it anew.
    pub(crate) fn changed(&self) {
        self.is_old.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_read_is_kept_for_longer_and_nothing_for_good() {
        let at = |millis: i64| Timestamp::from_micros(1_800_000_000_000_000 + millis * 1000);
        for (took, held, over) in [(0, None, 0), (2, Some(21), 22), (60_000, Some(69_999), 70_000)]
        {
            let kept = Kept::new((), at(0), at(took));
            assert!(held.is_none_or(|held| kept.holds(at(held))), "{took}");
            assert!(!kept.holds(at(over)) && !kept.holds(at(-1)), "{took}");
        }
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_not_kept() {
        let lately = Lately::default();
        assert_eq!(lately.get(async { Err("away") }).await, Err("away"));
        assert_eq!(lately.get(async { Ok::<_, &str>(1) }).await, Ok(1));
        lately.changed();
        assert_eq!(lately.get(async { Ok::<_, &str>(2) }).await, Ok(2));
    }
}

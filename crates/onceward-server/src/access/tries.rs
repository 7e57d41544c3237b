//! How often somebody may try to log in, and how many failures the audit takes: both bounded, for whoever
//! tries is a stranger.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::connections::holder_of;

/// How many tries an address has in a [`WINDOW`].
const TRIES_MAX: u32 = 5;

const WINDOW: Duration = Duration::from_mins(1);

/// Past so many addresses that of the oldest window is forgotten.
const ADDRESSES_MAX: usize = 4096;

/// How many failures are noted in a [`WINDOW`]; of the others their number is.
const NOTES_MAX: u32 = 10;

/// The tries of late.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    by_address: HashMap<IpAddr, Window>,
    notes: Option<Window>,
    /// Failures that were not noted.
    passed_over: u64,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    count: u32,
}

impl Window {
    /// Counts one more within `window`, or the first of a new one; tells how many.
    fn count(window: Option<Self>, now: Instant) -> Self {
        match window.filter(|window| now.duration_since(window.began) < WINDOW) {
            Some(window) => Self { count: window.count.saturating_add(1), ..window },
            None => Self { began: now, count: 1 },
        }
    }
}

impl Tries {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a try; tells how long it is until the next, where there were too many.
    pub(super) fn begin(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut inside = self.inside();
        let address = holder_of(address);
        let window = Window::count(inside.by_address.get(&address).copied(), now);
        if window.count > TRIES_MAX {
            return Err(WINDOW.saturating_sub(now.duration_since(window.began)));
        }
        if inside.by_address.len() >= ADDRESSES_MAX && !inside.by_address.contains_key(&address) {
            let is_over = |window: &Window| now.duration_since(window.began) >= WINDOW;
            inside.by_address.retain(|_, window| !is_over(window));
            let oldest = inside.by_address.iter().min_by_key(|(_, window)| window.began);
            let oldest = oldest.map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| inside.by_address.len() >= ADDRESSES_MAX) {
                inside.by_address.remove(&oldest);
            }
        }
        inside.by_address.insert(address, window);
        Ok(())
    }

    /// It was somebody who may.
    pub(super) fn succeeded(&self, address: IpAddr) {
        self.inside().by_address.remove(&holder_of(address));
    }

    /// Whether a failure is noted; with how many that were not since the last.
    pub(super) fn note(&self, now: Instant) -> Option<u64> {
        let mut inside = self.inside();
        let window = Window::count(inside.notes, now);
        inside.notes = Some(window);
        if window.count > NOTES_MAX {
            inside.passed_over += 1;
            return None;
        }
        Some(std::mem::take(&mut inside.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn an_address_has_five_tries_a_minute_and_another_its_own() {
        let (tries, now) = (Tries::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..TRIES_MAX {
            assert_eq!(tries.begin(one, now), Ok(()));
        }
        assert_eq!(tries.begin(one, now), Err(WINDOW));
        assert_eq!(tries.begin(other, now), Ok(()));
        assert_eq!(tries.begin(one, now + WINDOW), Ok(()), "a minute later it has others");
        let network = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        for last in 0..5 {
            assert_eq!(tries.begin(network(last), now), Ok(()));
        }
        assert!(tries.begin(network(9), now).is_err(), "a /64 is one");
        tries.succeeded(network(7));
        assert_eq!(tries.begin(network(8), now), Ok(()));
    }

    #[test]
    fn what_is_kept_of_tries_and_failures_is_bounded() {
        let (tries, now) = (Tries::default(), Instant::now());
        for n in 0..2 * ADDRESSES_MAX as u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(n));
            assert_eq!(tries.begin(address, now + Duration::from_micros(u64::from(n))), Ok(()));
        }
        assert_eq!(tries.inside().by_address.len(), ADDRESSES_MAX);
        let noted = (0..100).filter(|_| tries.note(now).is_some()).count();
        assert_eq!(noted, NOTES_MAX as usize);
        assert_eq!(tries.note(now + WINDOW), Some(90), "the next tells of those");
    }
}

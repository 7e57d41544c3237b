//! What follows a row, where anything was measured: how long the phases of each attempt took.
//!
//! Of each attempt in order one number, which is how many phases follow, times two, and one more where
//! its connection had carried requests before; then the microseconds of each of them. A release that
//! knows of less reads past the rest, and one that knows nothing of it leaves it out of what it writes.

use std::time::Duration;

use onceward_core::attempt::{Attempt, Phase, Timings};

use super::{StoreError, damaged, put};

/// Whether any phase of an attempt was measured.
pub(super) fn are_there(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| !of(attempt).is_empty())
}

/// Appends them to `to`.
pub(super) fn encode(attempts: &[Attempt], to: &mut Vec<u8>) {
    for attempt in attempts {
        let timings = of(attempt);
        let last = timings.each().last().map(|(phase, _)| phase);
        let phases = Phase::ALL.into_iter().take_while(|phase| Some(*phase) <= last);
        let reused = timings.reused && last.is_some();
        put(to, &(phases.clone().count() as u64 * 2 + u64::from(reused)));
        for phase in phases {
            let took = timings.of(phase).unwrap_or_default();
            put(to, &u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// Reads them from what follows a row: nothing, where nothing was measured.
pub(super) fn decode(mut bytes: &[u8], attempts: &mut [Attempt]) -> Result<(), StoreError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut next = || -> Result<u64, StoreError> {
        let (number, rest): (u64, _) = postcard::take_from_bytes(bytes).map_err(damaged)?;
        bytes = rest;
        Ok(number)
    };
    for attempt in attempts {
        let head = next()?;
        let mut timings = Timings::new(head % 2 == 1);
        for place in 0..head / 2 {
            let micros = next()?;
            let phase = usize::try_from(place).ok().and_then(|place| Phase::ALL.get(place));
            if let Some(phase) = phase.filter(|_| micros > 0) {
                timings.add(*phase, Duration::from_micros(micros));
            }
        }
        if let Some(ended) = attempt.ended.as_mut().filter(|_| !timings.is_empty()) {
            ended.timings = timings;
        }
    }
    Ok(())
}

fn of(attempt: &Attempt) -> Timings {
    attempt.ended.as_ref().map(|ended| ended.timings).unwrap_or_default()
}

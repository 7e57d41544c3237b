//! Send slots: how many calls a lane has under way at once, so that a slow upstream never takes
//! what another needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::store::Lane;

/// The slots of every lane.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    lanes: Mutex<HashMap<Lane, Arc<Semaphore>>>,
    /// Wakes the dispatcher where a slot became free.
    freed: Arc<Notify>,
}

/// A right to have one call under way. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.freed.notify_one();
    }
}

impl Slots {
    fn of(&self, lane: &Lane, slots_max: usize) -> Arc<Semaphore> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = lanes.get(lane) {
            return Arc::clone(slots);
        }
        let slots = Arc::new(Semaphore::new(slots_max));
        lanes.insert(lane.clone(), Arc::clone(&slots));
        slots
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { permit: Some(permit), freed: Arc::clone(&self.freed) }
    }

    /// A slot, if one is free.
    pub(crate) fn try_take(&self, lane: &Lane, slots_max: usize) -> Option<Slot> {
        self.of(lane, slots_max).try_acquire_owned().ok().map(|permit| self.slot(permit))
    }

    /// A slot, once one is free.
    pub(crate) async fn take(&self, lane: &Lane, slots_max: usize) -> Option<Slot> {
        let permit = self.of(lane, slots_max).acquire_owned().await.ok()?;
        Some(self.slot(permit))
    }

    /// As many free slots as there are, `max` at most.
    pub(crate) fn take_free(&self, lane: &Lane, slots_max: usize, max: usize) -> Vec<Slot> {
        std::iter::from_fn(|| self.try_take(lane, slots_max)).take(max).collect()
    }

    /// Wakes where a slot became free: a hint.
    pub(crate) fn freed(&self) -> Arc<Notify> {
        Arc::clone(&self.freed)
    }
}

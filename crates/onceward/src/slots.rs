//! Send slots: how many calls a lane has under way at once, so that a slow upstream never takes
//! what another needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::store::Lane;

/// The slots of every lane.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    lanes: Mutex<HashMap<Lane, LaneSlots>>,
    /// Wakes the dispatcher where a slot became free.
    freed: Arc<Notify>,
}

/// The slots of one lane, and how many there are.
#[derive(Debug)]
struct LaneSlots {
    slots: Arc<Semaphore>,
    size: usize,
}

impl LaneSlots {
    /// Makes it as large as the route says now: at once where it grows, and where it shrinks as
    /// slots become free.
    fn fit(&mut self, slots_max: usize) {
        if self.size < slots_max {
            self.slots.add_permits(slots_max - self.size);
            self.size = slots_max;
        } else {
            self.size -= self.slots.forget_permits(self.size - slots_max);
        }
    }
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
        if let Some(lane) = lanes.get_mut(lane) {
            lane.fit(slots_max);
            return Arc::clone(&lane.slots);
        }
        let slots = Arc::new(Semaphore::new(slots_max));
        lanes.insert(lane.clone(), LaneSlots { slots: Arc::clone(&slots), size: slots_max });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_as_many_slots_as_its_route_says_now() {
        let slots = Slots::default();
        let lane = Lane { tenant: "t".to_owned(), route: "r".to_owned() };
        let mut taken = slots.take_free(&lane, 4, 9);
        assert_eq!(taken.len(), 4);
        assert!(slots.try_take(&lane, 4).is_none());
        taken.extend(slots.try_take(&lane, 5));
        assert_eq!(taken.len(), 5, "it grows at once");
        taken.truncate(3);
        assert!(slots.try_take(&lane, 2).is_none(), "what became free is gone");
        taken.truncate(1);
        taken.extend(slots.take_free(&lane, 2, 9));
        assert_eq!(taken.len(), 2, "it shrinks as slots become free");
    }
}

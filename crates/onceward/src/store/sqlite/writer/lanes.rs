//! Lanes and the numbers that stand for them in rows.

use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;

use super::Writer;
use crate::store::sqlite::record::Record;
use crate::store::{Lane, StoreError};

/// Lanes that are kept in mind, at most; the others are looked up.
const LANES_MAX: usize = 64 * 1024;

impl Writer {
    /// The number of an operation's lane; most come as the one before.
    pub(super) fn lane(&mut self, operation: &Operation) -> Result<i64, StoreError> {
        if let Some((lane, id)) = &self.last_met
            && lane.is_of(operation)
        {
            return Ok(*id);
        }
        let lane = Lane::of(operation);
        let id = match self.lanes.get(&lane) {
            Some(id) => *id,
            None => self.look_up_lane(&lane)?,
        };
        self.last_met = Some((lane, id));
        Ok(id)
    }

    fn look_up_lane(&mut self, lane: &Lane) -> Result<i64, StoreError> {
        let known = self.index.lane(lane)?;
        let id = known.unwrap_or(self.last_lane + 1);
        if known.is_none() {
            self.record(&Record::Lane(id, lane.into()))?;
            self.last_lane = id;
        }
        self.meet(id, lane.clone());
        Ok(id)
    }

    /// Keeps in mind a lane that is in the index.
    fn meet(&mut self, id: i64, lane: Lane) {
        if self.lanes.len() >= LANES_MAX {
            self.lanes.clear();
            self.lane_names.clear();
        }
        self.lane_names.insert(id, lane.clone());
        self.lanes.insert(lane, id);
    }

    pub(super) fn lanes_due(&mut self) -> Result<Vec<(Lane, Timestamp)>, StoreError> {
        let mut named = Vec::new();
        for (id, due) in self.index.lanes_due()? {
            if !self.lane_names.contains_key(&id)
                && let Some(lane) = self.index.lane_of(id)?
            {
                self.meet(id, lane);
            }
            named.extend(self.lane_names.get(&id).map(|lane| (lane.clone(), due)));
        }
        Ok(named)
    }
}

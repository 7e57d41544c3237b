//! Forgetting, by retention: in small steps, so that no call waits behind it.

use std::sync::Arc;
use std::time::Duration;

use crate::advise;
use crate::engine::Engine;
use crate::sabotage::Sabotage;
use crate::store::StoreError;

/// Operations judged in one step.
const STEP: usize = 256;

/// Between two steps, so that a pass over a large ledger takes little of the writer's time.
const STEP_PAUSE: Duration = Duration::from_millis(100);

/// Before the first pass: a process that never lives long has to forget too.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Between two passes.
const PASS_PAUSE: Duration = Duration::from_mins(10);

/// Duplicates are counted in memory and written this often.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Forgets what is over, for ever; what is full or away now is swept in the next pass.
pub(crate) async fn sweep(engine: Arc<Engine>) {
    let is_over =
        |swept: Result<(), StoreError>| swept.is_err_and(|error| !engine.goes_on_after(&error));
    let mut pause = FIRST_PAUSE;
    loop {
        engine.clock.sleep_until(engine.clock.now().plus(pause)).await;
        pause = PASS_PAUSE;
        if is_over(engine.forget_notes().await)
            || is_over(sweep_operations(&engine).await)
            || is_over(sweep_lines(&engine).await)
        {
            return;
        }
    }
}

async fn sweep_operations(engine: &Engine) -> Result<(), StoreError> {
    let mut from = Some(0);
    while let Some(place) = from {
        from = engine.store.sweep(engine.clock.now(), place, STEP).await?.next;
        engine.clock.sleep_until(engine.clock.now().plus(STEP_PAUSE)).await;
    }
    Ok(())
}

async fn sweep_lines(engine: &Engine) -> Result<(), StoreError> {
    let mut from = Some(String::new());
    while let Some(place) = from {
        from = engine.sweep_lines(place, STEP).await?;
        if from.is_some() {
            engine.clock.sleep_until(engine.clock.now().plus(STEP_PAUSE)).await;
        }
    }
    Ok(())
}

/// Writes the counts of duplicates, and now and then what routes have seen, for ever.
pub(crate) async fn write_asked(engine: Arc<Engine>) {
    let mut next = engine.clock.now().plus(advise::EVERY);
    loop {
        engine.clock.sleep_until(engine.clock.now().plus(ASKED_EVERY)).await;
        let mut written = engine.flush_asked().await;
        if written.is_ok() && engine.clock.now() >= next {
            next = engine.clock.now().plus(advise::EVERY);
            written = engine.flush_seen().await;
        }
        // A count is no promise: what a full ledger does not take is lost.
        if written.is_err_and(|error| !engine.goes_on_after(&error)) {
            return;
        }
    }
}

impl Engine {
    /// Writes the counts of duplicates that are still in memory.
    pub async fn flush_asked(&self) -> Result<(), StoreError> {
        let asked = self.take_asked();
        if asked.is_empty() { Ok(()) } else { self.store.note_asked(asked).await }
    }

    /// Takes up this session's right and judges what earlier processes left behind; tells how many
    /// operations that were. Called once, before anything is sent.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        if !Sabotage::PauseForgotten.is_on() {
            self.read_pauses().await?;
        }
        let judged = crate::recover::recover(self).await?;
        crate::recover::share_rates(self).await?;
        Ok(judged)
    }

    /// Begins to deliver accepted work and to forget what is over, until [`Engine::stop`].
    pub fn start(self: &Arc<Self>) {
        self.keep_up(crate::recover::beat(Arc::clone(self)));
        self.keep_up(crate::dispatch::dispatch(Arc::clone(self)));
        self.keep_up(crate::doubt::look(Arc::clone(self)));
        self.keep_up(crate::doubt::hear(Arc::clone(self)));
        self.keep_up(sweep(Arc::clone(self)));
        self.keep_up(write_asked(Arc::clone(self)));
        self.keep_up(crate::bulk::look_after(Arc::clone(self)));
        self.keep_up(crate::callback::tell(Arc::clone(self)));
        self.keep_up(crate::claim::look_for_lapses(Arc::clone(self)));
    }
}

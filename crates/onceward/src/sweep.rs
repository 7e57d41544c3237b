//! Forgetting, by retention: in small steps, so that no call waits behind it.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::observe::Fact;
use crate::store::StoreError;

/// Operations judged in one step.
const STEP: usize = 256;

/// Between two steps, so that a pass over a large ledger takes little of the writer's time.
pub(crate) const STEP_PAUSE: Duration = Duration::from_millis(100);

/// Before the first pass: a process that never lives long has to forget too.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Between two passes.
const PASS_PAUSE: Duration = Duration::from_mins(10);

/// Forgets what is over, for ever; what is full or away now is swept in the next pass.
pub(crate) async fn sweep(engine: Arc<Engine>) {
    let is_over =
        |swept: Result<(), StoreError>| swept.is_err_and(|error| !engine.goes_on_after(&error));
    let mut pause = FIRST_PAUSE;
    loop {
        engine.clock.sleep_until(engine.clock.now().plus(pause)).await;
        pause = PASS_PAUSE;
        if is_over(engine.forget_notes().await)
            || is_over(engine.finish_erasures().await)
            || is_over(sweep_operations(&engine).await)
            || is_over(sweep_lines(&engine).await)
            || is_over(engine.sweep_tallies().await)
        {
            return;
        }
    }
}

async fn sweep_operations(engine: &Engine) -> Result<(), StoreError> {
    let mut from = Some(0);
    while let Some(place) = from {
        let swept = engine.store.sweep(engine.clock.now(), place, STEP).await?;
        engine.observer.observe(Fact::Swept(&swept));
        from = swept.next;
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

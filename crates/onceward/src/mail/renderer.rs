//! Where mails are rendered: a small one where it is asked for, a large one beside the threads that serve
//! connections, and of those as many at once as there are cores.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// The largest mail that is rendered where it is asked for, in bytes as it is posted: in some tenths of a
/// millisecond.
const AT_ONCE_MAX: usize = 64 << 10;

/// Renders mails.
#[derive(Debug)]
pub(crate) struct Renderer {
    /// The threads beside serve the ledger too: a burst of large mails leaves it some.
    room: Arc<Semaphore>,
}

impl Default for Renderer {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self { room: Arc::new(Semaphore::new(cores)) }
    }
}

impl Renderer {
    /// Does `work` with a mail of so many bytes. Nothing comes of it where the process ends meanwhile; a panic
    /// goes on here.
    pub(crate) async fn render<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if bytes <= AT_ONCE_MAX {
            return Some(work());
        }
        // Whoever hangs up meanwhile frees no room that is in use.
        let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let working = tokio::task::spawn_blocking(move || {
            let _room = room;
            work()
        });
        match working.await {
            Ok(rendered) => Some(rendered),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{current, yield_now};

    use super::*;

    const LARGE: usize = AT_ONCE_MAX + 1;

    #[tokio::test]
    async fn a_small_mail_is_rendered_where_it_is_asked_for_and_a_large_one_beside() {
        let renderer = Renderer::default();
        let here = current().id();
        for (bytes, is_here) in [(AT_ONCE_MAX, true), (LARGE, false)] {
            let there = renderer.render(bytes, || current().id()).await;
            assert_eq!(there == Some(here), is_here, "{bytes}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_large_mails_are_rendered_at_once_than_there_is_room_for() {
        let renderer = Arc::new(Renderer { room: Arc::new(Semaphore::new(2)) });
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let render = |_| {
            let (renderer, under_way, most) =
                (Arc::clone(&renderer), Arc::clone(&under_way), Arc::clone(&most));
            tokio::spawn(async move {
                let work = move || {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    (0..1000).for_each(|_| yield_now());
                    under_way.fetch_sub(1, Ordering::SeqCst);
                };
                renderer.render(LARGE, work).await
            })
        };
        for rendering in (0..16).map(render).collect::<Vec<_>>() {
            assert!(rendering.await.is_ok_and(|rendered| rendered.is_some()));
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_panic_over_a_large_mail_is_one_as_over_a_small_mail() {
        for bytes in [AT_ONCE_MAX, LARGE] {
            let renderer = Renderer::default();
            let rendering = async move { renderer.render(bytes, || panic!("of this mail")).await };
            let ended = tokio::spawn(rendering).await;
            assert!(ended.is_err_and(|error| error.is_panic()), "{bytes}");
        }
    }
}

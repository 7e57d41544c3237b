//! Threads that move callers' connections, one for each core.
//!
//! Each has a runtime of its own, so that a request is read, sent on and answered on one thread, which
//! wakes no other: one runtime over all of them hands each task from thread to thread, which was a fifth
//! of the processor time of a request. What works without a caller has the process's own runtime.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

/// The threads; they outlive whatever runs on them.
pub(crate) struct EventLoops(Vec<Runtime>);

impl EventLoops {
    /// Starts them.
    pub(crate) fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        // Of one worker each, and not of the thread that begins it: what other threads wake on it is not
        // worth a system call while it is awake.
        let start = |_| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("callers")
                .enable_all()
                .build()
        };
        (0..cores).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// Where to spawn what is to run on each.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        self.0.iter().map(|runtime| runtime.handle().clone()).collect()
    }

    /// Ends them with whatever still runs on them.
    pub(crate) fn shutdown_background(self) {
        self.0.into_iter().for_each(Runtime::shutdown_background);
    }
}

//! Who hears that something moves on a connection which no task of its own tends: whoever has it in
//! hand, and while it lies idle, whoever looks after idle ones.
//!
//! A holder moves the connection on itself, and much of what moves there is its own doing. So what
//! rings while it is at it is only noted, and looked after before it goes to sleep.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Notify;

/// Its holder is moving it on.
const AWAKE: u8 = 0;
/// The same, and something has moved since.
const RUNG: u8 = 1;
/// Its holder waits to be woken.
const ASLEEP: u8 = 2;
/// It lies idle.
const RESTING: u8 = 3;
/// It lay idle and something moved: it was closed, or says what nobody asked for.
const STIRRED: u8 = 4;

/// What rings for one connection.
#[derive(Debug)]
pub(super) struct Bell {
    state: AtomicU8,
    holder: Mutex<Option<Waker>>,
    /// Told where an idle one stirs.
    stirred: Arc<Notify>,
}

impl Bell {
    /// A bell in its holder's hand.
    pub(super) fn new(stirred: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(AWAKE), holder: Mutex::default(), stirred })
    }

    /// Its holder, which is this task, begins to move the connection on.
    pub(super) fn attend(&self, task: &Waker) {
        let mut holder = self.holder();
        if !holder.as_ref().is_some_and(|holder| holder.will_wake(task)) {
            *holder = Some(task.clone());
        }
        drop(holder);
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Its holder goes to sleep, unless something rang since it last looked.
    pub(super) fn sleep(&self) -> bool {
        self.go(AWAKE, ASLEEP) || {
            self.state.swap(AWAKE, Ordering::AcqRel);
            false
        }
    }

    /// Its holder lets go of it before a last look at the connection.
    pub(super) fn let_go(&self) {
        *self.holder() = None;
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// It lies idle from now on, unless something rang since that last look.
    pub(super) fn rest(&self) -> bool {
        self.go(AWAKE, RESTING)
    }

    /// Somebody takes it up, unless something rang since it was put down.
    pub(super) fn take_up(&self) -> bool {
        self.go(RESTING, AWAKE)
    }

    /// Whether it rang since it was put down.
    pub(super) fn has_stirred(&self) -> bool {
        self.state.load(Ordering::Acquire) == STIRRED
    }

    fn go(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn holder(&self) -> MutexGuard<'_, Option<Waker>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let ring = |state| match state {
            AWAKE | ASLEEP => Some(RUNG),
            RESTING => Some(STIRRED),
            _ => None,
        };
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, ring) {
            Ok(ASLEEP) => {
                if let Some(holder) = &*self.holder() {
                    holder.wake_by_ref();
                }
            }
            Ok(RESTING) => self.stirred.notify_one(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn bell() -> (Arc<Bell>, Waker, Arc<Woken>) {
        let (bell, woken) = (Bell::new(Arc::default()), Arc::<Woken>::default());
        (Arc::clone(&bell), Waker::from(bell), woken)
    }

    #[test]
    fn a_holder_that_sleeps_is_woken_and_one_that_does_not_looks_once_more() {
        let (bell, ring, woken) = bell();
        let task = Waker::from(Arc::clone(&woken));
        bell.attend(&task);
        ring.wake_by_ref();
        assert!(!bell.sleep(), "it has not looked since");
        assert!(bell.sleep());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        ring.wake_by_ref();
        ring.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "once");
    }

    #[test]
    fn what_stirred_while_it_lay_idle_is_taken_up_by_nobody() {
        let (bell, ring, woken) = bell();
        bell.attend(&Waker::from(Arc::clone(&woken)));
        bell.let_go();
        ring.wake_by_ref();
        assert!(!bell.rest(), "it rang after the last look");
        bell.let_go();
        assert!(bell.rest() && bell.take_up());
        bell.let_go();
        assert!(bell.rest() && !bell.has_stirred());
        ring.wake_by_ref();
        assert!(bell.has_stirred() && !bell.take_up());
        assert_eq!(Arc::strong_count(&woken), 1, "its last holder is kept by nothing");
    }
}

//! Promises that can be broken on purpose, one at a time, so that the tests can be shown to notice.
//!
//! Only builds with the feature `sabotage` can break anything; in every other build
//! [`Sabotage::is_on`] is a constant `false` and nothing of it is left.

/// A promise to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// A write is answered before it is durable.
    AnswerBeforeCommit,
    /// A write is accepted whatever its fence.
    NoFence,
    /// A frame of the journal is written and not waited for.
    WeakerSync,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AnswerBeforeCommit, Self::NoFence, Self::WeakerSync];

    /// Its name, as `TEST_SABOTAGE` and the commands take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeCommit => "answer-before-commit",
            Self::NoFence => "no-fence",
            Self::WeakerSync => "weaker-sync",
        }
    }

    /// Whether this promise is to be broken now.
    #[cfg(not(feature = "sabotage"))]
    pub(crate) const fn is_on(self) -> bool {
        // Named here so that every build knows all of them.
        let _ = self;
        false
    }

    /// Whether this promise is to be broken now.
    #[cfg(feature = "sabotage")]
    pub(crate) fn is_on(self) -> bool {
        CHOSEN.with_borrow(|chosen| *chosen == Some(self)) || from_environment() == Some(self)
    }

    /// Breaks this promise on the present thread from now on, or none.
    #[cfg(feature = "sabotage")]
    pub fn choose(sabotage: Option<Self>) {
        CHOSEN.with_borrow_mut(|chosen| *chosen = sabotage);
    }
}

#[cfg(feature = "sabotage")]
thread_local! {
    static CHOSEN: std::cell::RefCell<Option<Sabotage>> = const { std::cell::RefCell::new(None) };
}

/// What the environment names, read once: it is for the whole process.
#[cfg(feature = "sabotage")]
fn from_environment() -> Option<Sabotage> {
    use std::sync::OnceLock;
    static NAMED: OnceLock<Option<Sabotage>> = OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("TEST_SABOTAGE").ok()?;
        Sabotage::ALL.into_iter().find(|sabotage| sabotage.name() == name)
    })
}

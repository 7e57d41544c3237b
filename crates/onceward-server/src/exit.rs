//! How the process ends, and what it says then.

use onceward::store::StoreError;

use crate::config::ConfigError;

/// A bad end: the exit code and the words.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
    /// Whether it may be otherwise in a moment: the ledger is away.
    pub(crate) may_pass: bool,
}

impl Exit {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), may_pass: false }
    }

    /// It did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// It was asked for in a way that cannot be read (what clap says, it says itself).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// Nobody reads any further, or a person ended it: there is nothing to say.
    pub(crate) fn quiet(code: u8) -> Self {
        Self::new(code, "")
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    /// An access key is needed, or another one.
    pub(crate) fn access(message: impl Into<String>) -> Self {
        Self::new(4, message)
    }

    /// A check found something.
    pub(crate) fn violation(message: impl Into<String>) -> Self {
        Self::new(5, message)
    }

    /// The ledger broke: a supervisor starts the process again, which recovers (sysexits: EX_SOFTWARE).
    pub(crate) fn ledger(message: impl Into<String>) -> Self {
        Self::new(70, message)
    }

    /// Nobody is there now, or it is too much for them: the same again may do later (sysexits: EX_TEMPFAIL).
    pub(crate) fn not_now(message: impl Into<String>) -> Self {
        Self::new(75, message)
    }

    /// The configuration is bad (sysexits: EX_CONFIG).
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(78, message)
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::config(error.0)
    }
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        Self { may_pass: matches!(error, StoreError::Away(_)), ..Self::ledger(error.to_string()) }
    }
}

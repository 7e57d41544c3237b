//! How the process ends, and what it says then.

use onceward::store::StoreError;

use crate::config::ConfigError;

/// A bad end: the exit code and the words.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Exit {
    /// It did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// It was asked for in a way that cannot be read (what clap says, it says itself).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Nobody reads any further, or a person ended it: there is nothing to say.
    pub(crate) fn quiet(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// An access key is needed, or another one.
    pub(crate) fn access(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// A check found something.
    pub(crate) fn violation(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into() }
    }

    /// The ledger broke: a supervisor starts the process again, which recovers (sysexits: EX_SOFTWARE).
    pub(crate) fn ledger(message: impl Into<String>) -> Self {
        Self { code: 70, message: message.into() }
    }

    /// The configuration is bad (sysexits: EX_CONFIG).
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self { code: 78, message: message.into() }
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::config(error.0)
    }
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        Self::ledger(error.to_string())
    }
}

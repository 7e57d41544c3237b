//! What an API is held to: the checks, and the profiles that give them their weight. A profile is
//! data; another one is a few lines at the end of [`PROFILES`].

/// One thing that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    OracleSees,
    OneEffect,
    SameAnswer,
    WholeAnswer,
    KeptHeaders,
    ReplayMarked,
    KeyEchoed,
    LosersTold,
    KeyNotStuck,
    PayloadRefused,
    PayloadStatus,
    NoAnswerOfAnother,
    OtherRequestRefused,
    QuotesAlike,
    BadKeyHeeded,
    BadKeyRefused,
    KeyWhole,
    JsonAlike,
    NoCredentials,
    FreshDate,
    OwnConnection,
    CallersApart,
    CallersUnaware,
    ErrorKept,
    FailureReplayed,
    KeptInWindow,
    ExpiredRefused,
}

/// How much a check weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Must,
    Should,
    Info,
}

/// A contract, by the checks that it holds an API to.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// Whose contract it is.
    pub(crate) about: &'static str,
    /// Beside [`EVERYWHERE`].
    pub(crate) must: &'static [Check],
    pub(crate) should: &'static [Check],
    /// What an API has to do beside its musts to be called by this name.
    pub(crate) told_by: &'static [Check],
    /// The statuses for a key that was used with another payload.
    pub(crate) mismatch: &'static [u16],
    /// The statuses for a key whose first call is under way.
    pub(crate) under_way: &'static [u16],
}

/// What no claim of idempotency can do without.
const EVERYWHERE: &[Check] = &[
    Check::OracleSees,
    Check::OneEffect,
    Check::WholeAnswer,
    Check::KeyNotStuck,
    Check::KeyWhole,
    Check::NoCredentials,
    Check::CallersApart,
    Check::KeptInWindow,
];

/// The profiles, the strictest contract first.
pub(crate) const PROFILES: &[Profile] = &[
    Profile {
        name: "onceward",
        about: "the contract of this gateway",
        must: &[
            Check::SameAnswer,
            Check::KeptHeaders,
            Check::ReplayMarked,
            Check::KeyEchoed,
            Check::LosersTold,
            Check::PayloadRefused,
            Check::PayloadStatus,
            Check::NoAnswerOfAnother,
            Check::OtherRequestRefused,
            Check::QuotesAlike,
            Check::BadKeyHeeded,
            Check::BadKeyRefused,
            Check::JsonAlike,
            Check::FreshDate,
            Check::OwnConnection,
            Check::CallersUnaware,
            Check::ErrorKept,
        ],
        should: &[Check::ExpiredRefused],
        told_by: &[],
        mismatch: &[409, 422, 400],
        under_way: &[409],
    },
    Profile {
        name: "ietf",
        about: "draft-ietf-httpapi-idempotency-key-header",
        must: &[Check::PayloadRefused],
        should: &[
            Check::SameAnswer,
            Check::KeptHeaders,
            Check::LosersTold,
            Check::PayloadStatus,
            Check::NoAnswerOfAnother,
            Check::QuotesAlike,
            Check::BadKeyHeeded,
            Check::FreshDate,
            Check::OwnConnection,
            Check::CallersUnaware,
            Check::ErrorKept,
            Check::FailureReplayed,
        ],
        told_by: &[Check::PayloadStatus],
        mismatch: &[422],
        under_way: &[409],
    },
    Profile {
        name: "stripe",
        about: "Stripe's API, version 1",
        must: &[
            Check::SameAnswer,
            Check::PayloadRefused,
            Check::PayloadStatus,
            Check::NoAnswerOfAnother,
        ],
        should: &[
            Check::KeptHeaders,
            Check::ReplayMarked,
            Check::KeyEchoed,
            Check::LosersTold,
            Check::OtherRequestRefused,
            Check::BadKeyHeeded,
            Check::FreshDate,
            Check::OwnConnection,
            Check::CallersUnaware,
            Check::FailureReplayed,
        ],
        told_by: &[],
        mismatch: &[400],
        under_way: &[409],
    },
    Profile {
        name: "dedupe-only",
        about: "no second effect, whatever the answer",
        must: &[],
        should: &[
            Check::SameAnswer,
            Check::PayloadRefused,
            Check::NoAnswerOfAnother,
            Check::BadKeyHeeded,
            Check::FreshDate,
            Check::OwnConnection,
        ],
        told_by: &[],
        mismatch: &[409, 422, 400, 417],
        under_way: &[409, 422, 423, 425, 429, 503],
    },
];

impl Profile {
    /// The profile of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// How much a check weighs here.
    pub(crate) fn level(&self, check: Check) -> Level {
        if EVERYWHERE.contains(&check) || self.must.contains(&check) {
            Level::Must
        } else if self.should.contains(&check) {
            Level::Should
        } else {
            Level::Info
        }
    }
}

impl Level {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Info => "INFO",
        }
    }
}

impl Check {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    /// What is asked, as a sentence.
    pub(crate) fn rule(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::OracleSees => ("oracle-sees", "two effects are told from one"),
            Self::OneEffect => ("one-effect", "one key has one effect"),
            Self::SameAnswer => ("same-answer", "a repeat gets the first answer's status and body"),
            Self::WholeAnswer => ("whole-answer", "a replay is never a part of the answer"),
            Self::KeptHeaders => ("kept-headers", "a replay has the answer's own headers"),
            Self::ReplayMarked => {
                ("replay-marked", "a replay says so, and the first answer does not")
            }
            Self::KeyEchoed => ("key-echoed", "the key stands in the answer"),
            Self::LosersTold => {
                ("losers-told", "whoever comes second gets the same answer, or is told to wait")
            }
            Self::KeyNotStuck => ("key-not-stuck", "a retry comes to an end in seconds"),
            Self::PayloadRefused => {
                ("payload-refused", "a used key with another payload is refused")
            }
            Self::PayloadStatus => ("payload-status", "that refusal has the contract's status"),
            Self::NoAnswerOfAnother => {
                ("no-answer-of-another", "a request never gets another request's answer")
            }
            Self::OtherRequestRefused => {
                ("other-request-refused", "a used key with another request is refused")
            }
            Self::QuotesAlike => ("quotes-alike", "a key is one key, quoted or bare"),
            Self::BadKeyHeeded => {
                ("bad-key-heeded", "a key that cannot be read is never passed over")
            }
            Self::BadKeyRefused => ("bad-key-refused", "a key that cannot be read is refused"),
            Self::KeyWhole => ("key-whole", "a key is compared whole, letter by letter"),
            Self::JsonAlike => ("json-alike", "the same JSON is the same request"),
            Self::NoCredentials => {
                ("no-credentials", "no cookie or challenge is replayed to whoever asks next")
            }
            Self::FreshDate => ("fresh-date", "a replay has a date of its own"),
            Self::OwnConnection => {
                ("own-connection", "no header of one connection or moment is replayed")
            }
            Self::CallersApart => {
                ("callers-apart", "another caller never gets the first one's answer")
            }
            Self::CallersUnaware => {
                ("callers-unaware", "another caller cannot learn that a key was used")
            }
            Self::ErrorKept => ("error-kept", "a final refusal is an outcome, and uses its key up"),
            Self::FailureReplayed => ("failure-replayed", "a failure is replayed"),
            Self::KeptInWindow => ("kept-in-window", "a key holds for the whole of its window"),
            Self::ExpiredRefused => {
                ("expired-refused", "after its window a used key is refused, not run again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_check_has_two_weights_in_a_profile() {
        for profile in PROFILES {
            for check in profile.should {
                let twice = profile.must.contains(check) || EVERYWHERE.contains(check);
                assert!(!twice, "{}: {}", profile.name, check.name());
            }
        }
    }
}

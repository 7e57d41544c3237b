//! Holds what was seen of a case against the checks. Pure: the same observation gives the same
//! findings, whoever asked.

mod again;
mod unlike;

use onceward::core::exchange::Headers;

use super::ask::Api;
use super::case::{Case, Kind};
use super::heard::{Answer, Observed, Reply};
use super::oracle::Oracle;
use super::profile::{Check, Profile};

/// What was found about one check of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) result: Held,
    /// In words, whatever the result.
    pub(crate) why: String,
}

/// Whether a check holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    No,
    /// What was seen does not say.
    Unknown,
}

/// The findings on one case.
pub(crate) fn judge(
    case: &Case,
    seen: &Observed,
    oracle: &Oracle,
    api: &Api,
    profile: &Profile,
) -> Vec<Finding> {
    let look = Look { case, seen, oracle, api, profile };
    if let Some(why) = case.skipped {
        return look.checks().iter().map(|&check| unknown(check, why)).collect();
    }
    if let Some(why) = look.no_first_success() {
        return look.checks().iter().map(|&check| unknown(check, why.clone())).collect();
    }
    look.checks().iter().map(|&check| look.at(check)).collect()
}

fn held(check: Check, why: impl Into<String>) -> Finding {
    Finding { check, result: Held::Yes, why: why.into() }
}

fn broken(check: Check, why: impl Into<String>) -> Finding {
    Finding { check, result: Held::No, why: why.into() }
}

fn unknown(check: Check, why: impl Into<String>) -> Finding {
    Finding { check, result: Held::Unknown, why: why.into() }
}

/// Held where it is so, broken where it is not, each in its words.
fn either(check: Check, so: bool, yes: impl Into<String>, no: impl Into<String>) -> Finding {
    if so { held(check, yes) } else { broken(check, no) }
}

/// One case under one profile.
struct Look<'a> {
    case: &'a Case,
    seen: &'a Observed,
    oracle: &'a Oracle,
    api: &'a Api,
    profile: &'a Profile,
}

impl Look<'_> {
    /// The checks of a case, the one that it is made for first.
    fn checks(&self) -> &'static [Check] {
        use Check as C;
        match self.case.kind {
            Kind::Control => &[C::OracleSees],
            Kind::Sequential => &[
                C::OneEffect,
                C::SameAnswer,
                C::WholeAnswer,
                C::KeptHeaders,
                C::ReplayMarked,
                C::KeyEchoed,
            ],
            Kind::Concurrent | Kind::LateAnswer => &[C::OneEffect, C::LosersTold, C::KeyNotStuck],
            Kind::AfterPause => &[C::OneEffect, C::SameAnswer],
            Kind::HungUp | Kind::CutAndRetried => &[C::OneEffect, C::KeyNotStuck],
            Kind::OtherPayload => {
                &[C::PayloadRefused, C::PayloadStatus, C::OneEffect, C::SameAnswer]
            }
            Kind::PayloadRace => &[C::OneEffect],
            Kind::OtherPath | Kind::OtherQuery | Kind::OtherMethod => {
                &[C::NoAnswerOfAnother, C::OtherRequestRefused]
            }
            Kind::KeyQuotes => &[C::QuotesAlike],
            Kind::KeyEmpty
            | Kind::KeyOpenQuote
            | Kind::KeyTwice
            | Kind::KeyNotAscii
            | Kind::KeyTooLong => &[C::BadKeyHeeded, C::BadKeyRefused],
            Kind::KeyCase | Kind::KeyLastByte => &[C::KeyWhole],
            Kind::JsonForm => &[C::OneEffect, C::JsonAlike],
            Kind::Headers => &[C::NoCredentials, C::FreshDate, C::OwnConnection],
            Kind::OtherCaller => &[C::CallersApart, C::CallersUnaware],
            Kind::ClientError => &[C::ErrorKept],
            Kind::Failing(_) => &[C::OneEffect, C::ErrorKept, C::FailureReplayed],
            Kind::Expiry => &[C::KeptInWindow, C::ExpiredRefused],
        }
    }

    /// Why nothing follows from a case whose first request did not succeed, where it had to.
    fn no_first_success(&self) -> Option<String> {
        let needs = matches!(
            self.case.kind,
            Kind::Sequential
                | Kind::AfterPause
                | Kind::OtherPayload
                | Kind::OtherPath
                | Kind::OtherQuery
                | Kind::OtherMethod
                | Kind::KeyQuotes
                | Kind::JsonForm
                | Kind::Headers
                | Kind::OtherCaller
                | Kind::Expiry
        );
        let first = self.first()?;
        (needs && first.success().is_none())
            .then(|| format!("the first call brought {}", first.words()))
    }

    fn at(&self, check: Check) -> Finding {
        match check {
            Check::OracleSees => held(check, "two effects were seen"),
            Check::OneEffect => self.one_effect(),
            Check::SameAnswer => self.same_answer(),
            Check::WholeAnswer => self.whole_answer(),
            Check::KeptHeaders => self.kept_headers(),
            Check::ReplayMarked => self.replay_marked(),
            Check::KeyEchoed => self.key_echoed(),
            Check::LosersTold => self.losers_told(),
            Check::KeyNotStuck => self.key_not_stuck(),
            Check::PayloadRefused => self.payload_refused(),
            Check::PayloadStatus => self.payload_status(),
            Check::NoAnswerOfAnother => self.no_answer_of_another(),
            Check::OtherRequestRefused => self.other_request_refused(),
            Check::QuotesAlike | Check::JsonAlike => self.alike(check),
            Check::BadKeyHeeded => self.bad_key_heeded(),
            Check::BadKeyRefused => self.bad_key_refused(),
            Check::KeyWhole => self.key_whole(),
            Check::NoCredentials => self.no_credentials(),
            Check::FreshDate => self.fresh_date(),
            Check::OwnConnection => self.own_connection(),
            Check::CallersApart => self.callers_apart(),
            Check::CallersUnaware => self.callers_unaware(),
            Check::ErrorKept => self.error_kept(),
            Check::FailureReplayed => self.failure_replayed(),
            Check::KeptInWindow => self.kept_in_window(),
            Check::ExpiredRefused => self.expired_refused(),
        }
    }

    fn first(&self) -> Option<&Reply> {
        self.seen.at(0)
    }

    /// The first answer, and one of a later step.
    fn pair(&self, act: usize) -> Option<(&Answer, &Reply)> {
        Some((self.first()?.answer()?, self.seen.at(act)?))
    }

    /// Whether `answer` is that of the first request, and not one of its own.
    fn is_answer_of(&self, first: &Answer, answer: &Answer) -> bool {
        if let Oracle::Identity(identity) = self.oracle {
            return identity.of(first) == identity.of(answer);
        }
        if answer.is_marked() {
            return true;
        }
        // Two answers may be alike to the byte where there is nothing to tell: then the count does.
        first.body == answer.body
            && lines(&first.headers, "location") == lines(&answer.headers, "location")
            && self.seen.effects.seen().is_none_or(|seen| seen < 2)
    }
}

fn lines<'a>(headers: &'a Headers, name: &str) -> Vec<&'a [u8]> {
    headers.all(name).map(AsRef::as_ref).collect()
}

fn difference(first: &Answer, reply: &Reply) -> String {
    match reply {
        Reply::Answer(answer) if answer.status == first.status && answer.cut.is_none() => {
            format!("{} again, with another body", answer.status)
        }
        reply => format!("first {}, then {}", first.status, reply.words()),
    }
}

fn effects(number: u64) -> String {
    times(number, "effect")
}

fn times(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

//! Holds what was seen of a case against the checks. Pure: the same observation gives the same
//! findings, whoever asked.

mod again;
mod unlike;

use onceward::core::exchange::Headers;

use super::ask::{Api, Key};
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
            Check::OracleSees => self.oracle_sees(),
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

    fn oracle_sees(&self) -> Finding {
        let is_keyed = self.seen.heard.iter().any(|heard| heard.ask.key != Key::None);
        held(
            Check::OracleSees,
            if is_keyed {
                "two keys, two effects; without a key there are not two"
            } else {
                "without a key, two effects"
            },
        )
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
        let same = first.body == answer.body
            && lines(&first.headers, "location") == lines(&answer.headers, "location");
        // Where there is nothing to tell, two answers may be alike to the byte, and a promise is
        // unlike what became of it: then the count tells.
        (same || first.is_promise() || answer.is_promise())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::ask::tests::api;
    use super::super::case::{Act, Choices, cases};
    use super::super::heard::{Effects, Heard};
    use super::super::oracle::{Identity, Probe};
    use super::super::profile::{Level, PROFILES};
    use super::*;

    /// `201 body` or `201 body; name: value; …`, or no answer.
    fn reply(text: &str) -> Reply {
        let mut parts = text.split("; ");
        let (status, body) = parts.next().unwrap().split_once(' ').unwrap_or((text, ""));
        let Ok(status) = status.parse() else { return Reply::Lost(text.to_owned()) };
        let line = |part: &str| {
            let (name, value) = part.split_once(": ").unwrap();
            (name.to_owned(), Bytes::from(value.to_owned()))
        };
        let headers = Headers(parts.map(line).collect());
        let body = Bytes::from(body.to_owned());
        let (length, took) = (body.len() as u64, Duration::ZERO);
        Reply::Answer(Answer { status, headers, body, length, cut: None, took })
    }

    /// What is broken in a case of `kind`, by its replies in the order of the script.
    fn judged(
        kind: Kind,
        replies: &[&str],
        effects: Effects,
        profile: &str,
    ) -> Vec<(Check, Held, Level)> {
        let api = api();
        let window = Some(Duration::from_secs(2));
        let choices = Choices { pause: Duration::from_secs(3), window, no_other_caller: None };
        let case = cases(&api, &choices).into_iter().find(|case| case.kind == kind).unwrap();
        let asked = case.script.iter().enumerate().flat_map(|(act, step): (usize, &Act)| {
            step.asks().into_iter().map(move |ask| (act, ask.clone()))
        });
        let heard = asked.zip(replies.iter().copied());
        let heard = heard.map(|((act, ask), text)| Heard { act, ask, reply: reply(text) });
        let seen = Observed { heard: heard.collect(), effects };
        let url = url::Url::parse(&api.url).unwrap();
        let probe = Probe::parse("/n", &url, &Headers::default()).unwrap();
        let profile = Profile::named(profile).unwrap();
        judge(&case, &seen, &Oracle::Probe(probe, 1), &api, profile)
            .into_iter()
            .map(|finding| (finding.check, finding.result, profile.level(finding.check)))
            .collect()
    }

    fn broken(kind: Kind, replies: &[&str], effects: u64, profile: &str) -> Vec<Check> {
        let found = judged(kind, replies, Effects::Counted(effects), profile);
        let musts =
            found.into_iter().filter(|(_, held, level)| (*held, *level) == (Held::No, Level::Must));
        musts.map(|(check, ..)| check).collect()
    }

    #[test]
    fn the_same_answers_are_judged_by_each_contract_in_its_own_way() {
        use Check as C;
        type Row = (Kind, &'static [&'static str], u64, &'static str, &'static [Check]);
        let table: &[Row] = &[
            (Kind::OtherPayload, &["201 a", "422 x", "201 a"], 1, "ietf", &[]),
            (Kind::OtherPayload, &["201 a", "409 x", "201 a"], 1, "ietf", &[]),
            (Kind::OtherPayload, &["201 a", "409 x", "201 a"], 1, "onceward", &[]),
            (Kind::OtherPayload, &["201 a", "409 x", "201 a"], 1, "stripe", &[C::PayloadStatus]),
            (Kind::OtherPayload, &["201 a", "400 x", "201 a"], 1, "stripe", &[]),
            (Kind::OtherPayload, &["201 a", "201 a", "201 a"], 1, "ietf", &[C::PayloadRefused]),
            (Kind::OtherPayload, &["201 a", "201 a", "201 a"], 1, "dedupe-only", &[]),
            (Kind::OtherPayload, &["201 a", "201 b", "201 a"], 2, "dedupe-only", &[C::OneEffect]),
            (Kind::AfterPause, &["201 a", "200 a"], 1, "ietf", &[]),
            (Kind::AfterPause, &["201 a", "200 a"], 1, "stripe", &[]),
            (Kind::AfterPause, &["202 a", "201 b"], 1, "onceward", &[]),
            (Kind::JsonForm, &["202 a", "201 b"], 1, "onceward", &[]),
            (Kind::JsonForm, &["202 a", "202 b"], 2, "onceward", &[C::OneEffect, C::JsonAlike]),
            (Kind::JsonForm, &["201 a", "422 x"], 1, "ietf", &[]),
            (Kind::JsonForm, &["201 a", "422 x"], 1, "onceward", &[C::JsonAlike]),
            (Kind::JsonForm, &["201 a", "201 b"], 2, "ietf", &[C::OneEffect]),
            (Kind::OtherPath, &["201 a", "404 x", "201 a"], 1, "onceward", &[]),
            (
                Kind::OtherPath,
                &["201 a", "201 b", "201 a"],
                2,
                "onceward",
                &[C::OtherRequestRefused],
            ),
            (Kind::OtherPath, &["201 a", "201 b", "201 a"], 2, "stripe", &[]),
            (Kind::OtherPath, &["201 a", "201 a", "201 a"], 1, "stripe", &[C::NoAnswerOfAnother]),
            (Kind::KeyCase, &["201 a", "201 b"], 2, "dedupe-only", &[]),
            (Kind::KeyCase, &["201 a", "201 a"], 1, "dedupe-only", &[C::KeyWhole]),
            (Kind::KeyCase, &["400 x", "400 x"], 0, "dedupe-only", &[]),
            (
                Kind::KeyEmpty,
                &["201 a", "201 b"],
                2,
                "onceward",
                &[C::BadKeyHeeded, C::BadKeyRefused],
            ),
            (Kind::KeyEmpty, &["201 a", "201 b"], 2, "ietf", &[]),
            (Kind::KeyEmpty, &["400 x", "400 x"], 0, "onceward", &[]),
            (Kind::ClientError, &["400 x", "400 x", "409 y"], 0, "onceward", &[]),
            (Kind::ClientError, &["400 x", "400 x", "201 a"], 1, "onceward", &[C::ErrorKept]),
            (Kind::ClientError, &["400 x; retry-after: 1", "400 x", "201 a"], 1, "onceward", &[]),
            (Kind::ClientError, &["201 a", "201 a", "201 a"], 1, "onceward", &[]),
            (Kind::OtherCaller, &["201 a", "201 b"], 2, "onceward", &[]),
            (Kind::OtherCaller, &["201 a", "201 a"], 2, "onceward", &[]),
            (Kind::OtherCaller, &["201 a", "409 x"], 1, "onceward", &[C::CallersUnaware]),
            (Kind::OtherCaller, &["201 a", "401 x"], 1, "onceward", &[]),
            (Kind::Expiry, &["201 a", "201 a", "410 x"], 1, "onceward", &[]),
            (Kind::Expiry, &["201 a", "201 b", "201 c"], 3, "stripe", &[C::KeptInWindow]),
            (
                Kind::HungUp,
                &["gone", "gone", "201 a", "409 x", "201 a", "409 x"],
                1,
                "ietf",
                &[C::KeyNotStuck],
            ),
            (
                Kind::HungUp,
                &["gone", "gone", "201 a", "201 b", "201 a", "201 b"],
                3,
                "ietf",
                &[C::OneEffect],
            ),
        ];
        for (kind, replies, effects, profile, found) in table {
            assert_eq!(
                &broken(*kind, replies, *effects, profile),
                found,
                "{kind:?} {replies:?} {profile}"
            );
        }
    }

    #[test]
    fn a_header_is_held_against_the_first_answers() {
        use Check as C;
        let first = "201 a; set-cookie: s=1; date: then; age: 5; connection: x-hop; x-hop: 1";
        for (again, found) in [
            ("201 a; date: now", &[][..]),
            ("201 a; date: now; set-cookie: s=2", &[]),
            ("201 a; date: now; set-cookie: s=1", &[C::NoCredentials]),
            ("201 a; date: then", &[C::FreshDate]),
            ("201 a; date: now; age: 5", &[C::OwnConnection]),
            ("201 a; date: now; x-hop: 1", &[C::OwnConnection]),
        ] {
            assert_eq!(broken(Kind::Headers, &[first, again], 1, "onceward"), found, "{again}");
        }
    }

    #[test]
    fn what_was_not_seen_is_not_judged() {
        let result = |kind, replies: &[&str], effects| judged(kind, replies, effects, "ietf")[0].1;
        let gone = ["gone", "gone", "201 a", "201 b", "201 a", "201 b"];
        assert_eq!(result(Kind::HungUp, &gone, Effects::AtLeast(2)), Held::Unknown);
        assert_eq!(result(Kind::HungUp, &gone, Effects::AtLeast(3)), Held::No);
        assert_eq!(result(Kind::Sequential, &["500 x"; 3], Effects::Counted(0)), Held::Unknown);
        assert_eq!(result(Kind::AfterPause, &["201 a"; 2], Effects::Counted(1)), Held::Unknown);
    }

    #[test]
    fn an_answer_belongs_to_the_request_whose_identity_it_names() {
        let api = api();
        let choices =
            Choices { pause: Duration::from_secs(2), window: None, no_other_caller: None };
        let case = cases(&api, &choices).into_iter().find(|case| case.kind == Kind::OtherCaller);
        let case = case.unwrap();
        let heard = |act: usize, text: &str| {
            let ask = case.script[act].asks()[0].clone();
            Heard { act, ask, reply: reply(text) }
        };
        let oracle = Oracle::Identity(Identity::Pointer("/id".to_owned()));
        for (second, held) in [("201 {\"id\":1,\"at\":2}", Held::No), ("201 {\"id\":2}", Held::Yes)]
        {
            let heard = vec![heard(0, "201 {\"id\":1}"), heard(1, second)];
            let seen = Observed { heard, effects: Effects::Unknown };
            let found = judge(&case, &seen, &oracle, &api, &PROFILES[1]);
            assert_eq!(found[0].result, held, "{second}");
        }
    }

    #[test]
    fn a_guard_tells_callers_apart_by_their_credentials_and_the_gateway_by_its_own_keys() {
        for (url, held) in [("http://h/orders", Held::No), ("http://h/to/a/orders", Held::Unknown)]
        {
            let api = Api { url: url.to_owned(), ..api() };
            let choices =
                Choices { pause: Duration::from_secs(2), window: None, no_other_caller: None };
            let mut cases = cases(&api, &choices).into_iter();
            let case = cases.find(|case| case.kind == Kind::OtherCaller).unwrap();
            let heard = [0, 1].map(|act| {
                let ask = case.script[act].asks()[0].clone();
                Heard { act, ask, reply: reply("201 {\"id\":1}; onceward-operation: op_1") }
            });
            let seen = Observed { heard: heard.into(), effects: Effects::Unknown };
            let oracle = Oracle::Identity(Identity::Pointer("/id".to_owned()));
            let found = judge(&case, &seen, &oracle, &api, &PROFILES[1]);
            assert_eq!(found[0].result, held, "{url}");
        }
    }
}

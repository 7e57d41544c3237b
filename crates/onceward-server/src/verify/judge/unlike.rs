//! What is not the same request: another payload, place, key or caller; and outcomes that are no
//! success, or are over.

use url::Url;

use super::super::case::Kind;
use super::super::heard::{Answer, Effects, Reply};
use super::super::profile::Check;
use super::{Finding, Look, broken, effects, either, held, times, unknown};

impl Look<'_> {
    pub(super) fn payload_refused(&self) -> Finding {
        let check = Check::PayloadRefused;
        match self.pair(1) {
            Some((_, Reply::Answer(answer))) if answer.is_refusal() => {
                held(check, format!("{}", answer.status))
            }
            Some((first, Reply::Answer(answer))) if answer.is_success() => broken(
                check,
                if self.is_answer_of(first, answer) {
                    format!("{} and the first payload's answer", answer.status)
                } else {
                    format!("{}, as though it were new", answer.status)
                },
            ),
            Some((_, reply)) => broken(check, reply.words()),
            None => unknown(check, "there was no answer"),
        }
    }

    pub(super) fn payload_status(&self) -> Finding {
        let check = Check::PayloadStatus;
        let wanted = self.profile.mismatch;
        match self.pair(1) {
            Some((_, Reply::Answer(answer))) if answer.is_refusal() => either(
                check,
                wanted.contains(&answer.status),
                answer.status.to_string(),
                format!("{}, not {}", answer.status, listed(wanted)),
            ),
            Some((_, reply)) => broken(check, format!("{}, not {}", reply.words(), listed(wanted))),
            None => unknown(check, "there was no answer"),
        }
    }

    pub(super) fn no_answer_of_another(&self) -> Finding {
        let check = Check::NoAnswerOfAnother;
        match self.pair(1) {
            Some((first, Reply::Answer(answer))) if answer.is_success() => either(
                check,
                !self.is_answer_of(first, answer),
                format!("{}, and an answer of its own", answer.status),
                format!("{} and the first request's answer", answer.status),
            ),
            Some((_, Reply::Answer(answer))) if is_nothing_there(answer) => {
                nothing_there(check, answer)
            }
            Some((_, reply)) => held(check, reply.words()),
            None => unknown(check, "there was no answer"),
        }
    }

    pub(super) fn other_request_refused(&self) -> Finding {
        let check = Check::OtherRequestRefused;
        match self.pair(1) {
            Some((_, Reply::Answer(answer))) if is_nothing_there(answer) => {
                nothing_there(check, answer)
            }
            Some((_, Reply::Answer(answer))) if answer.is_refusal() => {
                held(check, answer.status.to_string())
            }
            Some((_, reply)) => broken(check, format!("{}, not a refusal", reply.words())),
            None => unknown(check, "there was no answer"),
        }
    }

    /// The second request is the first one in another writing.
    pub(super) fn alike(&self, check: Check) -> Finding {
        match self.pair(1) {
            Some((first, Reply::Answer(answer)))
                if answer.is_like(first) && self.is_answer_of(first, answer) =>
            {
                held(check, "the same answer")
            }
            Some((_, Reply::Answer(answer))) if answer.is_success() => {
                broken(check, format!("{}, as though it were new", answer.status))
            }
            Some((_, reply)) => broken(check, reply.words()),
            None => unknown(check, "there was no answer"),
        }
    }

    /// Sent twice, a key that is passed over has two effects.
    pub(super) fn bad_key_heeded(&self) -> Finding {
        let check = Check::BadKeyHeeded;
        if self.seen.successes().next().is_none() {
            return held(check, self.seen.words());
        }
        match self.seen.effects {
            Effects::Counted(0 | 1) => {
                held(check, format!("taken as a key: {}", self.seen.words()))
            }
            Effects::Counted(seen) => broken(check, format!("{} of 2 calls", effects(seen))),
            Effects::AtLeast(_) | Effects::Unknown => unknown(check, self.seen.words()),
        }
    }

    pub(super) fn bad_key_refused(&self) -> Finding {
        let all = self
            .seen
            .heard
            .iter()
            .all(|heard| heard.reply.answer().is_some_and(Answer::is_refusal));
        either(
            Check::BadKeyRefused,
            all,
            self.seen.words(),
            format!("it was taken: {}", self.seen.words()),
        )
    }

    /// Pairs of keys that are not the same: each that was taken has to have an effect of its own.
    pub(super) fn key_whole(&self) -> Finding {
        let check = Check::KeyWhole;
        let replies: Vec<&Reply> = self.seen.heard.iter().map(|heard| &heard.reply).collect();
        let taken = replies.chunks(2).filter(|pair| pair[0].success().is_some()).count() as u64;
        if taken == 0 {
            return unknown(check, format!("no such key is taken: {}", self.seen.words()));
        }
        match self.seen.effects {
            Effects::Counted(seen) => either(
                check,
                seen >= taken * 2,
                format!("{} of {}", effects(seen), times(taken * 2, "key")),
                format!("{} of {} that differ", effects(seen), times(taken * 2, "key")),
            ),
            Effects::AtLeast(_) | Effects::Unknown => unknown(check, self.seen.words()),
        }
    }

    pub(super) fn callers_apart(&self) -> Finding {
        let check = Check::CallersApart;
        let (first, answer) = match self.both_callers() {
            Ok(both) => both,
            Err(why) => return unknown(check, why),
        };
        if !answer.is_success() {
            return held(check, answer.status.to_string());
        }
        either(
            check,
            !self.is_answer_of(first, answer),
            "the other caller has an effect of its own",
            format!(
                "{} and the first caller's answer; where an API knows no callers, say --one-caller",
                answer.status
            ),
        )
    }

    pub(super) fn callers_unaware(&self) -> Finding {
        let check = Check::CallersUnaware;
        let (first, answer) = match self.both_callers() {
            Ok(both) => both,
            Err(why) => return unknown(check, why),
        };
        either(
            check,
            answer.is_success() && !self.is_answer_of(first, answer),
            "the other caller has an effect of its own",
            format!("the key is free for the other caller, but it brought {}", answer.status),
        )
    }

    /// The answers to the first caller and the other, or why there were not two callers.
    fn both_callers(&self) -> Result<(&Answer, &Answer), String> {
        let Some((first, Reply::Answer(answer))) = self.pair(1) else {
            return Err(self.seen.words());
        };
        if matches!(answer.status, 401 | 403) {
            return Err(format!(
                "{}: the other caller is not let in; give a second credential: --other-header 'Authorization: …'",
                answer.status
            ));
        }
        // Authorization is the upstream's there, and passes through a gateway untouched. A guard, which
        // stands at the path root, tells callers apart by it.
        let is_through = Url::parse(&self.api.url).is_ok_and(|it| it.path().starts_with("/to/"));
        let is_gateway = is_through && first.headers.get("onceward-operation").is_some();
        let has_keys = self.api.other.0.iter().any(|(name, value)| {
            name == "onceward-authorization" || String::from_utf8_lossy(value).contains("ow_")
        });
        if is_gateway && !has_keys {
            return Err("a gateway knows callers by its access keys: give two, --header and --other-header 'Onceward-Authorization: Bearer ow_…'".to_owned());
        }
        Ok((first, answer))
    }

    /// The wrong request twice, and then the right one with its key; or one that is known to fail.
    pub(super) fn error_kept(&self) -> Finding {
        let check = Check::ErrorKept;
        let (Some(wrong), Some(last)) =
            (self.first().and_then(Reply::answer), self.seen.heard.last())
        else {
            return unknown(check, self.seen.words());
        };
        if wrong.is_success() {
            let why = match self.case.kind {
                Kind::Failing(_) => "it did not fail",
                _ => "JSON that breaks off is no error here; name a request that fails: --failing",
            };
            return unknown(check, format!("{}: {why}", wrong.status));
        }
        if !is_final(wrong) {
            return unknown(check, format!("{}: no final refusal", wrong.status));
        }
        match last.reply.success() {
            None => held(check, self.seen.words()),
            Some(right) => broken(
                check,
                format!("after {} its key is free again: {}", wrong.status, right.status),
            ),
        }
    }

    pub(super) fn failure_replayed(&self) -> Finding {
        let check = Check::FailureReplayed;
        match (self.seen.at(0), self.seen.at(1)) {
            (Some(Reply::Answer(first)), _) if first.is_success() => {
                unknown(check, format!("{}: it did not fail", first.status))
            }
            (Some(Reply::Answer(first)), Some(Reply::Answer(again))) => either(
                check,
                first.is_like(again),
                format!("{} again", again.status),
                format!("first {}, then {}", first.status, again.status),
            ),
            _ => unknown(check, self.seen.words()),
        }
    }

    pub(super) fn kept_in_window(&self) -> Finding {
        let check = Check::KeptInWindow;
        match self.pair(2) {
            Some((first, Reply::Answer(again))) if again.is_success() => either(
                check,
                self.is_answer_of(first, again),
                "half a window later, the first answer",
                "half a window later, it ran again",
            ),
            Some((_, reply)) => broken(check, format!("half a window later, {}", reply.words())),
            None => unknown(check, "there was no answer"),
        }
    }

    pub(super) fn expired_refused(&self) -> Finding {
        let check = Check::ExpiredRefused;
        match self.pair(4) {
            Some((first, Reply::Answer(again))) if again.is_success() => broken(
                check,
                if self.is_answer_of(first, again) {
                    "after its window, still the first answer"
                } else {
                    "after its window, it ran again"
                },
            ),
            Some((_, Reply::Answer(again))) => held(check, again.status.to_string()),
            _ => unknown(check, "there was no answer"),
        }
    }
}

/// Whether it refuses the request for good, and not for now, or for want of a credential.
fn is_final(answer: &Answer) -> bool {
    let for_now = [401, 403, 407, 408, 421, 423, 425, 426, 428, 429, 431].contains(&answer.status);
    answer.is_refusal() && !for_now && answer.headers.get("retry-after").is_none()
}

/// Whether there is no such place, so that nothing could be confused.
fn is_nothing_there(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 405 | 501)
}

fn nothing_there(check: Check, answer: &Answer) -> Finding {
    unknown(check, format!("{}: nothing is there that could confuse the two", answer.status))
}

fn listed(statuses: &[u16]) -> String {
    statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

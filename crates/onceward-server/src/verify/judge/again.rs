//! The same request again: one effect, one answer, and which headers come with it.

use onceward::core::exchange::Headers;

use super::super::ask::Key;
use super::super::case::Act;
use super::super::heard::{Effects, Reply};
use super::super::profile::Check;
use super::{Finding, Look, broken, difference, effects, either, held, lines, times, unknown};

/// Headers of the answer itself, which a replay should have too.
const KEPT: [&str; 7] = [
    "content-type",
    "content-language",
    "content-location",
    "location",
    "etag",
    "last-modified",
    "link",
];

/// Headers that let somebody in, or ask for a proof.
const CREDENTIALS: [&str; 6] = [
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "clear-site-data",
];

/// Headers of one connection or one moment, which no later answer has by chance.
const MOMENTARY: [&str; 7] = [
    "trailer",
    "upgrade",
    "proxy-connection",
    "server-timing",
    "traceparent",
    "age",
    "x-request-id",
];

impl Look<'_> {
    pub(super) fn one_effect(&self) -> Finding {
        let (check, keys) = (Check::OneEffect, self.case.effects);
        let seen = match self.seen.effects {
            Effects::Counted(seen) | Effects::AtLeast(seen) if seen > keys => {
                return broken(check, format!("{} of {}", effects(seen), times(keys, "key")));
            }
            Effects::Unknown => {
                return unknown(
                    check,
                    "the answers do not say what was made: count effects with --count",
                );
            }
            Effects::AtLeast(_) => {
                return unknown(
                    check,
                    "an answer is missing, and its effect cannot be seen: count effects with --count",
                );
            }
            Effects::Counted(seen) => seen,
        };
        // A key of which every call was refused has no effect, and nobody was told otherwise.
        let mut told: Vec<&Key> = Vec::new();
        for heard in self.seen.heard.iter().filter(|heard| heard.reply.success().is_some()) {
            if !told.contains(&&heard.ask.key) {
                told.push(&heard.ask.key);
            }
        }
        if told.is_empty() && seen == 0 {
            return unknown(check, format!("no call succeeded: {}", self.seen.words()));
        }
        let calls = times(self.seen.heard.len() as u64, "call");
        either(
            check,
            seen >= told.len() as u64,
            format!("{} of {calls}", effects(seen)),
            format!("{} of {} that got a success", effects(seen), times(told.len() as u64, "key")),
        )
    }

    /// Every later reply is the first answer; the ones to another request are not asked.
    pub(super) fn same_answer(&self) -> Finding {
        let check = Check::SameAnswer;
        let Some(first) = self.first().and_then(Reply::answer) else {
            return unknown(check, "there was no first answer");
        };
        let again = self.seen.heard[1..].iter().filter(|heard| heard.ask == self.seen.heard[0].ask);
        let unlike = again.map(|heard| &heard.reply).find(|reply| match reply {
            Reply::Answer(answer) => !answer.is_like(first),
            Reply::Lost(_) => true,
        });
        match unlike {
            None => held(check, "the same status and body each time"),
            Some(reply) => broken(check, difference(first, reply)),
        }
    }

    pub(super) fn whole_answer(&self) -> Finding {
        let check = Check::WholeAnswer;
        let Some(first) = self.first().and_then(Reply::answer) else {
            return unknown(check, "there was no first answer");
        };
        let part = self.seen.answers().skip(1).find(|answer| {
            let is_shorter = answer.length < first.length;
            answer.cut.is_some()
                || (is_shorter && answer.is_success() && first.body.starts_with(&answer.body))
        });
        match part {
            None => held(check, "no replay was shorter"),
            Some(answer) => {
                broken(check, format!("a replay has {} of {} bytes", answer.length, first.length))
            }
        }
    }

    pub(super) fn kept_headers(&self) -> Finding {
        let check = Check::KeptHeaders;
        let Some((first, Reply::Answer(again))) = self.pair(1) else {
            return unknown(check, "there was no second answer");
        };
        if first.is_promise() != again.is_promise() {
            return unknown(check, "the first answer was a promise, the second what became of it");
        }
        let lost: Vec<&str> = KEPT
            .into_iter()
            .filter(|name| lines(&first.headers, name) != lines(&again.headers, name))
            .collect();
        either(
            check,
            lost.is_empty(),
            "the answer's own headers are there again",
            format!("a replay has another {}, or none", lost.join(", ")),
        )
    }

    pub(super) fn replay_marked(&self) -> Finding {
        let check = Check::ReplayMarked;
        let Some((first, Reply::Answer(again))) = self.pair(1) else {
            return unknown(check, "there was no second answer");
        };
        match (first.is_marked(), again.is_marked()) {
            (false, false) if again.is_promise() => unknown(check, "there is no outcome yet: 202"),
            (false, true) => held(check, "Idempotent-Replayed tells them apart"),
            (true, _) => broken(check, "the first answer calls itself a replay"),
            (false, false) => broken(check, "a replay has no Idempotent-Replayed: true"),
        }
    }

    pub(super) fn key_echoed(&self) -> Finding {
        let check = Check::KeyEchoed;
        let sent =
            self.seen.heard.first().and_then(|heard| self.api.wire(&heard.ask, self.case.no).ok());
        let sent = sent.and_then(|wire| wire.headers.get(&self.api.key_header).cloned());
        let missing = self
            .seen
            .answers()
            .any(|answer| answer.headers.get(&self.api.key_header) != sent.as_ref());
        either(
            check,
            !missing,
            "every answer names the key",
            format!("an answer does not carry {} as it was sent", self.api.key_header),
        )
    }

    /// Of those who asked at once, all who succeeded have one answer, and the others know to wait.
    pub(super) fn losers_told(&self) -> Finding {
        let check = Check::LosersTold;
        for (act, _) in self.case.script.iter().enumerate() {
            let winner = self.seen.of(act).find_map(Reply::success);
            for reply in self.seen.of(act) {
                match (reply, winner) {
                    (Reply::Answer(answer), _)
                        if self.profile.under_way.contains(&answer.status) => {}
                    (Reply::Answer(answer), Some(winner)) if answer.is_like(winner) => {}
                    (_, Some(winner)) => return broken(check, difference(winner, reply)),
                    (_, None) => {
                        return broken(check, format!("all of them failed: {}", reply.words()));
                    }
                }
            }
        }
        held(check, "all got one answer, or were told to wait")
    }

    /// What was asked until it is settled has to have come to a success.
    pub(super) fn key_not_stuck(&self) -> Finding {
        let check = Check::KeyNotStuck;
        let script = self.case.script.iter().enumerate();
        let settled = script.filter(|(_, act)| matches!(act, Act::Settle(_)));
        let stuck = settled
            .filter_map(|(act, _)| self.seen.at(act))
            .find(|reply| reply.success().is_none());
        match stuck {
            None => held(check, "the retry got its answer"),
            Some(reply) => {
                broken(check, format!("seconds later, the same key gets {}", reply.words()))
            }
        }
    }

    pub(super) fn no_credentials(&self) -> Finding {
        let check = Check::NoCredentials;
        let Some((first, Reply::Answer(again))) = self.pair(2) else {
            return unknown(check, "there was no replay");
        };
        let there: Vec<&str> =
            CREDENTIALS.into_iter().filter(|name| first.headers.get(name).is_some()).collect();
        let again: Vec<&str> = there
            .iter()
            .copied()
            .filter(|name| repeats(&first.headers, &again.headers, name))
            .collect();
        either(
            check,
            again.is_empty(),
            if there.is_empty() { "the first answer had none" } else { "none came again" },
            format!("the first caller's {} came again", again.join(", ")),
        )
    }

    pub(super) fn fresh_date(&self) -> Finding {
        let check = Check::FreshDate;
        let Some((first, Reply::Answer(again))) = self.pair(2) else {
            return unknown(check, "there was no replay");
        };
        match (first.headers.text("date"), again.headers.text("date")) {
            (Some(then), Some(now)) => either(
                check,
                then != now,
                "the replay has its own",
                format!("the replay still says {then:?}"),
            ),
            _ => unknown(check, "there is no Date"),
        }
    }

    pub(super) fn own_connection(&self) -> Finding {
        let check = Check::OwnConnection;
        let Some((first, Reply::Answer(again))) = self.pair(2) else {
            return unknown(check, "there was no replay");
        };
        let named = first.headers.text("connection").unwrap_or_default().to_ascii_lowercase();
        let named = named
            .split(',')
            .map(str::trim)
            .filter(|name| !matches!(*name, "" | "close" | "keep-alive" | "upgrade"));
        let stale: Vec<&str> = MOMENTARY
            .into_iter()
            .chain(named)
            .filter(|name| repeats(&first.headers, &again.headers, name))
            .collect();
        either(
            check,
            stale.is_empty(),
            "none came again",
            format!("the first answer's {} came again", stale.join(", ")),
        )
    }
}

/// Whether a line of `name` came a second time.
fn repeats(first: &Headers, again: &Headers, name: &str) -> bool {
    first.all(name).any(|line| again.all(name).any(|other| other == line))
}

//! Which alerts begin, go on, are told again and recover. Pure: what is measured and the time are
//! arguments, and a book has what stood before.
//!
//! All nodes of a ledger share one book. An alert is *held* while its rule holds, *fires* once it was
//! held for as long as the rule says, and *ends* once it was not for a while, so that one that flaps
//! is one alert. What a receiver was told stands with the alert, and what is to be sent to it in the
//! same book: who changes the one changes the other.

use std::collections::BTreeMap;
use std::time::Duration;

use onceward::core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::rule::{Alert, Kind, Measure, Rule, Rules, Wish};

/// How often it is written that an alert is still held, and with what figure.
const REFRESHED_EVERY: Duration = Duration::from_mins(1);

/// Whoever alone can judge an alert and has not said for so long that it is held is gone.
const GONE_AFTER: Duration = Duration::from_mins(5);

/// How long an alert that ended waits for receivers that this node does not know, and a notice for one
/// that no node knows.
const ENDED_KEPT: Duration = Duration::from_hours(1);

/// Alerts that may stand at once: beyond it everything is wrong, and that is told already.
const STANDING_MAX: usize = 500;

/// Notices to one receiver that may wait to be sent; what else it does not know stands until it can be told.
const OUTGOING_MAX: usize = 20;

/// For how long whoever sends a notice has it to itself: longer than it takes.
pub(crate) const TAKEN_FOR: Duration = Duration::from_secs(40);

/// How long it is until a notice is tried again, which doubles.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_mins(10);

/// A notice that could not be sent for so long is old news.
const GIVEN_UP_AFTER: Duration = Duration::from_hours(72);

/// All that a step goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) now: Timestamp,
    /// Who looks.
    pub(crate) node: &'a str,
    pub(crate) measures: &'a [Measure],
    /// Of these more may be held than was measured.
    pub(crate) in_part: &'a [Kind],
    pub(crate) rules: &'a Rules,
    pub(crate) to: &'a [Wish],
}

/// An alert that is held, fires, or has ended and was not told so to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) alert: Alert,
    pub(crate) value: u64,
    /// Since when it is held.
    #[serde(with = "micros")]
    pub(crate) since: Timestamp,
    /// Since when it fires.
    #[serde(with = "micros_or")]
    pub(crate) fired: Option<Timestamp>,
    /// Since when it is not held any more.
    #[serde(with = "micros_or")]
    clear: Option<Timestamp>,
    #[serde(with = "micros_or")]
    ended: Option<Timestamp>,
    /// When it was last written that it is held.
    #[serde(with = "micros")]
    seen: Timestamp,
    /// Who was told what of it last.
    pub(crate) told: BTreeMap<String, Told>,
}

/// What a receiver was told of an alert last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(with = "micros")]
    pub(crate) at: Timestamp,
    /// That it fires; else that it has ended.
    pub(crate) fires: bool,
    /// By which notice.
    pub(crate) notice: String,
}

/// What is told of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turn {
    Firing,
    /// It was told before and goes on.
    StillFiring,
    Recovered,
    /// Somebody wants to see that notices come.
    Test,
}

impl Turn {
    /// The word for it in a notice.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::StillFiring => "still_firing",
            Self::Recovered => "recovered",
            Self::Test => "test",
        }
    }
}

/// A line of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) turn: Turn,
    pub(crate) alert: Alert,
    pub(crate) value: u64,
    #[serde(with = "micros")]
    pub(crate) since: Timestamp,
    #[serde(with = "micros_or")]
    pub(crate) until: Option<Timestamp>,
}

/// A notice that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// Never given twice by a ledger: it is the key of what is sent.
    pub(crate) id: String,
    pub(crate) to: String,
    #[serde(with = "micros")]
    pub(crate) at: Timestamp,
    pub(crate) lines: Vec<Line>,
    tries: u32,
    #[serde(with = "micros")]
    next_at: Timestamp,
    /// The process that sends it now.
    taken_by: Option<u64>,
    /// Why it could not be sent the last time.
    pub(crate) error: Option<String>,
    /// The addresses that it has not got to, where it got to others; else empty.
    pub(crate) rest: Vec<String>,
    /// When it was last written that a node has its receiver.
    #[serde(with = "micros")]
    had: Timestamp,
}

/// What stands, what was told, and what is to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    /// How many notices there were.
    notices: u64,
    standing: Vec<Standing>,
    outgoing: Vec<Notice>,
}

impl Book {
    /// Goes on to what is seen now.
    pub(crate) fn step(&mut self, seen: &Seen<'_>) {
        let held: Vec<&Measure> =
            seen.measures.iter().filter(|measure| seen.rules.holds(measure)).collect();
        for measure in &held {
            self.hold(measure, seen);
        }
        self.standing.retain_mut(|standing| {
            held.iter().any(|measure| measure.alert == standing.alert) || standing.rest(seen)
        });
        self.drop_for_nobody(seen);
        for wish in seen.to {
            self.tell(wish, seen.now);
        }
        let Self { standing, outgoing, .. } = self;
        standing.retain(|standing| {
            standing.ended.is_none_or(|at| {
                let is_young = seen.now.since(at) < ENDED_KEPT;
                // Whoever cannot be reached now is told of the end once it can.
                let waits = |to: &String| is_young || outgoing.iter().any(|it| it.to == *to);
                standing.told.iter().any(|(to, told)| told.fires && waits(to))
            })
        });
    }

    /// Drops notices to receivers that were taken out of the configuration.
    fn drop_for_nobody(&mut self, seen: &Seen<'_>) {
        self.outgoing.retain_mut(|notice| {
            let age = seen.now.since(notice.had);
            if age >= REFRESHED_EVERY && seen.to.iter().any(|wish| wish.name == notice.to) {
                notice.had = seen.now;
                return true;
            }
            let is_kept = age < ENDED_KEPT;
            if !is_kept && notice.rest.is_empty() {
                untell(&mut self.standing, &notice.id);
            }
            is_kept
        });
    }

    fn hold(&mut self, measure: &Measure, seen: &Seen<'_>) {
        let Measure { alert, value } = measure;
        let Some(rule) = seen.rules.of.get(&alert.kind) else { return };
        if let Some(standing) = self.standing.iter_mut().find(|it| it.alert == *alert) {
            return standing.hold(*value, rule, seen.now);
        }
        // What is over makes room.
        if self.standing.len() >= STANDING_MAX
            && let Some(over) = self.standing.iter().position(|it| it.ended.is_some())
        {
            self.standing.remove(over);
        }
        if self.standing.len() < STANDING_MAX {
            let mut standing = Standing {
                alert: alert.clone(),
                value: *value,
                since: seen.now,
                fired: None,
                clear: None,
                ended: None,
                seen: seen.now,
                told: BTreeMap::new(),
            };
            standing.hold(*value, rule, seen.now);
            self.standing.push(standing);
        }
    }

    /// Makes the notice of what a receiver does not know yet, once that is collected.
    fn tell(&mut self, wish: &Wish, now: Timestamp) {
        let news = |standing: &Standing| {
            wish.wants(&standing.alert).then(|| standing.news_for(wish, now)).flatten()
        };
        let is_due = self
            .standing
            .iter()
            .filter_map(news)
            .any(|(turn, at)| turn == Turn::StillFiring || now.since(at) >= wish.group);
        let waiting = self.outgoing.iter().filter(|notice| notice.to == wish.name).count();
        if !is_due || waiting >= OUTGOING_MAX {
            return;
        }
        let id = self.next_id(now);
        let mut lines = Vec::new();
        for standing in &mut self.standing {
            let Some((turn, _)) = news(standing) else { continue };
            lines.push(standing.line(turn));
            let fires = turn != Turn::Recovered;
            let told = Told { at: now, fires, notice: id.clone() };
            standing.told.insert(wish.name.clone(), told);
        }
        self.outgoing.push(Notice::new(id, &wish.name, now, lines));
    }

    /// A notice by which somebody sees that notices come; whoever asks for it sends it.
    pub(crate) fn test(&mut self, to: &str, node: &str, now: Timestamp) -> Notice {
        let id = self.next_id(now);
        let node = Some(node.to_owned());
        let alert = Alert { kind: Kind::InDoubt, tenant: None, route: None, node };
        let line = Line { turn: Turn::Test, alert, value: 0, since: now, until: None };
        Notice::new(id, to, now, vec![line])
    }

    fn next_id(&mut self, now: Timestamp) -> String {
        self.notices += 1;
        format!("alert-{}-{}", self.notices, now.as_millis())
    }

    /// What is to be sent now, by the process `by`; where it `is_alone`, what other processes had
    /// taken is free, for they are gone.
    pub(crate) fn take(&mut self, by: u64, is_alone: bool, now: Timestamp) -> Vec<Notice> {
        let is_free = |notice: &&mut Notice| {
            let is_left = is_alone && notice.taken_by.is_some_and(|other| other != by);
            now >= notice.next_at || is_left
        };
        let taken = self.outgoing.iter_mut().filter(is_free).map(|notice| {
            notice.taken_by = Some(by);
            notice.tries += 1;
            notice.next_at = now.plus(TAKEN_FOR);
            notice.clone()
        });
        taken.collect()
    }

    /// A notice was sent.
    pub(crate) fn sent(&mut self, id: &str) {
        self.outgoing.retain(|notice| notice.id != id);
    }

    /// A notice could not be sent; only to `rest` where it names any. Tells whether it is going to be
    /// tried again.
    pub(crate) fn failed(&mut self, id: &str, why: &str, rest: &[String], now: Timestamp) -> bool {
        let Some(notice) = self.outgoing.iter_mut().find(|notice| notice.id == id) else {
            return true;
        };
        if now.since(notice.at) >= GIVEN_UP_AFTER {
            // Where some have it, it was told.
            if notice.rest.is_empty() {
                untell(&mut self.standing, id);
            }
            self.sent(id);
            return false;
        }
        let doubled = RETRY_FIRST * 2_u32.saturating_pow(notice.tries.saturating_sub(1).min(16));
        notice.next_at = now.plus(doubled.min(RETRY_MAX));
        notice.taken_by = None;
        notice.error = Some(why.to_owned());
        if !rest.is_empty() {
            notice.rest = rest.to_vec();
        }
        true
    }

    /// What fires.
    pub(crate) fn firing(&self) -> impl Iterator<Item = &Standing> {
        self.standing.iter().filter(|it| it.fired.is_some() && it.ended.is_none())
    }

    /// The notice of this id, while it is not sent.
    pub(crate) fn outgoing(&self, id: &str) -> Option<&Notice> {
        self.outgoing.iter().find(|notice| notice.id == id)
    }
}

/// What was to be told by a notice that is lost was not told: it is news again.
fn untell(standing: &mut [Standing], id: &str) {
    for it in standing {
        it.told.retain(|_, told| told.notice != id);
    }
}

impl Notice {
    fn new(id: String, to: &str, at: Timestamp, lines: Vec<Line>) -> Self {
        let to = to.to_owned();
        let rest = Vec::new();
        Self {
            id,
            to,
            at,
            lines,
            tries: 0,
            next_at: at,
            taken_by: None,
            error: None,
            rest,
            had: at,
        }
    }
}

impl Standing {
    fn hold(&mut self, value: u64, rule: &Rule, now: Timestamp) {
        // What comes back after its end has to be held anew; whoever was not told of the end yet
        // never learns of it.
        if self.ended.take().is_some() {
            (self.since, self.fired) = (now, None);
        }
        self.clear = None;
        let begins = self.fired.is_none() && now.since(self.since) >= rule.hold;
        if begins {
            self.fired = Some(now);
        }
        if begins || now.since(self.seen) >= REFRESHED_EVERY {
            (self.seen, self.value) = (now, value);
        }
    }

    /// It is not held, as far as this node can tell. Tells whether it still stands.
    fn rest(&mut self, seen: &Seen<'_>) -> bool {
        let Seen { now, node, rules, .. } = seen;
        if self.ended.is_some() || seen.in_part.contains(&self.alert.kind) {
            return true;
        }
        let is_ours = self.alert.node.as_ref().is_none_or(|it| it == node);
        let is_judged = is_ours && rules.of.contains_key(&self.alert.kind);
        if !is_judged && now.since(self.seen) < GONE_AFTER {
            return true;
        }
        let is_told = self.told.values().any(|told| told.fires);
        if self.fired.is_none() && !is_told {
            return false;
        }
        let clear = *self.clear.get_or_insert(*now);
        if !is_judged || self.fired.is_none() || now.since(clear) >= rules.recover_after {
            self.ended = Some(*now);
        }
        true
    }

    /// What `wish` does not know of it, and since when it could.
    fn news_for(&self, wish: &Wish, now: Timestamp) -> Option<(Turn, Timestamp)> {
        let told = self.told.get(&wish.name).filter(|told| told.fires);
        match (self.fired, self.ended, told) {
            (_, Some(at), Some(_)) => Some((Turn::Recovered, at)),
            (Some(at), None, None) => Some((Turn::Firing, at)),
            (Some(_), None, Some(told)) => {
                let again = told.at.plus(wish.repeat?);
                (now >= again).then_some((Turn::StillFiring, again))
            }
            _ => None,
        }
    }

    fn line(&self, turn: Turn) -> Line {
        let until = self.clear.filter(|_| turn == Turn::Recovered);
        Line { turn, alert: self.alert.clone(), value: self.value, since: self.since, until }
    }
}

/// A time in the book: microseconds since 1970.
mod micros {
    use onceward::core::time::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a field in as it is")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(at.as_micros())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp::from_micros)
    }
}

/// The same, or nothing.
mod micros_or {
    use onceward::core::time::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands a field in as it is")]
    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::as_micros).serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(Timestamp::from_micros))
    }
}

#[cfg(test)]
mod tests;

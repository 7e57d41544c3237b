//! What would be sent, in words, before anything is.

use std::fmt::Write as _;

use super::ask::{Ask, Form, Key, Payload, Place, Who};
use super::case::{Act, Case};
use super::table::{NAME_COLUMNS, Style, set};
use crate::units;

/// What would be sent, a line for each case.
pub(crate) fn plan(cases: &[Case], terminal: bool, style: Style) -> String {
    let mut out = String::new();
    for case in cases {
        let text = match case.skipped {
            Some(why) => format!("not run: {why}"),
            None => case.script.iter().map(Act::words).collect::<Vec<_>>().join(", "),
        };
        if terminal {
            out.push_str(&set(&case.kind.name(), NAME_COLUMNS - 2, &text, style.width));
        } else {
            // Writing into a string does not fail.
            let _ = writeln!(out, "{}\t{text}", case.kind.name());
        }
    }
    out
}

impl Act {
    /// The step in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Send(ask) => words(ask),
            Self::Settle(ask) => format!("{} until it is settled", words(ask)),
            Self::Together(asks) => match asks.first() {
                Some(ask) if asks.iter().all(|other| other == ask) => {
                    format!("{} × ({}) at once", asks.len(), words(ask))
                }
                _ => {
                    let each: Vec<String> = asks.iter().take(2).map(words).collect();
                    format!("{} × ({}) at once", asks.len() / 2, each.join(", "))
                }
            },
            Self::Overlap(ask, times) => format!("{times} × ({}) one into another", words(ask)),
            Self::HangUp(ask, _) => format!("{}, hung up", words(ask)),
            Self::Pause(pause) => format!("pause {}", units::show(*pause)),
        }
    }
}

fn words(ask: &Ask) -> String {
    let payload = match (ask.payload, ask.form) {
        (Payload::A, Form::AsGiven) => "A",
        (Payload::B, _) => "B",
        (_, Form::Reformed) => "A reformed",
        (_, Form::Broken) => "A broken off",
    };
    let key = match &ask.key {
        Key::None => "no key".to_owned(),
        Key::Made(n) => format!("key {}", n + 1),
        Key::Requoted(n) => format!("key {} requoted", n + 1),
        Key::Text(key) => format!("a key of {} bytes", key.len()),
        Key::Lines(lines) if lines.len() > 1 => format!("{} keys", lines.len()),
        Key::Lines(_) => "that key".to_owned(),
    };
    let place = match ask.place {
        Place::AsGiven => "",
        Place::OtherPath => " to another path",
        Place::OtherQuery => " with another query",
        Place::OtherMethod => " by another method",
        Place::Failing(_) => " as it fails",
    };
    let who = if ask.who == Who::Other { " by another caller" } else { "" };
    format!("{payload} with {key}{place}{who}")
}

//! How an operation leaves its doubt: by evidence, and never without. The upstream is asked
//! ([`lookup`]) whenever that is due ([`schedule`]); a provider says it by itself ([`testimony`]); a
//! person has the provider's list ([`list`]), or simply knows.

use onceward_core::operation::{Act, Deed, Event, Illegal, Operation, Outcome};
use onceward_core::policy::{Mode, Policy};
use onceward_core::time::Timestamp;

use crate::mail::MESSAGE_ID_OF;

mod list;
mod lookup;
mod schedule;
mod testimony;
mod wakes;

pub use list::{Evidence, Sifted};
pub(crate) use lookup::Before;
pub use lookup::WHO as LOOKUP;
pub use schedule::Tally;
pub(crate) use schedule::look;
pub(crate) use testimony::hear;
pub use testimony::{Heard, Named, Says, Testimony};
pub(crate) use wakes::{Doubts, Listening};

/// What the machine knows of an operation in doubt, and by whom.
struct Proof {
    /// Its outcome, where it was done; else it was not.
    done: Option<Outcome>,
    /// Who says so.
    who: String,
    /// In a line for logs; behind a line break the evidence, which no log has.
    reason: String,
}

impl Proof {
    /// The operation after it. What was not done is sent again, or, where a caller waited for it,
    /// by that caller; and not at all where it `is_given_up`.
    fn ends(
        self,
        doubt: &Operation,
        policy: &Policy,
        is_given_up: bool,
        now: Timestamp,
    ) -> Result<Operation, Illegal> {
        let deed = if self.done.is_some() { Deed::ResolvedDone } else { Deed::ResolvedNotSent };
        let act = Act { deed, at: now, who: self.who, reason: self.reason };
        if self.done.is_some() || doubt.mode == Mode::Held || is_given_up {
            return doubt.after(Event::Acted(act, self.done, None), now);
        }
        let due = policy.opening(Mode::Accepted, now);
        let revived = Event::Revived { due, mode: Mode::Accepted, act: Some(act) };
        let mut next = doubt.after(revived, now)?;
        // Nobody asked for it anew: the bounds of the call that made it hold still.
        (next.deadline, next.attempts_max) = (doubt.deadline, doubt.attempts_max);
        Ok(next)
    }
}

/// What an operation may be called by its provider.
pub(crate) fn names(operation: &Operation) -> Vec<String> {
    let mut names = vec![operation.key.as_str().to_owned(), operation.id.to_string()];
    names.extend(operation.upstream_key.as_ref().map(|key| key.value.clone()));
    names.extend(operation.label.clone());
    // What a mail is called, as its head and a server's log have it, and without its brackets.
    for (_, id) in operation.ids.iter().filter(|(name, _)| name == MESSAGE_ID_OF) {
        names.push(id.trim_matches(['<', '>']).to_owned());
        names.push(id.clone());
    }
    names
}

/// As much of a text as is kept of it.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

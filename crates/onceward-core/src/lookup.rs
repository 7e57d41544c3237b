//! Asking an upstream whether an operation in doubt was done: what is asked, what the answer says,
//! and when to ask again.
//!
//! Found once is evidence that it was done. That it was not takes two answers in a row, because a
//! request may still be on its way when the first is given: the second counts only once `settle`
//! has passed since the last attempt ended.

use std::time::Duration;

use serde_json::Value;

use crate::backoff;
use crate::condition::{Condition, Given};
use crate::exchange::Headers;
use crate::operation::{Looks, Operation, State};
use crate::path_template::PathTemplate;
use crate::policy::Backoff;
use crate::time::Timestamp;

/// Answers in a row that know nothing of it, until it counts as not done.
const ABSENT_MIN: u32 = 2;

/// How an upstream is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupRule {
    /// Path and query of the GET.
    pub get: PathTemplate,
    /// What an answer says that knows the operation.
    pub found: Condition,
    /// What one says that does not; without it a 2xx or 404 that does not meet `found`.
    pub absent: Option<Condition>,
    /// How long after an attempt its effect shows for sure.
    pub settle: Duration,
    /// When it is asked.
    pub when: When,
    /// The status of an outcome that was found.
    pub status: Option<u16>,
    /// Whether what was found is the answer that duplicates get.
    pub is_answer: bool,
}

/// When an upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When an operation is in doubt.
    Doubt,
    /// Then, and before anything is sent too.
    Before,
}

impl When {
    /// The word for it in configuration and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Doubt => "doubt",
            Self::Before => "before",
        }
    }
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It was done.
    Found,
    /// It is not known there.
    Absent,
    /// Nothing: the answer is none, or none that can be read so.
    Unknown,
}

impl Finding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Found, Self::Absent, Self::Unknown];

    /// The word for it in answers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It was done.
    Done,
    /// It was not done: it may be sent again.
    NotDone,
    /// Nobody knows still.
    Again(Looks),
}

impl LookupRule {
    /// What a whole answer says. An error never tells that something was done or was not, unless
    /// the condition names its status.
    pub fn read(&self, status: u16, headers: &Headers, body: &[u8]) -> Finding {
        let document: Option<Value> = serde_json::from_slice(body).ok();
        let given = Given { status: Some(status), headers, document: document.as_ref() };
        let is_success = (200..300).contains(&status);
        if (is_success || self.found.names_status()) && self.found.holds(given) {
            return Finding::Found;
        }
        let is_absent = match &self.absent {
            Some(absent) => {
                (is_success || status == 404 || absent.names_status()) && absent.holds(given)
            }
            // A page that is no JSON says nothing of what it should list.
            None => {
                status == 404 || (is_success && (document.is_some() || !self.found.names_json()))
            }
        };
        if is_absent { Finding::Absent } else { Finding::Unknown }
    }
}

/// When the effect of what was sent last shows for sure.
pub fn settled_at(operation: &Operation, settle: Duration) -> Timestamp {
    let ended = operation.attempts.iter().filter_map(|attempt| {
        attempt.may_have_executed().then(|| attempt.ended.as_ref().map(|ended| ended.at))?
    });
    ended.max().unwrap_or(operation.created_at).plus(settle)
}

/// When the upstream is asked about an operation in doubt: at once where it never was, and not any
/// more where that is given up.
pub fn due(operation: &Operation) -> Option<Timestamp> {
    match (operation.state, operation.looks) {
        (State::InDoubt, Looks { made: 0, next: None, .. }) => {
            Some(Timestamp::from_micros(i64::MIN))
        }
        (State::InDoubt, looks) => looks.next,
        _ => None,
    }
}

/// The look that begins `now`: whoever else comes asks only if nothing was heard of it by `until`.
pub fn begin(looks: Looks, until: Timestamp) -> Looks {
    Looks { made: looks.made.saturating_add(1), next: Some(until), ..looks }
}

/// What follows from what the look found that began at `asked_at`.
pub fn conclude(
    operation: &Operation,
    rule: &LookupRule,
    backoff: &Backoff,
    finding: Finding,
    asked_at: Timestamp,
    now: Timestamp,
) -> Conclusion {
    let looks = operation.looks;
    let settled_at = settled_at(operation, rule.settle);
    let absent = match finding {
        Finding::Found => return Conclusion::Done,
        Finding::Absent => looks.absent.saturating_add(1),
        // What is not known breaks the row.
        Finding::Unknown => 0,
    };
    if absent >= ABSENT_MIN && asked_at >= settled_at {
        return Conclusion::NotDone;
    }
    let wait = backoff::delay(backoff, operation.id, looks.made, None);
    let next = if now < settled_at { settled_at } else { now.plus(wait) };
    // However late it is, one look is followed by another: twice absent is what ends a doubt.
    let is_over = looks.made >= ABSENT_MIN && next > settled_at.plus(backoff.horizon);
    Conclusion::Again(Looks { made: looks.made, absent, next: (!is_over).then_some(next) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Attempt, Ended, Ending, Reached, Timings};
    use crate::fingerprint::Fingerprint;
    use crate::id::OperationId;
    use crate::key::{Key, Scope, ScopeKind};
    use crate::lease::Session;
    use crate::operation::{Fence, Intent};
    use crate::policy::Mode;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule(found: &Value, absent: Option<&Value>) -> LookupRule {
        LookupRule {
            get: PathTemplate::read("/orders?ref={key}").unwrap(),
            found: Condition::read(found).unwrap(),
            absent: absent.map(|absent| Condition::read(absent).unwrap()),
            settle: Duration::from_secs(30),
            when: When::Doubt,
            status: None,
            is_answer: false,
        }
    }

    #[test]
    fn an_answer_is_found_absent_or_says_nothing() {
        let by_json = rule(&json!({"json": {"/items/0/id": {"exists": true}}}), None);
        let by_status = rule(&json!({"status": 200}), None);
        let listed = rule(
            &json!({"json": {"/id": {"exists": true}}}),
            Some(&json!({"json": {"/gone": true}})),
        );
        for (rule, status, body, finding) in [
            (&by_json, 200, r#"{"items": [{"id": 1}]}"#, Finding::Found),
            (&by_json, 200, r#"{"items": []}"#, Finding::Absent),
            (&by_json, 404, "not here", Finding::Absent),
            (&by_json, 500, r#"{"items": [{"id": 1}]}"#, Finding::Unknown),
            (&by_json, 200, "<html>log in</html>", Finding::Unknown),
            (&by_json, 401, "{}", Finding::Unknown),
            (&by_json, 302, "", Finding::Unknown),
            (&by_status, 200, "", Finding::Found),
            (&by_status, 204, "", Finding::Absent),
            (&by_status, 404, "", Finding::Absent),
            (&by_status, 503, "", Finding::Unknown),
            (&listed, 200, r#"{"gone": true}"#, Finding::Absent),
            (&listed, 404, r#"{"gone": false}"#, Finding::Unknown),
            (&listed, 500, r#"{"gone": true}"#, Finding::Unknown),
        ] {
            assert_eq!(
                rule.read(status, &Headers::default(), body.as_bytes()),
                finding,
                "{status} {body}"
            );
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000_000).plus(Duration::from_secs(seconds))
    }

    /// In doubt since the second `ended`.
    fn doubted(ended: u64, looks: Looks) -> Operation {
        let attempt = Attempt {
            n: 1,
            by: Session(1),
            started_at: at(0),
            ended: Some(Ended {
                at: at(ended),
                ending: Ending::Unanswered,
                reached: Reached::Sent,
                status: None,
                error: None,
                may_have_executed: true,
                answer: None,
                timings: Timings::default(),
            }),
        };
        let scope = Scope {
            kind: ScopeKind::Call,
            tenant: "t".into(),
            name: "r".into(),
            principal: String::new(),
        };
        let key = Key::new("k").unwrap();
        let print = Fingerprint { version: 1, parts: [[0; 16]; 4] };
        let intent = Intent {
            upstream_window: Duration::from_secs(1),
            method: "POST".into(),
            target: "/".into(),
            tombstone: Duration::from_secs(1),
            ..Intent::new(OperationId::from_u128(7), scope, key, print, at(0))
        };
        Operation {
            fence: Fence(3),
            mode: Mode::Accepted,
            state: State::InDoubt,
            attempts: vec![attempt],
            window: Duration::from_secs(1),
            looks,
            ..Operation::new(intent)
        }
    }

    #[test]
    fn it_is_asked_at_once_then_when_it_settled_then_by_the_backoff_until_its_horizon() {
        let rule = rule(&json!({"status": 200}), None);
        let backoff =
            Backoff { attempts_max: 2, horizon: Duration::from_hours(1), ..Backoff::accepted() };
        let mut operation = doubted(10, Looks::default());
        assert!(due(&operation).is_some_and(|due| due < at(10)));
        operation.looks = begin(operation.looks, at(99));
        assert_eq!(due(&operation), Some(at(99)));
        let Conclusion::Again(looks) =
            conclude(&operation, &rule, &backoff, Finding::Unknown, at(10), at(11))
        else {
            panic!()
        };
        assert_eq!((looks.made, looks.next), (1, Some(at(40))));
        let mut made = 1;
        operation.looks = looks;
        while let Some(next) = due(&operation) {
            made += 1;
            operation.looks = begin(operation.looks, next.plus(Duration::from_mins(1)));
            let Conclusion::Again(looks) =
                conclude(&operation, &rule, &backoff, Finding::Unknown, next, next)
            else {
                panic!()
            };
            assert!(looks.next.is_none_or(|then| then > next));
            operation.looks = looks;
        }
        assert!((4..60).contains(&made), "{made}");
    }

    proptest! {
        #[test]
        fn not_done_takes_two_in_a_row_and_time_to_settle(
            findings in proptest::collection::vec(0usize..3, 1..20),
            pauses in proptest::collection::vec(0u64..40, 20),
            ended in 0u64..20,
        ) {
            let rule = rule(&json!({"status": 200}), None);
            let backoff = Backoff::accepted();
            let mut operation = doubted(ended, Looks::default());
            let (mut now, mut row) = (ended, 0);
            for (place, pause) in findings.iter().zip(pauses) {
                now += pause;
                let finding = Finding::ALL[*place];
                row = if finding == Finding::Absent { row + 1 } else { 0 };
                operation.looks = begin(operation.looks, at(now + 60));
                match conclude(&operation, &rule, &backoff, finding, at(now), at(now)) {
                    Conclusion::Done => {
                        prop_assert_eq!(finding, Finding::Found);
                        break;
                    }
                    Conclusion::NotDone => {
                        prop_assert!(row >= 2 && now >= ended + 30);
                        break;
                    }
                    Conclusion::Again(looks) => {
                        prop_assert!(finding != Finding::Found);
                        prop_assert!(row < 2 || now < ended + 30);
                        prop_assert!(looks.next.is_some_and(|next| next > at(now)), "it is asked again");
                        operation.looks = looks;
                    }
                }
            }
        }

        #[test]
        fn any_answer_is_read(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let rule = rule(&json!({"json": {"/a": 1}}), None);
            if rule.read(status, &Headers::default(), &body) == Finding::Found {
                prop_assert!((200..300).contains(&status));
            }
        }
    }
}

//! Events, and what a subscription wants of them: types, patterns of types, a condition on the event's
//! document; and how a receiver does who is told of them.
//!
//! An event is kept as its publisher wrote it. What receivers get is made of that and of the time at
//! which it was remembered, so that every attempt of every delivery carries the same bytes and one copy
//! of them is all that is kept.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::condition::{Condition, Given, NotACondition};
use crate::exchange::Headers;
use crate::policy::Backoff;
use crate::time::Timestamp;

/// The longest type of an event, and the longest pattern of types.
pub const TYPE_BYTES_MAX: usize = 255;

/// The longest subject.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// What is written in the place of a segment that may be any.
const ANY: &str = "*";

/// What happened, in words with dots between them: `order.created`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(String);

/// Which types of events: `order.created`, `order.*`, `*`. A `*` stands for one segment, and at the end
/// for one or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TypePattern(String);

/// Why a document is no event, or a text no type and no pattern of types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// It is not written as types are.
    #[error(
        "a type is words of letters, digits, `_`, `-`, `/` and `:` with dots between them, at most {TYPE_BYTES_MAX} bytes: `order.created`"
    )]
    Type,
    /// It is not written as patterns are.
    #[error(
        "types are written as events' are, with `*` in the place of a whole word: `order.*`, `*.created`, `*`"
    )]
    Pattern,
    /// The document cannot be read.
    #[error("it is no JSON object as it has to be: {0}")]
    Document(String),
    /// An attribute of a CloudEvent is not there, or is not what it has to be.
    #[error("the CloudEvent's {0} (CloudEvents 1.0, section 3.1)")]
    Attribute(&'static str),
    /// The subject is empty or too long.
    #[error("a subject has 1 to {SUBJECT_BYTES_MAX} bytes")]
    Subject,
}

fn is_word(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/:".contains(&byte);
    !word.is_empty() && word.bytes().all(fits)
}

impl EventType {
    /// Reads a type.
    pub fn new(text: &str) -> Result<Self, NotAnEvent> {
        let fits = text.len() <= TYPE_BYTES_MAX && text.split('.').all(is_word);
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAnEvent::Type) }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TypePattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, NotAnEvent> {
        let fits = |word| word == ANY || is_word(word);
        let fits = text.len() <= TYPE_BYTES_MAX && text.split('.').all(fits);
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAnEvent::Pattern) }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event of this type is meant.
    pub fn matches(&self, kind: &EventType) -> bool {
        let (mut wanted, mut given) = (self.0.split('.').peekable(), kind.0.split('.'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                // At the end it stands for all that is left.
                (Some(ANY), Some(_)) if wanted.peek().is_none() => return true,
                (Some(ANY), Some(_)) => {}
                (Some(word), Some(other)) if word == other => {}
                _ => return false,
            }
        }
    }
}

/// A condition on an event's document alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Condition);

impl Filter {
    /// Reads a filter as JSON says it: a [`Condition`] that asks for nothing but the document.
    pub fn read(source: &Value) -> Result<Self, NotACondition> {
        let condition = Condition::read(source)?;
        if condition.names_status() || condition.names_headers() {
            return Err(NotACondition::of(
                "filter",
                "an event has no status and no headers: write { \"json\": { \"/data/amount\": { \"gt\": 100 } } }",
            ));
        }
        Ok(Self(condition))
    }

    /// Whether it holds of an event's document.
    pub fn holds(&self, document: &Value) -> bool {
        let headers = Headers::default();
        self.0.holds(Given { status: None, headers: &headers, document: Some(document) })
    }

    /// As it was written.
    pub fn source(&self) -> &Value {
        self.0.source()
    }
}

/// What a subscription wants.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Of these types; of all where there is none.
    pub types: Vec<TypePattern>,
    /// Of these only where this holds.
    pub filter: Option<Filter>,
}

impl Selection {
    /// Whether it wants `event`.
    pub fn wants(&self, event: &Event) -> bool {
        (self.types.is_empty() || self.types.iter().any(|it| it.matches(&event.kind)))
            && self.filter.as_ref().is_none_or(|filter| filter.holds(&event.document))
    }
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"type", "subject", "sequence", "data"}`; receivers get the time of it too.
    Own,
    /// A CloudEvent 1.0 as structured JSON, which receivers get as it came.
    Cloud,
}

impl Form {
    /// The media type that says so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Own => "application/json",
            Self::Cloud => "application/cloudevents+json",
        }
    }

    /// The form that a media type says.
    pub fn of(media_type: &str) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(Self::Cloud.media_type()) { Self::Cloud } else { Self::Own }
    }
}

/// A published fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// How it is written.
    pub form: Form,
    /// What happened.
    pub kind: EventType,
    /// What it is about.
    pub subject: Option<String>,
    /// Its place among those about the same.
    pub sequence: Option<u64>,
    /// Its source and id, where it is a CloudEvent: together they are unique.
    pub origin: Option<(String, String)>,
    /// As it is kept.
    pub body: Bytes,
    /// The same, for filters.
    document: Value,
}

/// What our own form has, in the order in which it is written.
#[derive(Serialize)]
struct Own<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl Event {
    /// An event of our own form, whose `data` is kept as it is written.
    pub fn own(
        kind: &str,
        subject: Option<&str>,
        sequence: Option<u64>,
        data: Option<&RawValue>,
    ) -> Result<Self, NotAnEvent> {
        EventType::new(kind)?;
        let own = Own { r#type: kind, subject, sequence, data };
        let body = serde_json::to_vec(&own).map_err(unread)?;
        Self::read(Form::Own, body.into())
    }

    /// The event that is written so.
    pub fn read(form: Form, body: Bytes) -> Result<Self, NotAnEvent> {
        let document: Value = serde_json::from_slice(&body).map_err(unread)?;
        if !document.is_object() {
            return Err(NotAnEvent::Document("it is no object".to_owned()));
        }
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let kind = text("type").ok_or(NotAnEvent::Attribute("type is a text"));
        let subject = match document.get("subject") {
            None | Some(Value::Null) => None,
            Some(Value::String(subject)) => Some(subject.clone()),
            Some(_) => return Err(NotAnEvent::Subject),
        };
        let is_long = |text: &String| text.is_empty() || text.len() > SUBJECT_BYTES_MAX;
        if subject.as_ref().is_some_and(is_long) {
            return Err(NotAnEvent::Subject);
        }
        let origin = match form {
            Form::Own => None,
            Form::Cloud => {
                if text("specversion") != Some("1.0") {
                    return Err(NotAnEvent::Attribute("specversion is \"1.0\""));
                }
                let said = |name| text(name).filter(|text| !text.is_empty());
                let source = said("source").filter(|source| !source.contains(' '));
                let source = source.ok_or(NotAnEvent::Attribute("source is a URI-reference"))?;
                let id = said("id").ok_or(NotAnEvent::Attribute("id is a text"))?;
                Some((source.to_owned(), id.to_owned()))
            }
        };
        // CloudEvents' extension `sequence` is a text: one that is a number has the same meaning here.
        let sequence = document.get("sequence").and_then(|sequence| match sequence {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let kind = EventType::new(kind?)?;
        Ok(Self { form, kind, subject, sequence, origin, body, document })
    }

    /// What receivers get of an event that was remembered at `at`: the same bytes each time.
    pub fn payload(&self, at: Timestamp) -> Bytes {
        let rest = match self.form {
            Form::Cloud => return self.body.clone(),
            Form::Own => self.body.get(1..).unwrap_or_default(),
        };
        // It is written here and begins with the brace of its object, and its type follows.
        [format!("{{\"timestamp\":\"{}\",", at.rfc3339()).as_bytes(), rest].concat().into()
    }
}

fn unread(error: impl fmt::Display) -> NotAnEvent {
    NotAnEvent::Document(error.to_string())
}

/// The delays of Standard Webhooks 1.0 between one attempt and the next: ten attempts over some 75 hours.
pub fn standard_delays() -> Vec<Duration> {
    const HOUR: u64 = 3600;
    [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
        .map(Duration::from_secs)
        .into()
}

/// Attempts after these delays, one more than there are; none begins later than `horizon`.
pub fn backoff(delays: Vec<Duration>, horizon: Duration) -> Backoff {
    let attempts_max = u32::try_from(delays.len()).unwrap_or(u32::MAX).saturating_add(1);
    Backoff { attempts_max, horizon, table: delays, ..Backoff::accepted() }
}

/// What an attempt at a receiver says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It took what it was sent.
    Took,
    /// It did not, or was not reached.
    Failed,
    /// It wants nothing any more: 410 (Standard Webhooks 1.0, "Handling failures").
    Gone,
}

impl Heard {
    /// What an attempt with this status says.
    pub fn of(status: Option<u16>) -> Self {
        match status {
            Some(410) => Self::Gone,
            Some(200..300) => Self::Took,
            _ => Self::Failed,
        }
    }
}

/// What follows from how a receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing new.
    Same,
    /// It has failed since then.
    Fails(Timestamp),
    /// It takes what it is sent again.
    Mends,
    /// It is paused, because it said so.
    PauseGone,
    /// It is paused, because it has failed for too long.
    PauseFailing,
}

/// What follows for a receiver that has failed since `failing_since`, where it has, once it was heard at
/// `now`. Failures for `pause_after` without one delivery between them pause it.
pub fn turn(
    failing_since: Option<Timestamp>,
    heard: Heard,
    pause_after: Duration,
    now: Timestamp,
) -> Turn {
    match (heard, failing_since) {
        (Heard::Gone, _) => Turn::PauseGone,
        (Heard::Took, Some(_)) => Turn::Mends,
        (Heard::Failed, None) => Turn::Fails(now),
        (Heard::Failed, Some(since)) if now.since(since) >= pause_after => Turn::PauseFailing,
        (Heard::Took, None) | (Heard::Failed, Some(_)) => Turn::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_micros(1_795_305_600_000_000);

    fn event(source: &Value) -> Event {
        Event::read(Form::Own, source.to_string().into()).unwrap()
    }

    #[test]
    fn a_pattern_means_whole_words_and_at_its_end_all_that_follows() {
        for (pattern, kind, is_meant) in [
            ("order.created", "order.created", true),
            ("order.created", "order.created.late", false),
            ("order.created", "order", false),
            ("order.*", "order.created", true),
            ("order.*", "order.payment.failed", true),
            ("order.*", "order", false),
            ("order.*", "orders.created", false),
            ("*.created", "order.created", true),
            ("*.created", "order.item.created", false),
            ("*.*.failed", "order.payment.failed", true),
            ("*", "order.created", true),
            ("Order.*", "order.created", false),
        ] {
            let matches =
                TypePattern::new(pattern).unwrap().matches(&EventType::new(kind).unwrap());
            assert_eq!(matches, is_meant, "{pattern} {kind}");
        }
        for text in ["", ".", "a.", "a..b", "a b", "a*", "ord*.x", "é", &"a".repeat(256)] {
            assert_eq!(TypePattern::new(text), Err(NotAnEvent::Pattern), "{text}");
            assert_eq!(EventType::new(text), Err(NotAnEvent::Type), "{text}");
        }
        assert_eq!(EventType::new("order.*"), Err(NotAnEvent::Type));
    }

    #[test]
    fn a_selection_wants_what_its_types_and_its_filter_both_mean() {
        let selection = Selection {
            types: vec![TypePattern::new("order.*").unwrap()],
            filter: Some(
                Filter::read(&json!({"json": {"/data/amount": {"gt": 100}}, "not": {"json": {"/subject": "test"}}}))
                    .unwrap(),
            ),
        };
        for (document, is_wanted) in [
            (json!({"type": "order.paid", "data": {"amount": 101}}), true),
            (json!({"type": "order.paid", "data": {"amount": 100}}), false),
            (json!({"type": "order.paid"}), false),
            (json!({"type": "user.paid", "data": {"amount": 101}}), false),
            (json!({"type": "order.paid", "subject": "test", "data": {"amount": 101}}), false),
        ] {
            assert_eq!(selection.wants(&event(&document)), is_wanted, "{document}");
        }
        assert!(Selection::default().wants(&event(&json!({"type": "any.thing"}))));
        for source in [json!({"status": 200}), json!({"any": [{"headers": {"x": "y"}}]})] {
            let error = Filter::read(&source).unwrap_err().to_string();
            assert!(error.contains("no status and no headers"), "{error}");
        }
    }

    #[test]
    fn what_receivers_get_is_the_event_and_its_time() {
        let data = RawValue::from_string(r#"{"n": 1.10, "big": 123456789012345678901}"#.into());
        let event = Event::own("a.b", Some("s"), Some(7), Some(&data.unwrap())).unwrap();
        let wanted = r#"{"timestamp":"2026-11-22T00:00:00.000Z","type":"a.b","subject":"s","sequence":7,"data":{"n": 1.10, "big": 123456789012345678901}}"#;
        assert_eq!(event.payload(NOW), wanted.as_bytes());
        assert_eq!(Event::read(Form::Own, event.body.clone()).unwrap(), event);
    }

    #[test]
    fn a_cloud_event_is_read_strictly_and_passed_on_as_it_came() {
        let good = json!({
            "specversion": "1.0", "id": "e 1", "source": "/shop", "type": "com.shop.order/paid",
            "subject": "order-7", "sequence": "12", "data": {"a": 1},
        });
        let read =
            |document: &Value| Event::read(Form::Cloud, format!(" {document}").into_bytes().into());
        let event = read(&good).unwrap();
        assert_eq!(event.payload(NOW), format!(" {good}").as_bytes());
        assert_eq!((event.subject.as_deref(), event.sequence), (Some("order-7"), Some(12)));
        assert_eq!(event.origin, Some(("/shop".to_owned(), "e 1".to_owned())));
        for (name, value) in [
            ("specversion", json!("0.3")),
            ("specversion", Value::Null),
            ("id", json!("")),
            ("id", json!(7)),
            ("source", json!("a b")),
            ("type", json!("")),
            ("type", json!(null)),
            ("subject", json!("")),
            ("subject", json!("s".repeat(256))),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(read(&bad).is_err(), "{bad}");
        }
        assert!(read(&json!([])).is_err());
    }

    #[test]
    fn the_table_of_standard_webhooks_is_ten_attempts_over_three_days() {
        let backoff = backoff(standard_delays(), Duration::from_hours(720));
        assert_eq!(backoff.attempts_max, 10);
        let all: Duration = backoff.table.iter().sum();
        assert_eq!(all, Duration::from_secs(75 * 3600 + 35 * 60 + 5));
    }

    #[test]
    fn a_receiver_is_paused_by_its_own_word_or_after_days_of_failures() {
        let (day, later) = (Duration::from_hours(24), NOW.plus(Duration::from_hours(24)));
        for (since, heard, turned) in [
            (None, Heard::Took, Turn::Same),
            (None, Heard::Failed, Turn::Fails(later)),
            (None, Heard::Gone, Turn::PauseGone),
            (Some(NOW), Heard::Took, Turn::Mends),
            (Some(NOW), Heard::Failed, Turn::PauseFailing),
            (Some(later), Heard::Failed, Turn::Same),
        ] {
            assert_eq!(turn(since, heard, day, later), turned, "{since:?} {heard:?}");
        }
        assert_eq!(Heard::of(Some(204)), Heard::Took);
        assert_eq!(Heard::of(Some(302)), Heard::Failed);
        assert_eq!(Heard::of(Some(410)), Heard::Gone);
        assert_eq!(Heard::of(None), Heard::Failed);
    }

    proptest! {
        #[test]
        fn a_type_matches_itself_and_what_leaves_words_of_it_open(
            words in proptest::collection::vec("[a-z0-9_-]{1,4}", 1..6),
            open in proptest::collection::vec(any::<bool>(), 6),
            cut in 0usize..6,
        ) {
            let kind = EventType::new(&words.join(".")).unwrap();
            prop_assert!(TypePattern::new(kind.as_str()).unwrap().matches(&kind));
            let word = |(word, open): (&String, &bool)| if *open { "*".to_owned() } else { word.clone() };
            let left: Vec<String> = words.iter().zip(&open).map(word).collect();
            prop_assert!(TypePattern::new(&left.join(".")).unwrap().matches(&kind));
            let cut = cut.min(words.len() - 1);
            let mut begun = left[..cut].to_vec();
            begun.push("*".to_owned());
            prop_assert!(TypePattern::new(&begun.join(".")).unwrap().matches(&kind));
            let longer = format!("{}.more", left.join("."));
            prop_assert!(!TypePattern::new(&longer).unwrap().matches(&kind));
        }

        #[test]
        fn any_bytes_are_an_event_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,20}") {
            for form in [Form::Own, Form::Cloud] {
                let _ = Event::read(form, body.clone().into());
            }
            let _ = (EventType::new(&text), TypePattern::new(&text));
        }

        #[test]
        fn what_is_published_again_is_kept_and_delivered_as_the_same_bytes(
            kind in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", subject in proptest::option::of("[a-z]{1,9}"),
            sequence in proptest::option::of(any::<u64>()), number in any::<i64>(), text in ".{0,20}",
        ) {
            let data = serde_json::value::to_raw_value(&json!({"n": number, "t": text})).unwrap();
            let make = || Event::own(&kind, subject.as_deref(), sequence, Some(&data)).unwrap();
            let (once, again) = (make(), make());
            prop_assert_eq!(&once.body, &again.body);
            let payload: Value = serde_json::from_slice(&once.payload(NOW)).unwrap();
            prop_assert_eq!(&payload["data"], &json!({"n": number, "t": text}));
            prop_assert_eq!(payload["type"].as_str(), Some(kind.as_str()));
            prop_assert_eq!(&payload["timestamp"], &json!(NOW.rfc3339()));
            let read = Event::read(Form::Own, once.body.clone()).unwrap();
            prop_assert_eq!(read.sequence, sequence);
        }
    }
}

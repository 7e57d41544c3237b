//! A span as OTLP has it (opentelemetry-proto 1.x, `trace/v1/trace.proto`).

use std::borrow::Cow;
use std::time::SystemTime;

use onceward::core::trace::TraceContext;

use super::nanos;
use super::wire::Wire;

/// "The field says whether its parent is remote", and "it is".
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// "The operation contains an error."
const ERROR: u64 = 2;

/// Most spans are smaller.
const ROOM: usize = 768;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// A span that has ended, but for its attributes.
#[derive(Debug)]
pub(in crate::telemetry) struct Span<'a> {
    pub(in crate::telemetry) context: TraceContext,
    /// 0 where it has none.
    pub(in crate::telemetry) parent: u64,
    pub(in crate::telemetry) is_parent_remote: bool,
    pub(in crate::telemetry) kind: Kind,
    /// What, and of what.
    pub(in crate::telemetry) name: [&'a str; 2],
    pub(in crate::telemetry) begun: SystemTime,
    pub(in crate::telemetry) ended: SystemTime,
    pub(in crate::telemetry) link: Option<TraceContext>,
    /// What went wrong, where something did.
    pub(in crate::telemetry) error: Option<Cow<'a, str>>,
}

/// Where the attributes of a span are written.
#[derive(Debug)]
pub(in crate::telemetry) struct Attributes<'w> {
    wire: &'w mut Wire,
    field: u32,
}

impl<'w> Attributes<'w> {
    /// Those of a message whose attributes are its field `field`.
    pub(super) fn of(wire: &'w mut Wire, field: u32) -> Self {
        Self { wire, field }
    }

    pub(in crate::telemetry) fn say(&mut self, key: &str, text: &str) {
        self.joined(key, &[text]);
    }

    pub(in crate::telemetry) fn number(&mut self, key: &str, number: impl Into<i64>) {
        self.wire.message(self.field, |pair| {
            pair.text(1, &[key]);
            // A negative number is written as its two's complement.
            pair.message(2, |value| value.number(3, number.into() as u64));
        });
    }

    pub(in crate::telemetry) fn fraction(&mut self, key: &str, fraction: f64) {
        self.wire.message(self.field, |pair| {
            pair.text(1, &[key]);
            pair.message(2, |value| value.double(4, fraction));
        });
    }

    pub(in crate::telemetry) fn truth(&mut self, key: &str, truth: bool) {
        self.wire.message(self.field, |pair| {
            pair.text(1, &[key]);
            pair.message(2, |value| value.number(2, u64::from(truth)));
        });
    }

    /// A text that has these parts.
    pub(in crate::telemetry) fn joined(&mut self, key: &str, parts: &[&str]) {
        self.wire.message(self.field, |pair| {
            pair.text(1, &[key]);
            pair.message(2, |value| value.text(1, parts));
        });
    }
}

impl Span<'_> {
    /// The span as its message, with the attributes that are said.
    pub(super) fn encode(&self, attributes: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
        let mut wire = Wire::with_room(ROOM);
        wire.bytes(1, &self.context.trace.to_be_bytes());
        wire.bytes(2, &self.context.span.to_be_bytes());
        if self.parent != 0 {
            wire.bytes(4, &self.parent.to_be_bytes());
        }
        let [what, of] = self.name;
        wire.text(5, &[what, if of.is_empty() { "" } else { " " }, of]);
        wire.number(6, self.kind as u64);
        wire.fixed64(7, nanos(self.begun));
        wire.fixed64(8, nanos(self.ended.max(self.begun)));
        attributes(&mut Attributes::of(&mut wire, 9));
        if let Some(to) = &self.link {
            wire.message(13, |link| {
                link.bytes(1, &to.trace.to_be_bytes());
                link.bytes(2, &to.span.to_be_bytes());
                link.fixed32(6, u32::from(to.flags) | HAS_IS_REMOTE);
            });
        }
        if let Some(error) = &self.error {
            wire.message(15, |status| {
                status.text(2, &[&**error]);
                status.number(3, ERROR);
            });
        }
        let remote = if self.is_parent_remote { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
        wire.fixed32(16, u32::from(self.context.flags) | remote);
        wire.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use opentelemetry_proto::tonic::common::v1::any_value::Value as Read;
    use opentelemetry_proto::tonic::trace::v1 as read;
    use prost::Message as _;

    use super::*;

    fn context(span: u64) -> TraceContext {
        TraceContext { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span, flags: 1 }
    }

    fn span() -> Span<'static> {
        Span {
            context: context(7),
            parent: 0,
            is_parent_remote: false,
            kind: Kind::Client,
            name: ["POST", "shop"],
            begun: UNIX_EPOCH + Duration::from_secs(9),
            ended: UNIX_EPOCH + Duration::from_secs(8),
            link: None,
            error: None,
        }
    }

    #[test]
    fn a_span_reads_back_by_what_others_read_spans_with() {
        let long = "x".repeat(70_000);
        let error = Some(Cow::Borrowed("unanswered"));
        let all =
            Span { parent: 5, is_parent_remote: true, link: Some(context(3)), error, ..span() };
        let bytes = all.encode(|attributes| {
            attributes.say("key", &long);
            attributes.say("empty", "");
            attributes.number("number", -3);
            attributes.fraction("fraction", 0.041);
            attributes.truth("truth", true);
            attributes.truth("untruth", false);
            attributes.joined("url", &["http://a", "/b"]);
        });
        let read = read::Span::decode(&*bytes).unwrap();
        assert_eq!(read.trace_id, context(7).trace.to_be_bytes());
        assert_eq!((read.span_id[7], read.parent_span_id[7]), (7, 5));
        assert_eq!((&*read.name, read.kind()), ("POST shop", read::span::SpanKind::Client));
        assert_eq!(read.start_time_unix_nano, 9_000_000_000);
        assert_eq!(read.end_time_unix_nano, 9_000_000_000, "no span ends before it begins");
        assert_eq!(read.flags, 0x301);
        let said = read.attributes.iter().map(|pair| {
            let value = pair.value.as_ref().and_then(|value| value.value.clone());
            (pair.key.as_str(), value.unwrap())
        });
        let text = |text: &str| Read::StringValue(text.to_owned());
        let wanted = [
            ("key", text(&long)),
            ("empty", text("")),
            ("number", Read::IntValue(-3)),
            ("fraction", Read::DoubleValue(0.041)),
            ("truth", Read::BoolValue(true)),
            ("untruth", Read::BoolValue(false)),
            ("url", text("http://a/b")),
        ];
        assert_eq!(said.collect::<Vec<_>>(), wanted);
        let link = &read.links[0];
        assert_eq!((link.span_id[7], link.flags), (3, 0x101));
        let status = read.status.unwrap();
        assert_eq!(
            (&*status.message, status.code()),
            ("unanswered", read::status::StatusCode::Error)
        );
    }

    #[test]
    fn a_span_that_has_little_to_say_says_no_more() {
        let bytes = Span { name: ["GET", ""], ..span() }.encode(|_| {});
        let read = read::Span::decode(&*bytes).unwrap();
        assert_eq!(read.name, "GET");
        assert_eq!(read.flags, 0x101);
        assert!(read.parent_span_id.is_empty() && read.attributes.is_empty());
        assert!(read.links.is_empty() && read.status.is_none());
    }
}

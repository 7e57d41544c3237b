//! A collector of traces, and upstreams that keep what they were asked: what is read of the spans is read by
//! OpenTelemetry's own definition of them.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::world::{Gateway, World, read_head, until};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Whoever is asked over HTTP/1.1, and keeps what they were asked.
#[derive(Clone)]
pub(crate) struct Hearing {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// What each request after the other gets, the last all that follow; 0 is no answer.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Hearing {
    pub(crate) fn answering(statuses: &[u16]) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), statuses)
    }

    pub(crate) fn at(address: SocketAddr, statuses: &[u16]) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(statuses.to_vec()));
        let hearing = Self { address, heard: Arc::default(), answers };
        let hears = hearing.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let hears = hears.clone();
                // Who goes away is no matter of ours.
                std::thread::spawn(move || drop(hears.hear(stream)));
            }
        });
        hearing
    }

    pub(crate) fn set(&self, status: u16) {
        *self.answers.lock().unwrap() = vec![status];
    }

    /// What it was asked until now counts no more.
    pub(crate) fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn hear(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (start, headers) = read_head(&mut reader)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        self.heard.lock().unwrap().push(Heard { start, headers, body });
        let status = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0] }
        };
        if status == 0 {
            return Ok(());
        }
        let head =
            format!("HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        reader.into_inner().write_all(head.as_bytes())
    }
}

/// A span as a collector has it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Nothing where it has none.
    pub(crate) parent: String,
    pub(crate) kind: SpanKind,
    pub(crate) name: String,
    pub(crate) said: BTreeMap<String, String>,
    /// Trace and span of what it is linked to.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) is_failed: bool,
    pub(crate) nanos: u64,
}

impl Span {
    pub(crate) fn says(&self, name: &str) -> Option<&str> {
        self.said.get(name).map(String::as_str)
    }
}

/// A collector.
pub(crate) struct Collector(pub(crate) Hearing);

impl Collector {
    pub(crate) fn start() -> Self {
        Self(Hearing::answering(&[200]))
    }

    /// The lines of a configuration that tells it of all traces.
    pub(crate) fn lines(&self) -> String {
        format!("[telemetry]\ntraces = \"http://{}\"\nsampling = 1\n", self.0.address)
    }

    /// Everything that it was told.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for heard in self.0.heard() {
            assert_eq!(heard.start, "POST /v1/traces HTTP/1.1");
            assert_eq!(heard.header("content-type"), Some("application/x-protobuf"));
            let request = ExportTraceServiceRequest::decode(heard.body.as_slice()).unwrap();
            for of_resource in request.resource_spans {
                let resource = read(of_resource.resource.unwrap().attributes);
                assert_eq!(resource["service.name"], "onceward", "{resource:?}");
                assert!(resource.contains_key("service.version"), "{resource:?}");
                for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
                    spans.push(Span {
                        trace: hex(&span.trace_id),
                        id: hex(&span.span_id),
                        parent: hex(&span.parent_span_id),
                        kind: SpanKind::try_from(span.kind).unwrap(),
                        name: span.name,
                        said: read(span.attributes),
                        links: span
                            .links
                            .iter()
                            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                            .collect(),
                        is_failed: span.status.is_some_and(|status| status.code == 2),
                        nanos: span.end_time_unix_nano - span.start_time_unix_nano,
                    });
                }
            }
        }
        spans
    }

    /// Waits until it was told of `count` spans that `is_one` of.
    #[track_caller]
    pub(crate) fn until(&self, count: usize, is_one: impl Fn(&Span) -> bool) -> Vec<Span> {
        until(&format!("the collector has {count}: {:#?}", self.spans()), || {
            let found: Vec<_> = self.spans().into_iter().filter(|span| is_one(span)).collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits for the one span of a kind and name.
    #[track_caller]
    pub(crate) fn one(&self, kind: SpanKind, name: &str) -> Span {
        let found = self.until(1, |span| span.kind == kind && span.name == name);
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].clone()
    }
}

/// The attributes of a span, a series or a resource.
pub(crate) fn read(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Said::StringValue(text)) => text,
        Some(Said::IntValue(number)) => number.to_string(),
        Some(Said::DoubleValue(number)) => number.to_string(),
        Some(Said::BoolValue(is_so)) => is_so.to_string(),
        other => panic!("no attribute of ours is {other:?}"),
    };
    attributes.into_iter().map(|one| (one.key, text(one.value))).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    crate::sources::hex(bytes)
}

/// A gateway that sends its spans soon.
pub(crate) fn serve(world: &World) -> Gateway {
    world.serve_in(&[("OTEL_BSP_SCHEDULE_DELAY", "50")])
}

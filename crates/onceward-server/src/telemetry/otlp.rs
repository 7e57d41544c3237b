//! Telemetry on its way to a collector: OTLP over HTTP, through the door.

mod metric;
mod outgoing;
mod span;
mod wire;

use std::mem;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::secret::random;
use onceward::upstream::{Dispatch, Sent, Target, Timeouts, Upstream};
use tracing::{info, warn};
use url::Position;

pub(super) use self::metric::Window;
pub(super) use self::outgoing::Outgoing;
pub(super) use self::span::{Attributes, Kind, Span};
use self::wire::Wire;
use crate::config::Exporter;

/// The largest answer of a collector's that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What tells the series of one process from those of others.
const INSTANCE: &str = "service.instance.id";

/// This process's, a random UUID, where nobody gives it a name: the collector tells nodes apart by it.
static OWN_INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let [high, low] = [u64::from_le_bytes(random()), u64::from_le_bytes(random())];
    let (version, variant) = (0x4000 | high & 0x0fff, 0x8000 | low >> 48 & 0x3fff);
    let (first, second) = (high >> 32, high >> 16 & 0xffff);
    format!("{first:08x}-{second:04x}-{version:04x}-{variant:04x}-{:012x}", low & 0xffff_ffff_ffff)
});

/// Spans or metrics that are sent at once, as the fields of their message: in both the second of a scope's.
#[derive(Debug, Default)]
pub(super) struct Items(Wire);

impl Items {
    /// One that was written.
    fn put(&mut self, item: &[u8]) {
        self.0.bytes(2, item);
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Whoever takes one kind of telemetry.
pub(super) struct Collector {
    /// What it takes, for people.
    what: &'static str,
    is_away: bool,
    upstream: Arc<dyn Upstream>,
    target: Arc<Target>,
    path: String,
    headers: Headers,
    /// Who tells it, and by which code: fields of the message around the items.
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// For people: without what may be a secret.
    place: String,
}

impl Collector {
    /// The one that an exporter tells `what`, which `resource` tells it.
    pub(super) fn of(
        what: &'static str,
        exporter: &Exporter,
        resource: &[(String, String)],
        upstream: Arc<dyn Upstream>,
    ) -> Self {
        let Exporter { url, headers: said, timeout: wait } = exporter;
        let mut base = url.clone();
        base.set_path("");
        let wait = *wait;
        let connect = Timeouts::default().connect.min(wait);
        let timeouts = Timeouts { connect, head: wait, body: wait, total: wait };
        let mut headers = Headers::default();
        headers.set("content-type", "application/x-protobuf");
        headers.set("user-agent", concat!("onceward/", env!("CARGO_PKG_VERSION")));
        for (name, value) in said {
            headers.set(name, value.clone());
        }
        let (mut of_resource, mut scope) = (Wire::default(), Wire::default());
        of_resource.message(1, |wire| {
            let mut attributes = Attributes::of(wire, 1);
            for (name, value) in resource {
                attributes.say(name, value);
            }
            if resource.iter().all(|(name, _)| name != INSTANCE) {
                attributes.say(INSTANCE, &OWN_INSTANCE);
            }
        });
        scope.message(1, |scope| {
            scope.text(1, &["onceward"]);
            scope.text(2, &[env!("CARGO_PKG_VERSION")]);
        });
        Self {
            what,
            is_away: false,
            upstream,
            target: Arc::new(Target::of_operator(base, timeouts)),
            path: url[Position::BeforePath..].to_owned(),
            headers,
            resource: of_resource.into_bytes(),
            scope: scope.into_bytes(),
            place: exporter.place().to_owned(),
        }
    }

    /// `ExportTraceServiceRequest` or `ExportMetricsServiceRequest`: both are made alike.
    fn message(&self, items: Items) -> Bytes {
        let items = items.0.into_bytes();
        let mut wire = Wire::with_room(items.len() + self.resource.len() + self.scope.len() + 32);
        wire.message(1, |of_resource| {
            of_resource.fields(&self.resource);
            of_resource.message(2, |of_scope| {
                of_scope.fields(&self.scope);
                of_scope.fields(&items);
            });
        });
        wire.into_bytes().into()
    }

    /// Whether it took these; what could not be said is not taken. It is logged once that it takes nothing,
    /// and once that it does again.
    pub(super) async fn tell(&mut self, items: Result<Items, String>) -> bool {
        let taken = match items {
            Ok(items) => self.send(items).await,
            Err(why) => Err(why),
        };
        let was_away = mem::replace(&mut self.is_away, taken.is_err());
        let Self { what, place: collector, .. } = &*self;
        match &taken {
            Err(error) if !was_away => {
                warn!(collector, error, "{what} are lost");
            }
            Ok(()) if was_away => info!(collector, "{what} are taken again"),
            _ => {}
        }
        taken.is_ok()
    }

    async fn send(&self, items: Items) -> Result<(), String> {
        let dispatch = Dispatch {
            target: Arc::clone(&self.target),
            request: Arc::new(Request {
                method: "POST".to_owned(),
                target: self.path.clone(),
                headers: self.headers.clone(),
                body: self.message(items),
            }),
            headers: Headers::default(),
            doom: None,
        };
        let mut answer = match self.upstream.send(dispatch).await {
            Sent::Answered(answer) => answer,
            Sent::Failed(failure) => return Err(failure.to_string()),
        };
        // Read to its end, so that its connection is used again.
        let mut length = 0;
        while let Some(piece) = answer.body.chunk().await.map_err(|failure| failure.to_string())? {
            length += piece.len();
            if length > ANSWER_BYTES_MAX {
                return Err(format!("it answers more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        match answer.status {
            200..300 => Ok(()),
            status => Err(format!("it answers {status}")),
        }
    }
}

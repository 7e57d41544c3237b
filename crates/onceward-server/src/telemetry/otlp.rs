//! Spans on their way to a collector: OTLP over HTTP, through the door, by a thread of their own. A collector
//! that is away or slow loses spans, and holds up nobody.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use onceward::core::exchange::{self, Headers};
use onceward::edge::headers_of;
use onceward::upstream::{Dispatch, Sent, Target, Timeouts, Upstream};
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, Protocol, SpanExporter,
    WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as Exporter, SpanProcessor as _,
};
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tracing::{info, warn};
use url::{Position, Url};

use super::metrics::{METRICS, labels};

/// Spans that wait, where OpenTelemetry's own variable says nothing else.
const QUEUE: usize = 2048;

/// How long a collector may take to answer, where its own variables say nothing else.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer of a collector's that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where spans wait until they are sent together.
pub(super) struct Outgoing {
    processor: BatchSpanProcessor,
    waiting: Arc<Waiting>,
}

/// How many spans wait, and what became of the others.
struct Waiting {
    count: AtomicUsize,
    most: usize,
    sent: Counter,
    lost: Counter,
}

impl Outgoing {
    /// Spans for the collector that takes them at `url`.
    pub(super) fn to(url: &Url, upstream: Arc<dyn Upstream>) -> Result<Self, String> {
        let millis = |name: &str| std::env::var(name).ok()?.trim().parse().ok();
        let timeout = millis(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT)
            .or_else(|| millis(OTEL_EXPORTER_OTLP_TIMEOUT))
            .map_or(TIMEOUT, Duration::from_millis);
        let collector = Collector {
            upstream,
            runtime: Handle::current(),
            timeout,
            is_away: Arc::default(),
            url: url.clone(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url.as_str())
            .with_timeout(timeout)
            .build()
            .map_err(|error| error.to_string())?;
        let most = std::env::var("OTEL_BSP_MAX_QUEUE_SIZE").ok();
        let most = most.and_then(|most| most.trim().parse().ok()).filter(|most| *most > 0);
        let result = |result| METRICS.spans.get_or_create_owned(&labels([("result", result)]));
        let waiting = Arc::new(Waiting {
            count: AtomicUsize::new(0),
            most: most.unwrap_or(QUEUE),
            sent: result("sent"),
            lost: result("lost"),
        });
        let config = BatchConfigBuilder::default().with_max_queue_size(waiting.most).build();
        let counted = Counted { exporter, waiting: Arc::clone(&waiting) };
        let mut processor = BatchSpanProcessor::new(counted, config);
        processor.set_resource(&resource());
        Ok(Self { processor, waiting })
    }

    /// A place for one more span; nothing where as many wait as may: then it is lost.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let Waiting { count, most, lost, .. } = &*self.waiting;
        if count.fetch_add(1, Ordering::Relaxed) < *most {
            return Some(Place(self));
        }
        count.fetch_sub(1, Ordering::Relaxed);
        lost.inc();
        None
    }

    /// Sends what waits; what is not sent by `within` is lost.
    pub(super) fn finish(&self, within: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(within) {
            warn!(%error, "the last spans of traces are lost");
        }
    }
}

/// Room for a span.
pub(super) struct Place<'a>(&'a Outgoing);

impl Place<'_> {
    pub(super) fn take(self, span: SpanData) {
        self.0.processor.on_end(span);
    }
}

/// Who tells it: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word.
fn resource() -> Resource {
    let said = Resource::builder().build();
    let name = said.get(&"service.name".into()).map(|name| name.to_string());
    let is_said = name.is_some_and(|name| !name.starts_with("unknown_service"));
    let mut all = Resource::builder();
    if !is_said {
        all = all.with_service_name("onceward");
    }
    if said.get(&"service.version".into()).is_none() {
        all = all.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    all.build()
}

/// An exporter whose spans are counted.
#[derive(Debug)]
struct Counted {
    exporter: SpanExporter,
    waiting: Arc<Waiting>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Exporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let done = self.exporter.export(batch).await;
        let Waiting { count: waiting, sent, lost, .. } = &*self.waiting;
        waiting.fetch_sub(count, Ordering::Relaxed);
        if done.is_ok() {
            sent.inc_by(count as u64)
        } else {
            lost.inc_by(count as u64)
        };
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A collector, as the exporter asks it.
struct Collector {
    upstream: Arc<dyn Upstream>,
    runtime: Handle,
    timeout: Duration,
    /// Whether it failed the last time: that is said once.
    is_away: Arc<AtomicBool>,
    url: Url,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Asked<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let (upstream, timeout) = (Arc::clone(&self.upstream), self.timeout);
        let (url, is_away) = (self.url.clone(), Arc::clone(&self.is_away));
        // The thread that asks belongs to no runtime.
        let asked = self.runtime.spawn(async move {
            let answered = ask(&*upstream, &url, request, timeout).await;
            let trouble = match &answered {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(format!("it answers {}", response.status())),
                Err(error) => Some(error.clone()),
            };
            let was_away = is_away.swap(trouble.is_some(), Ordering::Relaxed);
            let place = &url[..Position::BeforePath];
            match trouble {
                Some(error) if !was_away => {
                    warn!(collector = place, error, "spans of traces are lost: nobody takes them");
                }
                None if was_away => info!(collector = place, "spans of traces are taken again"),
                _ => {}
            }
            answered
        });
        Box::pin(async move { Ok(asked.await??) })
    }
}

async fn ask(
    upstream: &dyn Upstream,
    url: &Url,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    let mut base = url.clone();
    base.set_path("");
    let (head, body) = request.into_parts();
    let connect = Timeouts::default().connect.min(timeout);
    let timeouts = Timeouts { connect, head: timeout, body: timeout, total: timeout };
    let dispatch = Dispatch {
        target: Arc::new(Target::of_operator(base, timeouts)),
        request: Arc::new(exchange::Request {
            method: head.method.as_str().to_owned(),
            target: url[Position::BeforePath..].to_owned(),
            headers: headers_of(&head.headers),
            body,
        }),
        headers: Headers::default(),
        doom: None,
    };
    let mut answer = match upstream.send(dispatch).await {
        Sent::Answered(answer) => answer,
        Sent::Failed(failure) => return Err(failure.to_string()),
    };
    let mut body = Vec::new();
    while let Some(piece) = answer.body.chunk().await.map_err(|failure| failure.to_string())? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(format!("it answers more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    let mut response = Response::new(body.into());
    *response.status_mut() =
        http::StatusCode::from_u16(answer.status).map_err(|error| error.to_string())?;
    if let Some(wait) = answer.headers.get("retry-after")
        && let Ok(wait) = http::HeaderValue::from_bytes(wait)
    {
        response.headers_mut().insert(http::header::RETRY_AFTER, wait);
    }
    Ok(response)
}

//! Metrics, pushed: what `/metrics` serves goes to a collector each interval, and once more at the end. What is
//! counted is told from the start of the process on, so what nobody took is in what is told next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use onceward::upstream::Upstream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::FINISH;
use super::metrics::{Counter, METRICS};
use super::otlp::{Collector, Items, Window};
use crate::config::TelemetryConfig;
use crate::node::Node;

/// Metrics that are told.
pub(crate) struct Pushing {
    task: JoinHandle<()>,
    is_over: Arc<Notify>,
    lost: Arc<Counter>,
}

/// Begins to tell metrics, where the configuration says to whom.
pub(crate) fn begin(
    config: &TelemetryConfig,
    upstream: Arc<dyn Upstream>,
    node: &Arc<Node>,
) -> Option<Pushing> {
    let exporter = config.metrics.as_ref()?;
    info!(collector = exporter.place(), "metrics are told");
    let collector = Collector::of("metrics", exporter, &config.resource, upstream);
    let result = |result| METRICS.exports.of([("result", result)]);
    let (sent, lost) = (result("sent"), result("lost"));
    let is_over = Arc::new(Notify::new());
    let push = Push {
        node: Arc::clone(node),
        collector,
        sent,
        lost: Arc::clone(&lost),
        is_over: Arc::clone(&is_over),
    };
    Some(Pushing { task: tokio::spawn(push.each(config.interval)), is_over, lost })
}

impl Pushing {
    /// Tells what there is at the end.
    pub(crate) async fn finish(mut self) {
        self.is_over.notify_one();
        if timeout(FINISH, &mut self.task).await.is_err() {
            self.task.abort();
            self.lost.inc();
            warn!("the last metrics are lost: the collector does not answer");
        }
    }
}

struct Push {
    node: Arc<Node>,
    collector: Collector,
    sent: Arc<Counter>,
    lost: Arc<Counter>,
    is_over: Arc<Notify>,
}

impl Push {
    /// Tells them each interval, and when it is over; one that takes long takes the next one's time.
    async fn each(mut self, interval: Duration) {
        loop {
            // Whoever says so while something is on its way is heard after that.
            let is_over = timeout(interval, self.is_over.notified()).await.is_ok();
            let items = self.items().await;
            let is_taken = self.collector.tell(items).await;
            let counter = if is_taken { &self.sent } else { &self.lost };
            counter.inc();
            if is_over {
                return;
            }
        }
    }

    /// All metrics of this moment; as at `/metrics` none, where the ledger cannot be read.
    async fn items(&self) -> Result<Items, String> {
        self.node.gauge().await.map_err(|error| error.to_string())?;
        let window = Window { begun: METRICS.begun, read: SystemTime::now() };
        let mut items = Items::default();
        for (row, series) in METRICS.read() {
            items.metric(row, &series, window);
        }
        Ok(items)
    }
}

//! Alerts of our own: what is wrong is told to whoever is configured, once, and that it is over too.
//!
//! A node looks every few seconds (`look`, `recent`) and goes on in the book (`book`, by the rules of
//! `rule`), which lies in the ledger: all its nodes tell of an alert once, and a restart neither tells
//! again nor forgets. What is to be sent stands in the book until it is: a webhook goes the way of every
//! accepted operation, under a key of its notice, and a mail by `mail`.

mod book;
mod look;
mod reached;
mod recent;
mod rule;
mod send;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use lettre::message::Mailbox;
use onceward::core::time::Timestamp;
use onceward::secret::random;
use onceward::store::{Store, StoreError};
use serde_json::{Value, json};
use tracing::{info, warn};
use url::Url;

use self::book::{Book, Notice, Seen, Standing};
use self::look::Measured;
pub(crate) use self::reached::{Reached, Teller};
pub(crate) use self::recent::{Counting, Recent};
pub(crate) use self::rule::{Alert, Kind, Rule, Rules, Wish};
use self::words::Around;
use crate::mail::Server;
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;

/// What the routes of receivers are called.
pub(crate) const OWN_ROUTES: &str = "alerts/";

/// Where the book lies in the ledger.
const BOOK: &str = "alerts/book";

/// How often a change that another node's got in the way of is tried again.
const RACES_MAX: usize = 16;

/// How often it is looked whether there are alerts at all, where the file said nothing.
const IDLE: Duration = Duration::from_secs(5);

/// What is watched, and who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertsConfig {
    /// What this node is called; without it by its host and port.
    pub(crate) node: Option<String>,
    pub(crate) every: Duration,
    pub(crate) rules: Rules,
    pub(crate) to: BTreeMap<String, Receiver>,
    pub(crate) public_url: Option<Url>,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) wish: Wish,
    pub(crate) way: Way,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// A document, signed as Standard Webhooks have it.
    Webhook,
    /// What Slack's incoming webhooks take, and those of others who speak like it.
    Slack,
    Mail(Box<ByMail>),
}

/// From whom mails are, to whom they go, and by which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByMail {
    pub(crate) from: Mailbox,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) server: Server,
}

impl Way {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Mail(_) => "mail",
        }
    }
}

impl AlertsConfig {
    fn around(&self) -> Around<'_> {
        Around { rules: &self.rules, public_url: self.public_url.as_ref() }
    }
}

/// The alerts of this process.
pub(crate) struct Alerts {
    config: ArcSwapOption<AlertsConfig>,
    recent: Arc<Recent>,
    /// As it was looked at last.
    book: ArcSwap<Book>,
    /// This life of the process.
    session: u64,
    /// Its host and port.
    here: String,
}

impl Alerts {
    /// Alerts of the process that listens on `port` and counts what happens in `recent`.
    pub(crate) fn new(recent: Arc<Recent>, port: u16, config: Option<Arc<AlertsConfig>>) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let alerts = Self {
            config: ArcSwapOption::empty(),
            recent,
            book: ArcSwap::default(),
            session: u64::from_le_bytes(random()),
            here: format!("{host}:{port}"),
        };
        alerts.follow(config);
        alerts
    }

    /// Goes by another configuration from now on.
    pub(crate) fn follow(&self, config: Option<Arc<AlertsConfig>>) {
        self.recent.follow(config.as_ref().map(|config| &config.rules));
        self.config.store(config);
    }

    /// What fires, as it was looked at last; what wakes somebody, and within that each kind together,
    /// what fires for longest first.
    pub(crate) fn firing(&self) -> Vec<Firing> {
        let Some(config) = self.config.load_full() else { return Vec::new() };
        let book = self.book.load();
        let firing = book.firing().map(|standing| Firing::new(standing, &book, &config));
        let mut firing: Vec<_> = firing.collect();
        firing.sort_by_key(|it| (it.alert.kind.severity(), it.alert.kind, it.since));
        firing
    }

    /// Whether anything is watched, and whether anybody is told.
    pub(crate) fn is_watching(&self) -> (bool, bool) {
        let config = self.config.load();
        (config.is_some(), config.as_ref().is_some_and(|config| !config.to.is_empty()))
    }

    /// The room on the disk below which it is low.
    pub(crate) fn low(&self) -> u64 {
        let config = self.config.load();
        let rule = config.as_ref().and_then(|config| config.rules.of.get(&Kind::DiskLow));
        rule.map_or_else(|| Kind::DiskLow.usual().bound, |rule| rule.bound)
    }

    /// Writes what was counted since it was last looked.
    pub(crate) async fn save(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.recent.save(store, self.session).await
    }

    fn here<'a>(&'a self, config: &'a AlertsConfig) -> &'a str {
        config.node.as_deref().unwrap_or(&self.here)
    }

    /// Changes the book, whoever else does so now; tells what `change` found.
    async fn change<T>(
        &self,
        store: &dyn Store,
        change: impl Fn(&mut Book) -> T,
    ) -> Result<T, StoreError> {
        for _ in 0..RACES_MAX {
            let kept = store.setting(BOOK.to_owned()).await?;
            let before: Book = match &kept {
                None => Book::default(),
                Some(kept) => serde_json::from_slice(kept)
                    .map_err(|error| StoreError::Damaged(format!("the setting {BOOK}: {error}")))?,
            };
            let mut book = before.clone();
            let found = change(&mut book);
            if book != before {
                let written = serde_json::to_vec(&book)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                if !store.swap(BOOK.to_owned(), kept, Some(written.into())).await? {
                    continue;
                }
            }
            self.book.store(Arc::new(book));
            return Ok(found);
        }
        Err(StoreError::Away("the book of alerts is busy".to_owned()))
    }

    /// Looks once, and takes what is to be sent.
    async fn look(
        &self,
        node: &Node,
        config: &AlertsConfig,
        now: Timestamp,
    ) -> Result<Vec<Notice>, StoreError> {
        let store = &**node.engine.store();
        self.save(store).await?;
        let here = self.here(config);
        let Measured { measures, in_part } = look::measures(node, here, &config.rules, now).await?;
        let to: Vec<Wish> = config.to.values().map(|receiver| receiver.wish.clone()).collect();
        let (measures, in_part, rules) = (&*measures, &*in_part, &config.rules);
        let seen = Seen { now, node: here, measures, in_part, rules, to: &to };
        let taken = self.change(store, |book| {
            book.step(&seen);
            book.take(self.session, !store.is_shared(), now)
        });
        taken.await
    }
}

/// Looks and tells, for ever.
pub(crate) async fn watch(node: Arc<Node>) {
    let mut is_well = true;
    loop {
        let config = node.alerts.config.load_full();
        tokio::time::sleep(config.as_ref().map_or(IDLE, |config| config.every)).await;
        let Some(config) = config else { continue };
        if node.is_quarantined() || node.is_draining() {
            continue;
        }
        match node.alerts.look(&node, &config, shape::now()).await {
            Ok(notices) => {
                is_well = true;
                for notice in notices {
                    tokio::spawn(deliver(Arc::clone(&node), Arc::clone(&config), notice));
                }
            }
            // While the ledger is away that is told once.
            Err(error) => {
                if std::mem::replace(&mut is_well, false) {
                    warn!(%error, "the alerts could not be looked at");
                }
            }
        }
    }
}

/// Sends a notice, and says in the book what came of it.
async fn deliver(node: Arc<Node>, config: Arc<AlertsConfig>, notice: Notice) {
    let (id, to) = (notice.id.as_str(), notice.to.as_str());
    let sent = send::send(&node, &config, &notice).await;
    let noted = node.alerts.change(&**node.engine.store(), |book| match &sent {
        Ok(_) => {
            book.sent(id);
            true
        }
        Err(unsent) => book.failed(id, &unsent.why, &unsent.rest, shape::now()),
    });
    let noted = noted.await;
    // What is not noted is sent again, under the same key.
    match (sent, noted) {
        (Ok(_), _) => info!(notice = id, to, alerts = notice.lines.len(), "alerts were told"),
        (Err(unsent), Ok(false)) => {
            warn!(notice = id, to, error = unsent.why, "alerts are told to nobody: given up");
        }
        (Err(unsent), _) => {
            warn!(notice = id, to, error = unsent.why, "alerts could not be told: tried again");
        }
    }
}

/// Sends a test to a receiver, once: what is known of it then.
pub(crate) async fn test(node: &Node, to: &str) -> Result<Value, Problem> {
    let config = node.alerts.config.load_full();
    let config = config.filter(|config| config.to.contains_key(to)).ok_or_else(|| {
        Problem::new("not-found", format!("No receiver of alerts is called {to:?}."))
    })?;
    let here = node.alerts.here(&config);
    let store = &**node.engine.store();
    let notice = node.alerts.change(store, |book| book.test(to, here, shape::now())).await?;
    let (operation, error) = match send::send(node, &config, &notice).await {
        Ok(operation) => (operation, None),
        Err(unsent) => (None, Some(unsent.why)),
    };
    Ok(json!({
        "to": to,
        "way": config.to[to].way.name(),
        "notice": notice.id,
        "operation": operation.map(|id| id.to_string()),
        "error": error,
    }))
}

/// An alert that fires, as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Firing {
    pub(crate) alert: Alert,
    pub(crate) since: Timestamp,
    /// What is wrong, and how much.
    pub(crate) summary: String,
    /// Where it is told what to do.
    runbook: String,
    value: u64,
    fired: Option<Timestamp>,
    /// Who was told; not for those who see one tenant alone, for receivers are the gateway's.
    pub(crate) told: Option<Vec<Teller>>,
}

impl Firing {
    fn new(standing: &Standing, book: &Book, config: &AlertsConfig) -> Self {
        Self {
            summary: config.around().summary(&standing.alert, standing.value),
            runbook: config.around().runbook(standing.alert.kind),
            alert: standing.alert.clone(),
            since: standing.since,
            value: standing.value,
            fired: standing.fired,
            told: Some(Teller::all(standing, book, config)),
        }
    }

    /// The same without who was told.
    #[must_use]
    pub(crate) fn without_told(self) -> Self {
        Self { told: None, ..self }
    }

    /// The page where it is seen.
    pub(crate) fn page(&self) -> String {
        words::page(&self.alert)
    }

    /// The page that tells what it means and what to do.
    pub(crate) fn runbook_page(&self) -> String {
        words::runbook_page(self.alert.kind)
    }

    /// What to do first.
    pub(crate) fn advice(&self) -> &'static str {
        words::advice(self.alert.kind)
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        let Self { alert, since, summary, runbook, value, fired, told } = self;
        let mut document = json!({
            "name": alert.kind.name(),
            "severity": alert.kind.severity(),
            "tenant": alert.tenant,
            "route": alert.route,
            "node": alert.node,
            "value": value,
            "since": shape::time(*since),
            "firing_since": fired.map(shape::time),
            "summary": summary,
            "advice": self.advice(),
            "runbook": runbook,
        });
        if let Some(told) = told {
            document["told"] = told.iter().map(Teller::document).collect();
        }
        document
    }
}

/// The same, with what became of what was told.
pub(crate) async fn looked_up(node: &Node, mut firing: Vec<Firing>) -> Vec<Firing> {
    let told = firing.iter_mut().filter_map(|firing| firing.told.as_mut()).flatten().collect();
    reached::look_up(node, told).await;
    firing
}

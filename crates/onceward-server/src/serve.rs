//! Listeners, workers, graceful stop, in that order.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceward::clock::SystemClock;
use onceward::core::hex;
use onceward::core::lease::Session;
use onceward::ledger_keys::{self, KeyKeeper, KeysError};
use onceward::master_key::{self, KeyRing, write_secret};
use onceward::observe::Observer;
use onceward::route::Routes;
use onceward::secret::random;
use onceward::store::{Query, Standing, Store, StoreError};
use onceward::upstream::{Door, DoorOptions, Egress, Faulty, Upstream};
use onceward::{Engine, Parts, Person, Teller};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::OnceCell;
use tracing::{error, info, warn};

use crate::access::{Access, Exposure, Grant, Roles, TENANT, new_key};
use crate::alerts::{self, Alerts, Counting, Recent};
use crate::changes::Changes;
use crate::config::{Config, Overrides, section};
use crate::exit::Exit;
use crate::gateway::Gateway;
use crate::given_key::{Source, given_keys};
use crate::guard::Guards;
use crate::lately::Lately;
use crate::listeners::{Listeners, Sockets, check_certificates};
use crate::listening::Closed;
use crate::node::{MASTER_KEY, Node, RESTORING, make_folder};
use crate::oidc::Oidc;
use crate::outbox::Outboxes;
use crate::quarantine::{self, Quarantine};
use crate::rekey::Rekey;
use crate::source::Sources;
use crate::supervisor::Supervisor;
use crate::telemetry::{Telemetry, push, traces};
use crate::{demo, ledger, waiting};

/// The file with the key that the command line uses; written at each start.
pub(crate) const OPERATOR_KEY: &str = "operator.key";

/// How long an access key that another node made or revoked goes unnoticed where the hint is lost;
/// while no hint could be heard the store says so each second.
const KEEP_UP_EVERY: Duration = Duration::from_secs(10);

/// How often it is written when access keys were last used: no call waits for that.
const KEEP_USED_EVERY: Duration = Duration::from_mins(1);

/// How often the head of the audit is in the log.
const HEAD_EVERY: Duration = Duration::from_hours(1);

/// How often it is looked whether a certificate changed.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// How long those are answered as ever who had a connection when it was told to stop, and ask by it: the
/// last to come in had no time yet, and whoever keeps one learns with an answer that it ends.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// The grace where every attempt would take longer.
const GRACE_MIN: Duration = Duration::from_secs(5);

/// The grace after the ledger broke: what is under way cannot be written any more, so it is only
/// for refusals to leave.
const GRACE_BROKEN: Duration = Duration::from_secs(1);

/// Puts an observer before another.
type Before = dyn Fn(Arc<dyn Observer>) -> Arc<dyn Observer> + Send + Sync;

/// What a verb wants to hear that runs the gateway within itself.
pub(crate) struct Heard {
    /// Puts it before whoever hears every fact.
    pub(crate) before: Box<Before>,
    /// Told where it listens, once it does.
    pub(crate) ready: Box<dyn Fn(SocketAddr) + Send + Sync>,
}

/// Serves callers on `event_loops` until it is told to stop; the exit says how it ended.
pub(crate) async fn serve(
    config_path: Option<&Path>,
    overrides: &Overrides,
    event_loops: Vec<Handle>,
    heard: Option<Heard>,
) -> Result<(), Exit> {
    raise_descriptors();
    let config = Config::load(config_path, overrides)?;
    check_certificates(&config)?;
    let data = config.data();
    make_folder(&data).map_err(|error| Exit::failed(format!("{}: {error}", data.display())))?;
    if data.join(RESTORING).exists() {
        return Err(Exit::failed(format!(
            "a restore into {} broke off, so what is there is no whole ledger\nhelp: run `onceward restore FOLDER` again; it begins anew",
            data.display()
        )));
    }
    let telemetry = Arc::new(Telemetry::new());
    let (egress, door) = open_door(&config, event_loops.len())?;
    let mut upstream: Arc<dyn Upstream> = Arc::new(door);
    if overrides.allow_chaos {
        let observer = Arc::clone(&telemetry) as Arc<_>;
        upstream = Arc::new(Faulty::new(upstream, Arc::new(SystemClock), observer));
    }
    traces::begin(&config.telemetry, &upstream);
    let mut signals = Signals::new()?;
    let start = Start {
        routes: with_demo(config.routes(), config.demo).await?,
        config,
        data,
        telemetry,
        recent: Arc::default(),
        egress,
        upstream,
        given_keys: given_keys()?,
        supervisor: signals.supervisor.clone(),
        event_loops,
        sockets: OnceCell::new(),
        heard,
    };
    let node = tokio::select! {
        node = start.node() => node?,
        () = signals.ends.recv() => return Ok(()),
    };
    let Start { config, upstream, sockets, heard, .. } = start;
    let sockets = sockets.into_inner().ok_or_else(|| Exit::failed("nothing listens"))?;
    if node.engine.store().is_shared() {
        tokio::spawn(keep_up(Arc::clone(&node)));
    }
    tokio::spawn(keep_used(Arc::clone(&node)));
    tokio::spawn(log_heads(Arc::clone(&node)));
    tokio::spawn(alerts::watch(Arc::clone(&node)));
    let pushing = push::begin(&config.telemetry, upstream, &node);
    let address = sockets.address();
    let listeners = Listeners::begin(sockets, &node);
    signals.supervisor.ready();
    if let Some(heard) = heard {
        (heard.ready)(address);
    }
    let ended = run(listeners, &node, &config, config_path, overrides, &mut signals).await;
    let drained = drain(&node).await;
    // What became of the last spans is in the last metrics.
    traces::finish().await;
    if let Some(pushing) = pushing {
        pushing.finish().await;
    }
    ended.and(drained)
}

/// What a supervisor says, and who it is. A hangup that comes before anybody heeds it is heeded then.
struct Signals {
    ends: Ends,
    hangup: Signal,
    supervisor: Supervisor,
}

/// The two that mean the end.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        let listen = |kind| signal(kind).map_err(|error| Exit::failed(error.to_string()));
        let ends = Ends {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        };
        let hangup = listen(SignalKind::hangup())?;
        Ok(Self { ends, hangup, supervisor: Supervisor::begin() })
    }
}

impl Ends {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What there is before the ledger is open.
struct Start {
    config: Config,
    data: PathBuf,
    telemetry: Arc<Telemetry>,
    recent: Arc<Recent>,
    routes: Routes,
    egress: Arc<Egress>,
    upstream: Arc<dyn Upstream>,
    given_keys: Option<(KeyRing, Source)>,
    supervisor: Supervisor,
    event_loops: Vec<Handle>,
    /// Bound once the ledger is open, or once it is known that it has to be waited for.
    sockets: OnceCell<Sockets>,
    heard: Option<Heard>,
}

impl Start {
    /// The node, once its ledger is there.
    async fn node(&self) -> Result<Arc<Node>, Exit> {
        match self.begin().await {
            Err(exit) if exit.may_pass => {
                let sockets = self.sockets().await?;
                warn!(address = %sockets.address(), "{}; callers are told to come back until it is there", exit.message);
                let _telling = sockets.tell_to_come_back();
                let again = async || {
                    self.supervisor.waits();
                    self.begin().await
                };
                waiting::until_there(again).await
            }
            done => done,
        }
    }

    /// The master keys: those that are given (the same to every node of a shared ledger), else the data
    /// folder's, made at first start.
    fn master_keys(&self) -> Result<(KeyRing, Source), Exit> {
        if let Some(given) = &self.given_keys {
            return Ok(given.clone());
        }
        let path = self.data.join(MASTER_KEY);
        let made = master_key::read_or_make(&path)
            .map_err(|error| Exit::failed(format!("{}: {error}", path.display())))?;
        Ok((made, Source::Made))
    }

    async fn sockets(&self) -> Result<&Sockets, Exit> {
        self.sockets.get_or_try_init(|| Sockets::bind(&self.config, self.event_loops.clone())).await
    }

    /// All that asks the ledger; nothing is sent before the last of it.
    async fn begin(&self) -> Result<Arc<Node>, Exit> {
        let Self { config, data, .. } = self;
        let store = ledger::open(config).await?;
        store.tell_commits(Telemetry::of_commits());
        let (ring, source) = self.master_keys()?;
        let now = crate::shape::now();
        let secrets = ledger_keys::open_secrets(&*store, &ring, now).await.map_err(no_keys)?;
        let mut next = Arc::clone(&self.telemetry) as Arc<dyn Observer>;
        if let Some(heard) = &self.heard {
            next = (heard.before)(next);
        }
        let counting = Counting { recent: Arc::clone(&self.recent), next };
        let changes = Changes::before(Arc::new(counting));
        let engine = Engine::new(Parts {
            store: Arc::clone(&store),
            upstream: Arc::clone(&self.upstream),
            clock: Arc::new(SystemClock),
            observer: Arc::clone(&changes) as Arc<_>,
            secrets,
            routes: self.routes.clone(),
            session: Session(u64::from_le_bytes(random())),
        });
        traces::follow(&engine);
        engine.set_approved(config.approve.clone());
        engine.set_claims(config.claims.clone());
        engine.seal_bodies(config.seal_bodies);
        engine.set_tenants(config.tenants.clone());
        set_for_people(&engine, config);
        let operator_key = new_key();
        write_secret(&data.join(OPERATOR_KEY), operator_key.as_bytes())
            .map_err(|error| Exit::failed(format!("{OPERATOR_KEY}: {error}")))?;
        let sockets = self.sockets().await?;
        let listen = sockets.address();
        let access = Access::open(store, &operator_key, Exposure::of(config, listen)).await?;
        first_key(&access).await?;
        let quarantine = Quarantine::begin(&engine, config.quarantine.as_deref(), data).await?;
        let (egress, pace) = (&self.egress, config.pace);
        egress.set_own(sockets.addresses());
        let gateway = || Gateway { engine: Arc::clone(&engine), egress: Arc::clone(egress), pace };
        let outboxes = Outboxes::new(gateway());
        outboxes.follow(&config.outboxes);
        let node = Arc::new(Node {
            guards: Guards::new(config.guards.clone()),
            gateway: gateway(),
            sources: Sources::new(config.sources.clone()),
            outboxes,
            alerts: Alerts::new(Arc::clone(&self.recent), listen.port(), config.alerts.clone()),
            sagas: Lately::default(),
            engine: Arc::clone(&engine),
            access,
            changes,
            oidc: Oidc::new(Arc::clone(&self.upstream), config.oidc.clone()),
            data: data.clone(),
            rekey: Rekey::new(KeyKeeper::new(&engine, ring), source, data.join(MASTER_KEY)),
            quarantine,
            draining: AtomicBool::new(false),
        });
        if !node.is_quarantined() {
            let judged = engine.recover().await?;
            if judged > 0 {
                info!(operations = judged, "judged what the last process left under way");
            }
            warn_of_missing_routes(&engine).await?;
            engine.start();
            node.outboxes.start();
        }
        node.rekey.keep();
        if let Some(why) = config.readable_listener() {
            warn!("{why}");
        }
        log_head(&engine).await?;
        tell_ready(&engine, config, listen);
        Ok(node)
    }
}

fn tell_ready(engine: &Engine, config: &Config, listen: SocketAddr) {
    for route in engine.routes().named.values().filter(|route| route.chaos.is_some()) {
        warn!(
            route = route.name,
            "attempts of this route fail on purpose: [routes.{}.chaos]", route.name
        );
    }
    let shown = if listen.ip().is_unspecified() {
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listen.port())
    } else {
        listen
    };
    if config.seal_bodies && engine.secrets().seals_as_before() {
        info!(
            "this ledger was begun by an earlier release: once all its nodes are of this one, a new master key lets them seal requests and answers"
        );
    } else if !config.seal_bodies {
        info!(
            "requests and answers lie in the ledger as they came, credentials apart: seal_bodies = true seals them"
        );
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    info!(address = %listen, ledger = %config.store, demo = config.demo, "onceward {} is ready: {scheme}://{shown}/", env!("CARGO_PKG_VERSION"));
}

/// Every connection and every segment of the journal takes a descriptor, and shells give few.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where that may not be, what there is has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn open_door(config: &Config, event_loops: usize) -> Result<(Arc<Egress>, Door), Exit> {
    let egress = Egress::new(config.egress_allow.clone());
    let each = DoorOptions::default();
    // Each event loop takes up only what is its own.
    let options = DoorOptions {
        ca_file: config.ca_file.clone(),
        idle_per_origin_max: each.idle_per_origin_max * event_loops,
        idle_max: each.idle_max * event_loops,
        ..each
    };
    let door =
        Door::new(egress.clone(), &options).map_err(|error| Exit::config(error.to_string()))?;
    Ok((Arc::new(egress), door))
}

async fn with_demo(mut routes: Routes, demo: bool) -> Result<Routes, Exit> {
    if demo {
        let address = demo::start()
            .await
            .map_err(|error| Exit::failed(format!("the demo upstreams: {error}")))?;
        for (name, route) in demo::routes(address, &routes.ad_hoc) {
            routes.named.entry(name).or_insert(route);
        }
    }
    Ok(routes)
}

/// A ledger under other keys would take every duplicate for a mismatch: it is refused.
fn no_keys(why: KeysError) -> Exit {
    if let KeysError::Store(why) = why {
        return why.into();
    }
    Exit::failed(format!(
        "{why}\nhelp: it is in the copy of {MASTER_KEY} or of ONCEWARD_MASTER_KEY from before the change; put it behind the current one (NEW,OLD), for all nodes, until `onceward rekey --status` says that it may go"
    ))
}

/// Beyond loopback every call needs a key: the first is made here and shown this once.
async fn first_key(access: &Access) -> Result<(), Exit> {
    if !access.is_needed() || !access.list().is_empty() {
        return Ok(());
    }
    let name = "first".to_owned();
    let (tenant, routes, origins) = (TENANT.to_owned(), Vec::new(), Vec::new());
    let grant =
        Grant { name, tenant, roles: Roles::ALL, routes, origins, expires: None, contract: None };
    if let Some((key, kept)) = access.create_first(grant, crate::shape::now()).await? {
        eprint_line(&format!("access key {} (shown this once): {key}", kept.name));
    } else {
        info!("another node made the first access key just now, and has shown it");
    }
    Ok(())
}

/// What a person has to read at once, beside the log.
#[expect(
    clippy::print_stderr,
    reason = "a key is told to the person at the terminal and to no log"
)]
fn eprint_line(line: &str) {
    eprintln!("{line}");
}

/// Work whose route is gone waits; that is said loudly.
async fn warn_of_missing_routes(engine: &Engine) -> Result<(), Exit> {
    for (lane, _) in engine.store().lanes().await? {
        if engine.route(&lane.route).is_none() {
            warn!(
                route = lane.route,
                "work of this route waits in the ledger, but the route is not configured: put [{}] back",
                section(&lane.route)
            );
        }
    }
    Ok(())
}

/// Serves until a signal comes or the ledger breaks.
async fn run(
    mut listeners: Listeners,
    node: &Arc<Node>,
    config: &Config,
    config_path: Option<&Path>,
    overrides: &Overrides,
    signals: &mut Signals,
) -> Result<(), Exit> {
    let mut look = tokio::time::interval(CERTIFICATES_EVERY);
    let ended = loop {
        tokio::select! {
            () = signals.ends.recv() => break Ok(()),
            _ = signals.hangup.recv() => {
                signals.supervisor.reloading();
                reload(node, &mut listeners, config, config_path, overrides).await;
                signals.supervisor.ready();
            }
            () = node.engine.broken() => break Err(Exit::ledger("the ledger cannot be used any more; the next start recovers".to_owned())),
            _ = look.tick() => listeners.refresh_certificates().await,
        }
    };
    let grace = match ended {
        Ok(()) => longest_attempt(&node.engine.routes()).max(GRACE_MIN),
        Err(_) => GRACE_BROKEN,
    };
    signals.supervisor.stopping(grace);
    let closed = listeners.close().await;
    node.draining.store(true, Ordering::Release);
    // A stream would go on for minutes, and its connection stand as long.
    node.changes.end();
    info!("draining: what is under way runs to its end");
    if ended.is_ok() {
        let last_calls = async {
            for closed in &closed {
                closed.gone().await;
            }
        };
        let outboxes = tokio::time::timeout(GRACE_MIN, node.outboxes.stop());
        let last_calls = tokio::time::timeout(LAST_CALLS, last_calls);
        // That some stay is no matter: they are told to end.
        let (outboxes, _) = tokio::join!(outboxes, last_calls);
        if outboxes.is_err() {
            warn!("an outbox does not answer: what was in hand is read again at the next start");
        }
    }
    closed.iter().for_each(Closed::tell);
    node.engine.halt();
    let end_all = async {
        node.engine.idle().await;
        for closed in closed {
            closed.end().await;
        }
        // Who waited for a slot when it began, and hung up since, is under way only now.
        node.engine.idle().await;
    };
    tokio::select! {
        () = end_all => {}
        () = tokio::time::sleep(grace) => warn!("the grace is over: what is still under way is judged at the next start"),
        () = signals.ends.recv() => warn!("told twice to stop: what is still under way is judged at the next start"),
    }
    ended
}

/// How long an attempt may take: by the routes in force now, or at an ad hoc URL.
fn longest_attempt(routes: &Routes) -> Duration {
    let all = routes.named.values().chain([&routes.ad_hoc]);
    all.map(|route| route.target.timeouts.total).max().unwrap_or_default()
}

/// Reads the configuration again: routes, their addresses, credentials and policies. What needs
/// a restart is said.
async fn reload(
    node: &Arc<Node>,
    listeners: &mut Listeners,
    config: &Config,
    path: Option<&Path>,
    overrides: &Overrides,
) {
    let fresh = match Config::load(path, overrides) {
        Ok(fresh) => fresh,
        Err(error) => return error!("the configuration is kept as it was: {error}"),
    };
    let current = node.engine.routes();
    let mut routes = fresh.routes();
    for name in ["demo", "demo-unsafe"] {
        if let Some(route) = current.named.get(name).filter(|_| config.demo) {
            routes.named.entry(name.to_owned()).or_insert_with(|| Arc::clone(route));
        }
    }
    for name in current.named.keys().filter(|name| !routes.named.contains_key(*name)) {
        match has_unfinished_work(&**node.engine.store(), name).await {
            Ok(false) => {}
            Ok(true) => {
                return error!(
                    route = name,
                    "the configuration is kept as it was: this route has unfinished work, or some in doubt, and cannot be removed yet"
                );
            }
            Err(error) => return error!(%error, "the configuration is kept as it was"),
        }
    }
    let change = match listeners.prepare(&fresh.guards).await {
        Ok(change) => change,
        Err(exit) => return error!("the configuration is kept as it was: {}", exit.message),
    };
    if !fresh.is_served_as(config) {
        warn!(
            "listen, tls, behind_proxy, store, demo, quarantine, egress, limits and telemetry are read at a start only"
        );
    }
    let count = routes.named.len();
    node.engine.set_approved(fresh.approve.clone());
    node.engine.set_claims(fresh.claims.clone());
    node.engine.seal_bodies(fresh.seal_bodies);
    node.engine.set_tenants(fresh.tenants.clone());
    node.engine.set_routes(routes);
    node.sources.set(fresh.sources.clone());
    set_for_people(&node.engine, &fresh);
    node.outboxes.follow(&fresh.outboxes);
    node.oidc.follow(fresh.oidc.clone());
    node.alerts.follow(fresh.alerts.clone());
    node.guards.set(fresh.guards.clone());
    listeners.change(change, node).await;
    node.gateway.egress.set_own(listeners.addresses());
    listeners.refresh_certificates().await;
    note_reload(&node.engine, path).await;
    info!(routes = count, "the routes were read again");
}

/// Whoever may signal the process changed what it does: that is a person's deed.
async fn note_reload(engine: &Engine, path: Option<&Path>) {
    let person = Person { who: "local".to_owned(), reason: "SIGHUP".to_owned() };
    let file = path.map_or_else(|| "onceward.toml".to_owned(), |path| path.display().to_string());
    if let Err(error) = engine.note(&person, "read the configuration again", &file).await {
        warn!(%error, "that the configuration was read again could not be noted");
    }
}

/// How callbacks are made, what holds for events, and how long it is kept what people did.
fn set_for_people(engine: &Engine, config: &Config) {
    engine.set_teller(config.callbacks_secret.as_ref().map(|secret| Teller {
        secret: secret.0.clone(),
        describe: |operation| {
            crate::shape::operation(operation, None, true).to_string().into_bytes()
        },
    }));
    engine.keep_notes_for(config.audit_kept);
    engine.set_event_rules(config.events);
}

async fn has_unfinished_work(store: &dyn Store, route: &str) -> Result<bool, StoreError> {
    let mut before = None;
    loop {
        let unfinished = Query {
            standing: vec![
                Standing::Pending,
                Standing::Held,
                Standing::Delivering,
                // What resolves it by itself, and what of it people may see, is its route's.
                Standing::InDoubt,
            ],
            route: Some(route.to_owned()),
            before,
            limit: 1,
            ..Query::default()
        };
        let page = store.list(unfinished).await?;
        // One list looks at a bounded number of rows: none found says nothing before the end.
        before = match (page.operations.is_empty(), page.next) {
            (false, _) => return Ok(true),
            (true, None) => return Ok(false),
            (true, next) => next,
        };
    }
}

/// Follows what other nodes say about access keys and the quarantine, for ever.
async fn keep_up(node: Arc<Node>) {
    let changed = node.engine.store().settings_changed();
    loop {
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(KEEP_UP_EVERY) => {}
        }
        // While the ledger is away the keys stay as they are known.
        if let Err(error) = node.access.refresh().await {
            warn!(%error, "the access keys could not be read again");
        }
        if let Err(error) = quarantine::follow(&node).await {
            warn!(%error, "whether the ledger was released at another node could not be seen");
        }
    }
}

/// Writes when access keys were last used, for ever.
async fn keep_used(node: Arc<Node>) {
    loop {
        tokio::time::sleep(KEEP_USED_EVERY).await;
        if let Err(error) = node.access.keep_used().await {
            warn!(%error, "when access keys were last used could not be written");
        }
    }
}

/// Says how the audit ends now: where the log lies, nobody can cut off what was noted before.
async fn log_head(engine: &Engine) -> Result<(), StoreError> {
    let head = engine.audit_head().await?;
    info!(number = head.number, hash = hex::encode(&head.digest), "the audit ends here now");
    Ok(())
}

/// The same, for ever.
async fn log_heads(node: Arc<Node>) {
    loop {
        tokio::time::sleep(HEAD_EVERY).await;
        if let Err(error) = log_head(&node.engine).await {
            warn!(%error, "the end of the audit could not be read");
        }
    }
}

async fn drain(node: &Node) -> Result<(), Exit> {
    let asked = match node.engine.flush_asked().await {
        Ok(()) => node.engine.flush_seen().await,
        error => error,
    };
    let asked = asked.and(node.engine.flush_tallies().await);
    let asked = asked.and(node.alerts.save(&**node.engine.store()).await);
    if let Err(error) = asked {
        warn!(%error, "the last counts are lost");
    }
    if let Err(error) = node.access.keep_used().await {
        warn!(%error, "when access keys were last used is lost");
    }
    // A ledger that broke when nobody asked it any more did not end well either.
    match node.engine.store().condition().await {
        Ok(_) | Err(StoreError::Full(_) | StoreError::Stale) => {
            info!("stopped");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_lasts_as_long_as_any_attempt_may_those_at_no_route_too() {
        let longest = |text: &str| longest_attempt(&Config::of_text(text).unwrap().routes());
        let crm = "[routes.crm]\nupstream = \"https://crm.example.com\"\n";
        assert_eq!(longest(&format!("{crm}timeout = \"2s\"")), Duration::from_secs(30));
        assert_eq!(longest(&format!("{crm}timeout = \"90s\"")), Duration::from_secs(90));
        let mail = "[routes.mail]\nupstream = \"smtp://mail.example.com\"\n";
        assert_eq!(longest(mail), Duration::from_mins(2));
    }
}

//! All listeners of the process: the main one, which stays as it is until the end, and each guard's,
//! which come and go with the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::{Config, Guard};
use crate::connections::Connections;
use crate::exit::Exit;
use crate::front::Front;
use crate::listening::{Closed, Listening};
use crate::node::Node;
use crate::tls::{Tls, TlsFiles};
use crate::{access, front, guard, operator, page, passed, waiting};

/// Where a guard listens, as its configuration says it; with port 0, which is any, its route too.
type Place = (SocketAddr, String);

/// What is bound for a guard.
#[derive(Debug, Clone)]
struct Bound {
    route: String,
    socket: Arc<TcpListener>,
    tls: Option<Arc<Tls>>,
}

/// Sockets that listen and whose connections nobody takes yet.
#[derive(Debug)]
pub(crate) struct Sockets {
    connections: Arc<Connections>,
    main: Arc<TcpListener>,
    /// How the main one speaks TLS, where it does.
    tls: Option<Arc<Tls>>,
    wanted: SocketAddr,
    guards: BTreeMap<Place, Bound>,
}

/// Everything that takes connections.
#[derive(Debug)]
pub(crate) struct Listeners {
    connections: Arc<Connections>,
    address: SocketAddr,
    main: Listening,
    tls: Option<Arc<Tls>>,
    guards: BTreeMap<Place, (Bound, Listening)>,
}

/// What a new configuration changes: all that could go wrong with it has gone well.
#[derive(Debug)]
pub(crate) struct Change(BTreeMap<Place, Bound>);

impl Sockets {
    /// Binds them all; what comes by them is to run on `event_loops`.
    pub(crate) async fn bind(config: &Config, event_loops: Vec<Handle>) -> Result<Self, Exit> {
        let wanted = config.listen;
        let main = passed::listen(wanted).await.map_err(|error| {
            Exit::failed(format!("cannot listen on {wanted}: {error}\nhelp: choose another address with --listen 127.0.0.1:7078"))
        })?;
        let tls = config.tls.as_ref().map(|files| load("tls", files)).transpose()?;
        let guards = bound(&config.guards, &BTreeMap::new()).await?;
        guards.values().for_each(Bound::tell);
        passed::tell_of_rest();
        let (max, of_address_max) = (config.connections_max, config.connections_per_address_max);
        let connections = Connections::new(max, of_address_max, config.idle_timeout, event_loops);
        Ok(Self { connections, main: Arc::new(main), tls, wanted, guards })
    }

    /// The address of the main listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.main.local_addr().unwrap_or(self.wanted)
    }

    /// The addresses of all of them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let guards = self.guards.values().filter_map(Bound::address);
        std::iter::once(self.address()).chain(guards).collect()
    }

    /// Tells whoever calls that the ledger is away, for as long as what is returned lives.
    pub(crate) fn tell_to_come_back(&self) -> Vec<Listening> {
        let connections = || Arc::clone(&self.connections);
        let (socket, tls) = (Arc::clone(&self.main), self.tls.clone());
        let main = Listening::begin(socket, tls, connections(), |_| {
            |request| std::future::ready(waiting::tell_to_come_back(&request))
        });
        let guards = self.guards.values().map(|bound| {
            let (socket, tls) = (Arc::clone(&bound.socket), bound.tls.clone());
            Listening::begin(socket, tls, connections(), |_| {
                |_| std::future::ready(waiting::tell_callers_of_a_guard())
            })
        });
        std::iter::once(main).chain(guards).collect()
    }
}

impl Bound {
    fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn tell(&self) {
        let address = self.address().map(|address| address.to_string());
        info!(
            address = address.unwrap_or_default(),
            route = self.route,
            tls = self.tls.is_some(),
            "a guard listens"
        );
    }

    fn begin(&self, connections: &Arc<Connections>, node: &Arc<Node>) -> Listening {
        let (node, route) = (Arc::clone(node), Arc::<str>::from(self.route.as_str()));
        let (socket, tls) = (Arc::clone(&self.socket), self.tls.clone());
        Listening::begin(socket, tls, Arc::clone(connections), move |peer| {
            let own = Arc::new((Arc::clone(&node), Arc::clone(&route), peer));
            move |request| guard::answer_on(&own.0, &own.1, request, &own.2)
        })
    }

    /// Whether connections that come by the one may go on coming by the other.
    fn is_served_as(&self, other: &Self) -> bool {
        let files = |bound: &Self| bound.tls.as_ref().map(|tls| tls.files().clone());
        self.route == other.route && files(self) == files(other)
    }
}

fn load(section: &str, files: &TlsFiles) -> Result<Arc<Tls>, Exit> {
    Tls::load(files).map_err(|why| {
        Exit::config(format!(
            "[{section}] cannot speak TLS: {why}\nhelp: cert_file has the certificate first and then what leads to its authority, key_file its key, both PEM"
        ))
    })
}

/// Whether the listeners could speak TLS: asked before anything is begun.
pub(crate) fn check_certificates(config: &Config) -> Result<(), Exit> {
    if let Some(files) = &config.tls {
        load("tls", files)?;
    }
    for (route, guard) in &config.guards {
        if let Some(files) = &guard.tls {
            load(&format!("routes.{route}"), files)?;
        }
    }
    Ok(())
}

/// What `guards` are to listen on: what is there stays, what is not is bound.
async fn bound(
    guards: &BTreeMap<String, Arc<Guard>>,
    there: &BTreeMap<Place, &Bound>,
) -> Result<BTreeMap<Place, Bound>, Exit> {
    let mut all = BTreeMap::new();
    for (route, guard) in guards {
        for address in &guard.listen {
            let any = if address.port() == 0 { route.clone() } else { String::new() };
            let place = (*address, any);
            let before = there
                .get(&place)
                .filter(|before| before.tls.as_ref().map(|tls| tls.files()) == guard.tls.as_ref());
            let tls = match (before, &guard.tls) {
                (Some(before), _) => before.tls.clone(),
                (None, None) => None,
                (None, Some(files)) => Some(load(&format!("routes.{route}"), files)?),
            };
            let socket = match there.get(&place) {
                Some(before) => Arc::clone(&before.socket),
                None => Arc::new(passed::listen(*address).await.map_err(|error| {
                    Exit::failed(format!("[routes.{route}] cannot listen on {address}: {error}\nhelp: choose another listen for it"))
                })?),
            };
            all.insert(place, Bound { route: route.clone(), socket, tls });
        }
    }
    Ok(all)
}

impl Listeners {
    /// Begins to take connections.
    pub(crate) fn begin(sockets: Sockets, node: &Arc<Node>) -> Self {
        let address = sockets.address();
        let connections = sockets.connections;
        let pages = operator::router().merge(page::router());
        let authorise = from_fn_with_state(Arc::clone(node), access::authorise);
        let pages = pages.layer(authorise).with_state(Arc::clone(node));
        let of_main = Arc::clone(node);
        let tls = sockets.tls.clone();
        let main = Listening::begin(sockets.main, tls, Arc::clone(&connections), move |peer| {
            let node = Arc::clone(&of_main);
            let front = Arc::new(Front { node, pages: pages.clone(), peer });
            move |request| front::answer(&front, request)
        });
        let tls = sockets.tls;
        let mut listeners = Self { connections, address, main, tls, guards: BTreeMap::new() };
        for (place, bound) in sockets.guards {
            let listening = bound.begin(&listeners.connections, node);
            listeners.guards.insert(place, (bound, listening));
        }
        listeners
    }

    /// The addresses of all of them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let guards = self.guards.values().filter_map(|(bound, _)| bound.address());
        std::iter::once(self.address).chain(guards).collect()
    }

    /// Does all that can go wrong with what `guards` want; nothing of it holds yet.
    pub(crate) async fn prepare(
        &self,
        guards: &BTreeMap<String, Arc<Guard>>,
    ) -> Result<Change, Exit> {
        let there = self.guards.iter().map(|(place, (bound, _))| (place.clone(), bound)).collect();
        bound(guards, &there).await.map(Change)
    }

    /// Has it hold: what is gone takes no more connections, and those that stand end after the
    /// answers that they are at.
    pub(crate) async fn change(&mut self, change: Change, node: &Arc<Node>) {
        let mut before = std::mem::take(&mut self.guards);
        for (place, bound) in change.0 {
            match before.remove(&place) {
                Some((same, listening)) if same.is_served_as(&bound) => {
                    self.guards.insert(place, (same, listening));
                }
                other => {
                    if let Some((_, listening)) = other {
                        end(listening.close().await);
                    }
                    bound.tell();
                    let listening = bound.begin(&self.connections, node);
                    self.guards.insert(place, (bound, listening));
                }
            }
        }
        for ((address, _), (bound, listening)) in before {
            warn!(%address, route = bound.route, "a guard listens here no more");
            end(listening.close().await);
        }
    }

    /// Reads certificates again that changed.
    pub(crate) async fn refresh_certificates(&self) {
        let spoken = self
            .guards
            .values()
            .filter_map(|(bound, _)| Some((bound.route.clone(), Arc::clone(bound.tls.as_ref()?))));
        let of_main = self.tls.iter().map(|tls| ("main".to_owned(), Arc::clone(tls)));
        let spoken: Vec<_> = spoken.chain(of_main).collect();
        if spoken.is_empty() {
            return;
        }
        // Files may lie on a disk that is slow.
        let read = tokio::task::spawn_blocking(move || {
            for (whose, tls) in spoken {
                tls.refresh(&whose);
            }
        });
        // It does not panic; were it to, the next look is in a while.
        let _ = read.await;
    }

    /// Takes no more connections anywhere.
    pub(crate) async fn close(self) -> Vec<Closed> {
        let mut closed = vec![self.main.close().await];
        for (_, listening) in self.guards.into_values() {
            closed.push(listening.close().await);
        }
        closed
    }
}

/// Lets the connections of a listener that is gone end in their own time.
fn end(closed: Closed) {
    tokio::spawn(closed.end());
}

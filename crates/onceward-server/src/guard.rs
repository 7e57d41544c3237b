//! The inbound edge before an API of one's own: the same pipeline at the path root, for callers who
//! know nothing of us. Nothing of ours exists here beside what is said of a keyed call.
//!
//! Who asks is in the scope of a key (`principal`), what is answered from memory may want the
//! upstream's word first (`reauthorize`), what the upstream is told of the caller is in `forwarded`,
//! and what pages of other origins may read in `cors`.

mod cors;
mod forwarded;
mod principal;
mod reauthorize;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use onceward::core::policy::{ErrorShape, is_safe};
use onceward::sabotage::Sabotage;
use onceward::{Aside, CallOptions};

use crate::access;
use crate::body::Body;
use crate::config::Guard;
use crate::config::guard::RESPOND_ASYNC;
use crate::cors::Asked;
use crate::gateway::{Answering, Entrance, Place, Receipt, options_of};
use crate::head::{self, host_of};
use crate::listening::Peer;
use crate::node::Node;
use crate::problem::{self, Problem};
use crate::telemetry::traces::{self, Traced};

use self::cors::Origins;
pub(crate) use self::forwarded::Way;
pub(crate) use self::principal::plain_name;
use self::reauthorize::Asking;

type ByRoute = BTreeMap<String, Arc<Guard>>;

/// The guards of this moment.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    by_route: ArcSwap<ByRoute>,
    /// Whether any has a host on the main listener.
    has_hosts: AtomicBool,
    /// What upstreams allow pages of other origins.
    origins: Origins,
}

impl Guards {
    pub(crate) fn new(guards: ByRoute) -> Self {
        let all = Self::default();
        all.set(guards);
        all
    }

    /// The guard of this route.
    pub(crate) fn of(&self, route: &str) -> Option<Arc<Guard>> {
        self.by_route.load().get(route).cloned()
    }

    /// All of them, by their routes' names.
    pub(crate) fn all(&self) -> Arc<ByRoute> {
        self.by_route.load_full()
    }

    /// Changes them: requests from now on read the new ones.
    pub(crate) fn set(&self, guards: ByRoute) {
        let has_hosts = guards.values().any(|guard| !guard.hosts.is_empty());
        self.has_hosts.store(has_hosts, Ordering::Release);
        self.by_route.store(Arc::new(guards));
    }

    /// The guard whose host a request to the main listener is for.
    pub(crate) fn of_host<B>(&self, request: &Request<B>) -> Option<Arc<Guard>> {
        if !self.has_hosts.load(Ordering::Acquire) {
            return None;
        }
        let all = self.all();
        let host = host_of(request.uri().authority(), request.headers())?;
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let is_for =
            |guard: &&Arc<Guard>| guard.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        all.values().find(is_for).cloned()
    }
}

/// Answers a request on a listener of the route's.
pub(crate) fn answer_on(
    node: &Arc<Node>,
    route: &str,
    request: Request<Incoming>,
    peer: &Peer,
) -> Answering {
    // It is gone where the configuration has just changed.
    let Some(guard) = node.guards.of(route) else {
        let why = "This route does not listen here any more.";
        return Box::pin(ready(Problem::new("route-unknown", why).response()));
    };
    answer(node, guard, request, peer)
}

/// Answers a request at the path root.
pub(crate) fn answer(
    node: &Arc<Node>,
    guard: Arc<Guard>,
    mut request: Request<Incoming>,
    peer: &Peer,
) -> Answering {
    let arriving = traces::arrive(&mut request, peer, Some(&guard));
    let asked = Asked::of(&request);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let version = request.version();
    let entered = enter(node, &guard, request, peer);
    let node = Arc::clone(node);
    Box::pin(async move {
        let response = match entered {
            Ok(entered) => entered.answer(&node).await,
            Err(problem) => Err(problem),
        };
        let mut response = response.unwrap_or_else(|problem| problem.response());
        dress(&node, &guard, &mut response, asked.as_ref(), (&method, &uri));
        node.part(&mut response, version);
        if let Some(arriving) = arriving {
            arriving.answered(&response);
        }
        response
    })
}

/// Gives an answer what callers of the API behind a guard expect of it, and takes away what only callers
/// of ours understand.
fn dress(
    node: &Node,
    guard: &Guard,
    response: &mut Response<Body>,
    asked: Option<&Asked>,
    (method, uri): (&Method, &Uri),
) {
    // Most answers need it for nothing.
    let policy = || {
        let route = node.engine.route(&guard.route)?;
        Some(Arc::clone(route.policy_for(method.as_str(), target_of(uri))))
    };
    let is_ours = problem::tell_outside(response);
    if response.extensions_mut().remove::<Receipt>().is_some() || is_ours {
        // What it names is on another listener.
        response.headers_mut().remove(header::LOCATION);
    } else {
        forwarded::tell_way(response.headers_mut());
    }
    if let Some(asked) = asked {
        let keys = policy().map(|policy| policy.key_headers.clone()).unwrap_or_default();
        let rule = cors::Rule { guard, origins: &node.guards.origins, keys: &keys };
        rule.tell(asked, response.headers_mut(), is_ours);
    }
    problem::dress(response, |_| policy().map_or(ErrorShape::Problem, |policy| policy.error_shape));
}

fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// A request that goes on.
struct Entered {
    answering: Answering,
    aside: Arc<Aside>,
    /// The upstream's word, asked for where the answer is one from memory, and for whom.
    asking: Option<(Asking, String)>,
}

impl Entered {
    async fn answer(self, node: &Arc<Node>) -> Result<Response<Body>, Problem> {
        let response = self.answering.await;
        let is_known = self.aside.repeat.get().is_some() && !Sabotage::ReauthorizeSkipped.is_on();
        match self.asking.filter(|_| is_known) {
            // What is known of a key is told to nobody before the upstream has had its word.
            Some((asking, principal)) => Ok(asking.ask(node, principal).await?.unwrap_or(response)),
            None => Ok(response),
        }
    }
}

fn enter(
    node: &Node,
    guard: &Guard,
    request: Request<Incoming>,
    peer: &Peer,
) -> Result<Entered, Problem> {
    if let Some(refusal) = head::refuse(&request) {
        let answering = Box::pin(ready(refusal));
        return Ok(Entered { answering, aside: Arc::default(), asking: None });
    }
    if node.is_quarantined() {
        return Err(Problem::new("quarantine", "Nothing was sent."));
    }
    let (mut head, body) = request.into_parts();
    // A browser sends them to every port of a host.
    access::take_cookies(&mut head.headers);
    if guard.lends {
        refuse_strangers(guard, &head, peer)?;
    }
    // What only reads has no key, so nobody has to know whose it would be.
    let is_read = is_safe(head.method.as_str());
    let secrets = node.engine.secrets();
    let principal = principal::of(guard, &mut head.headers, peer, is_read, secrets);
    let mut options = options(guard, &mut head)?;
    let way = forwarded::said(guard, &head, peer);
    options.headers.extend(way);
    traces::watch(head.extensions.get::<Traced>(), &mut options);
    let aside = Arc::clone(&options.aside);
    let asks = guard.reauthorize.as_ref().filter(|_| !is_read);
    let asking = asks.map(|rule| rule.of(guard, &head, &options.headers));
    let place = Place { route: guard.route.clone(), target: target_of(&head.uri).to_owned() };
    let asking = asking.map(|asking| (asking, principal.clone()));
    let entrance = Entrance { place, tenant: guard.tenant.clone(), principal, options };
    Ok(Entered { answering: node.gateway.enter(head, body, entrance), aside, asking })
}

/// Credentials of ours do not serve whatever page a browser on this machine has open, whatever name it
/// has had pointed at this listener.
fn refuse_strangers(guard: &Guard, head: &Parts, peer: &Peer) -> Result<(), Problem> {
    let origin = head.headers.get(header::ORIGIN);
    let is_named = |named: &String| origin.is_some_and(|origin| origin == named.as_str());
    if guard.believes(peer.address.ip()) || guard.cors.origins.iter().any(is_named) {
        return Ok(());
    }
    access::refuse_web_pages(head)?;
    // On a listener for both families an IPv4 address comes within an IPv6 one.
    let is_here = peer.address.ip().to_canonical().is_loopback();
    match access::other_host(head).filter(|_| is_here) {
        Some(host) if guard.hosts.is_empty() => Err(Problem::new(
            "forbidden",
            format!(
                "This listener lends its callers credentials, so from this machine it answers only to localhost, not to {host:?}. A proxy before it is named in trust_forwarded."
            ),
        )),
        _ => Ok(()),
    }
}

/// What a caller may ask of us, and does. The rest is not heard: callers of an API that happens to
/// have us before it change nothing.
fn options(guard: &Guard, head: &mut Parts) -> Result<CallOptions, Problem> {
    // A gateway before us tells of itself whatever is allowed.
    let is_told = |option: &str| matches!(option, "attempt" | "hop");
    let is_heard = |name: &str| {
        let option = name.strip_prefix("onceward-");
        option.is_none_or(|option| guard.allows(option) || is_told(option))
    };
    let unheard: Vec<_> =
        head.headers.keys().filter(|name| !is_heard(name.as_str())).cloned().collect();
    for name in unheard {
        head.headers.remove(name);
    }
    let mut options = options_of(&head.headers)?;
    if !guard.allows(RESPOND_ASYNC) {
        options.respond_async = false;
        options.wait = None;
    }
    Ok(options)
}

/// All lines of a list, as one.
fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// A guard with these lines beside what it needs.
    pub(super) fn guard(lines: &str) -> Guard {
        let text = format!(
            "[routes.a]\nlisten = \"127.0.0.1:8080\"\nupstream = \"http://127.0.0.1:3000\"\n{lines}"
        );
        (*Config::of_text(&text).unwrap().guards["a"]).clone()
    }

    /// A caller at this address, without TLS.
    pub(super) fn peer(address: &str) -> Peer {
        let address = (address.parse::<std::net::IpAddr>().unwrap(), 1).into();
        Peer::new(address)
    }

    #[test]
    fn what_a_stranger_may_not_ask_is_not_heard() {
        let ask = |lines: &str| {
            let request = Request::builder()
                .header("onceward-callback", "https://evil.example")
                .header("onceward-label", "mine")
                .header("onceward-nonsense", "x")
                .header("prefer", "respond-async, wait=5");
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            options(&guard(lines), &mut head).unwrap()
        };
        let none = ask("");
        assert_eq!((none.callback, none.label, none.wait), (None, None, None));
        assert!(!none.respond_async);
        let some = ask("options = [\"label\", \"respond-async\"]");
        assert_eq!((some.callback, some.label.as_deref()), (None, Some("mine")));
        assert!(some.respond_async && some.wait.is_some());
    }

    #[test]
    fn a_name_of_the_webs_that_points_at_this_machine_is_not_lent_to_whichever_way_it_comes() {
        let mut guard = guard("");
        guard.lends = true;
        let is_lent_to = |from: &str, host: &str| {
            let request = Request::builder().method("POST").header("host", host);
            let (head, ()) = request.body(()).unwrap().into_parts();
            refuse_strangers(&guard, &head, &peer(from)).is_ok()
        };
        for from in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_lent_to(from, "localhost:8080"), "{from}");
            assert!(!is_lent_to(from, "evil.example:8080"), "{from}");
        }
        assert!(is_lent_to("192.0.2.1", "api.example"));
    }

    #[test]
    fn a_host_is_found_whatever_its_port_and_its_case() {
        let mut guard = guard("");
        guard.hosts = vec!["orders.example".to_owned()];
        let guards = Guards::new([("a".to_owned(), Arc::new(guard))].into());
        let found = |uri: &str, host: &str| {
            let request = Request::builder().uri(uri).header("host", host).body(()).unwrap();
            guards.of_host(&request).is_some()
        };
        assert!(found("/", "Orders.example:7077") && found("/", "orders.example"));
        assert!(found("http://orders.example/", "other.example"), "HTTP/2 has it in the URI");
        assert!(!found("/", "x.orders.example") && !found("/", "127.0.0.1:7077"));
    }
}

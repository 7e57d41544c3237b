//! `--connect`: whether upstreams are reached, by their names, a connection and TLS. Nothing is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::core::attempt::Reached;
use onceward::upstream::{Door, DoorOptions, Egress, Failure, Target, Timeouts};
use url::Url;

use super::finding::{Findings, Page};
use super::machine::millis;
use crate::config::{Config, section};
use crate::exit::Exit;
use crate::verify::run::all;

/// How many are reached for at once.
const AT_ONCE: usize = 16;

/// How far it came, and how long that took.
type Knocked = (Result<(), Failure>, Duration);

pub(super) async fn upstreams(config: &Config, found: &mut Findings) -> Result<(), Exit> {
    found.begin("upstreams");
    let options = DoorOptions { ca_file: config.ca_file.clone(), ..DoorOptions::default() };
    let door = Door::new(Egress::default(), &options);
    let door = door.map_err(|error| Exit::config(error.to_string()))?;
    let targets = targets(config);
    for some in targets.chunks(AT_ONCE) {
        let knock = async |target: &Target| {
            let begun = Instant::now();
            (door.knock(target).await, begun.elapsed())
        };
        let knocked = all(some.iter().map(|(_, target)| knock(target))).await;
        for ((section, target), knocked) in some.iter().zip(&knocked) {
            tell(section, target, knocked, found);
        }
    }
    Ok(())
}

/// Each origin once for each way of TLS to it, and where the file says so first.
fn targets(config: &Config) -> Vec<(String, Arc<Target>)> {
    let mut targets: Vec<(String, Arc<Target>)> = Vec::new();
    let routes = config.routes.values();
    let routes = routes.map(|route| (section(&route.name), Arc::clone(&route.target)));
    let issuer = config.oidc.iter().filter_map(|oidc| Url::parse(&oidc.issuer).ok());
    let issuer = issuer.map(|issuer| {
        ("oidc".to_owned(), Arc::new(Target::of_operator(issuer, Timeouts::default())))
    });
    for (section, target) in routes.chain(issuer) {
        let is_known =
            |known: &Target| known.tls.is_none() && place(&known.base) == place(&target.base);
        if target.tls.is_some() || !targets.iter().any(|(_, known)| is_known(known)) {
            targets.push((section, target));
        }
    }
    targets
}

/// What a connection is opened to.
fn place(base: &Url) -> (&str, Option<&str>, Option<u16>) {
    (base.scheme(), base.host_str(), base.port_or_known_default())
}

fn tell(section: &str, target: &Target, (knocked, took): &Knocked, found: &mut Findings) {
    let host = target.base.host_str().unwrap_or_default();
    let port = target.base.port_or_known_default().unwrap_or_default();
    let Err(failure) = knocked else {
        return found.ok(format!("[{section}] {host}:{port} is reached in {}", millis(*took)));
    };
    let (help, page) = match failure.reached {
        Reached::Nothing => {
            ("look at the name, and at this machine's resolver", Page::Configuration)
        }
        Reached::Resolved => (
            "look whether it listens there, and whether a firewall is between",
            Page::Configuration,
        ),
        _ => (
            "an authority of your own belongs into tls.ca_file, or into upstream_tls of the route",
            Page::UpstreamTls,
        ),
    };
    found.fail(format!("[{section}] {}", failure.error), help, page);
}

//! Where a caller's own URL may lead: the egress policy.
//!
//! The policy is a list of what is allowed, never of what is forbidden: an address is reached
//! only if it is known to be public, or if the operator opened its range. It judges addresses,
//! because a name says nothing about where it leads; and it judges every form in which an IPv4
//! address can be written into an IPv6 one, because a connection follows those too.
//!
//! An operator's own routes may be private: of them no more is asked than that a name does not lead
//! to a cloud's metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use thiserror::Error;
use url::{Host, Url};

use crate::sabotage::Sabotage;

/// How long an ad hoc URL may be. Enough for any that a person or a generator wrote on purpose.
pub const AD_HOC_URL_BYTES_MAX: usize = 2048;

/// The ports of public addresses that a caller's URL may name: HTTPS's own and its alternative.
/// Any other would make the gateway a scanner of other people's services.
const PUBLIC_PORTS: [u16; 2] = [443, 8443];

/// The IPv4 ranges that are no public unicast addresses (IANA's special-purpose registry, and
/// Azure's platform address, which lies in public space).
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),            // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared by carriers; Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local; the clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments; Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// What is not public within 2000::/3, outside of which nothing is.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// What no range in `allow` opens, however wide: link-local addresses and the clouds' metadata,
/// which hand out the machine's own credentials.
const NEVER_V4: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
];

/// The same in IPv6: link-local, the metadata of Amazon's and Google's clouds, and a network's own
/// NAT64, through which any IPv4 address can be reached in a form that only the network knows.
const NEVER_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0), 32),
];

/// Which addresses a caller's URL may lead to.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// Ranges that the operator opened, for `http` and any port too.
    allow: Vec<IpNet>,
    /// Where this process listens itself; all clones have the same.
    own: Arc<RwLock<Vec<SocketAddr>>>,
}

/// Why a URL cannot be an ad hoc one: the caller's mistake, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlRefusal {
    /// Longer than [`AD_HOC_URL_BYTES_MAX`].
    #[error("the URL is longer than 2048 bytes")]
    TooLong,
    /// Not an absolute `http` or `https` URL with a host.
    #[error("not a URL of the form https://host/path")]
    NotAbsolute,
    /// White space, a control character or a backslash, which readers of URLs disagree about.
    #[error("the URL has white space, a control character or a backslash in it: percent-encode it")]
    Ambiguous,
    /// A user name or a password.
    #[error("the URL has a user name or a password in it: send an Authorization header instead")]
    Userinfo,
    /// A fragment, which never travels.
    #[error("the URL has a fragment (#) in it, which is never sent: leave it out")]
    Fragment,
    /// Two dots of the host with nothing between: some readers pass over one, and then it is
    /// another host, or an address.
    #[error("the URL's host has two dots with nothing between them")]
    EmptyLabel,
    /// The host or the port makes no sense.
    #[error("the URL is not valid: {0}")]
    Invalid(url::ParseError),
}

/// Why the egress policy does not let a caller's URL through. Its text names the mend; it never
/// names an address that the caller did not write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EgressRefusal {
    /// `http` to an address that the operator did not open.
    #[error(
        "`http` is for addresses that this gateway's operator opened; use https, or open it: {0}"
    )]
    Scheme(Mend),
    /// A port that is not for HTTPS.
    #[error("port {0} is not open to callers: a public address takes 443 or 8443; to open it: {1}")]
    Port(u16, Mend),
    /// An address that is not public.
    #[error("`{host}` is not a public address; to open it: {0}", host = .0.host)]
    Private(Mend),
    /// Link-local or a cloud's metadata, which nothing opens.
    #[error(
        "`{0}` is a link-local or a cloud's metadata address, which no setting opens to callers"
    )]
    Never(String),
    /// A listener of ours, which would take the call for one of this machine's.
    #[error("`{0}` is a listener of this gateway's own, which no caller reaches through it")]
    Own(String),
}

/// What an operator does to let a URL through.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`onceward serve --allow {host}:{port}`, or its range in `[egress] allow`")]
pub struct Mend {
    /// The host, as the URL names it.
    host: String,
    /// The port that it means.
    port: u16,
}

/// What an address is to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The operator opened it.
    Opened,
    /// It is a public unicast address.
    Public,
    /// It is not.
    Private,
    /// It is one that stays shut.
    Never,
}

impl Egress {
    /// A policy that opens these ranges besides public addresses.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow, own: Arc::default() }
    }

    /// From now on this process listens there, and no caller's URL leads to it.
    pub fn set_own(&self, listeners: Vec<SocketAddr>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Whether a URL can be let through as far as it can be told without resolving its name.
    /// What passes here is judged again by the address that is dialled.
    pub fn admits_url(&self, url: &Url) -> Result<(), EgressRefusal> {
        match url.host() {
            Some(Host::Ipv4(ip)) => self.admits(url, ip.into()),
            Some(Host::Ipv6(ip)) => self.admits(url, ip.into()),
            // These names mean this machine wherever they are resolved (RFC 6761, section 6.3).
            Some(Host::Domain(name)) if is_localhost(name) => {
                self.admits(url, Ipv4Addr::LOCALHOST.into()).or_else(|refusal| match refusal {
                    EgressRefusal::Own(_) => Err(refusal),
                    _ => self.admits(url, Ipv6Addr::LOCALHOST.into()).map_err(|_| refusal),
                })
            }
            // Any name may turn out to be within what is allowed, if anything is.
            Some(Host::Domain(_)) if !self.allow.is_empty() => Ok(()),
            Some(Host::Domain(_)) | None => as_public(url),
        }
    }

    /// Whether a connection for `url` may go to `ip`.
    pub fn admits(&self, url: &Url, ip: IpAddr) -> Result<(), EgressRefusal> {
        match self.standing(ip) {
            Standing::Opened | Standing::Public if self.is_own(ip, port(url), false) => {
                Err(EgressRefusal::Own(named(url)))
            }
            Standing::Opened => Ok(()),
            Standing::Public => as_public(url),
            _ if Sabotage::AddressUnchecked.is_on() && url.domain().is_none() => Ok(()),
            _ if Sabotage::NameUnchecked.is_on() && url.domain().is_some() => Ok(()),
            Standing::Private => Err(EgressRefusal::Private(mend(url))),
            Standing::Never => Err(EgressRefusal::Never(named(url))),
        }
    }

    /// Whether a connection that the operator asks for may go to `ip`. They may write down any
    /// address, but whoever has a name in hand does not thereby choose that of a cloud's metadata.
    pub(super) fn admits_operator(url: &Url, ip: IpAddr) -> Result<(), EgressRefusal> {
        // Of a scheme that is not the web's, an address is read as a name.
        let is_name = url.domain().is_some_and(|name| name.parse::<Ipv4Addr>().is_err());
        if is_name && is_never(ip.to_canonical()) {
            return Err(EgressRefusal::Never(named(url)));
        }
        Ok(())
    }

    /// Whether a connection to `ip` and `port` would come in at a listener of ours; `is_here` where
    /// it is known that `ip` is one of this machine's.
    pub(super) fn is_own(&self, ip: IpAddr, port: u16, is_here: bool) -> bool {
        if Sabotage::OwnListenerOpen.is_on() {
            return false;
        }
        let ip = ip.to_canonical();
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.iter().filter(|listener| listener.port() == port).any(|listener| {
            let listener = listener.ip().to_canonical();
            listener == ip
                || listener.is_unspecified() && (is_here || ip.is_loopback())
                || ip.is_unspecified() && (listener.is_unspecified() || listener.is_loopback())
        })
    }

    fn standing(&self, ip: IpAddr) -> Standing {
        // A socket follows a mapped address to the IPv4 one, so that is what it is.
        let ip = ip.to_canonical();
        if is_never(ip) {
            Standing::Never
        } else if self.allow.iter().any(|range| range.contains(&ip)) {
            Standing::Opened
        } else if is_public(ip) {
            Standing::Public
        } else {
            Standing::Private
        }
    }
}

/// Reads a caller's URL by the WHATWG rules, less what readers of URLs disagree about: the text
/// that was judged has to mean the same to everyone who reads it.
pub fn parse_ad_hoc(text: &str) -> Result<Url, UrlRefusal> {
    if text.len() > AD_HOC_URL_BYTES_MAX {
        return Err(UrlRefusal::TooLong);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(UrlRefusal::Ambiguous);
    }
    // `https:host` and `https:///host` would be read as `https://host`: not by everyone.
    let (scheme, rest) = text.split_once("://").ok_or(UrlRefusal::NotAbsolute)?;
    let known = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    if !known || rest.is_empty() || rest.starts_with('/') {
        return Err(UrlRefusal::NotAbsolute);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlRefusal::Userinfo);
    }
    let url = Url::parse(text).map_err(UrlRefusal::Invalid)?;
    if matches!(url.host(), Some(Host::Domain(name)) if has_empty_label(name)) {
        return Err(UrlRefusal::EmptyLabel);
    }
    if url.fragment().is_some() {
        return Err(UrlRefusal::Fragment);
    }
    Ok(url)
}

/// What holds for public addresses: `https`, on a port that is for it.
fn as_public(url: &Url) -> Result<(), EgressRefusal> {
    if url.scheme() != "https" {
        return Err(EgressRefusal::Scheme(mend(url)));
    }
    let port = port(url);
    if PUBLIC_PORTS.contains(&port) { Ok(()) } else { Err(EgressRefusal::Port(port, mend(url))) }
}

fn named(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn mend(url: &Url) -> Mend {
    Mend { host: named(url), port: port(url) }
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(0)
}

/// Whether a name has a label that is empty, beside the root's at its end.
fn has_empty_label(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name).split('.').any(str::is_empty)
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn is_never(ip: IpAddr) -> bool {
    let embedded = match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(ip) => embedded_v4(ip),
    };
    embedded.is_some_and(|ip| NEVER_V4.iter().any(|range| within_v4(ip, *range)))
        || matches!(ip, IpAddr::V6(ip) if NEVER_V6.iter().any(|range| within_v6(ip, *range)))
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !NOT_PUBLIC_V4.iter().any(|range| within_v4(ip, *range)),
        // A network without IPv4 reaches public IPv4 addresses through this prefix; everything
        // else that embeds one is a way around.
        IpAddr::V6(ip) if is_nat64(ip) => is_public(low_v4(ip).into()),
        IpAddr::V6(ip) => {
            within_v6(ip, (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3))
                && !NOT_PUBLIC_V6.iter().any(|range| within_v6(ip, *range))
        }
    }
}

/// The IPv4 address that a packet to `ip` may end at, by any of the transition schemes.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    match s {
        // IPv4-compatible, IPv4-translated, NAT64.
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] => Some(low_v4(ip)),
        _ if is_nat64(ip) => Some(low_v4(ip)),
        [0x2002, high, low, ..] => Some(joined(high, low)),
        // Teredo keeps its client's address inverted.
        [0x2001, 0, .., high, low] => Some(joined(!high, !low)),
        _ => None,
    }
}

/// NAT64's well-known prefix, 64:ff9b::/96 (RFC 6052).
fn is_nat64(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _])
}

fn low_v4(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., high, low] = ip.segments();
    joined(high, low)
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

fn within_v4(ip: Ipv4Addr, (base, prefix): (Ipv4Addr, u32)) -> bool {
    (ip.to_bits() ^ base.to_bits()).leading_zeros() >= prefix
}

fn within_v6(ip: Ipv6Addr, (base, prefix): (Ipv6Addr, u32)) -> bool {
    (ip.to_bits() ^ base.to_bits()).leading_zeros() >= prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_writes_down_any_address_whatever_its_scheme_and_no_name_leads_to_each() {
        let metadata: IpAddr = "169.254.169.254".parse().unwrap();
        for (url, may) in [
            ("http://169.254.169.254/", true),
            ("smtp://169.254.169.254:25", true),
            ("smtp://mx.example:25", false),
            ("http://api.example/", false),
        ] {
            let judged = Egress::admits_operator(&url.parse().unwrap(), metadata);
            assert_eq!(judged.is_ok(), may, "{url}");
        }
    }
}

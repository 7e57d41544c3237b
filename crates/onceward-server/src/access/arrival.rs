//! How a request came, as far as logging in goes: from where, how safely, with which cookies of ours, and
//! whose session that is.

use std::net::IpAddr;
use std::sync::PoisonError;

use http::request::Parts;

use super::browser::other_host;
use super::cookie::{Cookie, Cookies, take_cookies};
use super::session::{By, form_token};
use super::{Access, Caller, Looks};
use crate::guard::plain_name;
use crate::listening::Peer;
use crate::shape;

/// What browsers say with each request over TLS.
const BROWSERS: [&str; 3] = ["sec-fetch-site", "sec-fetch-mode", "origin"];

/// What the script of the pages says with what it reads by itself.
const BY_ITSELF: &str = "onceward-by-itself";

/// The stream that it follows, where it can say nothing.
const FOLLOWED: &str = "/v1/changes";

/// Whether a page asks for it by itself, and nobody may be looking any more.
fn is_by_itself(head: &Parts) -> bool {
    head.uri.path() == FOLLOWED || head.headers.contains_key(BY_ITSELF)
}

/// How a request came.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Whether nobody on the way could read it.
    pub(crate) is_secured: bool,
    pub(crate) address: IpAddr,
    /// Whether it was asked for by a name of this machine.
    is_here: bool,
    /// Whether a page asks for it by itself, and nobody may be looking any more.
    pub(crate) is_by_itself: bool,
    /// The session that it counts for.
    pub(crate) visit: Option<Visit>,
    cookies: Cookies,
}

/// A session, as a page sees it.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) id: String,
    pub(crate) who: String,
    /// Whether an identity provider said who that is.
    pub(crate) is_by_provider: bool,
    /// What every form carries.
    pub(crate) form_token: String,
}

impl Arrival {
    /// Whether there is no way between on which others could read it.
    pub(crate) fn is_here(&self) -> bool {
        self.is_here
    }

    /// The cookie of a session, whether or not it goes on.
    pub(crate) fn token(&self) -> Option<&str> {
        self.cookies.get(Cookie::Session, self.is_secured)
    }

    /// What a login that is under way has to remember.
    pub(crate) fn login(&self) -> Option<&str> {
        self.cookies.get(Cookie::Login, self.is_secured)
    }

    /// When somebody looked with this browser.
    pub(crate) fn looked(&self) -> Option<&str> {
        self.cookies.get(Cookie::Looked, self.is_secured)
    }
}

impl Access {
    /// How it came; our cookies are taken out of it. Calls are not looked at any further.
    pub(super) fn arrival(&self, head: &mut Parts, peer: &Peer, looks: Looks) -> Arrival {
        let cookies = take_cookies(&mut head.headers);
        let is_here = looks == Looks::Nowhere || other_host(head).is_none();
        let by_proxy = self.exposure.behind_proxy && !is_here;
        let told = by_proxy.then(|| told_address(head)).flatten();
        Arrival {
            is_secured: peer.is_secured || by_proxy,
            address: told.unwrap_or_else(|| peer.address.ip()).to_canonical(),
            is_here,
            is_by_itself: is_by_itself(head),
            visit: None,
            cookies,
        }
    }

    /// Who has proven to have a certificate of the name of an access key, and is no browser: that would show
    /// it for whatever page asks.
    pub(super) fn certified(&self, head: &Parts, peer: &Peer) -> Option<Caller> {
        let shown = peer.certificate.as_deref().filter(|_| self.exposure.names_callers)?;
        if BROWSERS.iter().any(|name| head.headers.contains_key(*name)) {
            return None;
        }
        let name = plain_name(shown)?;
        let now = shape::now();
        let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
        let named = by_hash.values().filter(|known| known.key.name == name);
        let holds = named.filter(|known| known.origins.is_none() && known.caller(now).is_ok());
        let holds: Vec<_> = holds.collect();
        // Where two tenants have the name, the certificate says of neither that it is theirs.
        let tenant = &holds.first()?.key.tenant;
        if holds.iter().any(|known| known.key.tenant != *tenant) {
            return None;
        }
        // Of two that have the name, the newer one.
        let known = holds.into_iter().max_by(|a, b| a.key.created_at.cmp(&b.key.created_at))?;
        known.touch(now);
        known.caller(now).ok()
    }

    /// Whose session this cookie is of, and what that may do now; where somebody looks, it goes on.
    pub(super) fn visitor(&self, token: &str, is_look: bool) -> Option<(Caller, Visit)> {
        let now = shape::now();
        let open =
            if is_look { self.sessions.of(token, now) } else { self.sessions.find(token, now) }?;
        let caller = self.caller_by(&open.session.by)?;
        let visit = Visit {
            id: open.session.id(),
            who: caller.who(),
            is_by_provider: matches!(open.session.by, By::Provider { .. }),
            form_token: form_token(token),
        };
        Some((caller, visit))
    }
}

/// Whom the proxy next to us had before it: the last that is named, for what stands before that is what
/// others said.
fn told_address(head: &Parts) -> Option<IpAddr> {
    let line = head.headers.get_all("x-forwarded-for").iter().next_back()?;
    line.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

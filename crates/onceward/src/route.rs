//! Routes: which upstream, which policy. Read at each attempt; what an operation froze of them
//! is in the operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use onceward_core::breaker::BreakerRule;
use onceward_core::exchange::Headers;
use onceward_core::key::TENANT;
use onceward_core::policy::{Effects, Mode, Policy};
use onceward_core::rate::{BudgetRule, Rate};
use onceward_core::reconcile::ReconcileRule;
use onceward_core::time::Timestamp;
use url::Url;

use crate::auth::Auth;
use crate::receive;
use crate::upstream::{Chaos, Target};

/// A configured name: an upstream and the policies for it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, or the origin of an ad hoc upstream.
    pub name: String,
    /// The name of the scope that it shares with other routes, sources and outboxes; without it, its
    /// keys are its own.
    pub scope: Option<String>,
    /// The configured route by whose upstream it goes, where a subscription says so: what goes here passes
    /// the gate of that one too.
    pub through: Option<String>,
    /// The tenants that it is there for; without it, for all.
    pub tenants: Option<Vec<String>>,
    /// Whom its requests go to.
    pub target: Arc<Target>,
    /// What holds where no rule does.
    pub policy: Arc<Policy>,
    /// Policies for some methods and paths; the first that matches holds.
    pub rules: Vec<Rule>,
    /// Headers set at send, never stored: credentials of ours.
    pub set_headers: Headers,
    /// Credentials of ours that are made or fetched at each attempt, never stored either.
    pub auth: Auth,
    /// How the upstream is spared.
    pub protection: Protection,
    /// How long a caller is kept waiting for an answer, at most.
    pub answer_max: Duration,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// The largest answer that is kept; a larger one is passed on, and only its fact kept.
    pub response_bytes_max: usize,
    /// How what was done is held against the provider's list.
    pub reconcile: Option<Arc<ReconcileRule>>,
    /// Whether its callers may write options as QStash's do, `Upstash-…`, where they mean the same.
    pub upstash: bool,
    /// Faults on purpose, of a staging configuration.
    pub chaos: Option<Arc<Chaos>>,
}

/// How an upstream is spared: by each node for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Protection {
    /// Calls at once, at most.
    pub slots_max: usize,
    /// Attempts in a time; without it there is no bound.
    pub rate: Option<Rate>,
    /// When calls stop for a while; without it they never do.
    pub breaker: Option<BreakerRule>,
    /// What retries of held calls may cost; without it there is no bound.
    pub budget: Option<BudgetRule>,
    /// What a probe asks with GET; else it asks with HEAD for what the upstream's address names.
    pub health: Option<String>,
    /// Accepted operations of a tenant's that wait, at most: past it nothing more is accepted.
    pub backlog_max: Option<u64>,
    /// Bytes of their requests, at most.
    pub backlog_bytes_max: Option<u64>,
    /// The share of each flow.
    pub flow: FlowLimits,
}

/// What each flow of a route may have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowLimits {
    /// Calls at once, at most; without it there is no bound of its own.
    pub slots_max: Option<usize>,
    /// Attempts in a time; without it there is no bound of its own.
    pub rate: Option<Rate>,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            slots_max: 256,
            rate: None,
            breaker: Some(BreakerRule::default()),
            budget: Some(BudgetRule::default()),
            health: None,
            backlog_max: None,
            backlog_bytes_max: None,
            flow: FlowLimits::default(),
        }
    }
}

/// A policy for some of a route's methods and paths.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The method, or any.
    pub method: Option<String>,
    /// The path: segments, `*` for any one, `**` at the end for any rest.
    pub path: String,
    /// What holds for them.
    pub policy: Arc<Policy>,
}

impl Rule {
    /// Whether the rule is for this request.
    pub fn matches(&self, method: &str, target: &str) -> bool {
        let path = target.split('?').next().unwrap_or_default();
        self.method.as_deref().is_none_or(|wanted| wanted == method) && is_like(&self.path, path)
    }
}

fn is_like(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some("*"), Some(segment)) if !segment.is_empty() => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

impl Route {
    /// A route to `target` by one policy, with nothing said of it.
    pub fn new(name: &str, target: Target, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            scope: None,
            through: None,
            tenants: None,
            target: Arc::new(target),
            policy: Arc::new(policy),
            rules: Vec::new(),
            set_headers: Headers::default(),
            auth: Auth::default(),
            protection: Protection::default(),
            answer_max: Duration::from_mins(1),
            body_bytes_max: 1 << 20,
            response_bytes_max: 8 << 20,
            reconcile: None,
            upstash: false,
            chaos: None,
        }
    }

    /// Whether it is there for `tenant`.
    pub fn is_for(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|known| known == tenant))
    }

    /// Whether what is about all who use it is for `tenant` to see and to change: its own route, or, of
    /// [the tenant that is always there](TENANT), one that others use too.
    pub fn is_kept_by(&self, tenant: &str) -> bool {
        let is_alone = || self.tenants.as_ref().is_some_and(|tenants| tenants.len() == 1);
        self.is_for(tenant) && (tenant == TENANT || is_alone())
    }

    /// Every policy that holds for something on this route.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.rules.iter().map(|rule| &rule.policy).chain([&self.policy])
    }

    /// Whether a second arrival of anything on this route does no harm.
    pub fn is_harmless(&self) -> bool {
        let mut effects = self.policies().map(|policy| policy.effects);
        effects.all(|effects| matches!(effects, Some(Effects::Idempotent | Effects::Keyed)))
    }

    /// When an attempt of accepted work may begin on this route, of whatever kind.
    pub(crate) fn opens_at(&self, now: Timestamp) -> Timestamp {
        let openings = self.policies().map(|policy| policy.opening(Mode::Accepted, now));
        openings.min().unwrap_or(now)
    }

    /// Whether a request with this head passes without a record, whatever its body is: then the body
    /// need not be read before it is sent. Elsewhere only the whole request tells.
    pub fn passes(&self, method: &str, target: &str, headers: &HeaderMap) -> bool {
        // A mail server takes mails and nothing else: what is none is refused.
        self.target.mail.is_none()
            && receive::passes(self.policy_for(method, target), method, headers)
    }

    /// The policy for a request on this route.
    pub fn policy_for(&self, method: &str, target: &str) -> &Arc<Policy> {
        self.rules
            .iter()
            .find(|rule| rule.matches(method, target))
            .map_or(&self.policy, |rule| &rule.policy)
    }
}

/// Every route there is, and what an upstream without a route gets.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The named ones.
    pub named: BTreeMap<String, Arc<Route>>,
    /// The shape of ad hoc ones: all but the name and the address.
    pub ad_hoc: Arc<Route>,
}

impl Routes {
    /// Whether any of them, or a flow of it, has a rate.
    pub(crate) fn have_rates(&self) -> bool {
        let mut protections = self.named.values().map(|route| &route.protection);
        protections.any(|it| it.rate.is_some() || it.flow.rate.is_some())
    }

    /// The route of this name: a configured one, or the ad hoc one to an origin.
    pub fn get(&self, name: &str) -> Option<Arc<Route>> {
        if !name.contains("://") {
            return self.named.get(name).cloned();
        }
        let base = Url::parse(name).ok()?;
        let target = Arc::new(Target { base, ..(*self.ad_hoc.target).clone() });
        Some(Arc::new(Route { name: name.to_owned(), target, ..(*self.ad_hoc).clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_by_segments() {
        for (pattern, path, matches) in [
            ("/orders/*", "/orders/1", true),
            ("/orders/*", "/orders/1/items", false),
            ("/orders/*", "/orders/", false),
            ("/orders/**", "/orders/1/items", true),
            ("/orders", "/orders", true),
            ("/orders", "/Orders", false),
            ("/*/items", "/1/items", true),
            ("/**", "/", true),
        ] {
            assert_eq!(is_like(pattern, path), matches, "{pattern} {path}");
        }
    }
}

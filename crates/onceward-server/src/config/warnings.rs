//! What a careful reader of a configuration would ask about.

use std::collections::BTreeMap;
use std::sync::Arc;

use onceward::core::backoff::span;
use onceward::core::policy::Effects;
use onceward::route::Route;
use onceward::upstream::{Chaos, Safe};
use url::Url;

use super::words::is_here;
use super::{Config, forecast, guard, section, tenants};
use crate::units::show;

impl Config {
    /// What a careful reader would ask about.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.readable_listener().into_iter().collect();
        warnings.extend(self.oidc.iter().filter_map(|oidc| oidc.warnings()));
        warnings.extend(self.sources.values().flat_map(|source| source.warnings()));
        for (name, route) in &self.routes {
            warnings.extend(self.guards.get(name).iter().flat_map(|it| guard::warnings(it)));
            let of_route = of_route(route);
            warnings.extend(of_route.map(|what| format!("[{}{what}", section(name))));
            if self.default_windows.contains(name) && forecast::is_like_payments(route) {
                warnings.push(forecast::warning(name));
            }
        }
        warnings.extend(of_spans(&self.routes));
        warnings.extend(tenants::warnings(self));
        warnings.extend(self.alerts.iter().flat_map(|alerts| alerts.warnings(&self.routes)));
        warnings.extend(self.outboxes.values().filter_map(|it| it.warnings(&self.routes)));
        warnings
    }

    /// What is said of a main listener that others reach and that speaks no TLS.
    pub(crate) fn readable_listener(&self) -> Option<String> {
        let is_safe = self.listen.ip().is_loopback() || self.tls.is_some() || self.behind_proxy;
        (!is_safe).then(|| {
            format!("listen = {:?} is beyond loopback and speaks no TLS, so access keys, bodies and sessions are readable on the way to it. Say [tls] cert_file and key_file, or behind_proxy = true where a proxy before it speaks TLS.", self.listen.to_string())
        })
    }
}

/// What a route is asked about, behind where it is said.
fn of_route(route: &Route) -> impl Iterator<Item = String> {
    let no_effects = route.policy.effects.is_none().then(|| {
        "] says nothing of its effects: a POST without an answer goes into doubt and is not sent again. Say effects = \"keyed\", \"idempotent\" or \"non-idempotent\".".to_owned()
    });
    let chaos = route.chaos.as_deref().map(of_chaos);
    let plain = is_readable(&route.target.base).then(|| {
        "] sends over http, so credentials and bodies are readable on the way.".to_owned()
    });
    let is_open = route.target.mail.as_ref().is_some_and(|it| it.safe == Safe::Not);
    let open = (is_open && !is_here(&route.target.base)).then(|| {
        "] sends mails in the clear, so they are readable on the way: say starttls = \"required\".".to_owned()
    });
    let is_told = route.auth.oauth2.as_ref().is_some_and(|it| is_readable(it.base()));
    let told = is_told.then(|| {
        "] asks for its tokens over http, so its client's secret is readable on the way.".to_owned()
    });
    let is_renewed = route.policy.key_headers.iter().any(|header| header == "x-request-id");
    let renewed = is_renewed.then(|| {
        "] takes X-Request-Id as the key: proxies renew it at each retry, and then nothing is deduped.".to_owned()
    });
    let timeout = route.target.timeouts.total;
    let mut policies = route.rules.iter().map(|rule| &rule.policy).chain([&route.policy]);
    let settles_early = policies.any(|it| it.lookup.as_ref().is_some_and(|it| it.settle < timeout));
    let early = settles_early.then(|| {
        format!("] settles within its timeout of {}: where a node is lost, an attempt may still be on its way when the upstream is asked, and then be sent twice.", show(timeout))
    });
    [no_effects, chaos, plain, open, told, renewed, early].into_iter().flatten()
}

/// Whether others can read what goes there.
fn is_readable(base: &Url) -> bool {
    base.scheme() == "http" && !is_here(base)
}

fn of_chaos(chaos: &Chaos) -> String {
    let faults = chaos.percentages();
    let faults: Vec<_> = faults
        .iter()
        .filter(|(_, percent)| *percent > 0)
        .map(|(fault, percent)| format!("{} {percent} %", fault.name()))
        .collect();
    let (faults, seed) = (faults.join(", "), chaos.seed);
    format!(".chaos] makes attempts fail on purpose: {faults} (seed {seed}).")
}

/// One line for all routes whose attempts outlast what their upstream remembers by as much.
fn of_spans(routes: &BTreeMap<String, Arc<Route>>) -> impl Iterator<Item = String> {
    let mut outlasted: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (name, route) in routes {
        let (window, span) = (route.policy.upstream_key.window, span(&route.policy.accepted));
        if route.policy.effects == Some(Effects::Keyed) && span > window.mul_f64(0.8) {
            outlasted.entry((span, window)).or_default().push(format!("[{}]", section(name)));
        }
    }
    outlasted.into_iter().map(|((span, window), names)| {
        let (names, retries, of) = match names.as_slice() {
            [one] => (one.clone(), "retries", "its upstream forgets"),
            many => (many.join(", "), "retry", "their upstreams forget"),
        };
        format!(
            "{names} {retries} for up to {}, but {of} keys after {}: attempts end at 0.8 of that, and what is then unanswered goes into doubt.",
            show(span),
            show(window)
        )
    })
}

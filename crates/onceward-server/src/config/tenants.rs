//! Tenants, as the file says it: `[tenants.NAME]` has their limits, and whatever fills one can send for it.

use onceward::core::exchange::is_credential;
use onceward::core::key::TENANT;
use onceward::core::policy::{Effects, UpstreamKeyValue};
use onceward::{OTHERS, TenantLimits, TenantRules};

use super::outbox::To;
use super::protection::rate;
use super::table::Table;
use super::words::tenant_name;
use super::{Config, ConfigError, section};

/// What each tenant may have.
pub(super) fn limits(file: &Table<'_>) -> Result<TenantRules, ConfigError> {
    let name = |text: &str| if text == OTHERS { Ok(text.to_owned()) } else { tenant_name(text) };
    let tables = file.named("tenants", name)?.into_iter();
    tables.map(|(name, table)| Ok((name, limits_of(&table)?))).collect()
}

fn limits_of(table: &Table<'_>) -> Result<TenantLimits, ConfigError> {
    let limits = TenantLimits {
        rate: rate("has a burst and no rate\nhelp: add rate = \"100/s\"", table)?,
        concurrency_max: table.read("concurrency_max")?,
        backlog_max: table.read("backlog_max")?,
        keys_max: table.read("keys_max")?,
        kept_bytes_max: table.size("kept_bytes_max")?.map(|size| size as u64),
    };
    table.done()?;
    Ok(limits)
}

/// What a careful reader would ask about: an upstream takes keys of tenants that share an account there
/// for one another's.
pub(super) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let is_other = |tenant: &str| tenant != TENANT;
    let has_tenants = config.tenants.keys().any(|name| is_other(name))
        || config.guards.values().any(|it| is_other(&it.tenant))
        || config.sources.values().any(|it| is_other(&it.tenant))
        || config.outboxes.values().any(|it| is_other(&it.tenant))
        || config.routes.values().any(|it| it.tenants.as_ref().is_some_and(|it| it.len() > 1));
    config.routes.values().filter(move |_| has_tenants).filter_map(|route| {
        let is_shared = route.tenants.as_ref().is_none_or(|tenants| tenants.len() > 1);
        let lends = route.auth.oauth2.is_some()
            || route.set_headers.0.iter().any(|(name, _)| is_credential(name, &[]));
        let mut policies = route.policies().filter(|it| it.effects == Some(Effects::Keyed));
        let passes = policies.any(|it| it.upstream_key.value == UpstreamKeyValue::Passthrough);
        (is_shared && lends && passes).then(|| {
            format!(
                "[{}] sends for several tenants with credentials of ours, and passes their keys on: its upstream takes equal ones for one another's. Say upstream_key.value = \"derived\", or give each tenant a route.",
                section(&route.name)
            )
        })
    })
}

/// A guard, a source or an outbox of a tenant's goes by routes that are there for it.
pub(super) fn check(config: &Config, file: &Table<'_>) -> Result<(), ConfigError> {
    let guards = config.guards.values().map(|guard| {
        let asked = guard.reauthorize.as_ref().and_then(|rule| rule.route.clone());
        let routes = [Some(guard.route.clone()), asked];
        (section(&guard.route), guard.tenant.as_str(), routes.into_iter().flatten().collect())
    });
    let sources = config.sources.values().map(|source| {
        let routes = source.route.iter().chain(source.resolve.as_ref().map(|it| &it.route));
        (section(&source.via()), source.tenant.as_str(), routes.cloned().collect::<Vec<_>>())
    });
    let outboxes = config.outboxes.values().map(|outbox| {
        let routes = match &outbox.to {
            To::Route(route, _) => vec![route.clone()],
            To::Rows(routes) => routes.clone(),
        };
        (section(&outbox.via()), outbox.tenant.as_str(), routes)
    });
    for (section, tenant, routes) in guards.chain(sources).chain(outboxes) {
        // What a source of the operator's says, it says of a route, whoever's its operations are.
        let goes = |name: &String| {
            config.routes.get(name).is_none_or(|route| route.is_for(tenant) || tenant == TENANT)
        };
        if let Some(route) = routes.iter().find(|route| !goes(route)) {
            return Err(ConfigError(format!(
                "{}: [{section}] is the tenant {tenant}'s, and [routes.{route}] is not there for it\nhelp: add {tenant:?} to its tenants",
                file.file()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::TenantLimits;

    use super::super::Config;

    #[test]
    fn a_tenant_says_what_it_may_have() {
        let text = "[tenants.acme]\nrate = \"100/s\"\nburst = 5\nconcurrency_max = 3\nbacklog_max = 7\n\
                    keys_max = 9\nkept_bytes_max = \"1KiB\"\n[tenants.\"*\"]\n";
        let tenants = Config::of_text(text).unwrap().tenants;
        let acme = &tenants["acme"];
        assert_eq!(acme.rate.unwrap().interval, Duration::from_millis(10));
        assert_eq!((acme.rate.unwrap().burst, acme.concurrency_max), (5, Some(3)));
        assert_eq!((acme.backlog_max, acme.keys_max), (Some(7), Some(9)));
        assert_eq!(acme.kept_bytes_max, Some(1024));
        assert_eq!(tenants["*"], TenantLimits::default());
    }

    #[test]
    fn what_cannot_be_a_tenant_is_refused_with_where_it_stands() {
        for (text, words) in [
            ("[tenants.\"a/b\"]\n", "no tenant"),
            ("[tenants.acme]\nburst = 2\n", "has a burst and no rate"),
            ("[tenants.acme]\nkeys = 2\n", "keys"),
            ("[routes.a]\nupstream = \"http://127.0.0.1:9\"\ntenants = []\n", "for no tenant"),
            ("[routes.a]\nupstream = \"http://127.0.0.1:9\"\ntenant = \"acme\"\n", "says tenant"),
        ] {
            let error = Config::of_text(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn tenants_that_share_an_account_are_asked_about_where_their_keys_are_passed_on() {
        let text = "[routes.pay]\nupstream = \"http://127.0.0.1:9\"\neffects = \"keyed\"\nauth.bearer = \"t\"\n";
        let asks = |more: &str| {
            let warnings = Config::of_text(&format!("{text}{more}")).unwrap().warnings();
            warnings.iter().any(|warning| warning.contains("several tenants"))
        };
        assert!(asks("[tenants.acme]\n"));
        assert!(!asks(""), "there is one");
        assert!(!asks("tenants = [\"acme\"]\n[tenants.acme]\n"), "it has it alone");
        assert!(!asks("upstream_key = { header = \"k\", value = \"derived\" }\n[tenants.acme]\n"));
    }
}

//! Tenants, as the file says it: `[tenants.NAME]` has their limits, and whatever fills one can send for it.

use onceward::core::key::TENANT;
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

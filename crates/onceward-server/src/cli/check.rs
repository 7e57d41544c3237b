//! `check`: the configuration, what it means, and what a careful reader would ask about; or the
//! whole of a ledger that no gateway has open.

use std::path::Path;

use clap::Args;
use onceward::core::claim::ClaimRule;
use onceward::store::sqlite::SqliteStore;
use serde_json::{Value, json};

use super::Global;
use super::output::{print, text};
use crate::config::{Config, Forecast, Guard, Overrides, Places, Setting};
use crate::exit::Exit;
use crate::tls::Tls;
use crate::units;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Take a configuration whose routes fail on purpose ([routes.NAME.chaos])
    #[arg(long)]
    allow_chaos: bool,
    /// Read the whole ledger instead, while no gateway runs on it, and tell what does not hold
    #[arg(long)]
    ledger: bool,
    /// Ask the running gateway instead whether it takes calls (GET /readyz); exit code 1 if not
    #[arg(long = "ready", conflicts_with_all = ["ledger", "allow_chaos"])]
    pub(super) is_ready: bool,
}

pub(super) fn check(flags: &Check, global: &Global) -> Result<(), Exit> {
    if flags.ledger { check_ledger(global) } else { check_config(flags, global) }
}

fn check_ledger(global: &Global) -> Result<(), Exit> {
    let places = Places::load(global.config.as_deref())?;
    let ledger = places.store.file()?;
    if !ledger.exists() {
        return Err(Exit::not_found(format!("there is no ledger {}", ledger.display())));
    }
    let examined = SqliteStore::examine(ledger).map_err(|error| {
        Exit::failed(format!("{error}\nhelp: stop the gateway before its ledger is checked"))
    })?;
    if global.json {
        let document = json!({
            "ledger": ledger,
            "operations": examined.operations,
            "frames": examined.frames,
            "bodies": examined.bodies,
            "faults": examined.faults,
        });
        print(&document.to_string())?;
    } else {
        print(&format!("{}: {examined}", ledger.display()))?;
    }
    if examined.faults.is_empty() {
        return Ok(());
    }
    Err(Exit::violation(format!(
        "{} faults in the ledger\nhelp: keep its folder, and put a backup in its place: onceward restore FOLDER",
        examined.faults.len()
    )))
}

fn check_config(flags: &Check, global: &Global) -> Result<(), Exit> {
    let overrides = Overrides { allow_chaos: flags.allow_chaos, ..Overrides::default() };
    let config = Config::load(global.config.as_deref(), &overrides)?;
    let (table, mut warnings) = (config.inferred(), config.warnings());
    warnings.extend(unreadable(&config));
    let guards: Vec<_> = config.guards.values().map(|guard| shown(guard)).collect();
    let forecasts = config.forecasts();
    if global.json {
        print(&serde_json::json!({"file": config.file, "listen": config.listen, "guards": guards, "effects": table, "settings": config.settings, "sources": described_sources(&config), "outboxes": described_outboxes(&config), "claims": described_claims(&config), "disk": forecasts, "warnings": warnings}).to_string())?;
    } else {
        let file = config.file.as_deref().map_or_else(
            || "no file: defaults".to_owned(),
            |file: &Path| file.display().to_string(),
        );
        print(&format!("configuration  {file}\nlisten         {}", config.listen))?;
        for guard in config.guards.values() {
            let places = guard.listen.iter().map(ToString::to_string).chain(guard.hosts.clone());
            let places = places.collect::<Vec<_>>().join(", ");
            let tls = if guard.tls.is_some() { " (TLS)" } else { "" };
            print(&format!("guard          {} at {places}{tls}", guard.route))?;
        }
        print(&format!("ledger         {}\n", config.store))?;
        let wide = table.iter().map(|row| row.r#match.len()).max().unwrap_or(0).max(24);
        print(&format!(
            "{:<16} {:<wide$} {:<16} {:<10} after no answer",
            "ROUTE", "MATCH", "EFFECTS", "SAID"
        ))?;
        for row in &table {
            let said = if row.said { "yes" } else { "inferred" };
            print(&format!(
                "{:<16} {:<wide$} {:<16} {said:<10} {}",
                row.route, row.r#match, row.effects, row.after_no_answer
            ))?;
        }
        if !forecasts.is_empty() {
            print("\nDisk at 1,000 calls a day of 2 KiB, about:")?;
        }
        for Forecast { route, bodies, keys, bytes } in &forecasts {
            let mib = bytes.div_ceil(1 << 20);
            print(&format!("{route:<16} {mib:>6} MiB  bodies for {bodies}, keys for {keys}"))?;
        }
        print_settings(&config.settings)?;
        print_sources(&described_sources(&config))?;
        print_outboxes(&config)?;
        print_claims(&config)?;
        for warning in &warnings {
            print(&format!("\nwarning: {warning}"))?;
        }
    }
    if config.strict && !warnings.is_empty() {
        return Err(Exit::violation("strict = true, and there are warnings"));
    }
    Ok(())
}

fn described_sources(config: &Config) -> Vec<Value> {
    config.sources.values().map(|source| source.described()).collect()
}

fn described_outboxes(config: &Config) -> Vec<Value> {
    config.outboxes.values().map(|outbox| outbox.described()).collect()
}

/// What the file says of claims, scope by scope.
fn described_claims(config: &Config) -> Vec<Value> {
    let described = |(scope, rule): (&String, &ClaimRule)| {
        json!({
            "scope": scope,
            "effects": rule.effects.name(),
            "lease": units::show(rule.lease),
            "lease_max": units::show(rule.lease_max),
            "window": units::show(rule.window),
            "fingerprint_required": rule.fingerprint_required,
        })
    };
    config.claims.iter().map(described).collect()
}

fn print_claims(config: &Config) -> Result<(), Exit> {
    let claims = described_claims(config);
    if claims.is_empty() {
        return Ok(());
    }
    print(&format!("\n{:<24} {:<16} {:<8} {:<8} WINDOW", "CLAIMS", "EFFECTS", "LEASE", "MOST"))?;
    for scope in &claims {
        print(&format!(
            "{:<24} {:<16} {:<8} {:<8} {}",
            text(scope, "/scope"),
            text(scope, "/effects"),
            text(scope, "/lease"),
            text(scope, "/lease_max"),
            text(scope, "/window"),
        ))?;
    }
    Ok(())
}

/// A guard, for programs.
fn shown(guard: &Guard) -> Value {
    json!({
        "route": guard.route,
        "listen": guard.listen,
        "host": guard.hosts,
        "tls": guard.tls.is_some(),
        "reauthorize": guard.reauthorize.as_ref().map(|it| &it.get),
        "options": guard.options,
    })
}

/// Certificates that a guard could not speak TLS with.
fn unreadable(config: &Config) -> Vec<String> {
    let why = |guard: &Guard| {
        let why = Tls::load(guard.tls.as_ref()?).err()?;
        Some(format!("[routes.{}] could not speak TLS now: {why}.", guard.route))
    };
    config.guards.values().filter_map(|guard| why(guard)).collect()
}

/// Where webhooks come in.
fn print_sources(sources: &[Value]) -> Result<(), Exit> {
    if sources.is_empty() {
        return Ok(());
    }
    print(&format!("\n{:<16} {:<24} {:<18} {:<8} GOES TO", "SOURCE", "PATH", "SCHEME", "SECRETS"))?;
    for source in sources {
        let of = |name: &str| source[name].as_str().unwrap_or("-");
        let goes_to = format!("{} {}", of("route"), source["target"].as_str().unwrap_or_default());
        print(&format!(
            "{:<16} {:<24} {:<18} {:<8} {}",
            of("name"),
            of("path"),
            of("scheme"),
            source["secrets"].to_string(),
            goes_to.trim_end()
        ))?;
    }
    Ok(())
}

/// Which tables are relayed, and where their rows go.
fn print_outboxes(config: &Config) -> Result<(), Exit> {
    let outboxes = described_outboxes(config);
    if outboxes.is_empty() {
        return Ok(());
    }
    print(&format!("\n{:<16} {:<24} {:<24} {:<8} GO TO", "OUTBOX", "TABLE", "SCOPE", "THEN"))?;
    for outbox in &outboxes {
        print(&format!(
            "{:<16} {:<24} {:<24} {:<8} {}",
            text(outbox, "/name"),
            text(outbox, "/table"),
            text(outbox, "/scope"),
            text(outbox, "/after"),
            text(outbox, "/to"),
        ))?;
    }
    Ok(())
}

/// What is said of each route, and who says so: a profile, the route or its rule.
fn print_settings(settings: &[Setting]) -> Result<(), Exit> {
    if settings.is_empty() {
        return Ok(());
    }
    let matched = |setting: &Setting| setting.r#match.clone().unwrap_or_else(|| "/**".to_owned());
    let wide = settings.iter().map(|setting| matched(setting).len()).max().unwrap_or(0).max(24);
    print(&format!("\n{:<16} {:<wide$} {:<24} {:<24} VALUE", "ROUTE", "MATCH", "KEY", "FROM"))?;
    for setting in settings {
        print(&format!(
            "{:<16} {:<wide$} {:<24} {:<24} {}",
            setting.route,
            matched(setting),
            setting.key,
            setting.from,
            setting.value
        ))?;
    }
    Ok(())
}

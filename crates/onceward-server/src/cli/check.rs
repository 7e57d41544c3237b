//! `check`: the configuration, what it means and what a careful reader would ask about; what it finds on this machine;
//! with a flag, whom it reaches. Or the whole of a ledger that no gateway has open.
//!
//! Without a flag nothing leaves this machine, and what is looked at is there at once: so it can stand before every
//! start. What is amiss on the machine fails it; what only this user may not see does not.

mod finding;
mod ledger;
mod machine;
mod upstreams;

use std::path::Path;

use clap::Args;
use onceward::store::sqlite::SqliteStore;
use serde_json::{Value, json};

use self::finding::{Findings, Page};
use super::Global;
use super::output::{is_terminal, print, text};
use crate::config::{Config, Forecast, Guard, Overrides, Places, Setting, claims};
use crate::exit::Exit;
use crate::tls::{Tls, TlsFiles};

/// Where webhooks come in.
const SOURCES: [(&str, usize, &str); 6] = [
    ("SOURCE", 16, "/name"),
    ("PATH", 24, "/path"),
    ("SCHEME", 18, "/scheme"),
    ("SECRETS", 8, "/secrets"),
    ("ROUTE", 16, "/route"),
    ("GOES TO", 0, "/target"),
];

/// Which tables are relayed, and where their rows go.
const OUTBOXES: [(&str, usize, &str); 5] = [
    ("OUTBOX", 16, "/name"),
    ("TABLE", 24, "/table"),
    ("SCOPE", 24, "/scope"),
    ("THEN", 8, "/after"),
    ("GO TO", 0, "/to"),
];

/// Who is told of alerts.
const RECEIVERS: [(&str, usize, &str); 6] = [
    ("ALERTS TO", 16, "/name"),
    ("BY", 8, "/way"),
    ("AGAIN", 8, "/repeat"),
    ("GROUPED", 8, "/group"),
    ("WHERE", 32, "/to"),
    ("OF", 0, "/alerts"),
];

/// What holds for claims, scope by scope.
const CLAIMS: [(&str, usize, &str); 5] = [
    ("CLAIMS", 24, "/scope"),
    ("EFFECTS", 16, "/effects"),
    ("LEASE", 8, "/lease"),
    ("MOST", 8, "/lease_max"),
    ("WINDOW", 0, "/window"),
];

/// What is said where there is no file.
const UNSEALED: &str = "without a file requests and answers lie in the ledger as they came, credentials apart. Say seal_bodies = true.";

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Take a configuration whose routes fail on purpose ([routes.NAME.chaos])
    #[arg(long)]
    allow_chaos: bool,
    /// Look also whom it reaches: upstreams by their names and TLS, PostgreSQL; nothing is sent to them
    #[arg(long)]
    connect: bool,
    /// Look at the file alone, such as where it is written and not where it runs
    #[arg(long, conflicts_with = "connect")]
    file_only: bool,
    /// Read the whole ledger instead, while no gateway runs on it, and tell what does not hold
    #[arg(long, conflicts_with_all = ["connect", "file_only"])]
    ledger: bool,
    /// Ask the running gateway instead whether it takes calls (GET /readyz); exit code 1 if not
    #[arg(long = "ready", conflicts_with_all = ["ledger", "allow_chaos", "connect", "file_only"])]
    pub(super) is_ready: bool,
}

pub(super) async fn check(flags: &Check, global: &Global) -> Result<(), Exit> {
    if flags.ledger { check_ledger(global) } else { check_all(flags, global).await }
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

async fn check_all(flags: &Check, global: &Global) -> Result<(), Exit> {
    let overrides = Overrides { allow_chaos: flags.allow_chaos, ..Overrides::default() };
    let config = Config::load(global.config.as_deref(), &overrides)?;
    let mut warnings = config.warnings();
    warnings.extend(unreadable(&config));
    if config.file.is_none() && !config.seal_bodies {
        warnings.push(UNSEALED.to_owned());
    }
    let found = look(flags, global, &config, &warnings).await?;
    tell(global, &config, &warnings, &found)?;
    if config.strict && !warnings.is_empty() {
        return Err(Exit::violation("strict = true, and there are warnings"));
    }
    match found.failures() {
        0 => Ok(()),
        1 => Err(Exit::violation("one of these fails")),
        some => Err(Exit::violation(format!("{some} of these fail"))),
    }
}

/// Everything that is looked at, in the order in which a start would meet it.
async fn look(
    flags: &Check,
    global: &Global,
    config: &Config,
    warnings: &[String],
) -> Result<Findings, Exit> {
    let mut found = Findings::default();
    found.begin("configuration");
    found.ok(match &config.file {
        Some(file) => format!("{} is read: {} routes", file.display(), config.routes.len()),
        None => "there is no file: defaults hold".to_owned(),
    });
    for warning in warnings {
        found.warn(warning, None, Page::Configuration);
    }
    if flags.file_only {
        return Ok(found);
    }
    machine::machine(config, &mut found);
    ledger::ledger(config, flags.connect, &mut found).await;
    ledger::keys(config, &mut found);
    machine::listeners(config, global, &mut found).await;
    if flags.connect {
        upstreams::upstreams(config, &mut found).await?;
    }
    Ok(found)
}

/// What the configuration means, and what was found.
fn tell(
    global: &Global,
    config: &Config,
    warnings: &[String],
    found: &Findings,
) -> Result<(), Exit> {
    let table = config.inferred();
    let guards: Vec<_> = config.guards.values().map(|guard| shown(guard)).collect();
    let sources: Vec<_> = config.sources.values().map(|source| source.described()).collect();
    let outboxes: Vec<_> = config.outboxes.values().map(|outbox| outbox.described()).collect();
    let claims = config.claims.iter().map(|(scope, rule)| claims::described(scope, rule));
    let claims: Vec<_> = claims.collect();
    let receivers: Vec<_> = config.alerts.iter().flat_map(|alerts| alerts.described()).collect();
    let forecasts = config.forecasts();
    if global.json {
        return print(&serde_json::json!({"file": config.file, "listen": config.listen, "tls": config.tls.is_some(), "behind_proxy": config.behind_proxy, "oidc": config.oidc.as_ref().map(|oidc| oidc.described()), "guards": guards, "effects": table, "settings": config.settings, "sources": sources, "outboxes": outboxes, "claims": claims, "alerts": receivers, "disk": forecasts, "seal_bodies": config.seal_bodies, "warnings": warnings, "checks": found}).to_string());
    }
    let file = config
        .file
        .as_deref()
        .map_or_else(|| "no file: defaults".to_owned(), |file: &Path| file.display().to_string());
    let tls = if config.tls.is_some() { " (TLS)" } else { "" };
    print(&format!("configuration  {file}\nlisten         {}{tls}", config.listen))?;
    for guard in config.guards.values() {
        let places = guard.listen.iter().map(ToString::to_string).chain(guard.hosts.clone());
        let places = places.collect::<Vec<_>>().join(", ");
        let tls = if guard.tls.is_some() { " (TLS)" } else { "" };
        print(&format!("guard          {} at {places}{tls}", guard.route))?;
    }
    if let Some(oidc) = &config.oidc {
        print(&format!("login          {}", oidc.issuer))?;
    }
    print(&format!("ledger         {}", config.store))?;
    let sealed = if config.seal_bodies { "requests and answers" } else { "credentials alone" };
    print(&format!("sealed         {sealed}\n"))?;
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
    print_rows(&sources, &SOURCES)?;
    print_rows(&outboxes, &OUTBOXES)?;
    print_rows(&claims, &CLAIMS)?;
    print_rows(&receivers, &RECEIVERS)?;
    found.print(is_terminal())
}

/// What was described, a row each; of a column its name, its width and the member that it shows.
fn print_rows(rows: &[Value], columns: &[(&str, usize, &str)]) -> Result<(), Exit> {
    let line = |cell: &dyn Fn(&str, &str) -> String| {
        let cells = columns.iter().map(|(name, wide, member)| {
            let cell = cell(name, member);
            format!("{cell:<wide$} ")
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    if !rows.is_empty() {
        print(&format!("\n{}", line(&|name, _| name.to_owned())))?;
    }
    rows.iter().try_for_each(|row| print(&line(&|_, member| text(row, member))))
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

/// Certificates that a listener could not speak TLS with.
fn unreadable(config: &Config) -> Vec<String> {
    let why = |section: String, files: Option<&TlsFiles>| {
        let why = Tls::load(files?).err()?;
        Some(format!("[{section}] could not speak TLS now: {why}."))
    };
    let guards = config.guards.values();
    let guards = guards.map(|guard| (format!("routes.{}", guard.route), guard.tls.as_ref()));
    let main = ("tls".to_owned(), config.tls.as_ref());
    guards.chain([main]).filter_map(|(section, files)| why(section, files)).collect()
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

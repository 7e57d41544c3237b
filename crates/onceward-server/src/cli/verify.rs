//! `verify`: a contract test of an API that claims idempotency, from outside.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use onceward::core::exchange::{Headers, is_credential};
use onceward::upstream::DoorOptions;
use serde_json::{Value, json};
use url::{Host, Url};

use super::Global;
use super::output::{clean, is_terminal, print, print_bytes, say};
use crate::config::Places;
use crate::exit::Exit;
use crate::units;
use crate::verify::ask::{Api, Ask, Key, MARKER, Run};
use crate::verify::caller::Caller;
use crate::verify::case::{Act, Case, Choices, cases};
use crate::verify::control::{Blind, Control, control};
use crate::verify::curl::INVENTED;
use crate::verify::heard::{Observed, Reply};
use crate::verify::junit::junit;
use crate::verify::oracle::Probe;
use crate::verify::profile::{Level, PROFILES, Profile};
use crate::verify::report::{Chosen, Report, Tally};
use crate::verify::run::{Runner, run};
use crate::verify::table::{Style, plan, rows, table};

/// A key has to hold still for at least this long: memory of a moment is no window.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// An API, and how to ask it.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The URL that has an effect; {marker} in it, or in the body, tells one case from another
    #[arg(value_name = "URL")]
    api: String,
    /// The method
    #[arg(short, long, default_value = "POST", value_name = "METHOD")]
    method: String,
    /// The body; JSON is sent as application/json unless a header says otherwise
    #[arg(long, value_name = "TEXT", default_value = "{\"ref\": \"{marker}\"}")]
    body: String,
    /// A header of every request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'")]
    headers: Vec<String>,
    /// What another caller sends in place of it, such as a second credential; may be given several times
    #[arg(long = "other-header", value_name = "'NAME: VALUE'")]
    other_headers: Vec<String>,
    /// The API does not tell callers apart
    #[arg(long)]
    one_caller: bool,
    /// Asks how many effects there are, such as 'GET /orders?ref={marker}'; without it, what was
    /// made is known by its id
    #[arg(long, value_name = "'METHOD URL'")]
    count: Option<String>,
    /// The contract: onceward, ietf, stripe or dedupe-only; without it the first that fits
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The header that carries the key
    #[arg(long, default_value = "Idempotency-Key", value_name = "NAME")]
    key_header: String,
    /// A request that is known to fail, as another path or another body; may be given several times
    #[arg(long, value_name = "PATH|BODY")]
    failing: Vec<String>,
    /// How long a key is left alone before it is used again; 2s at least
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = pause)]
    pause: Duration,
    /// How long the API says it remembers a key; without it no key is seen to expire
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    window: Option<Duration>,
    /// How long an answer may take
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = units::duration)]
    timeout: Duration,
    /// Run this case alone; may be given several times
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Show what would be sent; nothing is
    #[arg(long)]
    plan: bool,
    /// Write the findings as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The API is not on this machine, and you may have effects there
    #[arg(long)]
    i_own_this: bool,
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = units::duration(text)?;
    if pause < PAUSE_MIN { Err("a pause is at least 2s".to_owned()) } else { Ok(pause) }
}

/// Asks, judges, and says how it came out: a must that is broken ends with exit code 5.
pub(super) async fn verify(flags: &Verify, global: &Global) -> Result<(), Exit> {
    let Asked { mut api, probe, mut choices, profile, invented } = flags.read()?;
    if flags.plan {
        return show_plan(&api, probe.as_ref(), &flags.chosen(&api, &choices)?, global.json);
    }
    let ca_file = Places::load(global.config.as_deref())?.ca_file;
    let options = DoorOptions { ca_file, ..DoorOptions::default() };
    let caller =
        Caller::new(flags.timeout, &options).map_err(|error| Exit::config(error.to_string()))?;
    let mut found = control(&mut api, probe.as_ref(), &caller).await;
    if invented
        && matches!(&found, Err(Blind::Refused(Reply::Answer(answer))) if matches!(answer.status, 401 | 403))
    {
        // Some let anybody in, but nobody with a credential that they do not know.
        api.headers.remove("authorization");
        choices.no_other_caller = Some(
            "invented credentials are refused: give two, --header and --other-header 'Authorization: …'",
        );
        found = control(&mut api, probe.as_ref(), &caller).await;
    }
    let control = found.map_err(|blind| refuse(&blind, &api, global.json))?;
    let cases = flags.chosen(&api, &choices)?;
    let report = observe(api, caller, control, cases, profile).await?;
    if let Some(file) = &flags.junit {
        let written = std::fs::write(file, junit(&report));
        written.map_err(|error| Exit::failed(format!("{}: {error}", file.display())))?;
    }
    tell(&report, global.json)
}

/// What the flags ask for.
struct Asked {
    api: Api,
    probe: Option<Probe>,
    choices: Choices,
    profile: Option<&'static Profile>,
    /// Whether the credentials are of our own making.
    invented: bool,
}

impl Verify {
    fn read(&self) -> Result<Asked, Exit> {
        let url = absolute(&self.api.replace(MARKER, "marker"))?;
        self.allow(&url)?;
        let run = Run::new();
        let (mut headers, mut other) =
            (read_headers(&self.headers)?, read_headers(&self.other_headers)?);
        if serde_json::from_str::<Value>(&self.body).is_ok()
            && headers.get("content-type").is_none()
        {
            headers.set("content-type", "application/json");
        }
        let has_credential = headers.0.iter().any(|(name, _)| is_credential(name, &[]));
        let invented = !has_credential && other.0.is_empty() && !self.one_caller;
        let mut api = Api {
            url: self.api.clone(),
            method: self.method.clone(),
            body: self.body.clone(),
            headers: Headers::default(),
            other: Headers::default(),
            key_header: self.key_header.to_ascii_lowercase(),
            quoted: false,
            failing: self.failing.clone(),
            run,
        };
        if invented {
            headers.set("authorization", api.named(&format!("{INVENTED}first")));
            other.set("authorization", api.named(&format!("{INVENTED}other")));
        }
        let no_other_caller = if self.one_caller {
            Some("--one-caller")
        } else if other.0.is_empty() {
            Some("there is one credential: give a second, --other-header 'Authorization: …'")
        } else {
            None
        };
        (api.headers, api.other) = (headers, other);
        let probe = match &self.count {
            Some(text) => {
                let probe = Probe::parse(text, &url, &api.headers)
                    .map_err(|why| Exit::usage(format!("--count {why}")))?;
                self.allow(&probe.wire("").map_err(|error| Exit::usage(error.to_string()))?.url)?;
                Some(probe)
            }
            None => None,
        };
        // What cannot be written is said before anything is sent.
        let whole = api.wire(&Ask::with(Key::Made(0)), 0);
        whole.map_err(|error| Exit::usage(error.to_string()))?;
        let profile = self.profile.as_deref().map(named).transpose()?;
        let choices = Choices { pause: self.pause, window: self.window, no_other_caller };
        Ok(Asked { api, probe, choices, profile, invented })
    }

    /// Effects elsewhere need a word from whoever has them.
    fn allow(&self, url: &Url) -> Result<(), Exit> {
        if self.i_own_this || is_here(url) {
            return Ok(());
        }
        Err(Exit::usage(format!(
            "{} is not on this machine, and every case has effects there\nhelp: look at --plan, and say --i-own-this if you may",
            url.host_str().unwrap_or_default()
        )))
    }

    /// The cases that are to be run.
    fn chosen(&self, api: &Api, choices: &Choices) -> Result<Vec<Case>, Exit> {
        let all = cases(api, choices);
        let names: HashSet<String> = all.iter().map(|case| case.kind.name()).collect();
        if let Some(unknown) = self.only.iter().find(|name| !names.contains(*name)) {
            return Err(Exit::usage(format!(
                "there is no case {unknown:?}\nhelp: --plan lists them"
            )));
        }
        let is_chosen = |case: &Case| {
            self.only.is_empty() || case.no == 0 || self.only.contains(&case.kind.name())
        };
        Ok(all.into_iter().filter(is_chosen).collect())
    }
}

fn absolute(text: &str) -> Result<Url, Exit> {
    let url =
        Url::parse(text).map_err(|error| Exit::usage(format!("{text:?} is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Exit::usage(format!("{text:?} is neither http nor https")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Exit::usage(
            "the URL has a user or a password in it\nhelp: --header 'Authorization: …'",
        ));
    }
    Ok(url)
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn named(name: &str) -> Result<&'static Profile, Exit> {
    Profile::named(name).ok_or_else(|| {
        let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
        Exit::usage(format!("there is no profile {name:?}\nhelp: {}", names.join(", ")))
    })
}

fn read_headers(lines: &[String]) -> Result<Headers, Exit> {
    let mut headers = Headers::default();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| Exit::usage(format!("--header {line:?}: write 'Name: value'")))?;
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim().to_owned();
        let fits = http::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && http::HeaderValue::from_str(&value).is_ok();
        if !fits {
            return Err(Exit::usage(format!("--header {name}: it cannot be sent as it is")));
        }
        headers.0.push((name, value.into()));
    }
    Ok(headers)
}

async fn observe(
    api: Api,
    caller: Caller,
    control: Control,
    cases: Vec<Case>,
    profile: Option<&'static Profile>,
) -> Result<Report, Exit> {
    let runner = Arc::new(Runner { api, caller, control });
    let progress = std::io::stderr().is_terminal();
    let (mut ended, all) = (0, cases.iter().filter(|case| case.skipped.is_none()).count() - 1);
    let seen = run(&runner, &cases, || {
        ended += 1;
        if progress {
            eprint!("\r{ended} of {all} cases");
        }
    })
    .await;
    if progress {
        // Over what was written before.
        eprint!("\r{:24}\r", "");
    }
    let mut seen: Vec<Observed> = seen.map_err(|why| {
        Exit::failed(format!("nothing is judged, as a count is missing: {}", clean(&why)))
    })?;
    if let Some(first) = seen.first_mut() {
        first.clone_from(&runner.control.observed);
    }
    let seen = cases.into_iter().zip(seen).collect();
    Ok(Report::new(runner.api.clone(), &runner.control, seen, profile))
}

fn tell(report: &Report, json: bool) -> Result<(), Exit> {
    let terminal = is_terminal();
    if json {
        print(&report.document().to_string())?;
    } else if terminal {
        print_bytes(table(report, style()).as_bytes())?;
    } else {
        print_bytes(rows(report).as_bytes())?;
    }
    if !json {
        say(&format!("\n{}", summary(report)));
        for judged in &report.cases {
            if report.worst(judged) == Some(Level::Must) {
                say(&format!("\n{} by hand:", judged.case.kind.name()));
                report.curl(judged).iter().for_each(|line| say(&format!("  {line}")));
            }
        }
    }
    if !report.is_judged() {
        return Err(Exit::failed("no MUST could be judged; the reasons stand with each case"));
    }
    if !report.is_violated() {
        return Ok(());
    }
    let Tally { broken, .. } = report.tally(Level::Must);
    Err(Exit::violation(format!(
        "the contract {:?} is broken in {broken} MUST{}",
        report.profile.name,
        if broken == 1 { "" } else { "s" }
    )))
}

fn summary(report: &Report) -> String {
    let profile = report.profile;
    let why = match report.chosen {
        Chosen::Given => "as you asked",
        Chosen::Fits => "the first that fits",
        Chosen::Nearest => "none fits, this is the nearest",
    };
    let mut summary = format!(
        "profile  {}: {} ({why})\ncounted  by {}\n",
        profile.name, profile.about, report.oracle
    );
    for level in [Level::Must, Level::Should] {
        let Tally { held, broken, unknown } = report.tally(level);
        let name = level.name();
        // Writing into a string does not fail.
        let _ = writeln!(summary, "{name:<8} {held} held, {broken} broken, {unknown} not judged");
    }
    let fits = if report.fits.is_empty() { "none".to_owned() } else { report.fits.join(", ") };
    summary.push_str("fits     ");
    summary.push_str(&fits);
    summary
}

fn style() -> Style {
    let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    // https://no-color.org
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Style { width, colour: colour && is_terminal() }
}

/// Why nothing could be judged, as an exit.
fn refuse(blind: &Blind, api: &Api, json: bool) -> Exit {
    let asked = format!("{} {}", api.method, api.url);
    let (reason, message) = match blind {
        Blind::Refused(reply) => {
            let help = match reply.answer().map(|answer| answer.status) {
                None => {
                    "start it; a certificate of your own stands in the configuration's tls.ca_file"
                }
                Some(401 | 403) => "give a credential: --header 'Authorization: …'",
                Some(_) => "give a request that succeeds: --method, --body, --header",
            };
            let brought = clean(&reply.words());
            (
                "refused",
                format!("{asked} brought {brought}: nothing can be judged of it\nhelp: {help}"),
            )
        }
        Blind::KeyRefused(reply) => (
            "refused",
            format!(
                "{asked} is taken without a key; with one in {} it brought {}: nothing can be judged of it\nhelp: --key-header names another header",
                api.key_header,
                clean(&reply.words())
            ),
        ),
        Blind::NotSeen { counted: Some((first, second)), .. } => (
            "blind",
            format!(
                "the oracle is blind: two requests that nothing dedupes were counted as {first} and {second}\nhelp: --count has to name a request whose number grows with each effect"
            ),
        ),
        Blind::NotSeen { counted: None, heard } => (
            "blind",
            format!(
                "the oracle is blind: two requests that nothing dedupes have the same answer ({heard})\nhelp: count effects with --count 'GET /orders?ref={MARKER}'"
            ),
        ),
        Blind::Probe(why) => (
            "probe",
            format!(
                "effects cannot be counted: {}\nhelp: --count names a request that answers 200",
                clean(why)
            ),
        ),
    };
    if json {
        let document = json!({"url": api.url, "method": api.method, "verdict": reason, "why": message.lines().next()});
        // Where nobody reads it, the exit code still tells.
        let _ = print(&document.to_string());
    }
    match blind {
        Blind::Refused(Reply::Answer(answer)) if matches!(answer.status, 401 | 403) => {
            Exit::access(message)
        }
        _ => Exit::failed(message),
    }
}

fn show_plan(api: &Api, probe: Option<&Probe>, cases: &[Case], json: bool) -> Result<(), Exit> {
    let calls = |case: &Case| {
        if case.skipped.is_some() {
            0
        } else {
            case.script.iter().map(|act| act.asks().len()).sum()
        }
    };
    let total: usize = cases.iter().map(calls).sum();
    let counted = probe.map_or_else(|| "what the answers name".to_owned(), Probe::words);
    if json {
        let shown = |case: &Case| json!({"case": case.kind.name(), "title": case.kind.title(), "calls": calls(case), "steps": case.script.iter().map(Act::words).collect::<Vec<_>>(), "not_run": case.skipped});
        let document = json!({"url": api.url, "method": api.method, "counted_by": counted, "calls": total, "cases": cases.iter().map(shown).collect::<Vec<_>>()});
        return print(&document.to_string());
    }
    print_bytes(plan(cases, is_terminal(), style()).as_bytes())?;
    say(&format!(
        "\nA and B are two payloads of {} {}; keys go in {}. Effects are counted by {}.\nAbout {total} requests, each of which may have an effect. Nothing was sent.",
        api.method, api.url, api.key_header, counted
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for (url, here) in [
            ("http://127.0.0.1:1/x", true),
            ("http://127.8.0.1/x", true),
            ("http://localhost/x", true),
            ("http://[::1]:7/x", true),
            ("http://0x7f.1/x", true),
            ("http://10.0.0.1/x", false),
            ("http://0.0.0.0/x", false),
            ("https://api.example.com/x", false),
            ("http://localhost.example.com/x", false),
            ("http://127.0.0.1.example.com/x", false),
        ] {
            assert_eq!(is_here(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}

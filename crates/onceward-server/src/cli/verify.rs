//! `verify`: a contract test of an API that claims idempotency, from outside.

mod tell;

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use onceward::core::exchange::{Headers, is_credential};
use onceward::upstream::DoorOptions;
use serde_json::Value;
use url::{Host, Url};

use self::tell::{refuse, show_plan, tell};
use super::Global;
use super::output::clean;
use crate::config::Places;
use crate::exit::Exit;
use crate::units;
use crate::verify::ask::{Api, Ask, Key, MARKER, Place, Run};
use crate::verify::caller::Caller;
use crate::verify::case::{Case, Choices, cases};
use crate::verify::control::{Blind, Control, control};
use crate::verify::curl::INVENTED;
use crate::verify::heard::{Observed, Reply};
use crate::verify::junit::junit;
use crate::verify::oracle::Probe;
use crate::verify::profile::{PROFILES, Profile};
use crate::verify::report::Report;
use crate::verify::run::{Runner, run};

/// A key has to hold still for at least this long: memory of a moment is no window.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// Each is a case of its own.
const FAILING_MAX: usize = 50;

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
    let Asked { mut api, mut probe, mut choices, profile, invented } = flags.read()?;
    if flags.plan {
        return show_plan(&api, probe.as_ref(), &flags.chosen(&api, &choices)?, global.json);
    }
    let ca_file = global.ca_file.clone();
    let ca_file = ca_file.map_or_else(
        || Ok(Places::load(global.config.as_deref())?.ca_file),
        |it| Ok::<_, Exit>(Some(it)),
    )?;
    let options = DoorOptions { ca_file, ..DoorOptions::default() };
    let caller =
        Caller::new(flags.timeout, &options).map_err(|error| Exit::config(error.to_string()))?;
    let mut found = control(&mut api, probe.as_ref(), &caller).await;
    if invented
        && matches!(&found, Err(Blind::Refused(Reply::Answer(answer))) if matches!(answer.status, 401 | 403))
    {
        // Some let anybody in, but nobody with a credential that they do not know.
        api.headers.remove("authorization");
        if let Some(probe) = &mut probe {
            probe.without("authorization");
        }
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
        if self.failing.len() > FAILING_MAX {
            return Err(Exit::usage(format!("--failing may be given {FAILING_MAX} times")));
        }
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
        let asks = (0..api.failing.len()).map(|n| Ask::with(Key::Made(0)).place(Place::Failing(n)));
        for ask in asks.chain([Ask::with(Key::Made(0))]) {
            let wire = api.wire(&ask, 0).map_err(|error| Exit::usage(error.to_string()))?;
            if wire.url.origin() != url.origin() {
                return Err(Exit::usage(format!(
                    "{} is another place than {}\nhelp: --failing names a path or a body of the same API",
                    wire.url, self.api
                )));
            }
        }
        let profile = self.profile.as_deref().map(named).transpose()?;
        let choices = Choices { pause: self.pause, window: self.window, no_other_caller };
        Ok(Asked { api, probe, choices, profile, invented })
    }

    /// Effects elsewhere need a word from whoever has them; a plan has none.
    fn allow(&self, url: &Url) -> Result<(), Exit> {
        if self.i_own_this || self.plan || is_here(url) {
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
    let (mut ended, all) = (0, cases.iter().filter(|case| case.skipped.is_none()).count() - 1);
    let seen = run(&runner, &cases, || {
        ended += 1;
        show_progress(&format!("{ended} of {all} cases"));
    })
    .await;
    // Over what was written before.
    show_progress(&format!("{:24}\r", ""));
    let mut seen: Vec<Observed> = seen.map_err(|why| {
        Exit::failed(format!("nothing is judged, as a count is missing: {}", clean(&why)))
    })?;
    if let Some(first) = seen.first_mut() {
        first.clone_from(&runner.control.observed);
    }
    let seen = cases.into_iter().zip(seen).collect();
    Ok(Report::new(runner.api.clone(), &runner.control, seen, profile))
}

/// Writes over the line, where a person sees it.
fn show_progress(words: &str) {
    let mut talk = std::io::stderr();
    if talk.is_terminal() {
        // Where nobody listens, there is nobody to tell.
        let _ = write!(talk, "\r{words}");
    }
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

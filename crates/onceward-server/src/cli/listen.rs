//! `listen`: the real gateway for whoever develops what handles webhooks. It has a source for each provider that
//! signs, all with one secret, delivers everything to one place, and prints a line for each attempt.
//!
//! What it runs is a configuration that it writes, so nothing here is otherwise than with `serve`.

mod lines;
pub(super) mod secret;

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::PossibleValuesParser;
use onceward::core::event::TypePattern;
use onceward::core::hex;
use onceward::master_key::write_secret;
use onceward::secret::random;
use url::Url;

use self::lines::{Lines, Told};
use super::client::reachable;
use super::output::{Printer, print, say};
use super::{Global, serve_until_told, start_log};
use crate::config::{LISTEN, Overrides, Places};
use crate::exit::Exit;
use crate::node::make_folder;
use crate::serve::Heard;

/// The schemes that a secret alone is enough for; each has a source of its name.
pub(super) const SCHEMES: [&str; 7] =
    ["standard-webhooks", "svix", "stripe", "github", "slack", "shopify", "twilio"];

/// Of these it is not known where they have their type.
const WITHOUT_TYPES: [&str; 1] = ["twilio"];

/// The file that it runs.
const FILE: &str = "onceward.toml";

#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Where webhooks are delivered: a URL, or a port of this machine
    #[arg(long, value_name = "URL", required_unless_present = "print_secret")]
    forward_to: Option<String>,
    /// Only webhooks of this provider, at /in/NAME; without it of all that sign
    #[arg(long = "source", value_name = "SCHEME", value_parser = PossibleValuesParser::new(SCHEMES))]
    sources: Vec<String>,
    /// Only events of these types, such as payment_intent.*,charge.refunded; not of providers that say none
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    events: Vec<String>,
    /// The secret that webhooks are signed with, such as your provider's; without it one is made, the same each time
    #[arg(long, value_name = "SECRET", env = "ONCEWARD_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Print the secret, and do nothing else
    #[arg(long)]
    print_secret: bool,
    /// Listen here; without it on this machine alone, at the port of the configuration's `listen`
    #[arg(long = "listen", value_name = "ADDR:PORT")]
    at: Option<SocketAddr>,
    /// Keep the ledger here, and go on with what waits in it; without it, it ends with this
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// What is logged, such as info, debug or onceward=debug
    #[arg(long, env = "ONCEWARD_LOG", default_value = "warn")]
    log: String,
}

/// How the configuration begins that is written here.
const OURS: &str = "# What `onceward listen` runs; a configuration of your own begins like this.\n";

/// A folder that goes when whoever made it does.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, Exit> {
        let name = format!("onceward-listen-{}", hex::encode(&random::<8>()));
        let folder = std::env::temp_dir().join(name);
        // One that is there is somebody else's.
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| unusable(&folder, &error))?;
        Ok(Self(folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed lies among the temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Exit {
    Exit::failed(format!("{}: {error}", path.display()))
}

/// Listens until it is told to stop.
pub(super) fn listen(flags: &Listen, global: &Global) -> Result<(), Exit> {
    let secret = match &flags.secret {
        Some(secret) => secret.clone(),
        None => secret::kept_or_made()?,
    };
    if flags.print_secret {
        return print(&secret);
    }
    let to = place(flags.forward_to.as_deref().unwrap_or_default())?;
    let text = flags.configuration(&to, &secret)?;
    let places = Places::load(global.config.as_deref())?;
    // What speaks TLS is for others.
    let usual = if places.tls.is_none() { places.listen } else { LISTEN };
    let address = flags.at.unwrap_or_else(|| on_loopback(usual));
    start_log(&flags.log)?;
    let temporary = if flags.data.is_none() { Some(Temporary::new()?) } else { None };
    let folder = match (&flags.data, &temporary) {
        (Some(folder), _) => folder,
        (None, Some(temporary)) => &temporary.0,
        (None, None) => return Err(Exit::failed("there is no folder")),
    };
    make_folder(folder).map_err(|error| unusable(folder, &error))?;
    let file = folder.join(FILE);
    if std::fs::read_to_string(&file).is_ok_and(|there| !there.starts_with(OURS)) {
        return Err(Exit::usage(format!(
            "{} is a configuration of your own\nhelp: name another folder with --data",
            file.display()
        )));
    }
    write_secret(&file, text.as_bytes()).map_err(|error| unusable(&file, &error))?;
    let overrides = Overrides {
        listen: Some(address),
        store: Some(format!("sqlite:{}", folder.join("ledger.db").display())),
        is_whole: true,
        ..Overrides::default()
    };
    let (lines, told) = Lines::begin(Printer::new(global.json));
    // Where `trigger` looks, unless it is told.
    let looked_at = reachable(places.listen);
    let is_looked_at = places.tls.is_none() && global.url.is_none();
    let looked_at = is_looked_at.then_some(looked_at);
    let ready = flags.welcome(to, secret, folder.join(FILE), looked_at);
    let heard = Heard {
        before: Box::new(move |next| Arc::new(Told::before(next, told.clone()))),
        ready: Box::new(ready),
    };
    let ended = serve_until_told(Some(&file), &overrides, Some(heard));
    let open = lines.end();
    if open > 0 && temporary.is_some() {
        say(&format!(
            "{open} not delivered, and gone with this ledger; --data FOLDER keeps it and goes on with them"
        ));
    }
    ended
}

impl Listen {
    /// Those that have a source, each once; where events are chosen, none of which it is not known where
    /// they have their type.
    fn schemes(&self) -> Vec<&str> {
        let is_wanted = |scheme: &&str| match &*self.sources {
            [] => self.events.is_empty() || !WITHOUT_TYPES.contains(scheme),
            named => named.iter().any(|it| it == scheme),
        };
        SCHEMES.into_iter().filter(is_wanted).collect()
    }

    /// The configuration of all this. A receiver that is being written fails often, and is back soon.
    fn configuration(&self, to: &Url, secret: &str) -> Result<String, Exit> {
        if secret.contains(['"', '\\', '\n', '\r']) || secret.contains("${") {
            return Err(Exit::usage(
                "--secret has a quote, a backslash, `${` or a line break\nhelp: give it as your provider shows it",
            ));
        }
        if self.secret.is_some() && self.sources.is_empty() {
            return Err(Exit::usage(
                "--secret is one provider's, and it is not said whose\nhelp: name it, such as --source github",
            ));
        }
        for kind in &self.events {
            TypePattern::new(kind).map_err(|why| Exit::usage(format!("--events {kind}: {why}")))?;
        }
        // In a query it stands as it is.
        let to = to.as_str().replace('\\', "\\\\");
        let mut text = OURS.to_owned();
        for scheme in self.schemes() {
            // Writing into a string does not fail.
            let _ = write!(
                text,
                "\n[sources.{scheme}]\nverify  = {{ scheme = \"{scheme}\", secret = \"{secret}\" }}\ndeliver = \"{to}\"\nretry   = {{ base = \"1s\", floor = \"500ms\", cap = \"15s\" }}\nbreaker = false\n"
            );
            if !self.events.is_empty() {
                if WITHOUT_TYPES.contains(&scheme) {
                    return Err(Exit::usage(format!(
                        "--events: webhooks of {scheme} do not say their type\nhelp: leave --events out"
                    )));
                }
                let _ = writeln!(text, "types   = {:?}", self.events);
            }
        }
        Ok(text)
    }

    /// What a person is told once it listens; `looked_at` is where `trigger` would look.
    fn welcome(
        &self,
        to: Url,
        secret: String,
        file: PathBuf,
        looked_at: Option<SocketAddr>,
    ) -> impl Fn(SocketAddr) + use<> {
        let schemes: Vec<String> = self.schemes().into_iter().map(str::to_owned).collect();
        let is_kept = self.secret.is_none();
        move |address| {
            let mut words = String::new();
            for scheme in &schemes {
                // Writing into a string does not fail.
                let _ = writeln!(words, "  http://{address}/in/{scheme}");
            }
            // One that was given is a provider's own.
            let shown = if is_kept {
                format!("{secret} (the same each time)")
            } else {
                "as given".to_owned()
            };
            let (first, event) = (&schemes[0], "order.created");
            let example = if schemes.iter().any(|it| it == "stripe") {
                "stripe:payment_intent.succeeded".to_owned()
            } else {
                super::trigger::first_of(first).unwrap_or_else(|| format!("{first}:{event}"))
            };
            let place = if looked_at == Some(reachable(address)) {
                String::new()
            } else {
                format!(" --url http://{address}")
            };
            say(&format!(
                "listening at\n{words}delivering to {to}\nsigning secret {shown}\nrunning {}\ntry: onceward trigger {example}{place}\nwhat became of each: http://{address}/; Ctrl-C ends it",
                file.display()
            ));
        }
    }
}

/// The same port, on this machine alone: what listens here speaks no TLS.
fn on_loopback(listen: SocketAddr) -> SocketAddr {
    let is_alone = listen.ip().to_canonical().is_loopback();
    if is_alone { listen } else { SocketAddr::new(LISTEN.ip(), listen.port()) }
}

/// Where to: a URL, or a port of this machine.
fn place(text: &str) -> Result<Url, Exit> {
    let written = match text.parse::<u16>() {
        Ok(port) => format!("http://localhost:{port}/"),
        Err(_) => text.to_owned(),
    };
    let url = Url::parse(&written).ok().filter(|url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
    });
    url.filter(|url| url.fragment().is_none()).ok_or_else(|| {
        Exit::usage(format!(
            "--forward-to {text}: it is no http or https URL without credentials\nhelp: write http://localhost:3000/hook"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn flags() -> Listen {
        Listen {
            forward_to: None,
            sources: Vec::new(),
            events: Vec::new(),
            secret: None,
            print_secret: false,
            at: None,
            data: None,
            log: String::new(),
        }
    }

    const SECRET: &str = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l";

    #[test]
    fn what_it_runs_is_a_configuration_with_a_source_for_each_provider() {
        let to = place("3000").unwrap();
        assert_eq!(to.as_str(), "http://localhost:3000/");
        let config = Config::of_text(&flags().configuration(&to, SECRET).unwrap()).unwrap();
        assert_eq!(config.sources.len(), SCHEMES.len());
        for scheme in SCHEMES {
            assert_eq!(config.sources[scheme].verifier.scheme().name(), scheme);
        }
        let some = Listen {
            sources: vec!["stripe".to_owned()],
            events: vec!["charge.*".to_owned(), "payout.paid".to_owned()],
            ..flags()
        };
        let config = Config::of_text(&some.configuration(&to, "whsec_x").unwrap()).unwrap();
        assert_eq!(config.sources.len(), 1);
        assert_eq!(config.sources["stripe"].types.len(), 2);
        // Of all, those that say their type.
        let chosen = Listen { events: vec!["charge.*".to_owned()], ..flags() };
        let config = Config::of_text(&chosen.configuration(&to, SECRET).unwrap()).unwrap();
        assert_eq!(config.sources.len(), SCHEMES.len() - WITHOUT_TYPES.len());
        // Named twice it is there once, and a backslash in a query stays one.
        let twice = Listen { sources: vec!["stripe".to_owned(); 2], ..flags() };
        let odd = place(r"http://localhost:3000/hook?a=\b").unwrap();
        let config = Config::of_text(&twice.configuration(&odd, "whsec_x").unwrap()).unwrap();
        assert_eq!(config.sources.len(), 1);
    }

    #[test]
    fn it_listens_on_this_machine_alone_unless_it_is_told() {
        for (listen, here) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("192.0.2.1:8080", "127.0.0.1:8080"),
            ("[::]:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("127.0.0.2:1", "127.0.0.2:1"),
        ] {
            assert_eq!(on_loopback(listen.parse().unwrap()), here.parse().unwrap(), "{listen}");
        }
    }

    #[test]
    fn what_cannot_be_listened_for_is_said() {
        let to = place("http://localhost:3000/hook").unwrap();
        let bad =
            |flags: Listen, secret: &str| flags.configuration(&to, secret).unwrap_err().message;
        assert!(bad(flags(), "a\"b").contains("quote"));
        let whose = Listen { secret: Some("s".to_owned()), ..flags() };
        assert!(bad(whose, "s").contains("--source github"));
        let kinds = Listen { events: vec!["order*".to_owned()], ..flags() };
        assert!(bad(kinds, SECRET).contains("`order.*`"));
        let twilio =
            Listen { sources: vec!["twilio".to_owned()], events: vec!["a".to_owned()], ..flags() };
        assert!(bad(twilio, SECRET).contains("do not say their type"));
        for wrong in ["", "localhost:3000", "ftp://a/b", "http://u:p@a/"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}

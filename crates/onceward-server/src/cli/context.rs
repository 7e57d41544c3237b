//! `context`: gateways by name, so that nobody types their URLs and keys. They lie in a file that only its owner reads.
//!
//! What is said nearer holds: a flag, then a variable, then the context, then the configuration. A context that is named
//! by a flag is as near as a flag. A URL that is said alone takes nothing from any context: a key goes to the gateway
//! that it is of, and to no other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};
use onceward::master_key::write_secret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Global;
use super::client::parse;
use super::output::{Printer, Table, print};
use crate::exit::Exit;

/// Where names end that stand in lists.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(super) enum Context {
    /// Keep the gateway that --url, --access-key, --tenant, --ca-file, --cert-file and --key-file name
    Add(Add),
    /// Have verbs ask this one, where nothing else is said
    Use {
        /// Its name; without it none, as before any was used
        name: Option<String>,
    },
    /// List them; keys are not shown
    Ls,
    /// Forget one
    Rm {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// What it is called
    name: String,
    /// Read the access key from this file each time, and keep no copy
    #[arg(long, value_name = "FILE")]
    access_key_file: Option<PathBuf>,
}

/// All of them, as their file has them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Kept>,
}

/// A gateway, and who asks it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("url", &self.url).finish_non_exhaustive()
    }
}

pub(super) fn context(verb: &Context, global: &Global, matches: &ArgMatches) -> Result<(), Exit> {
    let path = place().ok_or_else(|| {
        Exit::failed("there is no home for contexts\nhelp: set HOME or XDG_CONFIG_HOME")
    })?;
    let mut book = Book::read(&path)?;
    match verb {
        Context::Ls => return book.list(Printer::new(global.json)),
        Context::Add(flags) => book.add(flags, global, matches)?,
        Context::Use { name } => {
            if let Some(name) = name {
                book.find(name)?;
            }
            book.current.clone_from(name);
        }
        Context::Rm { name } => {
            book.find(name)?;
            book.contexts.remove(name);
            book.current.take_if(|current| current == name);
        }
    }
    book.write(&path)
}

/// The file, where there is a place for it (XDG Base Directory Specification).
fn place() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let folder = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(folder.join("onceward/contexts.toml"))
}

impl Book {
    fn read(path: &Path) -> Result<Self, Exit> {
        let name = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Exit::config(format!("{name}: {error}"))),
        };
        // What the reader says of it may have a line of it, and so a key.
        toml::from_str(&text).map_err(|_| {
            Exit::config(format!(
                "{name} cannot be read\nhelp: `onceward context add` writes such a file; move this one away"
            ))
        })
    }

    fn write(&self, path: &Path) -> Result<(), Exit> {
        let failed =
            |error: &dyn std::fmt::Display| Exit::failed(format!("{}: {error}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        if let Some(folder) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| failed(&error))?;
        }
        write_secret(path, text.as_bytes()).map_err(|error| failed(&error))
    }

    fn find(&self, name: &str) -> Result<&Kept, Exit> {
        self.contexts.get(name).ok_or_else(|| {
            Exit::not_found(format!(
                "there is no context {name:?}\nhelp: `onceward context ls` lists them, `onceward context add` makes one"
            ))
        })
    }

    fn add(&mut self, flags: &Add, global: &Global, matches: &ArgMatches) -> Result<(), Exit> {
        let Add { name, access_key_file } = flags;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
            return Err(Exit::usage(format!(
                "{name:?} is no name: letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}"
            )));
        }
        let url = global.url.clone().ok_or_else(|| {
            Exit::usage("it is not said where the gateway is\nhelp: add --url https://…")
        })?;
        parse(&url)?;
        if access_key_file.is_some() && near(matches, "access_key") == Some(Near::Flag) {
            return Err(Exit::usage(
                "--access-key and --access-key-file each say the key\nhelp: keep one",
            ));
        }
        // What a variable says is of the gateway that the variables name.
        let is_of_it = |id: &str| near(matches, id) >= near(matches, "url");
        // It is read from wherever somebody is then.
        let whole = |path: Option<&PathBuf>| {
            path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        let given = |id: &str, text: &Option<String>| {
            text.clone().filter(|text| !text.is_empty() && is_of_it(id))
        };
        let file = |id: &str, path: &Option<PathBuf>| whole(path.as_ref().filter(|_| is_of_it(id)));
        let kept = Kept {
            url,
            access_key: given("access_key", &global.access_key)
                .filter(|_| access_key_file.is_none()),
            access_key_file: whole(access_key_file.as_ref()),
            tenant: given("tenant", &global.tenant),
            ca_file: file("ca_file", &global.ca_file),
            cert_file: file("cert_file", &global.cert_file),
            key_file: file("cert_file", &global.key_file),
        };
        // What cannot be read now is said now.
        kept.key()?;
        self.contexts.insert(name.clone(), kept);
        Ok(())
    }

    fn list(&self, out: Printer) -> Result<(), Exit> {
        let is_current = |name: &String| self.current.as_ref() == Some(name);
        if out.is_json {
            let shown = |(name, kept): (&String, &Kept)| {
                json!({
                    "name": name, "url": kept.url, "tenant": kept.tenant,
                    "access_key": kept.has_key(), "current": is_current(name),
                })
            };
            let all: Vec<Value> = self.contexts.iter().map(shown).collect();
            return print(&Value::from(all).to_string());
        }
        let mut table = Table::new(&["NAME", "URL", "TENANT", "KEY", "CURRENT"]);
        for (name, kept) in &self.contexts {
            let word = |is: bool| if is { "yes" } else { "-" }.to_owned();
            let tenant = kept.tenant.clone().unwrap_or_else(|| "-".to_owned());
            let (key, current) = (word(kept.has_key()), word(is_current(name)));
            table.push(vec![name.clone(), kept.url.clone(), tenant, key, current]);
        }
        table.print(out.is_terminal)
    }
}

impl Kept {
    fn has_key(&self) -> bool {
        self.access_key.is_some() || self.access_key_file.is_some()
    }

    fn key(&self) -> Result<Option<String>, Exit> {
        let Some(path) = &self.access_key_file else { return Ok(self.access_key.clone()) };
        let read = std::fs::read_to_string(path);
        let key = read.map_err(|error| Exit::access(format!("{}: {error}", path.display())))?;
        Ok(Some(key.trim().to_owned()))
    }
}

/// How near something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Book,
    Variable,
    Flag,
}

/// How near this was said, where it was.
fn near(matches: &ArgMatches, id: &str) -> Option<Near> {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine) => Some(Near::Flag),
        Some(ValueSource::EnvVariable) => Some(Near::Variable),
        _ => None,
    }
}

/// Fills in what a context says, where one is meant.
pub(super) fn lay_under(global: &mut Global, matches: &ArgMatches) -> Result<(), Exit> {
    let near = |id: &str| near(matches, id);
    let (url, named) = (near("url"), near("context"));
    if url == Some(Near::Flag) && named == Some(Near::Flag) {
        return Err(Exit::usage(
            "--url and --context each say which gateway is asked\nhelp: keep one",
        ));
    }
    if url.is_some() && url >= named {
        return Ok(());
    }
    let book = place().map(|path| Book::read(&path)).transpose()?.unwrap_or_default();
    let said = global.context.as_ref().filter(|name| !name.is_empty());
    let Some(name) = said.or(book.current.as_ref()) else { return Ok(()) };
    let kept = book.find(name)?.clone();
    let meant = if said.is_some() { named.unwrap_or(Near::Book) } else { Near::Book };
    // What was said as near as the context is kept beside it, but for what a variable says beside a flag.
    let stays = |id: &str| near(id).is_some_and(|near| near >= meant);
    // A key of a variable is of the gateway that a variable names.
    if !stays("access_key") || meant == Near::Book && near("access_key") != Some(Near::Flag) {
        global.access_key = kept.key()?;
    }
    if !stays("tenant") {
        global.tenant = kept.tenant;
    }
    if !stays("ca_file") {
        global.ca_file = kept.ca_file;
    }
    if !stays("cert_file") {
        (global.cert_file, global.key_file) = (kept.cert_file, kept.key_file);
    }
    global.url = Some(kept.url);
    Ok(())
}

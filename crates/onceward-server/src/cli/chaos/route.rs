//! `chaos --route R`: posts through a route of a running gateway whose attempts fail on purpose,
//! then every key again, shuffled; what callers were told beside what a probe of the upstream says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward_proof::chance::{Chance, digest};
use onceward_proof::check::{Told, is_told};
use onceward_proof::line::Message;
use onceward_proof::metrics::Metrics;
use onceward_proof::plan::shuffled;
use serde_json::Value;
use tokio::task::JoinSet;

use super::probe::{MARKER, Probe};
use super::report::Report;
use super::{Bar, Chaos, broken, drawn};
use crate::cli::client::{Client, part};
use crate::cli::output::{clean, each, print, print_bytes, say, text};
use crate::exit::Exit;

/// How many posts where nothing says: a staging upstream is somebody's.
const POSTS: usize = 100;

/// Calls at once.
const CALLERS: usize = 8;

/// How often a caller tries before it gives up, and between two tries at most.
const TRIES: u32 = 12;
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often each key is asked for again.
const REPLAYS: usize = 2;

/// How often an operation that is under way is looked at again, and how often at most.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 3000;

/// The body where nothing says.
const BODY: &str = "{\"ref\": \"{marker}\"}";

/// A GET of the gateway.
pub(super) fn get(target: String) -> Request {
    Request { method: "GET".to_owned(), target, headers: Headers::default(), body: Bytes::new() }
}

/// What a run has in hand.
struct Run {
    client: Client,
    route: String,
    path: String,
    body: String,
}

/// One post's story so far.
#[derive(Debug, Clone, Default)]
struct Asked {
    key: String,
    told: Vec<Told>,
}

/// Drives the route, and says what came of it.
pub(super) async fn drive(
    flags: &Chaos,
    route: &str,
    client: Client,
    json: bool,
) -> Result<(), Exit> {
    let seed = flags.seed.unwrap_or_else(drawn);
    let posts = flags.posts.map_or(POSTS, |posts| posts as usize);
    may_drive(flags, route, &client).await?;
    let probe = flags.count.as_deref().map(Probe::parse).transpose()?;
    let run = Arc::new(Run {
        client,
        route: route.to_owned(),
        path: flags.path.clone().unwrap_or_else(|| "/".to_owned()),
        body: flags.body.clone().unwrap_or_else(|| BODY.to_owned()),
    });
    if !run.path.starts_with('/') {
        return Err(Exit::usage("--path begins with a slash"));
    }
    let keys: Vec<String> = (0..posts).map(|n| format!("chaos-{seed}-{n}")).collect();
    if run.operation(&keys[0]).await?.is_some() {
        return Err(Exit::usage(format!(
            "this gateway remembers posts of --seed {seed}, so they would only be replayed\nhelp: choose another seed, or none"
        )));
    }
    if !json {
        say(&format!("{posts} posts to {route} through {}, seed {seed}", run.client.base()));
    }
    let total = probe.as_ref().filter(|probe| !probe.is_of_a_post());
    let counted_before = match total {
        Some(probe) => probe.count(&run.client, route, "").await?,
        None => 0,
    };
    let before = run.metrics().await?;
    let bar = Bar::new();
    let mut stories = run.post_all("posts", keys.clone(), &bar).await?;
    let operations = run.at_rest(&keys).await?;
    let again =
        shuffled((0..REPLAYS).flat_map(|_| keys.iter().cloned()).collect(), &mut Chance(seed));
    let replays = run.post_all("again", again, &bar).await?;
    let after = run.metrics().await?;
    bar.clear();
    for (key, replayed) in replays {
        stories.entry(key).or_default().extend(replayed);
    }
    let mut report = Report::new(route, seed, posts, command(flags, route, seed));
    report.read(&operations, &before, &after);
    report.judge(&run.client, probe.as_ref(), counted_before, &stories, &operations).await?;
    if json {
        print(&report.json().to_string())?;
    } else {
        print_bytes(report.text().as_bytes())?;
    }
    if let Some(exit) = broken(&report.violations, None) {
        return Err(exit);
    }
    say(match probe {
        Some(_) => "kept: 0 missing, 0 doubled, every replay alike",
        None => "kept: every replay alike; --count has effects counted too",
    });
    Ok(())
}

/// Whether this route may be driven: it is there, it fails on purpose, and it is the person's own.
async fn may_drive(flags: &Chaos, route: &str, client: &Client) -> Result<(), Exit> {
    if !client.is_loopback() && !flags.i_own_this {
        return Err(Exit::usage(format!(
            "{} is another machine: this sends posts through it, which have effects\nhelp: where it is yours, say so with --i-own-this",
            client.base()
        )));
    }
    let routes = client.get("/v1/routes").await?;
    let Some(found) = each(&routes, "/data").iter().find(|one| one["name"] == route) else {
        return Err(Exit::not_found(format!(
            "the gateway has no route {}\nhelp: `onceward routes` lists them",
            clean(route)
        )));
    };
    if found["chaos"].is_null() && !flags.no_faults {
        return Err(Exit::usage(format!(
            "[routes.{route}] has no faults on purpose\nhelp: add [routes.{route}.chaos] and start with `serve --allow-chaos`, or drive it without, with --no-faults"
        )));
    }
    Ok(())
}

fn command(flags: &Chaos, route: &str, seed: u64) -> String {
    let posts = flags.posts.map_or(POSTS, |posts| posts as usize);
    let mut command = format!("onceward chaos --route {route} --posts {posts} --seed {seed}");
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    for (name, value) in
        [("--path", &flags.path), ("--body", &flags.body), ("--count", &flags.count)]
    {
        if let Some(value) = value {
            command.extend([" ", name, " ", &quoted(value)]);
        }
    }
    if flags.no_faults {
        command.push_str(" --no-faults");
    }
    command
}

impl Run {
    /// Posts every key until its caller knows; by key, what it was told.
    async fn post_all(
        self: &Arc<Self>,
        phase: &'static str,
        keys: Vec<String>,
        bar: &Bar,
    ) -> Result<BTreeMap<String, Vec<Told>>, Exit> {
        let (all, progress) = (keys.len(), bar.progress());
        let mut stories: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        let (mut keys, mut callers, mut done) = (keys.into_iter(), JoinSet::new(), 0);
        loop {
            while callers.len() < CALLERS
                && let Some(key) = keys.next()
            {
                let run = Arc::clone(self);
                callers.spawn(async move { run.post(key).await });
            }
            let Some(ended) = callers.join_next().await else { return Ok(stories) };
            let asked = ended.map_err(|error| Exit::failed(error.to_string()))??;
            stories.entry(asked.key).or_default().extend(asked.told);
            done += 1;
            progress(phase, done, all);
        }
    }

    /// One post, tried again with the same key until there is nothing left to do.
    async fn post(&self, key: String) -> Result<Asked, Exit> {
        let mut asked = Asked { key, told: Vec::new() };
        for tried in 0..TRIES {
            let answer = self.call(&asked.key).await?;
            if let "key-required" | "unauthenticated" | "forbidden" | "quarantine" =
                answer.code().as_str()
            {
                return Err(Exit::failed(format!(
                    "the gateway refuses: {}",
                    text(&answer.json(), "/detail")
                )));
            }
            asked.told.push(Told::of(&answer));
            if is_told(&answer) || answer.header("onceward-state") == Some("done") {
                break;
            }
            let pause = Duration::from_millis(50) * 2_u32.pow(tried.min(6));
            let mut chance = Chance(digest(&(&asked.key, tried)));
            let spread = Duration::from_millis(chance.below(50));
            tokio::time::sleep(pause.min(PAUSE_MAX) + spread).await;
        }
        Ok(asked)
    }

    async fn call(&self, key: &str) -> Result<Message, Exit> {
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        headers.set("idempotency-key", key.to_owned());
        let request = Request {
            method: "POST".to_owned(),
            target: format!("/to/{}{}", self.route, self.path.replace(MARKER, key)),
            headers,
            body: self.body.replace(MARKER, key).into(),
        };
        let answer = self.client.call(request).await?;
        let lines = answer.headers.0.iter();
        Ok(Message {
            start: format!("HTTP/1.1 {}", answer.status),
            headers: lines
                .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
            length: answer.body.len() as u64,
            body: answer.body,
        })
    }

    async fn metrics(&self) -> Result<Metrics, Exit> {
        let answer = self.client.call(get("/metrics".to_owned())).await?;
        Ok(Metrics::read(&String::from_utf8_lossy(&answer.body)))
    }

    async fn operation(&self, key: &str) -> Result<Option<Value>, Exit> {
        let path = format!("/v1/keys/{}/{}", part(&self.route), part(key));
        match self.client.get(&path).await.map_err(Exit::from) {
            Ok(operation) => Ok(Some(operation)),
            Err(exit) if exit.code == Exit::not_found("").code => Ok(None),
            Err(exit) => Err(exit),
        }
    }

    /// Each key's operation, once it is at rest.
    async fn at_rest(&self, keys: &[String]) -> Result<Vec<Value>, Exit> {
        let mut operations = Vec::new();
        for key in keys {
            for _ in 0..LOOKS_MAX {
                let Some(operation) = self.operation(key).await? else { break };
                if !matches!(operation["state"].as_str(), Some("pending" | "delivering")) {
                    operations.push(operation);
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(operations)
    }
}

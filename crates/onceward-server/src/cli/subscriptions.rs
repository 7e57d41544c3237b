//! `subscriptions`: who is told of which events; made, changed, paused, tried and recovered; and
//! those of other products taken over (`import`).

mod import;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::client::{Client, part};
use super::list::{paged, query};
use super::output::{Printer, each, print, say, text};
use super::publish;
use super::send::headers_of;
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Subscriptions {
    /// List them, and how their receivers do
    Ls,
    /// Show one
    Show {
        /// Its id: sub_…
        id: String,
    },
    /// Have events delivered to a URL or through a route; the secret is shown this once
    Create(Create),
    /// Take over the endpoints that another product lists; the same list again changes nothing
    Import(import::Import),
    /// Change what is said
    Change(Change),
    /// Send it nothing until it is resumed; what comes waits
    Pause(Reasoned),
    /// Let what waits go on
    Resume(Reasoned),
    /// Sign with another secret, and with those before it for a while
    Rotate(Rotate),
    /// Publish an event that goes to this one alone
    Test(Test),
    /// Send again what failed since then, or deliver what was missed
    Recover(Recover),
    /// End it, and give up what waits for it
    End(Perhaps),
}

#[derive(Debug, Args)]
pub(super) struct Parts {
    /// Only these types, such as order.created, order.* or *.failed; all without it
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<String>,
    /// Only events of which this holds, such as '{"json": {"/data/amount": {"gt": 100}}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// A header of each delivery, as 'Name: value'; it is sealed
    #[arg(long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// Delays between one attempt and the next, such as 5s,5m,1h
    #[arg(long, value_name = "DELAYS", value_delimiter = ',')]
    retry: Vec<String>,
    /// How its signatures are called
    #[arg(long, value_parser = ["standard", "svix"])]
    signature: Option<String>,
    /// What you call it
    #[arg(long)]
    description: Option<String>,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

impl Parts {
    /// What is said.
    fn document(&self) -> Result<Map<String, Value>, Exit> {
        let mut said = Map::new();
        if !self.types.is_empty() {
            said.insert("types".to_owned(), json!(self.types));
        }
        if let Some(filter) = &self.filter {
            let filter: Value = serde_json::from_str(filter)
                .map_err(|error| Exit::usage(format!("--filter is no JSON: {error}")))?;
            said.insert("filter".to_owned(), filter);
        }
        if !self.headers.is_empty() {
            said.insert("headers".to_owned(), Value::Object(headers_of(&self.headers)?));
        }
        if !self.retry.is_empty() {
            said.insert("retry".to_owned(), json!(self.retry));
        }
        let words = [("signature", &self.signature), ("description", &self.description)];
        for (name, word) in words {
            if let Some(word) = word {
                said.insert(name.to_owned(), json!(word));
            }
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        said.insert("reason".to_owned(), json!(reason));
        Ok(said)
    }
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// A URL, or a route and a path of it
    to: String,
    #[command(flatten)]
    parts: Parts,
    /// A secret to go on with, whsec_…; without it one is made
    #[arg(long)]
    secret: Option<String>,
    /// Begin without events; what comes meanwhile is missed
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// Its id: sub_…
    id: String,
    /// A URL, or a route and a path of it
    #[arg(long)]
    to: Option<String>,
    #[command(flatten)]
    parts: Parts,
    /// Have events go to it again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Have no events go to it; they are missed
    #[arg(long)]
    disable: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reasoned {
    /// Its id: sub_…
    id: String,
    /// Why
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Perhaps {
    /// Its id: sub_…
    id: String,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Its id: sub_…
    id: String,
    /// The new secret, whsec_…; without it one is made
    #[arg(long)]
    secret: Option<String>,
    /// How long those before it sign on
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    overlap: String,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Test {
    /// Its id: sub_…
    id: String,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE", default_value = "onceward.test")]
    kind: String,
    /// What there is to say of it, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "data_file")]
    data: Option<String>,
    /// The same, from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
}

/// An event that only tries a subscription, as it is sent.
#[derive(Debug, Serialize)]
struct Trial<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    reason: &'a str,
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Its id: sub_…
    id: String,
    /// What failed, or what was missed
    #[arg(value_parser = ["failed", "missed"])]
    what: String,
    /// Since then: a time, or how long ago
    #[arg(long, value_name = "WHEN")]
    since: String,
    /// Why
    #[arg(long)]
    reason: String,
}

pub(super) async fn subscriptions(
    verb: &Subscriptions,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    match verb {
        Subscriptions::Ls => list(client, out).await,
        Subscriptions::Show { id } => show(&client.get(&path_of(id)).await?, out),
        Subscriptions::Create(flags) => create(flags, client, out).await,
        Subscriptions::Import(flags) => import::import(flags, client, out).await,
        Subscriptions::Change(flags) => change(flags, client, out).await,
        Subscriptions::Pause(flags) => steer("pause", flags, client, out).await,
        Subscriptions::Resume(flags) => steer("resume", flags, client, out).await,
        Subscriptions::Rotate(flags) => rotate(flags, client, out).await,
        Subscriptions::Test(flags) => test(flags, client, out).await,
        Subscriptions::Recover(flags) => recover(flags, client, out).await,
        Subscriptions::End(Perhaps { id, reason }) => {
            let reason = json!({"reason": reason.as_deref().unwrap_or_default()});
            let ended = client.delete(&path_of(id), &reason).await?;
            out.document(&ended, || print(&format!("{id}\tended")))
        }
    }
}

fn path_of(id: &str) -> String {
    format!("/v1/subscriptions/{}", part(id))
}

/// Where it goes, as the API says it.
fn place(to: &str) -> (&'static str, Value) {
    (if to.contains("://") { "url" } else { "to" }, json!(to))
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    let names = &["ID", "STATE", "TO", "TYPES", "FAILING SINCE", "TENANT", "DESCRIPTION"];
    let path = |size: usize, cursor: Option<&str>| {
        let cursor = cursor.map(|cursor| ("cursor", cursor.to_owned()));
        query("/v1/subscriptions", cursor.into_iter().chain([("limit", size.to_string())]))
    };
    let listed = paged(client, path, usize::MAX, out, names, |subscription| {
        vec![
            text(subscription, "/id"),
            text(subscription, "/state"),
            target(subscription),
            types(subscription),
            out.when(subscription, "/failing_since"),
            text(subscription, "/tenant"),
            text(subscription, "/description"),
        ]
    });
    listed.await.map(drop)
}

fn target(subscription: &Value) -> String {
    let place = if subscription["url"].is_null() { "/to" } else { "/url" };
    text(subscription, place)
}

fn types(subscription: &Value) -> String {
    let types = each(subscription, "/types").iter().filter_map(Value::as_str);
    let types: Vec<&str> = types.collect();
    if types.is_empty() { "*".to_owned() } else { types.join(" ") }
}

fn show(subscription: &Value, out: Printer) -> Result<(), Exit> {
    out.document(subscription, || {
        print(&format!("state\t{}", text(subscription, "/state")))?;
        if !subscription["paused"].is_null() {
            let (who, why) =
                (text(subscription, "/paused/who"), text(subscription, "/paused/reason"));
            print(&format!("paused\t{} by {who}: {why}", out.when(subscription, "/paused/at")))?;
        }
        print(&format!("to\t{}", target(subscription)))?;
        print(&format!("types\t{}", types(subscription)))?;
        print(&format!("filter\t{}", subscription["filter"]))?;
        let retry: Vec<&str> =
            each(subscription, "/retry").iter().filter_map(Value::as_str).collect();
        print(&format!("retry\t{}", retry.join(" ")))?;
        print(&format!("secrets\t{}", each(subscription, "/secrets").len()))?;
        print(&format!("failing since\t{}", out.when(subscription, "/failing_since")))?;
        say(&format!("its deliveries: onceward ls --route {}", text(subscription, "/route")));
        Ok(())
    })
}

/// A subscription with the secret that is shown this once.
fn made(document: &Value, out: Printer) -> Result<(), Exit> {
    out.document(document, || {
        print(&format!("{}\t{}", text(document, "/id"), text(document, "/secret")))?;
        say("its id, and the secret that its receiver verifies with, shown this once");
        Ok(())
    })
}

async fn create(flags: &Create, client: &Client, out: Printer) -> Result<(), Exit> {
    let mut wanted = flags.parts.document()?;
    let (name, to) = place(&flags.to);
    wanted.insert(name.to_owned(), to);
    if let Some(secret) = &flags.secret {
        wanted.insert("secret".to_owned(), json!(secret));
    }
    if flags.disabled {
        wanted.insert("enabled".to_owned(), json!(false));
    }
    made(&client.post("/v1/subscriptions", &Value::Object(wanted)).await?, out)
}

async fn change(flags: &Change, client: &Client, out: Printer) -> Result<(), Exit> {
    let mut wanted = flags.parts.document()?;
    if let Some(to) = &flags.to {
        let (name, to) = place(to);
        wanted.insert(name.to_owned(), to);
    }
    if flags.enable || flags.disable {
        wanted.insert("enabled".to_owned(), json!(flags.enable));
    }
    show(&client.post(&path_of(&flags.id), &Value::Object(wanted)).await?, out)
}

async fn steer(verb: &str, flags: &Reasoned, client: &Client, out: Printer) -> Result<(), Exit> {
    let path = format!("{}/{verb}", path_of(&flags.id));
    show(&client.post(&path, &json!({"reason": flags.reason})).await?, out)
}

async fn rotate(flags: &Rotate, client: &Client, out: Printer) -> Result<(), Exit> {
    let Rotate { id, secret, overlap, reason } = flags;
    let wanted = json!({
        "secret": secret, "overlap": overlap, "reason": reason.as_deref().unwrap_or_default(),
    });
    made(&client.post(&format!("{}/rotate", path_of(id)), &wanted).await?, out)
}

async fn test(flags: &Test, client: &Client, out: Printer) -> Result<(), Exit> {
    let data = publish::data_of(flags.data.as_ref(), flags.data_file.as_ref())?;
    let reason = flags.reason.as_deref().unwrap_or_default();
    let wanted = Trial { r#type: &flags.kind, data, reason };
    publish::tell(&client.post(&format!("{}/test", path_of(&flags.id)), &wanted).await?, out)
}

async fn recover(flags: &Recover, client: &Client, out: Printer) -> Result<(), Exit> {
    let Recover { id, what, since, reason } = flags;
    let path = format!("{}/recover", path_of(id));
    let (mut cursor, mut looked_at, mut born) = (Value::Null, 0, 0);
    loop {
        let wanted = json!({"what": what, "since": since, "reason": reason, "cursor": cursor});
        let step = client.post(&path, &wanted).await?;
        if !step["bulk"].is_null() {
            return out.document(&step["bulk"], || {
                print(&text(&step, "/bulk/id"))?;
                let matched = text(&step, "/bulk/matched");
                say(&format!(
                    "{matched} are sent again: onceward bulk show {}",
                    text(&step, "/bulk/id")
                ));
                Ok(())
            });
        }
        let count = |name: &str| step["missed"][name].as_u64().unwrap_or_default();
        looked_at += count("looked_at");
        born += count("born");
        cursor = step["missed"]["next"].clone();
        if cursor.is_null() {
            let whole = json!({"looked_at": looked_at, "born": born});
            return out.document(&whole, || {
                print(&format!("{born}\tof {looked_at} events are delivered now"))
            });
        }
    }
}

//! `trigger`: a webhook as a provider sends it, signed as it signs, for whoever develops what handles it. It goes
//! to a source of a gateway, such as that of `listen`, or to any URL.

mod samples;
mod signed;

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use onceward::core::exchange::{Headers, Request};
use onceward::core::hex;
use onceward::secret::random;
use serde_json::json;
use url::Url;

use self::samples::Sample;
use self::signed::{Draft, sign};
use super::Global;
use super::client::{Client, part, path_of};
use super::listen::SCHEMES;
use super::listen::secret;
use super::output::{Printer, Table, clean, print, say};
use super::send::bytes_of;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Trigger {
    /// Whose and which, such as stripe:payment_intent.succeeded or github:push; --list shows them
    #[arg(value_name = "SCHEME:EVENT", required_unless_present = "list")]
    event: Option<String>,
    /// List the events that there are samples of
    #[arg(long, conflicts_with = "event")]
    list: bool,
    /// To this source of the gateway; without it the one that is called as the scheme is
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// To this URL, and not to a source of the gateway: your own handler, for one
    #[arg(long, value_name = "URL", conflicts_with = "source")]
    to: Option<String>,
    /// Sign with this secret; without it with the one that `listen` made
    #[arg(long, value_name = "SECRET", env = "ONCEWARD_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Send this body, and not the sample's; of any event then
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// The same, from a file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    data_file: Option<PathBuf>,
    /// The event's id; the same again is a duplicate. Without it one is made
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// The first event of a scheme that there is a sample of, as it is asked for.
pub(super) fn first_of(scheme: &str) -> Option<String> {
    let first = samples::ALL.iter().find(|sample| sample.scheme == scheme)?;
    Some(format!("{scheme}:{}", first.event))
}

/// Sends one, and prints its id and what it was answered.
pub(super) async fn trigger(flags: &Trigger, global: &Global) -> Result<(), Exit> {
    let out = Printer::new(global.json);
    let Some(event) = flags.event.as_ref().filter(|_| !flags.list) else { return list(out) };
    let (scheme, event) = read(event)?;
    let secret = match &flags.secret {
        Some(secret) => secret.clone(),
        None => secret::kept()?.ok_or_else(|| {
            Exit::usage(
                "there is no secret to sign with\nhelp: give the source's with --secret, or start `onceward listen --forward-to …`, which makes one",
            )
        })?,
    };
    let client = Client::new(global)?;
    let url = if let Some(to) = &flags.to {
        let url = Url::parse(to).ok();
        url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    } else {
        let source = flags.source.as_deref().unwrap_or(scheme);
        client.base().join(&format!("/in/{}", part(source))).ok()
    };
    let url = url.ok_or_else(|| {
        Exit::usage("--to is no http or https URL\nhelp: write --to http://localhost:3000/hook")
    })?;
    let id = flags.id.clone().unwrap_or_else(|| new_id(scheme));
    let given = bytes_of(flags.data.as_deref(), flags.data_file.as_deref())?;
    let body = match given {
        Some(body) => Bytes::from(body),
        None => sample(scheme, event)?.body(&id, event, jiff::Timestamp::now()).into(),
    };
    let is_form = samples::is_form(scheme, event, &body);
    let draft = Draft {
        scheme,
        event,
        id: &id,
        // What a source takes to have been called: whoever signs a URL sends over https.
        url: if flags.to.is_some() { url.to_string() } else { over_https(&url) },
        seconds: jiff::Timestamp::now().as_second(),
        body: &body,
        is_form,
    };
    let lines = sign(&draft, &secret).map_err(Exit::usage)?;
    let mut headers = Headers::default();
    let kind = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
    headers.set("content-type", kind);
    headers.set("user-agent", concat!("onceward-trigger/", env!("CARGO_PKG_VERSION")));
    for (name, value) in lines {
        headers.set(name, value);
    }
    let request = Request { method: "POST".to_owned(), target: path_of(&url), headers, body };
    let answer = client.send_to(&url, request).await?;
    let operation = answer.headers.text("onceward-operation").unwrap_or("-");
    let is_again = answer.headers.text("idempotent-replayed") == Some("true");
    let document = json!({
        "event": format!("{scheme}:{event}"), "id": id, "url": url.as_str(), "status": answer.status,
        "operation": answer.headers.text("onceward-operation"), "duplicate": is_again,
    });
    out.document(&document, || print(&format!("{id}\t{}\t{}", answer.status, clean(operation))))?;
    if is_again && !out.is_json {
        say("nothing new came of it: it was there, or is of a type that the source does not want");
    }
    if (200..300).contains(&answer.status) {
        return Ok(());
    }
    let why = clean(&String::from_utf8_lossy(&answer.body));
    let hint = match (answer.status, &flags.to) {
        (404, None) => {
            "\nhelp: the gateway has no such source: name one with --source, or start `onceward listen --forward-to …`"
        }
        (400, None) => {
            "\nhelp: is it the source's secret? Give it with --secret; `onceward sources NAME` says why it was refused"
        }
        _ => "",
    };
    Err(Exit::failed(format!("{url} answered {}: {why}{hint}", answer.status)))
}

fn list(out: Printer) -> Result<(), Exit> {
    let mut table = Table::new(&["EVENT", "WHAT IT SAYS"]);
    for sample in samples::ALL {
        table.push(vec![format!("{}:{}", sample.scheme, sample.event), sample.says.to_owned()]);
    }
    let events = samples::ALL.iter();
    let document = events
        .map(|sample| json!({"event": format!("{}:{}", sample.scheme, sample.event), "says": sample.says}));
    out.document(&document.collect(), || table.print(out.is_terminal))
}

/// The scheme and the event.
fn read(text: &str) -> Result<(&'static str, &str), Exit> {
    let (scheme, event) = text.split_once(':').unwrap_or((text, ""));
    let known = SCHEMES.into_iter().find(|known| *known == scheme).ok_or_else(|| {
        let known = SCHEMES.join(", ");
        Exit::usage(format!("{scheme:?} is no scheme that signs with a secret alone: {known}\nhelp: `onceward trigger --list`"))
    })?;
    let is_visible = event.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if event.is_empty() || event.len() > 200 || !is_visible {
        let first = first_of(known).unwrap_or_default();
        return Err(Exit::usage(format!(
            "{text}: which event?\nhelp: such as {first}; `onceward trigger --list`"
        )));
    }
    Ok((known, event))
}

/// The sample of an event; what one's own services publish may be called anything.
fn sample(scheme: &'static str, event: &str) -> Result<&'static Sample, Exit> {
    let of = || samples::ALL.iter().filter(|sample| sample.scheme == scheme);
    let own = || of().next().filter(|_| samples::is_anybodys(scheme));
    of().find(|sample| sample.event == event).or_else(own).ok_or_else(|| {
        let known: Vec<_> = of().map(|sample| sample.event).collect();
        Exit::usage(format!(
            "there is no sample of {scheme}:{event}\nhelp: there are {}; or send a body of yours with --data",
            known.join(", ")
        ))
    })
}

/// An id as the provider writes them.
fn new_id(scheme: &str) -> String {
    let drawn = hex::encode(&random::<16>());
    let uuid = || {
        let parts = [&drawn[..8], &drawn[8..12], &drawn[12..16], &drawn[16..20], &drawn[20..]];
        parts.join("-")
    };
    match scheme {
        "stripe" => format!("evt_{}", &drawn[..24]),
        "slack" => format!("Ev{}", drawn[..9].to_ascii_uppercase()),
        "github" | "shopify" | "twilio" => uuid(),
        _ => format!("msg_{drawn}"),
    }
}

fn over_https(url: &Url) -> String {
    let text = url.as_str();
    text.strip_prefix("http://").map_or_else(|| text.to_owned(), |rest| format!("https://{rest}"))
}

#[cfg(test)]
mod tests;

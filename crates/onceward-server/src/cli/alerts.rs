//! `alerts`: which fire, since when and who was told; and a test, followed until it has arrived.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, part};
use super::list::whole;
use super::output::{Printer, each, print, text};
use crate::exit::Exit;

/// How often and how long it is looked whether a test has arrived.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Alerts {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send a test to a receiver, [alerts.to.NAME]; exit code 1 if it does not arrive
    Test {
        /// The receiver
        name: String,
    },
}

pub(super) async fn alerts(flags: &Alerts, client: &Client, out: Printer) -> Result<(), Exit> {
    match &flags.verb {
        None => list(client, out).await,
        Some(Verb::Test { name }) => test(name, client, out).await,
    }
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    let names = &["NAME", "SEVERITY", "SINCE", "WHAT", "TOLD"];
    whole(client, "/v1/alerts", out, names, |alert| {
        let told: Vec<_> = each(alert, "/told").iter().map(told).collect();
        // Whoever sees one tenant alone is not told.
        let nobody = if alert["told"].is_array() { "nobody" } else { "-" };
        vec![
            text(alert, "/name"),
            text(alert, "/severity"),
            out.when(alert, "/since"),
            text(alert, "/summary"),
            if told.is_empty() { nobody.to_owned() } else { told.join(", ") },
        ]
    })
    .await
}

/// Who was told, and what stands in the way of that.
fn told(told: &Value) -> String {
    let (to, why) = (text(told, "/to"), told["error"].as_str());
    match (told["state"].as_str(), why) {
        (Some("waiting"), None) => format!("{to} (on its way)"),
        (Some("waiting" | "failed"), Some(why)) => format!("{to} (not reached: {why})"),
        (Some("failed"), None) => format!("{to} (not reached)"),
        (Some("unknown"), _) => format!("{to} (not known whether it came)"),
        _ => to,
    }
}

async fn test(name: &str, client: &Client, out: Printer) -> Result<(), Exit> {
    let tested = client.post("/v1/alerts/test", &json!({"to": name})).await?;
    if let Some(why) = tested["error"].as_str() {
        return Err(Exit::failed(format!("{name} was not told: {why}")));
    }
    let operation = match tested["operation"].as_str() {
        Some(id) => Some(arrived(id, client).await?),
        None => None,
    };
    let state = operation.as_ref().map_or_else(|| "done".to_owned(), |it| text(it, "/state"));
    out.document(&tested, || {
        print(&format!("{name}\t{}\t{}\t{state}", text(&tested, "/way"), text(&tested, "/notice")))
    })?;
    if state == "done" {
        return Ok(());
    }
    let (id, operation) = (text(&tested, "/operation"), operation.unwrap_or_default());
    let last = each(&operation, "/attempts").last().cloned().unwrap_or_default();
    let why = ["/error", "/status"].map(|member| text(&last, member));
    let why = why.iter().find(|why| *why != "-").map_or("no attempt ended", String::as_str);
    Err(Exit::failed(format!("it has not arrived: {why}\nhelp: onceward show {id}")))
}

/// The operation, once it has come to rest; else as it is after a while.
async fn arrived(id: &str, client: &Client) -> Result<Value, Exit> {
    let path = format!("/v1/operations/{}", part(id));
    let mut operation = client.get(&path).await?;
    for _ in 0..LOOKS {
        let has_failed =
            !each(&operation, "/attempts").is_empty() && operation["state"] == "pending";
        if has_failed || matches!(operation["state"].as_str(), Some("done" | "dead" | "in_doubt")) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        operation = client.get(&path).await?;
    }
    Ok(operation)
}

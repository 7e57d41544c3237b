//! What a person does about keys: extend, rotate, revoke; each with a reason that stays.

use clap::{ArgGroup, Args};
use serde_json::json;

use super::act::tell;
use super::client::{Client, part};
use super::output::{Printer, each, print, say, text};
use crate::exit::Exit;

/// Which key.
#[derive(Debug, Args)]
struct Which {
    /// The route, or the origin of ad hoc URLs
    route: String,
    /// The key
    key: String,
    /// The name of the access key whose idempotency key it is
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Why: it stays with the operation
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("longer").required(true))]
pub(super) struct Extend {
    #[command(flatten)]
    which: Which,
    /// How long its outcome is replayed, from completion, such as 30d
    #[arg(long, value_name = "DURATION", group = "longer")]
    window: Option<String>,
    /// Until when, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", group = "longer")]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    which: Which,
    /// The other key: both get the operation's answer from then on
    #[arg(long, value_name = "KEY")]
    to: String,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The name of the access key whose idempotency keys are dropped
    principal: String,
    /// Why: callers are told
    #[arg(long)]
    reason: String,
}

impl Which {
    fn path(&self, deed: &str) -> String {
        format!("/v1/keys/{}/{}/{deed}", part(&self.route), part(&self.key))
    }
}

pub(super) async fn extend(flags: &Extend, client: &Client, out: Printer) -> Result<(), Exit> {
    let Extend { which, window, until } = flags;
    let document = json!({
        "reason": which.reason, "principal": which.principal, "window": window, "until": until,
    });
    tell(&client.post(&which.path("extend"), &document).await?, out)
}

pub(super) async fn rotate(flags: &Rotate, client: &Client, out: Printer) -> Result<(), Exit> {
    let Rotate { which, to } = flags;
    let document = json!({"reason": which.reason, "principal": which.principal, "to": to});
    tell(&client.post(&which.path("rotate"), &document).await?, out)
}

/// Step by step, until all of the ledger was looked at.
pub(super) async fn revoke(flags: &Revoke, client: &Client, out: Printer) -> Result<(), Exit> {
    let (mut revoked, mut open, mut cursor) = (0, Vec::new(), None::<String>);
    loop {
        let document = json!({
            "reason": flags.reason, "principal": flags.principal, "cursor": cursor,
        });
        let step = client.post("/v1/keys/revoke", &document).await?;
        revoked += step["revoked"].as_u64().unwrap_or_default();
        open.extend(each(&step, "/open").iter().map(|id| text(id, "")));
        cursor = step["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if out.is_json {
        return print(&json!({"revoked": revoked, "open": open}).to_string());
    }
    print(&format!("{revoked}\tkeys are refused from now on"))?;
    for id in &open {
        say(&format!("open: {id} has not ended, and its key is as it was"));
    }
    Ok(())
}

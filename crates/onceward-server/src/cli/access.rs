//! `access`: who may call.

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Client, part};
use super::list::whole;
use super::output::{Printer, print, say, text};
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Access {
    /// Make a key and print it, this once
    Create(Create),
    /// List the keys by name and prefix
    Ls,
    /// Revoke a key
    Revoke {
        /// The letters that the key begins with, as `access ls` shows them
        prefix: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The caller's name: its idempotency keys are its own
    #[arg(required_unless_present = "named")]
    name: Option<String>,
    /// The same
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name", hide = true)]
    named: Option<String>,
}

pub(super) async fn access(verb: &Access, client: &Client, out: Printer) -> Result<(), Exit> {
    match verb {
        Access::Create(flags) => create(flags, client, out).await,
        Access::Ls => list(client, out).await,
        Access::Revoke { prefix } => revoke(prefix, client, out).await,
    }
}

async fn create(flags: &Create, client: &Client, out: Printer) -> Result<(), Exit> {
    let name = flags.name.as_ref().or(flags.named.as_ref());
    let made = client.post("/v1/access", &json!({"name": name})).await?;
    out.document(&made, || {
        print(&text(&made, "/key"))?;
        say(&format!(
            "the key of {}, shown this once. While there is a key, every call needs one: `Onceward-Authorization: Bearer ow_…`",
            text(&made, "/name")
        ));
        Ok(())
    })
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    whole(client, "/v1/access", out, &["NAME", "PREFIX", "CREATED"], |key| {
        vec![text(key, "/name"), text(key, "/prefix"), out.when(key, "/created_at")]
    })
    .await
}

async fn revoke(prefix: &str, client: &Client, out: Printer) -> Result<(), Exit> {
    let revoked = client.delete(&format!("/v1/access/{}", part(prefix)), &json!({})).await?;
    out.document(&revoked, || {
        say(&format!("revoked: {}", text(&revoked, "/revoked")));
        Ok(())
    })
}

//! `access`: who may call.

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Client, part};
use super::ls::print_array;
use super::output::{Table, each, is_terminal, print, say, text, when};
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

pub(super) async fn access(verb: &Access, client: &Client, json: bool) -> Result<(), Exit> {
    match verb {
        Access::Create(flags) => create(flags, client, json).await,
        Access::Ls => list(client, json).await,
        Access::Revoke { prefix } => revoke(prefix, client, json).await,
    }
}

async fn create(flags: &Create, client: &Client, json: bool) -> Result<(), Exit> {
    let name = flags.name.as_ref().or(flags.named.as_ref());
    let made = client.post("/v1/access", &json!({"name": name})).await?;
    if json {
        return print(&made.to_string());
    }
    print(&text(&made, "/key"))?;
    say(&format!(
        "the key of {}, shown this once. While there is a key, every call needs one: `Onceward-Authorization: Bearer ow_…`",
        text(&made, "/name")
    ));
    Ok(())
}

async fn list(client: &Client, json: bool) -> Result<(), Exit> {
    let page = client.get("/v1/access").await?;
    let keys = each(&page, "/data");
    if json {
        return print_array(keys);
    }
    let terminal = is_terminal();
    let mut table = Table::new(&["NAME", "PREFIX", "CREATED"]);
    for key in keys {
        table.push(vec![
            text(key, "/name"),
            text(key, "/prefix"),
            when(&text(key, "/created_at"), terminal),
        ]);
    }
    table.print(terminal)
}

async fn revoke(prefix: &str, client: &Client, json: bool) -> Result<(), Exit> {
    let revoked = client.delete(&format!("/v1/access/{}", part(prefix)), &json!({})).await?;
    if json {
        return print(&revoked.to_string());
    }
    say(&format!("revoked: {}", text(&revoked, "/revoked")));
    Ok(())
}

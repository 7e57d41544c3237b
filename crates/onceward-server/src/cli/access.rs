//! `access`: who may call.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, part};
use super::list::whole;
use super::output::{Printer, each, print, say, text};
use crate::access::ID_BEGIN;
use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Access {
    /// Make a key and print it, this once
    Create(Create),
    /// List the keys: what each may do, until when, and when it was last used
    #[command(visible_alias = "list")]
    Ls,
    /// Make a new key of the same name, roles and routes; the old one goes on for a while
    Rotate(Rotate),
    /// Revoke a key, or end a session
    Revoke {
        /// The letters that the key begins with, as `access ls` shows them; or a session's id
        prefix: String,
    },
    /// List who is logged in to the pages
    Sessions,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The caller's name: its idempotency keys are its own
    #[arg(required_unless_present = "named")]
    name: Option<String>,
    /// The same
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name", hide = true)]
    named: Option<String>,
    /// What it may do: send, read, payloads, operate, admin; several times; without it, all
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
    /// A route that it is confined to; several times; without it, none
    #[arg(long = "route", value_name = "ROUTE", value_delimiter = ',')]
    routes: Vec<String>,
    /// For a web page: it may only send, and only from the pages of --origin
    #[arg(long, requires = "origins", conflicts_with = "roles")]
    browser: bool,
    /// An origin whose pages it is for, by its scheme, host and port; several times
    #[arg(long = "origin", value_name = "ORIGIN", value_delimiter = ',', requires = "browser")]
    origins: Vec<String>,
    /// When it expires, such as 90d or 2027-01-31; without it, never
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Pin it to a version of what callers are promised, such as 2026-11; without it the newest holds
    #[arg(long, value_name = "VERSION")]
    contract: Option<String>,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The letters that the old key begins with, as `access ls` shows them
    prefix: String,
    /// How long the old one goes on
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    overlap: String,
    /// When the new one expires; without it, it lives as long as the old one was made for
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn access(verb: &Access, client: &Client, out: Printer) -> Result<(), Exit> {
    match verb {
        Access::Create(flags) => create(flags, client, out).await,
        Access::Ls => list(client, out).await,
        Access::Rotate(flags) => rotate(flags, client, out).await,
        Access::Revoke { prefix } if prefix.starts_with(ID_BEGIN) => end(prefix, client, out).await,
        Access::Revoke { prefix } => revoke(prefix, client, out).await,
        Access::Sessions => sessions(client, out).await,
    }
}

async fn create(flags: &Create, client: &Client, out: Printer) -> Result<(), Exit> {
    let Create { name, named, roles, routes, browser: _, origins, expires, contract, reason } =
        flags;
    let roles = (!roles.is_empty()).then_some(roles);
    let wanted = json!({
        "name": name.as_ref().or(named.as_ref()), "roles": roles, "routes": routes,
        "origins": origins, "expires": expires, "contract": contract, "reason": reason.as_deref().unwrap_or_default(),
    });
    let made = client.post("/v1/access", &wanted).await?;
    out.document(&made, || {
        print(&text(&made, "/key"))?;
        say(&format!(
            "the key of {}, shown this once. While there is a key, every call needs one: `Onceward-Authorization: Bearer ow_…`",
            text(&made, "/name")
        ));
        Ok(())
    })
}

async fn rotate(flags: &Rotate, client: &Client, out: Printer) -> Result<(), Exit> {
    let Rotate { prefix, overlap, expires, reason } = flags;
    let wanted = json!({
        "overlap": overlap, "expires": expires, "reason": reason.as_deref().unwrap_or_default(),
    });
    let made = client.post(&format!("/v1/access/{}/rotate", part(prefix)), &wanted).await?;
    out.document(&made, || {
        print(&text(&made, "/key"))?;
        say(&format!(
            "the new key of {}, shown this once; {prefix} is refused from {} on",
            text(&made, "/name"),
            text(&made, "/replaces/expires_at")
        ));
        Ok(())
    })
}

async fn list(client: &Client, out: Printer) -> Result<(), Exit> {
    const NAMES: &[&str] = &[
        "NAME",
        "PREFIX",
        "CREATED",
        "ROLES",
        "ROUTES",
        "PAGES OF",
        "EXPIRES",
        "LAST USED",
        "TENANT",
    ];
    whole(client, "/v1/access", out, NAMES, |key| {
        let names = |pointer, none| names(key, pointer, none);
        vec![
            text(key, "/name"),
            text(key, "/prefix"),
            out.when(key, "/created_at"),
            names("/roles", "none"),
            names("/routes", "all"),
            names("/origins", "none"),
            out.when(key, "/expires_at"),
            out.when(key, "/last_used_at"),
            text(key, "/tenant"),
        ]
    })
    .await
}

/// A list of names, in one cell.
fn names(document: &Value, pointer: &str, none: &str) -> String {
    let names: Vec<&str> = each(document, pointer).iter().filter_map(|it| it.as_str()).collect();
    if names.is_empty() { none.to_owned() } else { names.join(",") }
}

async fn sessions(client: &Client, out: Printer) -> Result<(), Exit> {
    const NAMES: &[&str] =
        &["ID", "WHO", "BY", "KEY", "ROLES", "FROM", "BEGAN", "LAST USED", "ENDS"];
    whole(client, "/v1/sessions", out, NAMES, |session| {
        vec![
            text(session, "/id"),
            text(session, "/who"),
            text(session, "/by"),
            text(session, "/prefix"),
            names(session, "/roles", "none"),
            text(session, "/from"),
            out.when(session, "/created_at"),
            out.when(session, "/last_used_at"),
            out.when(session, "/ends_at"),
        ]
    })
    .await
}

async fn end(id: &str, client: &Client, out: Printer) -> Result<(), Exit> {
    let ended = client.delete(&format!("/v1/sessions/{}", part(id)), &json!({})).await?;
    out.document(&ended, || {
        say(&format!("ended: {}", text(&ended, "/ended")));
        Ok(())
    })
}

async fn revoke(prefix: &str, client: &Client, out: Printer) -> Result<(), Exit> {
    let revoked = client.delete(&format!("/v1/access/{}", part(prefix)), &json!({})).await?;
    out.document(&revoked, || {
        say(&format!("revoked: {}", text(&revoked, "/revoked")));
        Ok(())
    })
}

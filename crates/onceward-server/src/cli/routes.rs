//! `routes`: what the gateway is configured to send to.

use clap::Args;
use serde_json::Value;

use super::client::{Client, part};
use super::list::{print_array, whole};
use super::output::{Printer, each, print, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Routes {
    /// Say what their windows and retries should be, from what they have seen
    #[arg(long)]
    advice: bool,
}

const NAMES: [&str; 9] =
    ["NAME", "UPSTREAM", "EFFECTS", "MODE", "WINDOW", "RULES", "AT ONCE", "HELD BY", "GUARDS AT"];

pub(super) async fn routes(flags: &Routes, client: &Client, out: Printer) -> Result<(), Exit> {
    if flags.advice {
        let page = client.get("/v1/routes").await?;
        return advice(each(&page, "/data"), client, out).await;
    }
    whole(client, "/v1/routes", out, &NAMES, |route| {
        let effects = text(route, "/effects");
        vec![
            text(route, "/name"),
            text(route, "/upstream"),
            if effects == "-" { "by method".to_owned() } else { effects },
            text(route, "/mode"),
            text(route, "/window"),
            text(route, "/rules"),
            text(route, "/concurrency_max"),
            text(route, "/gate/held_by"),
            guards_at(route),
        ]
    })
    .await
}

/// Where a route is met at the path root.
fn guards_at(route: &Value) -> String {
    let places = ["/listen", "/host"].into_iter().flat_map(|of| each(route, of));
    let places: Vec<_> = places.filter_map(Value::as_str).collect();
    if places.is_empty() { "-".to_owned() } else { places.join(", ") }
}

async fn advice(routes: &[Value], client: &Client, out: Printer) -> Result<(), Exit> {
    let mut all = Vec::new();
    for route in routes {
        let path = format!("/v1/routes/{}/advice", part(&text(route, "/name")));
        all.push(client.get(&path).await?);
    }
    if out.is_json {
        return print_array(&all);
    }
    for advice in &all {
        let name = text(advice, "/route");
        for what in ["window", "held", "accepted"] {
            print(&format!("{name}\t{what}\t{}", text(advice, &format!("/{what}/says"))))?;
        }
    }
    Ok(())
}

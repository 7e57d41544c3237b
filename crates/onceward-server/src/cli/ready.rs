//! `check --ready`: whether the running gateway takes calls, for health checks where there is no shell.

use std::time::Duration;

use onceward::core::exchange::{Headers, Request};
use serde_json::json;

use super::Global;
use super::client::Client;
use super::output::{clean, print};
use crate::exit::Exit;

/// A gateway that is ready says so at once: its ledger takes a write.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn ready(global: &Global) -> Result<(), Exit> {
    let client = Client::new(global)?;
    let request = Request {
        method: "GET".to_owned(),
        target: "/readyz".to_owned(),
        headers: Headers::default(),
        body: bytes::Bytes::new(),
    };
    let Ok(answer) = tokio::time::timeout(PATIENCE, client.call(request)).await else {
        return Err(Exit::failed(format!(
            "{} gave no answer in {PATIENCE:?}\nhelp: its log says what it waits for",
            client.base()
        )));
    };
    // Those who look at health know one code for that it is not there.
    let answer = answer.map_err(|refused| Exit::failed(refused.exit.message))?;
    let said = clean(String::from_utf8_lossy(&answer.body).trim());
    if answer.status != 200 {
        return Err(Exit::failed(format!(
            "{} is not ready ({}): {said}\nhelp: its log says what it waits for",
            client.base(),
            answer.status
        )));
    }
    let text = if global.json { json!({ "ready": true }).to_string() } else { said };
    print(&text)
}

//! `resend`: what an operation asked is asked anew, changed, by an operation of its own.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::act::{Risk, tell};
use super::client::{Client, part};
use super::output::Printer;
use super::send::{bytes_of, headers_of, put_body};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Resend {
    /// The operation that is asked anew
    id: String,
    /// Another body
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// The file with another body, or - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// A header in the place of what there was; may be given several times
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'")]
    headers: Vec<String>,
    /// A header that is left out; may be given several times
    #[arg(long = "without-header", value_name = "NAME")]
    without: Vec<String>,
    /// Another path and query
    #[arg(long)]
    path: Option<String>,
    /// The new operation's key; without it one is made
    #[arg(short, long)]
    key: Option<String>,
    #[command(flatten)]
    risk: Risk,
    /// Why: it stays with the new operation
    #[arg(long)]
    reason: String,
}

pub(super) async fn resend(flags: &Resend, client: &Client, out: Printer) -> Result<(), Exit> {
    let mut document = Map::new();
    document.insert("reason".to_owned(), json!(flags.reason));
    let mut headers = headers_of(&flags.headers)?;
    headers.extend(flags.without.iter().map(|name| (name.to_ascii_lowercase(), Value::Null)));
    document.insert("headers".to_owned(), Value::Object(headers));
    for (name, value) in
        [("path", &flags.path), ("key", &flags.key), ("risk", &flags.risk.accept_risk)]
    {
        if let Some(value) = value {
            document.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(body) = bytes_of(flags.body.as_deref(), flags.body_file.as_deref())? {
        put_body(&mut document, body);
    }
    let path = format!("/v1/operations/{}/resend", part(&flags.id));
    tell(&client.post(&path, &Value::Object(document)).await?, out)
}

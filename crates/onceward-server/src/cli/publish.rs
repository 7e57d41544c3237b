//! `publish`: an event goes to all who want it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::Client;
use super::output::{Printer, print, say, text};
use super::send::bytes_of;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// What happened, in words with dots between them, such as order.created
    r#type: String,
    /// What there is to say of it, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "data_file")]
    data: Option<String>,
    /// The same, from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// The key: the same event again is the one that is there; without it one is made
    #[arg(long)]
    key: Option<String>,
    /// What it is about
    #[arg(long)]
    subject: Option<String>,
    /// Its place among those about the same subject
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
}

/// An event as it is sent: its data goes as it is written, every digit of it.
#[derive(Debug, Serialize)]
struct Event<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

/// JSON that a flag or a file says.
pub(super) fn data_of(
    text: Option<&String>,
    file: Option<&PathBuf>,
) -> Result<Option<Box<RawValue>>, Exit> {
    let Some(bytes) = bytes_of(text.map(String::as_str), file.map(PathBuf::as_path))? else {
        return Ok(None);
    };
    let data = serde_json::from_slice(&bytes);
    data.map(Some).map_err(|error| Exit::usage(format!("the data is no JSON: {error}")))
}

pub(super) async fn publish(flags: &Publish, client: &Client, out: Printer) -> Result<(), Exit> {
    let Publish { r#type, data, data_file, key, subject, sequence } = flags;
    let data = data_of(data.as_ref(), data_file.as_ref())?;
    let (key, subject) = (key.as_deref(), subject.as_deref());
    let event = Event { r#type, data, key, subject, sequence: *sequence };
    let published = client.post("/v1/events", &event).await?;
    tell(&published, out)
}

/// The event that is on disk now.
pub(super) fn tell(published: &Value, out: Printer) -> Result<(), Exit> {
    out.document(published, || {
        print(&text(published, "/id"))?;
        let id = text(published, "/id");
        let again = if published["duplicate"] == true { "it was there; " } else { "" };
        say(&format!("{again}its deliveries: onceward ls --parent {id}"));
        Ok(())
    })
}

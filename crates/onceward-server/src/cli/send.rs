//! `send` and `explain`: one request, sent through the gateway, or only looked at.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{Printer, Table, each, is_terminal, print, print_bytes, say, text};
use crate::exit::Exit;

/// A request as the command line writes it.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// A route and a path, such as demo/orders?ref=1, or a URL
    to: String,
    /// The method
    #[arg(short, long, default_value = "POST", value_name = "METHOD")]
    method: String,
    /// A header; may be given several times
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'")]
    headers: Vec<String>,
    /// The body; JSON is sent as application/json unless a header says otherwise
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// The file with the body, or - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// The idempotency key; without it one is made and shown
    #[arg(short, long)]
    key: Option<String>,
    /// Do not wait for the answer: the gateway delivers it
    #[arg(long)]
    accepted: bool,
    /// How long to wait for the answer, such as 5s
    #[arg(long, value_name = "DURATION")]
    wait: Option<String>,
    /// A name of your own for the operation
    #[arg(long)]
    label: Option<String>,
    /// What it is about: those about the same can have an order
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Its number among those about the same: an older one is not sent after a newer one
    #[arg(long, value_name = "N", requires = "subject")]
    sequence: Option<u64>,
    /// Whose share of the route it takes
    #[arg(long, value_name = "KEY")]
    flow_key: Option<String>,
}

/// Text that stands in a flag or in a file; `-` is stdin.
pub(super) fn bytes_of(text: Option<&str>, file: Option<&Path>) -> Result<Option<Vec<u8>>, Exit> {
    let Some(path) = file else { return Ok(text.map(|text| text.as_bytes().to_vec())) };
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map(Some).map_err(|error| Exit::failed(format!("{}: {error}", path.display())))
}

/// Puts a body into a document: as text where it is text.
pub(super) fn put_body(document: &mut Map<String, Value>, body: Vec<u8>) {
    match String::from_utf8(body) {
        Ok(text) => document.insert("body".to_owned(), json!(text)),
        Err(error) => {
            document.insert("body_base64".to_owned(), json!(STANDARD.encode(error.as_bytes())))
        }
    };
}

/// Headers that stand in flags, by name.
pub(super) fn headers_of(lines: &[String]) -> Result<Map<String, Value>, Exit> {
    let mut headers = Map::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| Exit::usage(format!("--header {line:?}: write 'Name: value'")))?;
        let name = name.trim().to_ascii_lowercase();
        if headers.insert(name.clone(), json!(value.trim())).is_some() {
            return Err(Exit::usage(format!(
                "--header {name} is there twice\nhelp: a list stands in one header, with commas"
            )));
        }
    }
    Ok(headers)
}

impl Request {
    fn document(&self) -> Result<Value, Exit> {
        let mut headers = headers_of(&self.headers)?;
        let mut document = Map::new();
        document.insert("to".to_owned(), json!(self.to));
        document.insert("method".to_owned(), json!(self.method));
        if let Some(body) = bytes_of(self.body.as_deref(), self.body_file.as_deref())? {
            let is_json = matches!(
                serde_json::from_slice::<Value>(&body),
                Ok(Value::Object(_) | Value::Array(_))
            );
            if is_json && !headers.contains_key("content-type") {
                headers.insert("content-type".to_owned(), json!("application/json"));
            }
            put_body(&mut document, body);
        }
        document.insert("headers".to_owned(), Value::Object(headers));
        for (name, value) in [
            ("key", &self.key),
            ("wait", &self.wait),
            ("label", &self.label),
            ("subject", &self.subject),
            ("flow_key", &self.flow_key),
        ] {
            if let Some(value) = value {
                document.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(sequence) = self.sequence {
            document.insert("sequence".to_owned(), json!(sequence));
        }
        if self.accepted {
            document.insert("mode".to_owned(), json!("accepted"));
        }
        Ok(Value::Object(document))
    }
}

/// Sends it; the answer's body is the data, the rest is talk.
pub(super) async fn send(request: &Request, client: &Client, out: Printer) -> Result<(), Exit> {
    let shown = client.post("/v1/operations", &request.document()?).await?;
    if request.key.is_none() && !request.headers.iter().any(|line| is_key(line)) {
        say(&format!(
            "key {} was made: to ask again for this same effect, send it with --key",
            text(&shown, "/key")
        ));
    }
    let (id, response) = (text(&shown, "/id"), &shown["response"]);
    if out.is_json {
        print(&shown.to_string())?;
    } else if response.is_null() {
        say(&format!("accepted: `onceward show {id}` tells how it goes"));
        print(&id)?;
    } else {
        let replayed =
            if shown["replayed"] == true { ", replayed from memory: nothing was sent" } else { "" };
        say(&format!("{} {id}{replayed}", text(response, "/status")));
        print_body(response)?;
    }
    if shown["ok"] == false {
        return Err(Exit::failed(format!("the upstream answered {}", text(response, "/status"))));
    }
    Ok(())
}

/// A header that may carry the key: the routes know which does; this is the usual one.
fn is_key(line: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("idempotency-key"))
}

/// Prints the body of a response's or request's document as it was.
pub(super) fn print_body(shown: &Value) -> Result<(), Exit> {
    let body = match (shown["body"].as_str(), shown["body_base64"].as_str()) {
        (Some(body), _) => body.as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    print_bytes(&body)?;
    // The next prompt begins on a line of its own.
    if is_terminal() && !body.is_empty() && !body.ends_with(b"\n") {
        print_bytes(b"\n")?;
    }
    Ok(())
}

/// Shows what it would be.
pub(super) async fn explain(request: &Request, client: &Client, out: Printer) -> Result<(), Exit> {
    let shown = client.post("/v1/explain", &request.document()?).await?;
    if out.is_json {
        return print(&shown.to_string());
    }
    let mut table = Table::new(&["WHAT", "", ""]);
    let mut row = |name: &str, value: String, more: &str| {
        table.push(vec![name.to_owned(), value, more.to_owned()]);
    };
    row("route", text(&shown, "/route"), "");
    if shown["record"] == false {
        row("recorded", "no".to_owned(), &text(&shown, "/why"));
        return table.print(out.is_terminal);
    }
    let key =
        if shown["key_given"] == true { "given" } else { "made anew for each call without one" };
    let said = if shown["effects_said"] == true { "said" } else { "inferred from the method" };
    row("recorded", "yes".to_owned(), "");
    if !shown["mail"].is_null() {
        let to: Vec<_> = each(&shown, "/mail/to").iter().filter_map(Value::as_str).collect();
        row("mail", text(&shown, "/mail/subject"), &format!("to {}", to.join(", ")));
    }
    row("key", text(&shown, "/key"), key);
    row("mode", text(&shown, "/mode"), "");
    if !shown["flow"].is_null() {
        row("flow", text(&shown, "/flow"), "");
    }
    if !shown["subject"].is_null() {
        let turn = if shown["in_order"] == true {
            "one at a time among those about the same"
        } else {
            "no order: no sequence is given, and the route asks for none"
        };
        row("subject", text(&shown, "/subject/name"), turn);
    }
    row("effects", text(&shown, "/effects"), said);
    row("window", text(&shown, "/window"), "the key and its outcome are kept so long");
    row("attempts", text(&shown, "/attempts_max"), "at most");
    for part in each(&shown, "/fingerprint") {
        row("fingerprint", text(part, "/part"), &text(part, "/digest"));
    }
    for (after, then) in shown["after"].as_object().into_iter().flatten() {
        row("after", after.clone(), then.as_str().unwrap_or_default());
    }
    if !shown["lookup"].is_null() {
        let asks = text(&shown, "/lookup/asks");
        let asks = if asks == "-" { text(&shown, "/lookup/get") } else { asks };
        let settle = text(&shown, "/lookup/settle");
        row("in doubt", format!("GET {asks}"), &format!("at once, and once it settled ({settle})"));
    }
    if !shown["hours"].is_null() {
        row("hours", text(&shown, "/hours"), "attempts of accepted calls begin then");
    }
    table.print(out.is_terminal)
}

//! What a person does about operations: redeliver, cancel, resolve, forget; each with a reason
//! that stays with the operation.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, part};
use super::doubt::{ByList, by_list};
use super::output::{Printer, print, say, text};
use super::send::{bytes_of, put_body};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Redeliver {
    #[command(flatten)]
    which: Several,
    #[command(flatten)]
    risk: Risk,
}

#[derive(Debug, Args)]
pub(super) struct Risk {
    /// Also what could be done twice: without a name whatever its risk is, else that one alone
    #[arg(
        long,
        value_name = "RISK",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "accepted",
        value_parser = ["accepted", "unknown", "window-over"]
    )]
    pub(super) accept_risk: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Several {
    /// The operations
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why: it stays with the operation
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The operation
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    id: Option<String>,
    /// What became of it; not-sent sends it again
    #[arg(long = "as", value_name = "WHAT", value_parser = ["done", "not-sent"], required_unless_present = "from", conflicts_with = "from")]
    outcome: Option<String>,
    #[command(flatten)]
    list: ByList,
    /// The status that duplicates shall get, where it was done
    #[arg(long)]
    status: Option<u16>,
    /// The body that duplicates shall get
    #[arg(long, value_name = "TEXT", requires = "status")]
    body: Option<String>,
    /// The file with that body, or - for stdin
    #[arg(long, value_name = "FILE", requires = "status", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// Why: it stays with the operation
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The route, or the origin of ad hoc URLs
    route: String,
    /// The key
    key: String,
    /// What its next use meets: a refusal, or a new operation
    #[arg(long, default_value = "refuse", value_parser = ["refuse", "new"])]
    then: String,
    /// The name of the access key whose idempotency key it is
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Why: it stays with the operation
    #[arg(long)]
    reason: String,
}

/// A route, and why.
#[derive(Debug, Args)]
pub(super) struct Steer {
    /// The route
    route: String,
    /// Why
    #[arg(long)]
    reason: String,
}

/// Pauses or resumes a route, or has its upstream asked.
pub(super) async fn steer(
    deed: &str,
    flags: &Steer,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    let path = format!("/v1/routes/{}/{deed}", part(&flags.route));
    let gate = client.post(&path, &json!({"reason": flags.reason})).await?;
    out.document(&gate, || {
        let mut line = vec![flags.route.clone()];
        line.extend(stands(&gate, deed == "probe"));
        print(&line.join("\t"))
    })
}

/// How a gate stands, in words; and what a probe came to.
fn stands(gate: &Value, was_asked: bool) -> Vec<String> {
    let (held_by, breaker) = (text(gate, "/held_by"), text(gate, "/breaker"));
    // A breaker that is to be probed holds no probe, and all else.
    let is_open = held_by == "-" && !["closed", "-"].contains(&&*breaker);
    let mut line = vec![match &*held_by {
        "-" if is_open => breaker,
        "-" => "flows".to_owned(),
        _ => held_by,
    }];
    if was_asked {
        let came_to = ["/probed/status", "/probed/error"].map(|of| text(gate, of));
        line.extend(came_to.into_iter().filter(|came_to| came_to != "-"));
        if is_open && line.len() == 1 {
            line.push("no answer yet".to_owned());
        }
    }
    line
}

pub(super) async fn redeliver(
    flags: &Redeliver,
    client: &Client,
    out: Printer,
) -> Result<(), Exit> {
    let document = json!({"reason": flags.which.reason, "risk": flags.risk.accept_risk});
    for_each("redeliver", &flags.which.ids, &document, client, |shown| tell(shown, out)).await
}

pub(super) async fn retry(flags: &Several, client: &Client, out: Printer) -> Result<(), Exit> {
    let document = json!({"reason": flags.reason});
    for_each("retry", &flags.ids, &document, client, |shown| tell(shown, out)).await
}

pub(super) async fn cancel(flags: &Several, client: &Client, out: Printer) -> Result<(), Exit> {
    let document = json!({"reason": flags.reason});
    for_each("cancel", &flags.ids, &document, client, |shown| tell(shown, out)).await
}

/// Posts `document` for each operation, and tells what came of it; what fails is said, and the others
/// are done all the same.
pub(super) async fn for_each(
    deed: &str,
    ids: &[String],
    document: &Value,
    client: &Client,
    tell: impl Fn(&Value) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let mut first_failure = None;
    for id in ids {
        let path = format!("/v1/operations/{}/{deed}", part(id));
        match client.post(&path, document).await {
            Ok(shown) => tell(&shown)?,
            Err(refused) if refused.is_away || ids.len() == 1 => return Err(refused.into()),
            Err(refused) => {
                say(&format!("error: {id}: {}", refused.exit.message));
                first_failure.get_or_insert(refused.exit.code);
            }
        }
    }
    first_failure.map_or(Ok(()), |code| Err(Exit::quiet(code)))
}

pub(super) async fn resolve(flags: &Resolve, client: &Client, out: Printer) -> Result<(), Exit> {
    if let Some(file) = &flags.list.from {
        return by_list(&flags.list, file, &flags.reason, client, out).await;
    }
    let mut document = Map::new();
    document.insert("as".to_owned(), json!(flags.outcome));
    document.insert("reason".to_owned(), json!(flags.reason));
    if let Some(status) = flags.status {
        document.insert("status".to_owned(), json!(status));
    }
    if let Some(body) = bytes_of(flags.body.as_deref(), flags.body_file.as_deref())? {
        put_body(&mut document, body);
    }
    let path = format!("/v1/operations/{}/resolve", part(flags.id.as_deref().unwrap_or_default()));
    tell(&client.post(&path, &Value::Object(document)).await?, out)
}

pub(super) async fn forget(flags: &Forget, client: &Client, out: Printer) -> Result<(), Exit> {
    let mut document = json!({"reason": flags.reason, "then": flags.then});
    if let Some(principal) = &flags.principal {
        document["principal"] = json!(principal);
    }
    let path = format!("/v1/keys/{}/{}", part(&flags.route), part(&flags.key));
    tell(&client.delete(&path, &document).await?, out)
}

/// The operation afterwards: a line of JSON, or its id and state.
pub(super) fn tell(shown: &Value, out: Printer) -> Result<(), Exit> {
    out.document(shown, || print(&format!("{}\t{}", text(shown, "/id"), text(shown, "/state"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_flows_while_a_breaker_is_probed_and_what_has_not_answered_is_said_to_be_awaited() {
        let gate = |held_by: Value, breaker: &str, probed: Value| {
            let gate = json!({"held_by": held_by, "breaker": breaker, "probed": probed});
            stands(&gate, true).join(" ")
        };
        let (null, answered) = (Value::Null, json!({"status": 503, "error": null}));
        assert_eq!(gate(null.clone(), "half_open", null.clone()), "half_open no answer yet");
        assert_eq!(gate(null.clone(), "open", null.clone()), "open no answer yet");
        assert_eq!(gate(null.clone(), "half_open", answered.clone()), "half_open 503");
        assert_eq!(gate(json!("breaker"), "open", answered), "breaker 503");
        assert_eq!(gate(json!("paused"), "open", null.clone()), "paused");
        assert_eq!(gate(null.clone(), "closed", null), "flows");
    }
}

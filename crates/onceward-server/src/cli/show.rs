//! `show`: an operation's story in words, and whether sending it again is safe.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::client::{Client, part};
use super::ls::place;
use super::output::{Printer, each, print, print_bytes, say, text, when};
use super::send::print_body;
use crate::exit::Exit;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The operation
    id: String,
    /// Print the request's body as it is sent
    #[arg(long, conflicts_with = "response")]
    request: bool,
    /// Print the body of the answer, or of the last answer that failed
    #[arg(long)]
    response: bool,
    /// Write everything that is known of it into a file, or - for stdout: for a dispute
    #[arg(long, value_name = "FILE", conflicts_with_all = ["request", "response"])]
    evidence: Option<PathBuf>,
}

pub(super) async fn show(flags: &Show, client: &Client, out: Printer) -> Result<(), Exit> {
    if let Some(file) = &flags.evidence {
        return evidence(&flags.id, file, client).await;
    }
    let part_of_it = match (flags.request, flags.response) {
        (true, _) => "/request",
        (_, true) => "/response",
        _ => "",
    };
    let shown = client.get(&format!("/v1/operations/{}{part_of_it}", part(&flags.id))).await?;
    out.document(&shown, || {
        if part_of_it.is_empty() {
            print_bytes(story(&shown, out.is_terminal).as_bytes())
        } else {
            print_body(&shown)
        }
    })
}

/// One document, whole, with its digest in it; a file that is there stays as it is.
async fn evidence(id: &str, file: &Path, client: &Client) -> Result<(), Exit> {
    let document = client.get(&format!("/v1/operations/{}/evidence", part(id))).await?;
    let pretty = serde_json::to_string_pretty(&document).unwrap_or_default();
    if file == Path::new("-") {
        return print(&pretty);
    }
    let written = std::fs::File::create_new(file)
        .and_then(|mut to| to.write_all(pretty.as_bytes()).and_then(|()| to.sync_all()));
    written.map_err(|error| {
        let help = "name a file that is not there yet, or - for stdout";
        Exit::failed(format!("{}: {error}\nhelp: {help}", file.display()))
    })?;
    say(&format!("{}: sha256 {}", file.display(), text(&document, "/sha256")));
    Ok(())
}

/// The story. Writing into a string does not fail, so the results are dropped.
pub(super) fn story(operation: &Value, terminal: bool) -> String {
    let field = |pointer: &str| text(operation, pointer);
    let time = |pointer: &str| when(&text(operation, pointer), terminal);
    let is_there = |pointer: &str| operation.pointer(pointer).is_some_and(|value| !value.is_null());
    let mut out = String::new();
    let reason =
        if is_there("/reason") { format!(", {}", field("/reason")) } else { String::new() };
    let _ = writeln!(out, "{}  {}{reason}", field("/id"), field("/state"));
    let mut line = |name: &str, words: String| {
        let _ = writeln!(out, "{name:<11} {words}");
    };
    line("request", format!("{} {} on {}", field("/method"), field("/path"), place(operation)));
    line("key", key(operation));
    let is_claim = operation["kind"] == "claim";
    if is_there("/label") {
        line(if is_claim { "holder" } else { "label" }, field("/label"));
    }
    if is_claim && is_there("/lease_until") {
        let name = if operation["state"] == "delivering" { "in hand to" } else { "free from" };
        line(name, time("/lease_until"));
    }
    if is_there("/parent") {
        line("born of", field("/parent"));
    }
    if is_there("/via") {
        line("came by", field("/via"));
    }
    let mode = if is_claim { String::new() } else { format!(", {}", field("/mode")) };
    line("effects", format!("{}{mode}", field("/effects")));
    line("created", time("/created_at"));
    if is_there("/due_at") {
        line("due", time("/due_at"));
    }
    if is_there("/ended_at") {
        line("ended", time("/ended_at"));
    }
    if is_there("/key_expires_at") {
        line("key until", time("/key_expires_at"));
    }
    if is_there("/outcome") {
        line("outcome", outcome(operation));
    }
    for (name, id) in operation["ids"].as_object().into_iter().flatten() {
        line(name, id.as_str().unwrap_or_default().to_owned());
    }
    if operation["duplicates"]["count"].as_u64().is_some_and(|count| count > 0) {
        let last =
            each(operation, "/duplicates/last").last().and_then(Value::as_str).unwrap_or("-");
        let count = field("/duplicates/count");
        let times = if count == "1" { "once" } else { &format!("{count} times") };
        line("asked again", format!("{times}, last {}", when(last, terminal)));
    }
    for attempt in each(operation, "/attempts") {
        line(&format!("attempt {}", text(attempt, "/n")), attempt_words(attempt, terminal));
        if let Some(words) = timings_words(&attempt["timings"]) {
            line("", words);
        }
    }
    if is_there("/looks/made") {
        line("asked", looks(operation, terminal));
    }
    for act in each(operation, "/acts") {
        // Evidence stands behind a line break.
        let (who, reason) = (text(act, "/who"), text(act, "/reason").replace("\\n", "; "));
        let deed = text(act, "/deed").replace('_', " ");
        line("act", format!("{} {deed} by {who}: {reason}", when(&text(act, "/at"), terminal)));
    }
    let _ = writeln!(out, "\n{}", field("/retry"));
    if !is_claim && matches!(field("/risk/name").as_str(), "unknown" | "window-over") {
        let _ =
            writeln!(out, "Risk of a redelivery, {}: {}", field("/risk/name"), field("/risk/why"));
    }
    if let Some(mend) = mend(operation) {
        let _ = writeln!(out, "{mend}");
    }
    out
}

/// How often the upstream was asked what became of it.
fn looks(operation: &Value, terminal: bool) -> String {
    let made = text(operation, "/looks/made");
    let times = if made == "1" { "once".to_owned() } else { format!("{made} times") };
    match operation.pointer("/looks/next").and_then(Value::as_str) {
        Some(next) => format!("the upstream {times}, next {}", when(next, terminal)),
        None => format!("the upstream {times}"),
    }
}

fn key(operation: &Value) -> String {
    let (key, principal) = (text(operation, "/key"), text(operation, "/principal"));
    let of = if principal == "-" { String::new() } else { format!(" of {principal}") };
    let upstream = &operation["upstream_key"];
    if upstream.is_null() {
        return format!("{key}{of}");
    }
    format!("{key}{of}, upstream as {}: {}", text(upstream, "/place"), text(upstream, "/value"))
}

fn outcome(operation: &Value) -> String {
    let outcome = &operation["outcome"];
    let ok = if outcome["ok"] == true { "ok" } else { "not ok" };
    let kept = if outcome["retained"] == true { "its answer is kept" } else { "no answer is kept" };
    let source = text(outcome, "/source").replace('_', " ");
    format!("{}, {ok}, known from: {source}; {kept}", text(outcome, "/status"))
}

fn attempt_words(attempt: &Value, terminal: bool) -> String {
    let started = text(attempt, "/started_at");
    let mut words = when(&started, terminal);
    let ending = text(attempt, "/ending");
    if ending == "-" {
        words.push_str("  under way");
        return words;
    }
    let _ = write!(words, "  {ending}");
    if attempt["status"].is_number() {
        let _ = write!(words, " {}", text(attempt, "/status"));
    }
    let millis = || {
        let at =
            |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
        Some(at(attempt["ended_at"].as_str()?)? - at(&started)?)
    };
    if let Some(millis) = millis() {
        let _ = write!(words, " after {millis} ms");
    }
    if !attempt["error"].is_null() {
        let _ = write!(words, ": {}", text(attempt, "/error"));
    }
    if attempt["may_have_executed"] == true && ending != "answered" {
        words.push_str(" (it may have been done)");
    }
    words
}

/// How long each phase took that it came to, in milliseconds.
fn timings_words(timings: &Value) -> Option<String> {
    let of = |phase: &str| Some(format!("{phase} {} ms", timings[phase].as_f64()?));
    let phases = ["token", "resolve", "connect", "tls", "send", "head", "body"];
    let mut words: Vec<String> = phases.into_iter().filter_map(of).collect();
    if timings["reused"] == true {
        words.insert(0, "connection reused".to_owned());
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// The command that a person would give next.
fn mend(operation: &Value) -> Option<String> {
    let id = operation["id"].as_str().filter(|_| operation["forgotten"].is_null())?;
    // Nothing of a claim is sent: only its own handler begins it again.
    if operation["kind"] == "claim" && operation["state"] != "in_doubt" {
        return None;
    }
    match operation["state"].as_str()? {
        "in_doubt" if operation["kind"] == "claim" => Some(format!(
            "Find out whether it was done, then: onceward resolve {id} --as done|not-sent --reason …"
        )),
        "in_doubt" => Some(format!(
            "Look at the upstream, then: onceward resolve {id} --as done|not-sent --reason …"
        )),
        "dead" if matches!(text(operation, "/risk/name").as_str(), "unknown" | "window-over") => {
            Some(format!(
                "To send it all the same: onceward redeliver {id} --accept-risk={} --reason …",
                text(operation, "/risk/name")
            ))
        }
        "dead" => Some(format!("To send it again: onceward redeliver {id} --reason …")),
        "done" => Some(format!("To ask it anew: onceward resend {id} --reason …")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_story_tells_each_attempt_and_what_to_do() {
        let operation = json!({
            "id": "op_1", "state": "in_doubt", "method": "POST", "path": "/pay", "route": "bank", "key": "k",
            "effects": "non-idempotent", "mode": "held", "created_at": "2026-01-31T12:00:00.000Z",
            "attempts": [{"n": 1, "started_at": "2026-01-31T12:00:00.000Z", "ended_at": "2026-01-31T12:00:00.120Z",
                "ending": "unanswered", "status": null, "error": "no answer came in time", "may_have_executed": true,
                "timings": {"reused": true, "token": null, "resolve": null, "connect": null, "tls": null,
                    "send": 0.041, "head": 119.2, "body": null}}],
            "acts": [{"deed": "resolved_not_sent", "at": "2026-01-31T12:01:00.000Z", "who": "ada", "reason": "looked"}],
            "duplicates": {"count": 2, "last": ["2026-01-31T12:00:30.000Z"]},
            "retry": "In doubt: …",
        });
        let story = story(&operation, false);
        for words in [
            "op_1  in_doubt",
            "POST /pay on bank",
            "attempt 1   2026-01-31T12:00:00.000Z  unanswered after 120 ms: no answer came in time (it may have been done)",
            "\n            connection reused, send 0.041 ms, head 119.2 ms\n",
            "resolved not sent by ada: looked",
            "2 times, last 2026-01-31T12:00:30.000Z",
            "onceward resolve op_1 --as done|not-sent",
        ] {
            assert!(story.contains(words), "{words}\n{story}");
        }
    }
}

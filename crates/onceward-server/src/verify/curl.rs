//! A case as lines for a shell, so that a person can see by hand what was found.

use std::fmt::Write as _;
use std::time::Duration;

use onceward::core::exchange::is_credential;

use super::ask::{Api, Ask, Key, Run, Who, Wire};
use super::case::{Act, Case};
use crate::shell::quoted;

/// What an invented credential begins with: it opens nothing, so it may be shown.
pub(crate) const INVENTED: &str = "Bearer verify-";

/// The lines of one case, with markers and keys that were not used yet.
pub(crate) fn curl(api: &Api, case: &Case, latency: Duration) -> Vec<String> {
    let api = Api { run: Run::new(), ..api.clone() };
    let one = |ask: &Ask, more: &str| {
        // A request that cannot be written was never sent.
        api.wire(ask, case.no).map_or_else(|_| String::new(), |wire| line(&wire, ask.who, more))
    };
    let mut lines = Vec::new();
    // A race is run several times; by hand once is enough to begin with.
    let round = case.script.len() / case.rounds();
    for act in &case.script[..round] {
        match act {
            Act::Send(ask) | Act::Settle(ask) => lines.push(one(ask, "")),
            Act::HangUp(ask, part) => {
                let after = latency.mul_f64(*part).max(Duration::from_millis(1));
                lines.push(one(ask, &format!(" --max-time {:.3}", after.as_secs_f64())));
            }
            Act::Pause(pause) => lines.push(format!("sleep {:.1}", pause.as_secs_f64())),
            Act::Overlap(ask, times) => {
                let apart = (latency / (times + 1)).as_secs_f64();
                lines.push(several(
                    *times as usize,
                    &format!("{} & sleep {apart:.3};", one(ask, "")),
                ));
            }
            Act::Together(asks) => match asks.as_slice() {
                [first, second, ..] if first != second => {
                    let pair = format!("{} & {} &", one(first, ""), one(second, ""));
                    lines.push(several(asks.len() / 2, &pair));
                }
                [first, ..] => lines.push(several(asks.len(), &format!("{} &", one(first, "")))),
                [] => {}
            },
        }
    }
    lines
}

/// The plain request with a key.
pub(crate) fn plain(api: &Api) -> String {
    let wire = api.wire(&Ask::with(Key::Made(0)), 0);
    wire.map_or_else(|_| String::new(), |wire| line(&wire, Who::First, ""))
}

fn several(times: usize, what: &str) -> String {
    let numbers: Vec<String> = (1..=times).map(|n| n.to_string()).collect();
    format!("for n in {}; do {what} done; wait", numbers.join(" "))
}

fn line(wire: &Wire, who: Who, more: &str) -> String {
    let mut line = format!("curl -isS{more} -X {} {}", wire.method, quoted(wire.url.as_str()));
    for (name, value) in &wire.headers.0 {
        let value = String::from_utf8_lossy(value);
        // Writing into a string does not fail.
        let _ = if is_credential(name, &[]) || name == "onceward-authorization" {
            if value.starts_with(INVENTED) {
                write!(line, " -H {}", quoted(&format!("{name}: {value}")))
            } else {
                let variable = name.to_ascii_uppercase().replace('-', "_");
                let whose = if who == Who::Other { "OTHER_" } else { "" };
                write!(line, " -H \"{name}: ${whose}{variable}\"")
            }
        } else if value.is_empty() {
            // With a colon curl would leave the header out.
            write!(line, " -H {}", quoted(&format!("{name};")))
        } else {
            write!(line, " -H {}", quoted(&format!("{name}: {value}")))
        };
    }
    if !wire.body.is_empty() {
        let body = String::from_utf8_lossy(&wire.body);
        let _ = write!(line, " --data-raw {}", quoted(&body));
        if wire.headers.get("content-type").is_none() {
            line.push_str(" -H 'content-type:'");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::ask::tests::api;
    use super::super::case::{Choices, Kind, cases};
    use super::*;

    #[test]
    fn a_case_is_told_as_a_shell_takes_it_and_shows_no_credential() {
        let choices = Choices {
            pause: Duration::from_secs(2),
            window: Some(Duration::from_secs(2)),
            no_other_caller: None,
        };
        let mut api = api();
        api.headers.set("authorization", "Bearer sk_live_1");
        api.headers.set("x-note", "it's");
        for case in cases(&api, &choices) {
            let lines = curl(&api, &case, Duration::from_millis(40)).join("\n");
            assert!(!lines.contains("sk_live"), "{lines}");
            assert!(lines.contains(r"'x-note: it'\''s'"), "{lines}");
            let syntax = std::process::Command::new("sh").args(["-n", "-c", &lines]).output();
            assert!(syntax.unwrap().status.success(), "{:?}: {lines}", case.kind);
            if case.kind == Kind::OtherCaller {
                assert!(lines.contains("$AUTHORIZATION") && lines.contains("$OTHER_AUTHORIZATION"));
            }
        }
    }
}

//! `/contract/{route}`: how a caller retries a route, for whoever writes that caller. It is made of the same document
//! as `GET /v1/routes/{route}/contract`, and reads nothing of the ledger.

use axum::extract::Path;
use maud::{Markup, html};
use serde_json::Value;

use super::frame::{Here, Html, Ways, document as page_of};
use crate::operator::contract_of;
use crate::problem::Problem;
use crate::view::View;

/// The page.
pub(super) async fn show(node: View, Path(route): Path<String>) -> Result<Html, Problem> {
    let contract = contract_of(&*node.find_called(&route)?);
    let title = format!("How to retry {route}");
    let body = html! {
        link rel="stylesheet" href="/docs.css";
        div.docs { article { (content(&title, &contract, node.guards.of(&route).is_some())) } }
    };
    Ok(Html(page_of(&title, Some(&Ways::few(Some(Here::Docs))), &body)))
}

fn content(title: &str, contract: &Value, is_guard: bool) -> Markup {
    let route = text(&contract["route"]);
    html! {
        h1 { (title) }
        p.lead {
            "Send to " code { "/to/" (route) "/…" }
            @if is_guard { ", or to the API's own address, where this gateway stands before it," }
            " with a key of your own. Whatever happens to your call, ask again with the same key: what was done is not done twice."
        }
        p {
            "Contract " code { (text(&contract["contract"])) } ", which " code { "Onceward-Contract: " (text(&contract["contract"])) }
            " asks for. For programs: " a href={ "/v1/routes/" (route) "/contract" } { "the same as JSON" } "."
        }
        (policy(&contract["policy"]))
        @for rule in contract["rules"].as_array().into_iter().flatten() {
            h2 {
                code { (rule["method"].as_str().unwrap_or("any method")) " " (text(&rule["path"])) }
            }
            (policy(&rule["policy"]))
        }
        h2 { "What it may be refused with" }
        table {
            thead { tr { th { "Code" } th { "Status" } th { "What is left to do" } th { "" } } }
            tbody {
                @for problem in contract["problems"].as_array().into_iter().flatten() {
                    tr {
                        td { a href={ "/docs/problems#" (text(&problem["code"])) } { code { (text(&problem["code"])) } } }
                        td { (problem["status"]) @for status in problem["statuses_beside"].as_array().into_iter().flatten() { ", " (status) } }
                        td { (text(&problem["advice"])) }
                        td { (text(&problem["title"])) }
                    }
                }
            }
        }
    }
}

fn policy(policy: &Value) -> Markup {
    let key = &policy["key"];
    let headers: Vec<&str> =
        key["headers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let attempts =
        |of: &Value| format!("up to {} within {}", of["attempts_max"], text(&of["within"]));
    let statuses = |word: &str| ranges(&policy["statuses"][word]);
    let is_somewhere = |effects: &str| {
        policy["effects"].as_object().into_iter().flatten().any(|(_, said)| said == effects)
    };
    html! {
        dl {
            dt { "The key" }
            dd {
                @if key["made_of_the_request"] == true { "made of the request; or " }
                code { (headers.join(", ")) }
                @if let Some(body) = key["body"].as_str() { ", or " code { (body) } " in the body" }
                "; without one "
                @match key["missing"].as_str() {
                    Some("require") => { "the call is refused" }
                    Some("pass") => { "the call passes, and is not remembered" }
                    _ => { "one is made, which does not protect you from asking twice" }
                }
            }
            @if let Some(rule) = rule_of(key) { dt { "What a key has to be" } dd { (rule) } }
            dt { "How long" }
            dd {
                "the same key gets the same answer for " (text(&policy["window"])) " after the end; then "
                @if policy["after_window"] == "execute" { "it is a new call" }
                @else { "410 for " (text(&policy["tombstone"])) " more" }
            }
            dt { "A second arrival at the upstream" }
            dd {
                @for (method, effects) in policy["effects"].as_object().into_iter().flatten() {
                    code { (method) } " " (text(effects)) "; "
                }
            }
            dt { "Attempts while you wait" } dd { (attempts(&policy["held"])) ", each of " (text(&policy["timeout"])) " at most" }
            dt { "Attempts of an accepted call" } dd { (attempts(&policy["accepted"])) }
            dt { "Final answers, replayed" } dd { "2xx, 3xx, " (statuses("final")) }
            dt { "Not done: the same key runs again" } dd { (statuses("not_processed")) "; " (statuses("refused")) }
            dt { "May have been done" } dd {
                (statuses("ambiguous")) ", and no answer: "
                @if is_somewhere("idempotent") || is_somewhere("keyed") {
                    "sent again with the same key"
                    @if is_somewhere("keyed") { ", where the upstream knows keys as long as it is sure to know this one" }
                    "; "
                }
                @if policy["in_doubt"]["happens"] == true {
                    "else in doubt. The first call gets 504, the same key 409 "
                    code { "outcome-unknown" } " until it is known"
                    @if policy["in_doubt"]["looked_up"] == true { ", which the upstream is asked for" }
                } @else { "never in doubt" }
            }
            dt { "Another request under the same key" } dd { (policy["mismatch_status"]) " " code { "key-mismatch" } }
        }
    }
}

/// What a route wants of its callers' keys, where it wants anything.
fn rule_of(key: &Value) -> Option<String> {
    let mut wants = Vec::new();
    if let Some(min) = key["length_min"].as_u64().filter(|min| *min > 0) {
        wants.push(format!("at least {min} bytes"));
    }
    wants.extend(key["pattern"].as_str().map(|pattern| format!("like {pattern}")));
    let refused = key["refused"].as_array().into_iter().flatten().filter_map(Value::as_str);
    wants.extend(refused.map(|pattern| format!("not like {pattern}")));
    match key["time"].as_str() {
        Some("require") => wants.push("a UUIDv7 or a ULID, no older than keys are kept".to_owned()),
        Some("refuse-late") => {
            wants.push("where it bears a time, no older than keys are kept".to_owned());
        }
        _ => {}
    }
    (!wants.is_empty()).then(|| wants.join("; "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Numbers, with what follows one upon the other as one.
fn ranges(statuses: &Value) -> String {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for status in statuses.as_array().into_iter().flatten().filter_map(Value::as_u64) {
        match all.last_mut() {
            Some((_, last)) if *last + 1 == status => *last = status,
            _ => all.push((status, status)),
        }
    }
    let said = all.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_follow_one_another_are_one() {
        assert_eq!(
            ranges(&serde_json::json!([400, 402, 403, 405, 406, 407])),
            "400, 402, 403, 405–407"
        );
        assert_eq!(ranges(&serde_json::json!([])), "");
    }
}

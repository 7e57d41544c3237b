//! A call as a program makes it: for a shell, and with each of the SDKs.

use maud::{Markup, html};
use serde_json::json;

use super::super::payload::{Again, copies, curl};
use super::Call;
use crate::operator::METHODS;

/// The same call in each language.
pub(super) fn show(call: &Call, base: &str, needs_key: bool) -> Markup {
    let samples = [
        ("curl", "curl", in_curl(call, base, needs_key)),
        ("typescript", "TypeScript", in_typescript(call, base)),
        ("python", "Python", in_python(call, base)),
        ("rust", "Rust", in_rust(call, base)),
    ];
    html! {
        section #code aria-label="The same call as code" {
            @for (n, (id, name, text)) in samples.iter().enumerate() {
                details.card data-key=(id) open[n == 0] {
                    summary { (name) }
                    div.body {
                        div.tools { (copies(&format!("code-{id}"), "Copy")) }
                        pre tabindex="0" { code id={ "code-" (id) } { (text) } }
                    }
                }
            }
            p.soft.small {
                "As the form said when this page was made. " a href="/docs" { "The API" } " has the rest"
                @if needs_key { "; the SDKs take an access key from " code { "ONCEWARD_ACCESS_KEY" } }
                "."
            }
        }
    }
}

fn in_curl(call: &Call, base: &str, needs_key: bool) -> String {
    let again = Again {
        method: &call.method,
        key: &call.key,
        is_accepted: call.is_accepted(),
        route: &call.to,
        target: &call.path,
        headers: call.headers().map(|(name, value)| (name, value.as_bytes())).collect(),
        body: call.body.as_bytes(),
    };
    curl(&again, base, needs_key)
}

/// The verb for it, and what it gives.
fn verb(call: &Call) -> (&'static str, &'static str) {
    if call.is_accepted() { ("accept", "accepted") } else { ("send", "answer") }
}

/// Text as a literal of JSON, which TypeScript and Python read alike.
fn literal(text: &str) -> String {
    json!(text).to_string()
}

fn in_typescript(call: &Call, base: &str) -> String {
    let (verb, gives) = verb(call);
    let mut lines = vec![format!("to: {}", literal(&call.to))];
    lines.push(format!("path: {}", literal(&call.path)));
    if call.method != METHODS[0] {
        lines.push(format!("method: {}", literal(&call.method)));
    }
    lines.push(format!("key: {}", literal(&call.key)));
    for (name, value) in call.headers() {
        lines.push(format!("headers: {{ {}: {} }}", literal(name), literal(value)));
    }
    if !call.body.is_empty() {
        lines.push(format!("body: {}", literal(&call.body)));
    }
    let says = if call.is_accepted() {
        "accepted.operation"
    } else {
        "answer.status, answer.replayed, answer.text()"
    };
    format!(
        "import {{ Onceward }} from \"onceward\";\n\n\
         const onceward = new Onceward({{ url: {} }});\n\
         const {gives} = await onceward.{verb}({{\n{}}});\n\
         console.log({says});",
        literal(base),
        indented("  ", &lines),
    )
}

fn in_python(call: &Call, base: &str) -> String {
    let (verb, gives) = verb(call);
    let mut lines = vec![literal(&call.to), literal(&call.path)];
    if call.method != METHODS[0] {
        lines.push(format!("method={}", literal(&call.method)));
    }
    lines.push(format!("key={}", literal(&call.key)));
    for (name, value) in call.headers() {
        lines.push(format!("headers={{{}: {}}}", literal(name), literal(value)));
    }
    if !call.body.is_empty() {
        lines.push(format!("body={}", literal(&call.body)));
    }
    let says = if call.is_accepted() {
        "accepted.operation"
    } else {
        "answer.status, answer.replayed, answer.text"
    };
    format!(
        "from onceward import Onceward\n\n\
         with Onceward(url={}) as onceward:\n    {gives} = onceward.{verb}(\n{}    )\n    print({says})",
        literal(base),
        indented("        ", &lines),
    )
}

fn indented(by: &str, lines: &[String]) -> String {
    format!("{by}{},\n", lines.join(&format!(",\n{by}")))
}

fn in_rust(call: &Call, base: &str) -> String {
    let (verb, gives) = verb(call);
    let mut lines = vec![format!("Call::to({:?})", call.to), format!("path({:?})", call.path)];
    if call.method != METHODS[0] {
        lines.push(format!("method({:?}.parse()?)", call.method));
    }
    lines.push(format!("key({:?})", call.key));
    lines.extend(call.headers().map(|(name, value)| format!("header({name:?}, {value:?})")));
    if !call.body.is_empty() {
        lines.push(format!("body({:?})", call.body));
    }
    let says = if call.is_accepted() {
        "\"{}\", accepted.operation"
    } else {
        "\"{} {} {}\", answer.status(), answer.replayed(), answer.text()"
    };
    format!(
        "use onceward_client::{{Call, Onceward}};\n\n\
         let onceward = Onceward::builder().url({base:?}).build()?;\n\
         let call = {};\n\
         let {gives} = onceward.{verb}(call).await?;\n\
         println!({says});",
        lines.join("\n    ."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(mode: &str) -> Call {
        let mut call = Call::begin("crm".to_owned());
        call.mode = mode.to_owned();
        call.key = "it's \"7\"".to_owned();
        call.path = "/orders?ref=1".to_owned();
        call.body = "{\"who\": \"Zo\u{eb} \\\\ O'Hara\"}\n".to_owned();
        call
    }

    #[test]
    fn whatever_a_call_says_each_language_reads_it_as_one_literal() {
        let held = call("held");
        assert_eq!(
            in_curl(&held, "http://gw", false),
            "curl -X POST \\\n  -H 'Idempotency-Key: \"it'\\''s \\\"7\\\"\"' \\\n  -H 'content-type: application/json' \\\n  \
             --data-raw '{\"who\": \"Zo\u{eb} \\\\ O'\\''Hara\"}\n' \\\n  --globoff 'http://gw/to/crm/orders?ref=1'"
        );
        assert_eq!(
            in_typescript(&held, "http://gw"),
            r#"import { Onceward } from "onceward";

const onceward = new Onceward({ url: "http://gw" });
const answer = await onceward.send({
  to: "crm",
  path: "/orders?ref=1",
  key: "it's \"7\"",
  headers: { "content-type": "application/json" },
  body: "{\"who\": \"Zo\u{eb} \\\\ O'Hara\"}\n",
});
console.log(answer.status, answer.replayed, answer.text());"#
                .replace("\\u{eb}", "\u{eb}")
        );
        assert_eq!(
            in_python(&held, "http://gw"),
            r#"from onceward import Onceward

with Onceward(url="http://gw") as onceward:
    answer = onceward.send(
        "crm",
        "/orders?ref=1",
        key="it's \"7\"",
        headers={"content-type": "application/json"},
        body="{\"who\": \"Zo\u{eb} \\\\ O'Hara\"}\n",
    )
    print(answer.status, answer.replayed, answer.text)"#
                .replace("\\u{eb}", "\u{eb}")
        );
        assert_eq!(
            in_rust(&held, "http://gw"),
            r#"use onceward_client::{Call, Onceward};

let onceward = Onceward::builder().url("http://gw").build()?;
let call = Call::to("crm")
    .path("/orders?ref=1")
    .key("it's \"7\"")
    .header("content-type", "application/json")
    .body("{\"who\": \"Zo\u{eb} \\\\ O'Hara\"}\n");
let answer = onceward.send(call).await?;
println!("{} {} {}", answer.status(), answer.replayed(), answer.text());"#
                .replace("\\u{eb}", "\u{eb}")
        );
    }

    #[test]
    fn a_call_that_nobody_waits_for_is_accepted_and_one_without_a_body_has_no_type() {
        let mut call = call("accepted");
        call.method = "DELETE".to_owned();
        call.body.clear();
        let all = [
            in_curl(&call, "http://gw", true),
            in_typescript(&call, "http://gw"),
            in_python(&call, "http://gw"),
            in_rust(&call, "http://gw"),
        ];
        for (text, said) in all.iter().zip([
            "Prefer: respond-async",
            "onceward.accept({",
            "onceward.accept(",
            "onceward.accept(call)",
        ]) {
            assert!(text.contains(said) && text.contains("DELETE"), "{text}");
            assert!(!text.contains("content-type") && !text.contains("body"), "{text}");
        }
        assert!(all[0].contains("Onceward-Authorization"), "{}", all[0]);
    }
}

//! A call as a program makes it: for a shell, and with each of the SDKs.

use maud::{Markup, html};
use serde_json::json;

use super::super::payload::{Again, copies, curl};
use super::{Filled, METHODS};

/// The same call in each language.
pub(super) fn show(filled: &Filled, base: &str, needs_key: bool) -> Markup {
    let samples = [
        ("curl", "curl", in_curl(filled, base, needs_key)),
        ("typescript", "TypeScript", in_typescript(filled, base)),
        ("python", "Python", in_python(filled, base)),
        ("rust", "Rust", in_rust(filled, base)),
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

fn in_curl(filled: &Filled, base: &str, needs_key: bool) -> String {
    let again = Again {
        method: &filled.method,
        key: &filled.key,
        is_accepted: filled.is_accepted(),
        route: &filled.to,
        target: &filled.path,
        headers: filled.headers().map(|(name, value)| (name, value.as_bytes())).collect(),
        body: filled.body.as_bytes(),
    };
    curl(&again, base, needs_key)
}

/// The verb for it, and what it gives.
fn verb(filled: &Filled) -> (&'static str, &'static str) {
    if filled.is_accepted() { ("accept", "accepted") } else { ("send", "answer") }
}

/// Text as a literal of JSON, which TypeScript and Python read alike.
fn literal(text: &str) -> String {
    json!(text).to_string()
}

fn in_typescript(filled: &Filled, base: &str) -> String {
    let (verb, gives) = verb(filled);
    let mut lines = vec![format!("to: {}", literal(&filled.to))];
    lines.push(format!("path: {}", literal(&filled.path)));
    if filled.method != METHODS[0] {
        lines.push(format!("method: {}", literal(&filled.method)));
    }
    lines.push(format!("key: {}", literal(&filled.key)));
    for (name, value) in filled.headers() {
        lines.push(format!("headers: {{ {}: {} }}", literal(name), literal(value)));
    }
    if !filled.body.is_empty() {
        lines.push(format!("body: {}", literal(&filled.body)));
    }
    let says = match gives {
        "accepted" => "accepted.operation",
        _ => "answer.status, answer.replayed, answer.text()",
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

fn in_python(filled: &Filled, base: &str) -> String {
    let (verb, gives) = verb(filled);
    let mut lines = vec![literal(&filled.to), literal(&filled.path)];
    if filled.method != METHODS[0] {
        lines.push(format!("method={}", literal(&filled.method)));
    }
    lines.push(format!("key={}", literal(&filled.key)));
    for (name, value) in filled.headers() {
        lines.push(format!("headers={{{}: {}}}", literal(name), literal(value)));
    }
    if !filled.body.is_empty() {
        lines.push(format!("body={}", literal(&filled.body)));
    }
    let says = match gives {
        "accepted" => "accepted.operation",
        _ => "answer.status, answer.replayed, answer.text",
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

fn in_rust(filled: &Filled, base: &str) -> String {
    let (verb, gives) = verb(filled);
    let mut lines = vec![format!("Call::to({:?})", filled.to), format!("path({:?})", filled.path)];
    if filled.method != METHODS[0] {
        lines.push(format!("method({:?}.parse()?)", filled.method));
    }
    lines.push(format!("key({:?})", filled.key));
    lines.extend(filled.headers().map(|(name, value)| format!("header({name:?}, {value:?})")));
    if !filled.body.is_empty() {
        lines.push(format!("body({:?})", filled.body));
    }
    let says = match gives {
        "accepted" => "\"{}\", accepted.operation",
        _ => "\"{} {} {}\", answer.status(), answer.replayed(), answer.text()",
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

    fn filled(mode: &str) -> Filled {
        let mut filled = Filled::begin("crm".to_owned());
        filled.mode = mode.to_owned();
        filled.key = "it's \"7\"".to_owned();
        filled.path = "/orders?ref=1".to_owned();
        filled.body = "{\"who\": \"Zo\u{eb} \\\\ O'Hara\"}\n".to_owned();
        filled
    }

    #[test]
    fn whatever_a_call_says_each_language_reads_it_as_one_literal() {
        let held = filled("held");
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
        let mut filled = filled("accepted");
        filled.method = "DELETE".to_owned();
        filled.body.clear();
        let all = [
            in_curl(&filled, "http://gw", true),
            in_typescript(&filled, "http://gw"),
            in_python(&filled, "http://gw"),
            in_rust(&filled, "http://gw"),
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

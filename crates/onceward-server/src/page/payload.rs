//! Headers and bodies as text, and a call as a curl line. Nothing that came from outside is ever
//! more than text here.

use std::fmt::Write as _;

use maud::{Markup, html};
use onceward::core::exchange::{Headers, Request};
use onceward::core::operation::Operation;
use onceward::core::policy::Mode;
use serde::de::IgnoredAny;

use crate::shell::word;

/// How much of a body is shown: a browser stays quick with it, and the rest is offered.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// Nothing is shown of a larger one: it is offered as a file.
const LARGE_BYTES: usize = 256 << 10;

/// How deep a document is indented: deeper ones are shown as they came.
const DEPTH_MAX: usize = 64;

/// Header lines.
pub(super) fn headers(headers: &Headers) -> Markup {
    html! {
        @if !headers.0.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Headers" {
                table.headers {
                    @for (name, value) in &headers.0 {
                        tr {
                            th scope="row" { (name) }
                            td { (visible(&String::from_utf8_lossy(value))) }
                        }
                    }
                }
            }
        }
    }
}

/// How bodies are shown on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    /// JSON with line breaks, to be read.
    Pretty,
    /// As they came.
    Raw,
}

impl Bodies {
    /// What the word in an address means.
    pub(super) fn of(word: Option<&str>) -> Self {
        if word == Some("raw") { Self::Raw } else { Self::Pretty }
    }
}

/// A body as its page shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// What it is called on the page: a word that no other has there.
    pub(super) name: &'a str,
    /// Where it can be had as a file.
    pub(super) whole: &'a str,
    pub(super) bodies: Bodies,
}

/// A body.
pub(super) fn body(bytes: &[u8], as_shown: Shown<'_>) -> Markup {
    let Shown { name, whole, bodies } = as_shown;
    if bytes.is_empty() {
        return html! { p.soft { "No body." } };
    }
    if bytes.len() > LARGE_BYTES {
        return html! {
            p { (size(bytes.len())) ": too much to show. " a href=(whole) download { "Download it" } }
        };
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return html! {
            p.soft {
                (size(bytes.len())) " that are no text. "
                a href=(whole) download { "Download it" }
            }
        };
    };
    let shown = &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)];
    let is_cut = shown.len() < text.len();
    let pretty = if is_cut { None } else { indented(shown) };
    // Where it is the same there is nothing to choose.
    let pretty = pretty.filter(|pretty| pretty != shown);
    let read = match (&pretty, bodies) {
        (Some(pretty), Bodies::Pretty) => &**pretty,
        _ => shown,
    };
    let told = visible(read);
    // What is copied is what is read.
    let is_whole = !is_cut && told == read;
    html! {
        div.body id={ "body-" (name) } {
            div.tools {
                @if pretty.is_some() { (choice(name, bodies)) }
                @if is_whole { (copies(&format!("text-{name}"), "Copy")) }
            }
            pre tabindex="0" { code id={ "text-" (name) } { (told) } }
        }
        @if is_cut {
            p.soft {
                "The first " (size(shown.len())) " of " (size(bytes.len())) ". "
                a href=(whole) download { "Download all of it" }
            }
        }
    }
}

/// The links that show it otherwise.
fn choice(name: &str, bodies: Bodies) -> Markup {
    html! {
        div.tabs role="group" aria-label={ "How bodies are shown, at " (name) } {
            @for (word, label, other) in [("pretty", "Pretty", Bodies::Pretty), ("raw", "Raw", Bodies::Raw)] {
                a href={ "?bodies=" (word) "#body-" (name) } aria-current=[(other == bodies).then_some("true")] { (label) }
            }
        }
    }
}

/// What copies the text of the element `from`, where the script can.
pub(super) fn copies(from: &str, what: &str) -> Markup {
    html! { button.quiet.scripted-only type="button" data-copies=(from) { (what) } }
}

/// A number of bytes as people say it.
fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x0010_0000 => format!("{} kB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// Letters that turn the direction of what follows are shown by number, so that a text cannot
/// look like another.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                // Writing into memory does not fail.
                let _ = write!(shown, "\u{27e8}U+{:04X}\u{27e9}", u32::from(letter));
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// A JSON document with line breaks, every token as it came: numbers keep their digits, members
/// their order. Nothing where it is no JSON object or array.
fn indented(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut shown = String::with_capacity(text.len() * 2);
    let mut letters = text.chars().filter(|letter| !"\n\r\t".contains(*letter)).peekable();
    let mut depth = 0_usize;
    let new_line = |shown: &mut String, depth: usize| {
        shown.push('\n');
        shown.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(letter) = letters.next() {
        // Deep and narrow documents are mostly indentation.
        if shown.len() > 4 * SHOWN_BYTES_MAX {
            return None;
        }
        match letter {
            '"' => {
                shown.push('"');
                while let Some(inner) = letters.next() {
                    shown.push(inner);
                    match inner {
                        '\\' => shown.extend(letters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                shown.push(letter);
                while letters.next_if(|next| *next == ' ').is_some() {}
                if let Some(closing) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    shown.push(closing);
                    continue;
                }
                depth += 1;
                if depth > DEPTH_MAX {
                    return None;
                }
                new_line(&mut shown, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut shown, depth);
                shown.push(letter);
            }
            ',' => {
                shown.push(',');
                new_line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            ' ' => {}
            other => shown.push(other),
        }
    }
    Some(shown)
}

/// A call that is to be made as it was, or as it is to be.
#[derive(Debug)]
pub(super) struct Again<'a> {
    pub(super) key: &'a str,
    pub(super) is_accepted: bool,
    pub(super) route: &'a str,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: Vec<(&'a str, &'a [u8])>,
    pub(super) body: &'a [u8],
}

impl<'a> Again<'a> {
    /// What an operation asked.
    pub(super) fn of(operation: &'a Operation, request: &'a Request) -> Self {
        let headers = request.headers.0.iter();
        Self {
            key: operation.key.as_str(),
            is_accepted: operation.mode == Mode::Accepted,
            route: &operation.route,
            method: &request.method,
            target: &request.target,
            headers: headers.map(|(name, value)| (name.as_str(), value.as_ref())).collect(),
            body: &request.body,
        }
    }
}

/// A call as a line for a shell. `base` is this gateway's address.
pub(super) fn curl(again: &Again<'_>, base: &str, needs_key: bool) -> String {
    let mut line = format!("curl -X {}", word(again.method));
    let mut header = |text: &str| {
        line.push_str(" \\\n  -H ");
        line.push_str(&word(text));
    };
    header(&format!(
        "Idempotency-Key: \"{}\"",
        again.key.replace('\\', "\\\\").replace('"', "\\\"")
    ));
    if needs_key {
        header("Onceward-Authorization: Bearer ow_YOUR-ACCESS-KEY");
    }
    if again.is_accepted {
        header("Prefer: respond-async");
    }
    for (name, value) in &again.headers {
        // What curl says of itself, and what it works out.
        let is_own = matches!(
            *name,
            "host" | "user-agent" | "content-length" | "idempotency-key" | "prefer"
        ) || (*name == "accept" && *value == b"*/*");
        if let (false, Ok(value)) = (is_own, std::str::from_utf8(value)) {
            header(&format!("{name}: {value}"));
        }
    }
    if !again.body.is_empty() {
        if !again.headers.iter().any(|(name, _)| *name == "content-type") {
            header("Content-Type:");
        }
        let body = std::str::from_utf8(again.body)
            .ok()
            .filter(|body| body.len() <= SHOWN_BYTES_MAX && !body.contains('\0'));
        line.push_str(" \\\n  ");
        match body {
            Some(body) => line.extend(["--data-raw ", &word(body)]),
            None => line.push_str("--data-binary @the-body"),
        }
    }
    // The request's own braces and brackets are not a pattern of curl's.
    let _ = write!(
        line,
        " \\\n  --globoff {}",
        word(&format!("{base}/to/{}{}", again.route, again.target))
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        body(bytes, Shown { name: "x", whole: "/all", bodies: Bodies::Pretty }).into_string()
    }

    #[test]
    fn json_is_indented_and_keeps_every_token() {
        let text = r#"{"b":1e400 , "a":[ ],"n":12345678901234567890.10,"s":"x, {\"y\": 1}","o":{"k":[1,{}]}}"#;
        let shown = indented(text).unwrap();
        assert_eq!(
            shown,
            "{\n  \"b\": 1e400,\n  \"a\": [],\n  \"n\": 12345678901234567890.10,\n  \"s\": \"x, {\\\"y\\\": 1}\",\n  \"o\": {\n    \"k\": [\n      1,\n      {}\n    ]\n  }\n}"
        );
        for other in ["", "12", "not json", "{\"a\":}", "<p>"] {
            assert_eq!(indented(other), None, "{other}");
        }
        assert_eq!(indented(&format!("{}{}", "[".repeat(100), "]".repeat(100))), None);
    }

    #[test]
    fn json_is_shown_to_be_read_or_as_it_came_and_copied_where_it_is_shown_whole() {
        let of = |text: &str, bodies| {
            let shown = Shown { name: "request", whole: "/all", bodies };
            body(text.as_bytes(), shown).into_string()
        };
        let pretty = of("{\"a\":1}", Bodies::Pretty);
        assert!(pretty.contains("{\n  &quot;a&quot;: 1\n}"), "{pretty}");
        assert!(pretty.contains("href=\"?bodies=raw#body-request\""), "{pretty}");
        let raw = of("{\"a\":1}", Bodies::Raw);
        assert!(raw.contains(">{&quot;a&quot;:1}<") && raw.contains("aria-current=\"true\">Raw"));
        assert!(raw.contains("data-copies=\"text-request\""));
        let plain = of("no json", Bodies::Pretty);
        assert!(!plain.contains("bodies=") && plain.contains("data-copies"), "{plain}");
        let turned = of("\u{202e}", Bodies::Raw);
        assert!(!turned.contains("data-copies"), "what is copied is what is read: {turned}");
    }

    #[test]
    fn markup_stays_text_and_a_turned_direction_shows() {
        let shown = shown("<script>alert(1)</script>\u{202e}".as_bytes());
        assert!(!shown.contains("<script"), "{shown}");
        assert!(shown.contains("&lt;script&gt;") && shown.contains("U+202E"), "{shown}");
    }

    #[test]
    fn a_large_body_is_cut_between_letters_and_the_rest_offered() {
        let large = "ä".repeat(SHOWN_BYTES_MAX);
        let part = shown(large.as_bytes());
        assert!(part.len() < SHOWN_BYTES_MAX + 1000);
        assert!(part.contains("href=\"/all\"") && !part.contains("data-copies"));
        let larger = shown(&vec![b'x'; LARGE_BYTES + 1]);
        assert!(larger.len() < 1000 && larger.contains("257 kB") && larger.contains("download"));
        assert!(shown(b"\xff\x00").contains("2 bytes that are no text"));
    }
}

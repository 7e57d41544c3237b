//! Headers and bodies as text, and a call as a curl line. Nothing that came from outside is ever
//! more than text here.

use std::borrow::Cow;
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

/// A body; `whole` is where it can be had as a file.
pub(super) fn body(bytes: &[u8], whole: &str) -> Markup {
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
    html! {
        pre tabindex="0" { code { (visible(&pretty.map_or(Cow::Borrowed(shown), Cow::Owned))) } }
        @if is_cut {
            p.soft {
                "The first " (size(shown.len())) " of " (size(bytes.len())) ". "
                a href=(whole) download { "Download all of it" }
            }
        }
    }
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

/// The same call again, as a line for a shell. `base` is this gateway's address.
pub(super) fn curl(
    operation: &Operation,
    request: &Request,
    base: &str,
    needs_key: bool,
) -> String {
    let mut line = format!("curl -X {}", word(&request.method));
    let mut header = |text: &str| {
        line.push_str(" \\\n  -H ");
        line.push_str(&word(text));
    };
    header(&format!(
        "Idempotency-Key: \"{}\"",
        operation.key.as_str().replace('\\', "\\\\").replace('"', "\\\"")
    ));
    if needs_key {
        header("Onceward-Authorization: Bearer ow_YOUR-ACCESS-KEY");
    }
    if operation.mode == Mode::Accepted {
        header("Prefer: respond-async");
    }
    for (name, value) in &request.headers.0 {
        // What curl says of itself, and what it works out.
        let is_own = matches!(
            name.as_str(),
            "host" | "user-agent" | "content-length" | "idempotency-key" | "prefer"
        ) || (name == "accept" && value.as_ref() == b"*/*");
        if let (false, Ok(value)) = (is_own, std::str::from_utf8(value)) {
            header(&format!("{name}: {value}"));
        }
    }
    if !request.body.is_empty() {
        if request.headers.get("content-type").is_none() {
            header("Content-Type:");
        }
        let body = std::str::from_utf8(&request.body)
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
        word(&format!("{base}/to/{}{}", operation.route, request.target))
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn markup_stays_text_and_a_turned_direction_shows() {
        let shown = body("<script>alert(1)</script>\u{202e}".as_bytes(), "/all").into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert!(shown.contains("&lt;script&gt;") && shown.contains("U+202E"), "{shown}");
    }

    #[test]
    fn a_large_body_is_cut_between_letters_and_the_rest_offered() {
        let large = "ä".repeat(SHOWN_BYTES_MAX);
        let shown = body(large.as_bytes(), "/all").into_string();
        assert!(shown.len() < SHOWN_BYTES_MAX + 1000);
        assert!(shown.contains("href=\"/all\""));
        let larger = body(&vec![b'x'; LARGE_BYTES + 1], "/all").into_string();
        assert!(larger.len() < 1000 && larger.contains("257 kB") && larger.contains("download"));
        assert!(body(b"\xff\x00", "/all").into_string().contains("2 bytes that are no text"));
    }
}

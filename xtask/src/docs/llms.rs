//! `llms.txt`: the book's list for programs that read, each page with what it says of itself.

use std::fmt::Write as _;

use crate::tidy::Tree;
use crate::tidy::book::SUMMARY;
use crate::tidy::links::{links, resolve};

const FILE: &str = "docs/llms.txt";

const HEAD: &str = "\
# Onceward

> A self-hosted gateway that makes HTTP side effects safe to retry: send a request through it with an
> Idempotency-Key, and it is on disk before it is sent, retried only where a retry can help, and answered
> from memory to whoever asks again. What cannot be known is in doubt, and never sent again by itself.

The HTTP API as OpenAPI 3.1 is in [openapi.json](openapi.json); a running gateway serves it at
`/v1/openapi.json`. Every refusal is a problem (RFC 9457) with a `code` and an `advice`.
";

/// The file with its text, where there is a book.
pub(super) fn file(tree: &Tree) -> Option<(String, String)> {
    let summary = tree.text(SUMMARY)?;
    let mut text = HEAD.to_owned();
    for line in summary.lines() {
        if let Some(part) = line.strip_prefix("# ").filter(|part| *part != "Summary") {
            let _ = writeln!(text, "\n## {part}\n");
        }
        let Some((_, target)) = links(line).pop() else { continue };
        let Some(page) = resolve(SUMMARY, &target) else { continue };
        let name = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("", |(name, _)| name);
        if !text.contains("\n## ") {
            text += "\n## What it is\n\n";
        }
        let said = tree.text(&page).map(first_sentence).unwrap_or_default();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let _ = writeln!(text, "- [{name}]({target}){said}");
    }
    Some((FILE.to_owned(), text))
}

/// The first sentence of a page's first paragraph, without links and marks.
fn first_sentence(page: &str) -> String {
    let starts = |first: char| first.is_alphanumeric() || "*`[\"".contains(first);
    let paragraph = page
        .split("\n\n")
        .skip(1)
        .find(|paragraph| paragraph.starts_with(starts) && !paragraph.starts_with("```"));
    let plain = unmarked(&paragraph.unwrap_or_default().trim().replace('\n', " "));
    let end = plain
        .match_indices(['.', ':'])
        .find(|(at, _)| plain[at + 1..].is_empty() || plain[at + 1..].starts_with(' '));
    end.map_or(plain.as_str(), |(at, _)| &plain[..at]).to_owned()
}

/// Text whose links have become their words, without emphasis.
fn unmarked(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("](") {
        plain += before;
        rest = behind.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain += rest;
    plain.replace(['[', '*'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_listed_below_its_part_with_its_first_sentence() {
        let files = [
            (
                SUMMARY,
                "# Summary\n\n[Start](start.md)\n\n# Guides\n\n- [Pay](pay.md)\n  - [Empty](no.md)\n",
            ),
            ("docs/start.md", "# Start\n\nBegin *here*. Go on.\n"),
            ("docs/pay.md", "# Pay\n\nWith [`keys`](k.md), in\n0.5 s: so.\n"),
            ("docs/no.md", "# Nothing\n\n```\nno words\n```\n"),
        ];
        let (_, text) = file(&Tree::of(&files)).unwrap();
        let list = text.split_once("## What it is").unwrap().1;
        let expected = "\n\n- [Start](start.md): Begin here\n\n## Guides\n\n- [Pay](pay.md): With `keys`, in 0.5 s\n- [Empty](no.md)\n";
        assert_eq!(list, expected);
    }
}

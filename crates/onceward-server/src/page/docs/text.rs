//! Prose of the document: words between backticks are code, and those between asterisks are stressed.

use maud::{Markup, html};

/// A line.
pub(super) fn line(text: &str) -> Markup {
    html! {
        @for (n, piece) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (piece) } } @else { (stressed(piece)) }
        }
    }
}

/// Paragraphs, with an empty line between them.
pub(super) fn paragraphs(text: &str) -> Markup {
    html! { @for paragraph in text.split("\n\n") { p { (line(paragraph)) } } }
}

fn stressed(text: &str) -> Markup {
    html! {
        @for (n, piece) in text.split('*').enumerate() {
            @if n % 2 == 1 { em { (piece) } } @else { (piece) }
        }
    }
}

/// Text whose links have become their words: `[words](place)`.
pub(super) fn unlinked(text: &str) -> String {
    let (mut said, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find('[') {
        let (before, from) = rest.split_at(begin);
        said.push_str(before);
        if let Some((words, after)) = link(from) {
            said.push_str(words);
            rest = after;
        } else {
            said.push('[');
            rest = &from[1..];
        }
    }
    said + rest
}

/// The words of the link that a text begins with, and what follows it.
fn link(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let end = text.char_indices().find_map(|(at, letter)| {
        depth = match letter {
            '[' => depth + 1,
            ']' => depth - 1,
            _ => depth,
        };
        (depth == 0).then_some(at)
    })?;
    let (words, after) = (&text[1..end], &text[end + 1..]);
    let (_, after) = after.strip_prefix('(')?.split_once(')')?;
    Some((words, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_link_its_words_stay() {
        for (text, said) in [
            ("of [`[alerts]`](../c.md#a), each", "of `[alerts]`, each"),
            ("`x[1h])` > [a](b) [c](d)", "`x[1h])` > a c"),
            ("[open", "[open"),
        ] {
            assert_eq!(unlinked(text), said);
        }
    }
}

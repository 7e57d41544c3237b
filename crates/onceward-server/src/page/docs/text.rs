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

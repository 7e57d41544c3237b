//! What a terminal sends when somebody presses a key.

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Back,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// The keys in what came at once: a terminal writes what a key sends in one piece.
pub(super) fn read(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut keys = Vec::new();
    let mut rest = text.as_ref();
    while let Some(letter) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("\u{1b}[").or_else(|| rest.strip_prefix("\u{1b}O"))
        {
            // Parameters, then one letter that ends it.
            let end = behind.find(|letter: char| ('@'..='~').contains(&letter));
            let sequence = end.map_or(behind, |end| &behind[..=end]);
            keys.extend(named(sequence));
            rest = &behind[sequence.len()..];
            continue;
        }
        keys.extend(match letter {
            '\r' | '\n' => Some(Key::Enter),
            '\u{1b}' => Some(Key::Escape),
            '\u{7f}' | '\u{8}' => Some(Key::Back),
            '\u{3}' => Some(Key::Interrupt),
            letter if letter.is_control() => None,
            letter => Some(Key::Char(letter)),
        });
        rest = &rest[letter.len_utf8()..];
    }
    keys
}

fn named(sequence: &str) -> Option<Key> {
    match sequence {
        "A" => Some(Key::Up),
        "B" => Some(Key::Down),
        "H" | "1~" | "7~" => Some(Key::Home),
        "F" | "4~" | "8~" => Some(Key::End),
        "5~" => Some(Key::PageUp),
        "6~" => Some(Key::PageDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_one_by_one_or_many_at_once() {
        assert_eq!(read(b"\x1b"), [Key::Escape]);
        assert_eq!(read(b"j\x1b[B\x1bOA\r"), [Key::Char('j'), Key::Down, Key::Up, Key::Enter]);
        assert_eq!(read(b"\x1b[5~\x1b[1;5D\x03\x7f"), [Key::PageUp, Key::Interrupt, Key::Back]);
        assert_eq!(read("ü\t".as_bytes()), [Key::Char('ü')]);
        assert_eq!(read(b"\x1b[").len(), 0);
    }
}

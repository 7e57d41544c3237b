//! Patterns for keys: what a key has to look like, or must not. Matched without going back, so that
//! no key and no pattern takes long.

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 255;

/// The most that `{n,m}` repeats.
const REPEAT_MAX: u16 = 255;

/// A pattern for a whole key. A letter stands for itself, `.` for any, `\d` for a digit, `[a-f0-9]`
/// for one of these and `[^a-f]` for any other; `?`, `*`, `+`, `{n}`, `{n,}` and `{n,m}` say how
/// often the one before; `\` takes a sign as it stands. There are no groups and no choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

/// Signs, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    signs: Signs,
    min: u16,
    /// Without it, any number of them.
    max: Option<u16>,
}

/// Which signs, as ranges of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signs {
    ranges: Vec<(u8, u8)>,
    others: bool,
}

impl Signs {
    fn has(&self, sign: u8) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&sign)) != self.others
    }
}

/// Why a pattern cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAPattern {
    /// Empty, longer than [`PATTERN_BYTES_MAX`], or not ASCII.
    #[error("a pattern has 1 to {PATTERN_BYTES_MAX} signs, all of them ASCII")]
    Length,
    /// A `[` without its `]`, or nothing between them.
    #[error("`[` wants its `]` and something between them")]
    Class,
    /// A repeat of nothing, or one that cannot be read.
    #[error("`?`, `*`, `+` and {{n,m}} stand behind what they repeat, at most {REPEAT_MAX} times")]
    Repeat,
    /// A sign that other languages use for more than this one has.
    #[error(
        "there are no groups, choices or anchors: `(`, `)`, `|`, `^` and `$` want a `\\` before them"
    )]
    Sign,
}

impl Pattern {
    /// Reads a pattern.
    pub fn read(text: &str) -> Result<Self, NotAPattern> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX || !text.is_ascii() {
            return Err(NotAPattern::Length);
        }
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let signs = signs(&mut rest)?;
            let (min, max) = repeat(&mut rest)?;
            pieces.push(Piece { signs, min, max });
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// The pattern, as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `text` is like this.
    pub fn matches(&self, text: &str) -> bool {
        // At which places of the text what came before can end.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for piece in &self.pieces {
            ends = piece.after(&ends, text.as_bytes());
        }
        ends[text.len()]
    }
}

impl Piece {
    /// Where this piece can end, where what came before can end at `starts`.
    fn after(&self, starts: &[bool], text: &[u8]) -> Vec<bool> {
        let mut ends = vec![false; starts.len()];
        // How many signs in a row there are from each place on.
        for start in (0..starts.len()).filter(|start| starts[*start]) {
            let run = text[start..].iter().take_while(|sign| self.signs.has(**sign)).count();
            let most = self.max.map_or(run, |max| run.min(usize::from(max)));
            for length in usize::from(self.min)..=most {
                ends[start + length] = true;
            }
        }
        ends
    }
}

fn signs(rest: &mut &[u8]) -> Result<Signs, NotAPattern> {
    let one = |sign| Signs { ranges: vec![(sign, sign)], others: false };
    match take(rest).ok_or(NotAPattern::Length)? {
        b'.' => Ok(Signs { ranges: Vec::new(), others: true }),
        b'[' => class(rest),
        b'\\' => match take(rest).ok_or(NotAPattern::Sign)? {
            b'd' => Ok(Signs { ranges: vec![(b'0', b'9')], others: false }),
            sign if sign.is_ascii_alphanumeric() => Err(NotAPattern::Sign),
            sign => Ok(one(sign)),
        },
        b'?' | b'*' | b'+' | b'{' | b'}' => Err(NotAPattern::Repeat),
        b'(' | b')' | b'|' | b'^' | b'$' => Err(NotAPattern::Sign),
        b']' => Err(NotAPattern::Class),
        sign => Ok(one(sign)),
    }
}

fn class(rest: &mut &[u8]) -> Result<Signs, NotAPattern> {
    let others = rest.first() == Some(&b'^');
    if others {
        take(rest);
    }
    let mut ranges = Vec::new();
    loop {
        let mut from = take(rest).ok_or(NotAPattern::Class)?;
        if from == b']' {
            break;
        }
        if from == b'\\' {
            from = take(rest).ok_or(NotAPattern::Class)?;
            if from == b'd' {
                ranges.push((b'0', b'9'));
                continue;
            }
        }
        let mut to = from;
        if let [b'-', end, ..] = rest
            && *end != b']'
        {
            to = *end;
            *rest = &rest[2..];
        }
        if to < from {
            return Err(NotAPattern::Class);
        }
        ranges.push((from, to));
    }
    if ranges.is_empty() { Err(NotAPattern::Class) } else { Ok(Signs { ranges, others }) }
}

fn repeat(rest: &mut &[u8]) -> Result<(u16, Option<u16>), NotAPattern> {
    let often = match rest.first() {
        Some(b'?') => (0, Some(1)),
        Some(b'*') => (0, None),
        Some(b'+') => (1, None),
        Some(b'{') => {
            let end = rest.iter().position(|sign| *sign == b'}').ok_or(NotAPattern::Repeat)?;
            let inside = std::str::from_utf8(&rest[1..end]).map_err(|_| NotAPattern::Repeat)?;
            *rest = &rest[end..];
            let number = |text: &str| {
                text.parse().ok().filter(|n| *n <= REPEAT_MAX).ok_or(NotAPattern::Repeat)
            };
            match inside.split_once(',') {
                None => (number(inside)?, Some(number(inside)?)),
                Some((min, "")) => (number(min)?, None),
                Some((min, max)) => (number(min)?, Some(number(max)?)),
            }
        }
        _ => return Ok((1, Some(1))),
    };
    take(rest);
    if often.1.is_some_and(|max| max < often.0) {
        return Err(NotAPattern::Repeat);
    }
    Ok(often)
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_is_of_the_whole_key() {
        for (pattern, key, matches) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc", "ab", false),
            ("a.c", "axc", true),
            (r"\d+", "0123", true),
            (r"\d+", "01a3", false),
            ("[0-9a-f]{8}-.*", "00ff00ff-x", true),
            ("[0-9a-f]{8}-.*", "00ff00f-x", false),
            ("order-[^-]+(", "", false),
            ("[^a-z]{2,3}", "AB", true),
            ("[^a-z]{2,3}", "ABCD", false),
            ("a?a?aa", "aa", true),
            ("a{2,}", "a", false),
            ("a{2,}", "aaaa", true),
            (r"a\.b", "a.b", true),
            (r"a\.b", "axb", false),
            ("[a-]+", "a-a", true),
        ] {
            assert_eq!(
                Pattern::read(pattern).is_ok_and(|it| it.matches(key)),
                matches,
                "{pattern} {key}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (pattern, error) in [
            ("", NotAPattern::Length),
            ("é", NotAPattern::Length),
            ("[a", NotAPattern::Class),
            ("[]", NotAPattern::Class),
            ("[z-a]", NotAPattern::Class),
            ("a]", NotAPattern::Class),
            ("+a", NotAPattern::Repeat),
            ("a{2,1}", NotAPattern::Repeat),
            ("a{256}", NotAPattern::Repeat),
            ("a{x}", NotAPattern::Repeat),
            ("a{1", NotAPattern::Repeat),
            ("^a$", NotAPattern::Sign),
            ("a|b", NotAPattern::Sign),
            (r"\w", NotAPattern::Sign),
            ("a\\", NotAPattern::Sign),
        ] {
            assert_eq!(Pattern::read(pattern), Err(error), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_matched_in_no_time(pattern in "[ -~]{0,40}", key in "[ -~]{0,255}") {
            if let Ok(pattern) = Pattern::read(&pattern) {
                let _ = pattern.matches(&key);
            }
        }

        #[test]
        fn a_key_taken_as_it_stands_matches_itself_and_nothing_else(key in "[ -~]{1,60}", other in "[ -~]{1,60}") {
            let mut text = String::new();
            for sign in key.chars() {
                if !sign.is_ascii_alphanumeric() {
                    text.push('\\');
                }
                text.push(sign);
            }
            let pattern = Pattern::read(&text).unwrap();
            prop_assert!(pattern.matches(&key));
            prop_assert_eq!(pattern.matches(&other), key == other);
        }

        #[test]
        fn repeats_count(min in 0usize..20, more in 0usize..20, n in 0usize..50) {
            let pattern = Pattern::read(&format!("a{{{min},{}}}", min + more)).unwrap();
            prop_assert_eq!(pattern.matches(&"a".repeat(n)), (min..=min + more).contains(&n));
        }
    }
}

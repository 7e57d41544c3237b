//! Whether an SPDX expression can be met with the licences that we take.

use std::collections::BTreeSet;

/// Whether `expression` holds when exactly `allowed` are taken. What cannot be read does not hold.
///
/// `WITH` binds closest, then `AND`, then `OR`; a slash is the old way to write `OR`. An exception
/// is a licence of its own here: `X WITH y` is allowed only where it is listed so.
pub(super) fn allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    any(&mut words, allowed) == Some(true) && words.is_empty()
}

fn any(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut holds = all(words, allowed)?;
    while take(words, "OR") {
        // Both sides are read, so that what follows is where it should be.
        holds |= all(words, allowed)?;
    }
    Some(holds)
}

fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut holds = one(words, allowed)?;
    while take(words, "AND") {
        holds &= one(words, allowed)?;
    }
    Some(holds)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    if take(words, "(") {
        let holds = any(words, allowed)?;
        return take(words, ")").then_some(holds);
    }
    let name = next(words)?;
    if matches!(name, ")" | "AND" | "OR" | "WITH") {
        return None;
    }
    if take(words, "WITH") {
        let exception = next(words)?;
        return Some(allowed.contains(&format!("{name} WITH {exception}")));
    }
    Some(allowed.contains(name))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let there = words.first() == Some(&word);
    if there {
        *words = &words[1..];
    }
    there
}

fn next<'a>(words: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_hold_as_spdx_says() {
        let taken: BTreeSet<String> =
            ["MIT", "ISC", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into();
        for good in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "GPL-3.0-only/MIT",
            "MIT AND ISC",
            "GPL-3.0-only AND ISC OR MIT",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR ISC) AND (Apache-2.0 OR MIT-0)",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert!(allowed(good, &taken), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MIT AND (GPL-3.0-only OR MPL-2.0)",
            "Apache-2.0 WITH LLVM-exception",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT ISC",
        ] {
            assert!(!allowed(bad, &taken), "{bad}");
        }
    }
}

//! The two tables of the README, made of the figures of the last long runs: what was done to the gateway
//! (docs/reliability.md, which `cargo xtask proof` writes), and how fast it is (bench/README.md).

use std::fmt::Write as _;

use crate::tidy::{Complaint, Tree};

const README: &str = "README.md";
const RELIABILITY: &str = "docs/reliability.md";
const BENCH: &str = "bench/README.md";

/// Rows of the page of figures, by how they begin: what stands in the README, and which counts are told.
const TRUST: [(&str, &str, &[&str]); 8] = [
    ("Simulated worlds", "whole worlds simulated, faults at every door", &["worlds", "faults"]),
    ("kill -9 at random", "`kill -9` at random moments under load", &["kills", "acknowledged"]),
    ("Power cuts, ", "power cuts on ext4 and xfs", &["cuts", "acknowledged", "lost"]),
    ("Torn and cut-off", "torn and cut-off writes", &["images"]),
    ("Flipped bits", "bits flipped on disk", &["flips", "silent"]),
    ("I/O errors", "I/O errors, one storage call after the other", &["points"]),
    ("Nodes killed", "nodes of a cluster killed and paused", &["kills", "pauses"]),
    (
        "Promises broken",
        "promises broken on purpose in the code, and noticed by a test",
        &["broken", "noticed"],
    ),
];

/// Lines of the speed table, by how they begin, and what they are to a reader.
const SPEED: [(&str, &str); 4] = [
    ("bare proxy", "a bare proxy of the same libraries, no ledger"),
    ("held", "the caller waits; two durable writes"),
    ("accepted until 202", "on disk, then 202; delivery goes on behind it on the same cores"),
    ("duplicates", "answered from memory"),
];

/// The README with its tables, where it has places for them.
pub(super) fn file(tree: &Tree) -> Result<Option<(String, String)>, Complaint> {
    let Some(readme) = tree.text(README).filter(|text| text.contains("<!-- trust:")) else {
        return Ok(None);
    };
    let text = between(readme, "trust", &trust(tree)?)?;
    let text = between(&text, "speed", &speed(tree)?)?;
    Ok(Some((README.to_owned(), text)))
}

/// The text with another table at its marks.
fn between(text: &str, name: &str, table: &str) -> Result<String, Complaint> {
    let (begin, end) = (format!("<!-- {name}: "), format!("<!-- end of {name} -->"));
    let places = text.find(&begin).and_then(|at| {
        let head = at + text[at..].find('\n')? + 1;
        Some((head, head + text[head..].find(&end)?))
    });
    let Some((head, tail)) = places else {
        return Err(Complaint::new(
            README,
            1,
            format!("there is no place for the table of {name}: {begin}… and {end}"),
        ));
    };
    Ok(format!("{}{table}{}", &text[..head], &text[tail..]))
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn trust(tree: &Tree) -> Result<String, Complaint> {
    let page = tree.text(RELIABILITY).unwrap_or_default();
    let wrong =
        |what: &str| Complaint::new(RELIABILITY, 1, format!("the figures cannot be read: {what}"));
    let measured = page
        .lines()
        .find_map(|line| line.strip_prefix("Measured "))
        .ok_or_else(|| wrong("no date"))?;
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let mut table = "| what was done to it | | broken promises |\n| --- | --- | --- |\n".to_owned();
    for (begins, words, counts) in TRUST {
        let of: Vec<&Vec<&str>> =
            rows.iter().filter(|row| row.len() > 2 && row[0].starts_with(begins)).collect();
        let broken: Option<u64> = of.iter().map(|row| row[2].parse::<u64>().ok()).sum();
        let broken = broken.filter(|_| !of.is_empty()).ok_or_else(|| wrong(begins))?;
        let told: Option<Vec<String>> = counts
            .iter()
            .map(|count| {
                let sum: Option<u64> = of.iter().map(|row| number(row[1], count)).sum();
                Some(format!("{} {count}", grouped(sum?)))
            })
            .collect();
        let told = told.ok_or_else(|| wrong(begins))?.join(", ");
        let _ = writeln!(table, "| {words} | {told} | {broken} |");
    }
    let day = measured.split('T').next().unwrap_or_default();
    let machine =
        measured.split_once(" on ").map_or("", |(_, machine)| machine).trim_end_matches('.');
    Ok(format!("Measured on {day} on {machine}: `cargo xtask proof --long`.\n\n{table}"))
}

/// A figure among `name number` pairs between commas.
fn number(told: &str, name: &str) -> Option<u64> {
    told.split(", ").find_map(|pair| pair.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn speed(tree: &Tree) -> Result<String, Complaint> {
    let page = tree.text(BENCH).unwrap_or_default();
    let wrong =
        |what: &str| Complaint::new(BENCH, 1, format!("the results cannot be read: {what}"));
    let results = page.split_once("\n## Results\n").ok_or_else(|| wrong("no results"))?.1;
    let (said, block) = results.split_once("```\n").ok_or_else(|| wrong("no block"))?;
    let block = block.split("```").next().unwrap_or_default();
    let (command, day) = said.trim().split_once(" on ").ok_or_else(|| wrong("no date"))?;
    let day = day.split(',').next().unwrap_or_default();
    let load = block.lines().next().unwrap_or_default();
    let mut table = "| | requests/s | ÷ bare proxy | p50 ms | p99 ms | |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
    for (name, words) in SPEED {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let figures: Vec<&str> = line.ok_or_else(|| wrong(name))?.split_whitespace().collect();
        let [a_second, ratio, p50, p99, ..] = figures[..] else { return Err(wrong(name)) };
        let a_second = a_second.parse().map(grouped).map_err(|_| wrong(name))?;
        let _ = writeln!(table, "| {name} | {a_second} | {ratio} | {p50} | {p99} | {words} |");
    }
    Ok(format!("Measured on {day} ({load}): {command}.\n\n{table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_kind_are_added_up_and_thousands_are_set_apart() {
        assert_eq!(number("acknowledged 80710, cuts 350, lost 0", "cuts"), Some(350));
        assert_eq!(number("lost answers 2795, lost 0", "lost"), Some(0));
        assert_eq!([grouped(7), grouped(1_000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
        let row = |name: &str, told: &str| format!("| {name} | {told} | 0 | 1 | 2 | c |\n");
        let mut page =
            "Measured 2026-01-31T00:00:00Z to 2026-02-01T00:00:00Z on 2 cores.\n\n".to_owned();
        for (begins, _, counts) in TRUST {
            let told: Vec<_> = counts.iter().map(|count| format!("{count} 1500")).collect();
            page += &row(&format!("{begins}x"), &told.join(", "));
        }
        page += &row("Power cuts, xfs", "cuts 50, acknowledged 1, lost 0");
        let table = trust(&Tree::of(&[(RELIABILITY, &page)])).unwrap();
        assert!(table.starts_with("Measured on 2026-01-31 on 2 cores: "), "{table}");
        assert!(
            table.contains(
                "| power cuts on ext4 and xfs | 1,550 cuts, 1,501 acknowledged, 1,500 lost | 0 |\n"
            ),
            "{table}"
        );
    }

    #[test]
    fn the_speed_is_read_out_of_the_first_block_of_the_results() {
        let page = "# x\n\n## Results\n\n`bench` on 2026-01-31, 2 cores:\n\n```\n2 cores, 64 connections\n\n  req/s\n\
                    bare proxy  66032  1.00  0.88  2.34  1.0\nheld  26343  0.39  2.17  6.40\n\
                    accepted until 202  22578  0.33  2.52  8.26\nduplicates  70395  1.08  0.87  3.70\n```\n";
        let table = speed(&Tree::of(&[(BENCH, page)])).unwrap();
        assert!(
            table.starts_with("Measured on 2026-01-31 (2 cores, 64 connections): `bench`.\n"),
            "{table}"
        );
        assert!(
            table.contains(
                "| held | 26,343 | 0.39 | 2.17 | 6.40 | the caller waits; two durable writes |\n"
            ),
            "{table}"
        );
    }
}

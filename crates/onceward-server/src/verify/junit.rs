//! A report as JUnit's XML, which build servers read: one test case for each check.

use std::fmt::Write as _;

use super::judge::Held;
use super::profile::Level;
use super::report::Report;

/// The document.
pub(crate) fn junit(report: &Report) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    for judged in &report.cases {
        for finding in &judged.findings {
            tests += 1;
            let level = report.profile.level(finding.check);
            let name = format!("{}: {}", judged.case.kind.name(), finding.check.rule());
            // Writing into a string does not fail.
            let _ = write!(
                cases,
                "    <testcase classname=\"verify.{}\" name=\"{}\"",
                report.profile.name,
                escaped(&name)
            );
            let why = escaped(&finding.why);
            let _ = match (finding.result, level) {
                (Held::Yes, _) => writeln!(cases, "/>"),
                (Held::No, Level::Must) => {
                    failures += 1;
                    let lines = escaped(&report.curl(judged).join("\n"));
                    writeln!(
                        cases,
                        "><failure type=\"MUST\" message=\"{why}\">{lines}</failure></testcase>"
                    )
                }
                // What only should be is no failure of the build.
                (Held::No, _) => {
                    writeln!(cases, "><system-out>{}: {why}</system-out></testcase>", level.name())
                }
                (Held::Unknown, _) => {
                    skipped += 1;
                    writeln!(cases, "><skipped message=\"{why}\"/></testcase>")
                }
            };
        }
    }
    let url = escaped(&report.api.url);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"onceward verify {url}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

/// Text as XML takes it; what no XML may hold is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            '\u{fffe}' | '\u{ffff}' => {}
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_heard_breaks_the_document() {
        assert_eq!(escaped("a<b>&\"c\"\u{1b}\u{0}\nd"), "a&lt;b&gt;&amp;&quot;c&quot;\nd");
    }
}

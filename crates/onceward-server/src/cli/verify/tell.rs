//! What `verify` says: the findings as data, the rest as talk.

use std::fmt::Write as _;

use serde_json::json;

use super::super::output::{clean, is_terminal, print, print_bytes, say};
use crate::exit::Exit;
use crate::verify::ask::{Api, MARKER};
use crate::verify::case::{Act, Case};
use crate::verify::control::Blind;
use crate::verify::curl::plain;
use crate::verify::heard::Reply;
use crate::verify::oracle::Probe;
use crate::verify::plan::plan;
use crate::verify::profile::Level;
use crate::verify::report::{Chosen, Report, Tally};
use crate::verify::table::{Style, rows, table};

/// Prints the findings; a must that is broken ends with exit code 5.
pub(super) fn tell(report: &Report, json: bool) -> Result<(), Exit> {
    let terminal = is_terminal();
    if json {
        print(&report.document().to_string())?;
    } else if terminal {
        print_bytes(table(report, style()).as_bytes())?;
    } else {
        print_bytes(rows(report).as_bytes())?;
    }
    if !json {
        say(&format!("\n{}", summary(report)));
        for judged in &report.cases {
            if report.worst(judged) == Some(Level::Must) {
                say(&format!("\n{} by hand:", judged.case.kind.name()));
                report.curl(judged).iter().for_each(|line| say(&format!("  {line}")));
            }
        }
    }
    if !report.is_judged() {
        return Err(Exit::failed("no MUST could be judged; the reasons stand with each case"));
    }
    if !report.is_violated() {
        return Ok(());
    }
    let Tally { broken, .. } = report.tally(Level::Must);
    Err(Exit::violation(format!(
        "the contract {:?} is broken in {broken} MUST{}",
        report.profile.name,
        if broken == 1 { "" } else { "s" }
    )))
}

fn summary(report: &Report) -> String {
    let profile = report.profile;
    let why = match report.chosen {
        Chosen::Given => "as you asked",
        Chosen::Fits => "the first that fits",
        Chosen::Nearest => "none fits, this is the nearest",
    };
    let mut summary = format!(
        "profile  {}: {} ({why})\ncounted  by {}\n",
        profile.name, profile.about, report.oracle
    );
    for level in [Level::Must, Level::Should] {
        let Tally { held, broken, unknown } = report.tally(level);
        let name = level.name();
        // Writing into a string does not fail.
        let _ = writeln!(summary, "{name:<8} {held} held, {broken} broken, {unknown} not judged");
    }
    let fits = if report.fits.is_empty() { "none".to_owned() } else { report.fits.join(", ") };
    summary.push_str("fits     ");
    summary.push_str(&fits);
    summary
}

fn style() -> Style {
    let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    // https://no-color.org
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Style { width, colour: colour && is_terminal() }
}

/// Why nothing could be judged, as an exit.
pub(super) fn refuse(blind: &Blind, api: &Api, json: bool) -> Exit {
    let asked = format!("{} {}", api.method, api.url);
    let (reason, message) = match blind {
        Blind::Refused(reply) => {
            let help = match reply.answer().map(|answer| answer.status) {
                None => {
                    "start it; a certificate of your own stands in the configuration's tls.ca_file"
                }
                Some(401 | 403) => "give a credential: --header 'Authorization: …'",
                Some(_) => "give a request that succeeds: --method, --body, --header",
            };
            let brought = clean(&reply.words());
            (
                "refused",
                format!("{asked} brought {brought}: nothing can be judged of it\nhelp: {help}"),
            )
        }
        Blind::KeyRefused(reply) => (
            "refused",
            format!(
                "{asked} is taken without a key; with one in {} it brought {}: nothing can be judged of it\nhelp: --key-header names another header",
                api.key_header,
                clean(&reply.words())
            ),
        ),
        Blind::NotCounted(n) => (
            "blind",
            format!(
                "the oracle is blind: request {n} of two that nothing dedupes succeeded, and the count did not grow\nhelp: --count has to name a request whose number grows with each effect"
            ),
        ),
        Blind::Uneven(first, second) => (
            "blind",
            format!(
                "the oracle is blind: two requests that nothing dedupes were counted as {first} and {second}\nhelp: put {MARKER} into --count, so that it counts no others"
            ),
        ),
        Blind::Alike(heard) => (
            "blind",
            format!(
                "the oracle is blind: two requests that nothing dedupes have the same answer ({heard})\nhelp: count effects with --count 'GET /orders?ref={MARKER}'"
            ),
        ),
        Blind::Probe(why) => (
            "probe",
            format!(
                "effects cannot be counted: {}\nhelp: --count names a request that answers 200",
                clean(why)
            ),
        ),
    };
    if json {
        let document = json!({"url": api.url, "method": api.method, "verdict": reason, "why": message.lines().next()});
        // Where nobody reads it, the exit code still tells.
        let _ = print(&document.to_string());
    }
    match blind {
        Blind::Refused(Reply::Answer(answer)) if matches!(answer.status, 401 | 403) => {
            Exit::access(message)
        }
        _ => Exit::failed(message),
    }
}

/// Prints what would be sent.
pub(super) fn show_plan(
    api: &Api,
    probe: Option<&Probe>,
    cases: &[Case],
    json: bool,
) -> Result<(), Exit> {
    let calls = |case: &Case| {
        if case.skipped.is_some() {
            0
        } else {
            case.script.iter().map(|act| act.asks().len()).sum()
        }
    };
    let total: usize = cases.iter().map(calls).sum();
    let counted = probe.map_or_else(|| "what the answers name".to_owned(), Probe::words);
    if json {
        let shown = |case: &Case| json!({"case": case.kind.name(), "title": case.kind.title(), "calls": calls(case), "steps": case.script.iter().map(Act::words).collect::<Vec<_>>(), "not_run": case.skipped});
        let document = json!({"url": api.url, "method": api.method, "counted_by": counted, "calls": total, "cases": cases.iter().map(shown).collect::<Vec<_>>()});
        return print(&document.to_string());
    }
    print_bytes(plan(cases, is_terminal(), style()).as_bytes())?;
    say(&format!(
        "\nA and B are two payloads; this is A with key 1:\n  {}\nEffects are counted by {counted}. About {total} requests, each of which may have an effect.\nNothing was sent.",
        plain(api)
    ));
    Ok(())
}

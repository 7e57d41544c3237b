//! What a run came to: every case judged by one profile, which profiles fit, and the verdict; and
//! all of it as one JSON document.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::Api;
use super::case::Case;
use super::control::{Control, Keyless};
use super::curl::curl;
use super::heard::{Heard, Observed};
use super::judge::{Finding, Held, judge};
use super::oracle::Oracle;
use super::profile::{Level, PROFILES, Profile};

/// A run, judged.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) api: Api,
    pub(crate) profile: &'static Profile,
    pub(crate) chosen: Chosen,
    /// The names of all profiles that fit.
    pub(crate) fits: Vec<&'static str>,
    pub(crate) cases: Vec<Judged>,
    /// How effects were counted.
    pub(crate) oracle: String,
    pub(crate) keyless: Keyless,
    latency: Duration,
}

/// How the profile came to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    Given,
    /// It is the first that fits.
    Fits,
    /// None fits: it is the one of which the fewest musts are broken.
    Nearest,
}

/// A case, and what was found.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) case: Case,
    pub(crate) observed: Observed,
    pub(crate) findings: Vec<Finding>,
}

/// How many checks of one level came out which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) held: usize,
    pub(crate) broken: usize,
    pub(crate) unknown: usize,
}

impl Report {
    /// Judges what was `seen` of each case, by `given` or by the first profile that fits.
    pub(crate) fn new(
        api: Api,
        control: &Control,
        seen: Vec<(Case, Observed)>,
        given: Option<&'static Profile>,
    ) -> Self {
        let by = |profile: &'static Profile| -> Vec<Vec<Finding>> {
            seen.iter()
                .map(|(case, observed)| judge(case, observed, &control.oracle, &api, profile))
                .collect()
        };
        let verdicts: Vec<_> = PROFILES.iter().map(|profile| (profile, by(profile))).collect();
        let fits: Vec<_> =
            verdicts.iter().filter(|(profile, found)| fits(profile, found)).collect();
        let fits: Vec<&'static str> = fits.iter().map(|(profile, _)| profile.name).collect();
        let (profile, chosen) = match (given, fits.first().and_then(|name| Profile::named(name))) {
            (Some(given), _) => (given, Chosen::Given),
            (None, Some(first)) => (first, Chosen::Fits),
            (None, None) => {
                let musts = |found: &[Vec<Finding>], profile| broken(found, profile, Level::Must);
                let nearest = verdicts.iter().min_by_key(|(profile, found)| musts(found, profile));
                (nearest.map_or(&PROFILES[0], |(profile, _)| *profile), Chosen::Nearest)
            }
        };
        let findings = by(profile);
        let cases = seen.into_iter().zip(findings);
        let cases =
            cases.map(|((case, observed), findings)| Judged { case, observed, findings }).collect();
        let oracle = match &control.oracle {
            Oracle::Probe(probe, _) => probe.words(),
            Oracle::Identity(identity) => identity.words(),
        };
        let (keyless, latency) = (control.keyless, control.latency);
        Self { api, profile, chosen, fits, cases, oracle, keyless, latency }
    }

    /// How the checks of one level came out.
    pub(crate) fn tally(&self, level: Level) -> Tally {
        let mut tally = Tally::default();
        let findings = self.cases.iter().flat_map(|judged| &judged.findings);
        for finding in findings.filter(|finding| self.profile.level(finding.check) == level) {
            match finding.result {
                Held::Yes => tally.held += 1,
                Held::No => tally.broken += 1,
                Held::Unknown => tally.unknown += 1,
            }
        }
        tally
    }

    /// Whether anything but the control was judged, by which a must could have been broken.
    pub(crate) fn is_judged(&self) -> bool {
        let findings = self.cases.iter().skip(1).flat_map(|judged| &judged.findings);
        findings
            .filter(|finding| self.profile.level(finding.check) == Level::Must)
            .any(|finding| finding.result != Held::Unknown)
    }

    /// The verdict, in a word.
    fn verdict(&self) -> &'static str {
        match (self.is_violated(), self.is_judged()) {
            (true, _) => "violation",
            (false, true) => "pass",
            (false, false) => "unjudged",
        }
    }

    /// Whether a must is broken.
    pub(crate) fn is_violated(&self) -> bool {
        self.tally(Level::Must).broken > 0
    }

    /// The shell lines of a case.
    pub(crate) fn curl(&self, judged: &Judged) -> Vec<String> {
        curl(&self.api, &judged.case, self.latency)
    }

    /// The worst level at which a check of this case is broken.
    pub(crate) fn worst(&self, judged: &Judged) -> Option<Level> {
        let broken = judged.findings.iter().filter(|finding| finding.result == Held::No);
        broken.map(|finding| self.profile.level(finding.check)).min()
    }

    /// All of it.
    pub(crate) fn document(&self) -> Value {
        let levels = [Level::Must, Level::Should, Level::Info].map(|level| {
            let tally = self.tally(level);
            let counts =
                json!({"held": tally.held, "broken": tally.broken, "unknown": tally.unknown});
            (level.name().to_ascii_lowercase(), counts)
        });
        json!({
            "url": self.api.url,
            "method": self.api.method,
            "verdict": self.verdict(),
            "profile": self.profile.name,
            "profile_chosen": self.chosen.name(),
            "fits": self.fits,
            "counted_by": self.oracle,
            "without_key": self.keyless.name(),
            "checks": levels.into_iter().collect::<serde_json::Map<_, _>>(),
            "cases": self.cases.iter().map(|judged| self.case(judged)).collect::<Vec<_>>(),
        })
    }

    fn case(&self, judged: &Judged) -> Value {
        let check = |finding: &Finding| {
            json!({
                "check": finding.check.name(),
                "rule": finding.check.rule(),
                "level": self.profile.level(finding.check).name(),
                "result": finding.result.name(),
                "why": finding.why,
            })
        };
        let mut shown = json!({
            "case": judged.case.kind.name(),
            "title": judged.case.kind.title(),
            "effects": judged.observed.effects.seen(),
            "calls": judged.observed.heard.iter().map(call).collect::<Vec<_>>(),
            "checks": judged.findings.iter().map(check).collect::<Vec<_>>(),
        });
        if self.worst(judged).is_some() {
            shown["curl"] = json!(self.curl(judged));
        }
        shown
    }
}

fn call(heard: &Heard) -> Value {
    let answer = heard.reply.answer();
    json!({
        "step": heard.act + 1,
        "status": answer.map(|answer| answer.status),
        "ms": answer.map(|answer| answer.took.as_millis() as u64),
        "error": if answer.is_none() { json!(heard.reply.words()) } else { Value::Null },
    })
}

fn broken(found: &[Vec<Finding>], profile: &Profile, level: Level) -> usize {
    let broken = found.iter().flatten().filter(|finding| finding.result == Held::No);
    broken.filter(|finding| profile.level(finding.check) == level).count()
}

/// No must is broken, nor anything that the profile is told by.
fn fits(profile: &Profile, found: &[Vec<Finding>]) -> bool {
    let told = |finding: &&Finding| profile.told_by.contains(&finding.check);
    broken(found, profile, Level::Must) == 0
        && found.iter().flatten().filter(told).all(|finding| finding.result != Held::No)
}

impl Held {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Yes => "held",
            Self::No => "broken",
            Self::Unknown => "unknown",
        }
    }
}

impl Chosen {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Fits => "fits",
            Self::Nearest => "nearest",
        }
    }
}

impl Keyless {
    /// The word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Refused => "refused",
            Self::Deduped => "deduped",
        }
    }
}

//! The run: everything started, warmed, then measured in turns, round after round.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::load::{self, Keys, Measured, Plan, Until};
use crate::meter::{self, Cores, Usage};
use crate::options::Options;
use crate::phase::{Phase, Total, Turn, Used};
use crate::report::{Memory, Report};
use crate::subject::{self, Kind, Subject};
use crate::{Outcome, effects, place, report};

/// The same for all: what the gateway calls a route is a path to the others.
pub(crate) const PATH: &str = "/to/sink/x";
const ASYNC: &str = "Prefer: respond-async\r\n";
/// How many keys are repeated in `duplicates`.
const REPEATED: u64 = 1000;
/// Unmeasured work of each subject before the first round: connections, caches, first pages.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures, and prints the report.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let data = place::data(options.data.as_deref())?;
    if cfg!(debug_assertions) {
        say("this is a debug build: its figures mean nothing (cargo run --release)");
    }
    let bench = Bench::start(options, &data)?;
    let report = bench.measure(options, meter::sync_time(&data)?)?;
    if options.json {
        println!("{:#}", report::json(&report));
    } else {
        print!("{}", report::text(&report));
    }
    Ok(())
}

/// Everything that runs during a comparison.
struct Bench<'a> {
    sink: Subject,
    subjects: BTreeMap<Kind, Subject>,
    /// What the paused gateway is started from, where there is one.
    onceward: Option<PathBuf>,
    data: &'a Path,
    /// Told apart from the keys of every other run.
    run: String,
}

impl<'a> Bench<'a> {
    fn start(options: &Options, data: &'a Path) -> Outcome<Self> {
        let nginx = subject::on_path("nginx");
        let kinds = match &options.subjects {
            Some(kinds) => kinds.clone(),
            None if nginx.is_none() => {
                say("nginx is not installed: left out");
                vec![Kind::Bare, Kind::Onceward]
            }
            None => Kind::ALL.to_vec(),
        };
        let is_run = kinds.contains(&Kind::Onceward);
        let onceward = is_run.then(|| place::binary(options.binary.as_deref())).transpose()?;
        let sink = Subject::sink()?;
        let mut subjects = BTreeMap::new();
        for kind in kinds {
            let subject = match kind {
                Kind::Bare => Subject::bare(sink.address)?,
                Kind::Nginx => {
                    let program = nginx.as_deref().ok_or("nginx is not installed")?;
                    Subject::nginx(program, sink.address, data)?
                }
                Kind::Onceward => {
                    let program = onceward.as_deref().ok_or("no onceward to start")?;
                    Subject::onceward(program, sink.address, data)?
                }
            };
            subjects.insert(kind, subject);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self { sink, subjects, onceward, data, run: format!("bench-{:x}", now.as_millis()) })
    }

    fn measure(&self, options: &Options, sync: Duration) -> Outcome<Report> {
        let mut memory = BTreeMap::new();
        for (kind, subject) in &self.subjects {
            memory.insert(
                *kind,
                Memory { idle: meter::memory(&subject.pids()).0, ..Memory::default() },
            );
        }
        self.warm(options)?;
        let mut steps = self.steps();
        let mut totals = BTreeMap::<Phase, Total>::new();
        for round in 1..=options.rounds {
            for step in &steps {
                say(&format!("round {round} of {}: {}", options.rounds, step.name()));
                for (phase, turn) in self.step(*step, round, options)? {
                    totals.entry(phase).or_default().add(turn);
                }
            }
            // Back and forth, so that nobody is always the one after the heaviest.
            steps.reverse();
        }
        for (kind, subject) in &self.subjects {
            let (after, peak) = meter::memory(&subject.pids());
            memory.entry(*kind).and_modify(|memory| (memory.after, memory.peak) = (after, peak));
        }
        Ok(Report {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            sync,
            connections: options.connections,
            seconds: options.seconds,
            totals,
            memory,
        })
    }

    fn steps(&self) -> Vec<Phase> {
        let mut steps = Vec::new();
        for kind in self.subjects.keys() {
            match kind {
                Kind::Bare => steps.push(Phase::Bare),
                Kind::Nginx => steps.push(Phase::Nginx),
                // `Delivered` is the same work as `Accepted`, seen from its other end.
                Kind::Onceward => {
                    steps.extend([Phase::Held, Phase::Delivered, Phase::Paused, Phase::Duplicates]);
                }
            }
        }
        steps
    }

    /// Warms each subject, and makes the keys that `duplicates` repeats.
    fn warm(&self, options: &Options) -> Outcome<()> {
        for (kind, subject) in &self.subjects {
            say(&format!("warming up {kind}"));
            let plan = Plan {
                to: vec![subject.address],
                path: PATH,
                headers: "",
                keys: Keys::Fresh(format!("{}-warm-{kind}", self.run)),
                connections: options.connections,
                until: Until::Elapsed(WARM_UP),
            };
            expect_clean(&load::run(&plan)?, &format!("warming up {kind}"))?;
            if *kind == Kind::Onceward {
                let plan = Plan {
                    keys: self.repeated(),
                    until: Until::Requests(REPEATED),
                    ..plan.clone()
                };
                expect_clean(&load::run(&plan)?, "making the keys to repeat")?;
                let plan = Plan {
                    headers: ASYNC,
                    keys: Keys::Fresh(format!("{}-warm-async", self.run)),
                    until: Until::Requests(REPEATED),
                    ..plan
                };
                let before = effects::at(self.sink.address)?;
                let accepted = load::run(&plan)?;
                expect_clean(&accepted, "warming up accepted calls")?;
                effects::reach(self.sink.address, before + accepted.ok)?;
            }
        }
        Ok(())
    }

    fn repeated(&self) -> Keys {
        Keys::Cycle(format!("{}-again", self.run), REPEATED)
    }

    /// One phase of one subject; `Delivered` brings `Accepted` with it.
    fn step(&self, phase: Phase, round: u32, options: &Options) -> Outcome<Vec<(Phase, Turn)>> {
        let kind = match phase {
            Phase::Bare => Kind::Bare,
            Phase::Nginx => Kind::Nginx,
            _ => Kind::Onceward,
        };
        if phase == Phase::Paused {
            return self.paused(round, options);
        }
        let subject = self.subjects.get(&kind).ok_or("a subject that was not started")?;
        let plan = Plan {
            to: vec![subject.address],
            path: PATH,
            headers: if phase == Phase::Delivered { ASYNC } else { "" },
            keys: match phase {
                Phase::Duplicates => self.repeated(),
                _ => Keys::Fresh(format!("{}-{}-{round}", self.run, phase as u8)),
            },
            connections: options.connections,
            until: Until::Elapsed(options.phase()),
        };
        let effects = effects::at(self.sink.address)?;
        let before = self.used(subject);
        let started = Instant::now();
        let measured = load::run(&plan)?;
        if phase != Phase::Delivered {
            let turn = Turn {
                measured,
                used: Some(self.used_since(subject, before)),
                effects: effects::at(self.sink.address)? - effects,
            };
            return Ok(vec![(phase, turn)]);
        }
        let seen = effects::reach(self.sink.address, effects + measured.ok)?;
        let delivered = Turn {
            measured: Measured {
                ok: seen.min(effects + measured.ok) - effects,
                elapsed: started.elapsed(),
                ..Measured::default()
            },
            used: Some(self.used_since(subject, before)),
            effects: seen - effects,
        };
        let accepted = Turn { measured, ..Turn::default() };
        Ok(vec![(Phase::Accepted, accepted), (Phase::Delivered, delivered)])
    }

    /// A gateway of its own, whose backlog ends with it, before an upstream that takes
    /// connections and never answers: what accepting costs when nothing is delivered beside it.
    fn paused(&self, round: u32, options: &Options) -> Outcome<Vec<(Phase, Turn)>> {
        let program = self.onceward.as_deref().ok_or("no onceward to start")?;
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let subject = Subject::onceward(program, silent.local_addr()?, self.data)?;
        let plan = Plan {
            to: vec![subject.address],
            path: PATH,
            headers: ASYNC,
            keys: Keys::Fresh(format!("{}-paused-warm-{round}", self.run)),
            connections: options.connections,
            until: Until::Requests(REPEATED),
        };
        expect_clean(&load::run(&plan)?, "warming up the paused gateway")?;
        let plan = Plan {
            keys: Keys::Fresh(format!("{}-paused-{round}", self.run)),
            until: Until::Elapsed(options.phase()),
            ..plan
        };
        let before = self.used(&subject);
        let measured = load::run(&plan)?;
        let used = Some(self.used_since(&subject, before));
        subject.abandon();
        Ok(vec![(Phase::Paused, Turn { measured, used, effects: 0 })])
    }

    fn used(&self, subject: &Subject) -> Used {
        Used {
            subject: Usage::of(&subject.pids()),
            sink: Usage::of(&self.sink.pids()),
            load: Usage::of(&[std::process::id()]),
            kept: subject.kept(),
            cores: Cores::now(),
        }
    }

    fn used_since(&self, subject: &Subject, before: Used) -> Used {
        let now = self.used(subject);
        Used {
            subject: now.subject.since(before.subject),
            sink: now.sink.since(before.sink),
            load: now.load.since(before.load),
            kept: now.kept.saturating_sub(before.kept),
            cores: now.cores.since(before.cores),
        }
    }
}

/// A subject that refuses is not measured: its refusals would be the fastest answers of all.
pub(crate) fn expect_clean(measured: &Measured, what: &str) -> Outcome<()> {
    if measured.clean() && measured.ok > 0 {
        return Ok(());
    }
    let sample = measured.sample.as_deref().unwrap_or("no answer");
    Err(format!("{what}: not every request was answered 2xx; the first that was not:\n{sample}")
        .into())
}

/// Progress goes to standard error: standard output is the report.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

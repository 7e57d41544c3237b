//! What a crash or fault test counted, told to whoever watches and, as one line of JSON, to the file
//! that `TEST_FIGURES` names.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Instant;

use crate::crash_world::tell;
use onceward_proof::check;

/// One suite's figures, filled in as it runs.
#[derive(Debug)]
pub(crate) struct Figures {
    suite: &'static str,
    seed: u64,
    began: Instant,
    counted: Vec<(&'static str, u64)>,
}

impl Figures {
    /// Begins to measure.
    pub(crate) fn of(suite: &'static str, seed: u64) -> Self {
        Self { suite, seed, began: Instant::now(), counted: Vec::new() }
    }

    /// Notes a figure.
    pub(crate) fn count(&mut self, what: &'static str, number: impl TryInto<u64>) {
        self.counted.push((what, number.try_into().unwrap_or(u64::MAX)));
    }

    /// Notes what a check counted.
    pub(crate) fn checked(&mut self, figures: &check::Figures) {
        self.count("asks", figures.asked);
        self.count("acknowledged", figures.acknowledged);
        self.count("replayed", figures.replayed);
        self.count("lost_answers", figures.lost_answers);
        self.count("operations", figures.operations);
        self.count("in_doubt", figures.in_doubt);
        self.count("arrivals", figures.arrivals);
    }

    /// Tells them, before anything is judged by them.
    pub(crate) fn tell(&self, violations: usize) {
        let seconds = self.began.elapsed().as_secs_f64();
        let (suite, seed) = (self.suite, self.seed);
        let mut line = format!(
            "{{\"suite\":\"{suite}\",\"seed\":{seed},\"seconds\":{seconds:.1},\"violations\":{violations}"
        );
        for (what, number) in &self.counted {
            // Writing into a string does not fail.
            let _ = write!(line, ",\"{what}\":{number}");
        }
        line.push('}');
        tell(&line);
        let Some(path) = std::env::var_os("TEST_FIGURES") else { return };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

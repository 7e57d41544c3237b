//! What a crash or fault test counted, told to whoever watches and, as one line of JSON, to the file
//! that `TEST_FIGURES` names; and the numbers by which the environment makes such a test longer.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Instant;

use crate::check;

/// One suite's figures, filled in as it runs.
#[derive(Debug)]
pub struct Figures {
    suite: &'static str,
    seed: u64,
    began: Instant,
    counted: Vec<(&'static str, u64)>,
}

impl Figures {
    /// Begins to measure.
    pub fn of(suite: &'static str, seed: u64) -> Self {
        Self { suite, seed, began: Instant::now(), counted: Vec::new() }
    }

    /// Notes a figure.
    pub fn count(&mut self, what: &'static str, number: impl TryInto<u64>) {
        self.counted.push((what, number.try_into().unwrap_or(u64::MAX)));
    }

    /// Notes what a check counted.
    pub fn checked(&mut self, figures: &check::Figures) {
        self.count("asks", figures.asked);
        self.count("acknowledged", figures.acknowledged);
        self.count("replayed", figures.replayed);
        self.count("lost_answers", figures.lost_answers);
        self.count("operations", figures.operations);
        self.count("in_doubt", figures.in_doubt);
        self.count("arrivals", figures.arrivals);
    }

    /// Tells them, before anything is judged by them.
    ///
    /// # Panics
    ///
    /// Where the file cannot be written: figures that go astray are none.
    pub fn tell(&self, violations: usize) {
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

/// The seed that the environment names, or one that the clock gives.
pub fn seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    number("TEST_SEED", clock.map_or(1, |since| u64::from(since.subsec_nanos())))
}

/// A number from the environment, or the default.
///
/// # Panics
///
/// Where it is set and no number: a run that was asked for is not made smaller in silence.
pub fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}

/// Tells what a run came to, or why it did nothing: never silently.
#[expect(clippy::print_stdout, reason = "whoever reads the run has to see it")]
pub fn tell(line: &str) {
    println!("{line}");
}

//! What a run amounts to, as one line of JSON behind the others in the file that `TEST_FIGURES`
//! names.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Instant;

/// The figures of one run of one suite.
#[derive(Debug)]
pub struct Figures<'a> {
    suite: &'a str,
    seed: u64,
    began: Instant,
}

impl<'a> Figures<'a> {
    /// The figures of `suite`, whose run `began` then.
    pub fn new(suite: &'a str, seed: u64, began: Instant) -> Self {
        Self { suite, seed, began }
    }

    /// Tells them, and writes them where they are collected.
    ///
    /// # Panics
    ///
    /// Where `TEST_FIGURES` names a file that cannot be written.
    #[expect(clippy::print_stdout, reason = "whoever reads the run has to see it")]
    pub fn write(&self, counted: &[(&str, u64)], violations: u64) {
        let mut counts = String::new();
        for (name, count) in counted {
            let comma = if counts.is_empty() { "" } else { "," };
            // Writing into a string does not fail.
            let _ = write!(counts, "{comma}\"{name}\":{count}");
        }
        let line = format!(
            "{{\"suite\":\"{}\",\"counted\":{{{counts}}},\"violations\":{violations},\"seconds\":{:.1},\"seed\":{}}}",
            self.suite,
            self.began.elapsed().as_secs_f64(),
            self.seed
        );
        println!("{line}");
        if let Some(path) = std::env::var_os("TEST_FIGURES") {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
            written.expect("the file that TEST_FIGURES names can be written");
        }
    }
}

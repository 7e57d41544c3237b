//! A harness for fuzz targets that needs nothing but a stable toolchain.
//!
//! A target is an ordinary test that hands a function from bytes to [`Fuzz::run`]. The function
//! asserts what must hold for any input and returns what it saw; an input that lets it see
//! something new is kept and changed further, which leads deeper than chance alone. In a normal
//! test run every target meets its corpus, and then as many inputs as it names, from a seed.
//! `cargo xtask fuzz` gives it seconds instead.

mod change;
pub mod figures;

use std::collections::HashSet;
use std::fs;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onceward_proof::chance::{Chance, digest};

use figures::Figures;

/// How many inputs are kept to be changed further; beyond it they take each other's place.
const KEPT_MAX: usize = 4096;

/// How many smaller inputs are tried once one has failed.
const SHRINK_MAX: usize = 2000;

/// The longest input where a target does not say otherwise.
const BYTES_MAX: usize = 4096;

/// One target: its name, and what its inputs are made of.
#[derive(Debug)]
pub struct Fuzz {
    name: &'static str,
    words: &'static [&'static str],
    more: Vec<Vec<u8>>,
    inputs: u64,
    bytes_max: usize,
}

/// What the surroundings ask for.
#[derive(Debug)]
struct Asked {
    seed: u64,
    time: Option<Duration>,
    input: Option<PathBuf>,
}

impl Asked {
    fn read() -> Self {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        Self {
            seed: number("TEST_SEED").unwrap_or(1),
            time: number("TEST_FUZZ_SECONDS").map(Duration::from_secs),
            input: std::env::var_os("TEST_FUZZ_INPUT").map(PathBuf::from),
        }
    }
}

impl Fuzz {
    /// The target whose corpus is `fuzz/corpus/{name}`, with words that its inputs are likely to
    /// hold. In a normal run it meets `inputs` made up ones.
    pub fn new(name: &'static str, inputs: u64, words: &'static [&'static str]) -> Self {
        Self { name, words, more: Vec::new(), inputs, bytes_max: BYTES_MAX }
    }

    /// With inputs of up to so many bytes.
    #[must_use]
    pub fn bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// With inputs beside the corpus: those that a test can make and nobody would write.
    #[must_use]
    pub fn with(self, more: Vec<Vec<u8>>) -> Self {
        Self { more, ..self }
    }

    /// Runs `target` on the corpus, and then on inputs that nobody wrote.
    ///
    /// # Panics
    ///
    /// Where the target does, on the smallest input found that makes it, with the command that
    /// runs it again.
    pub fn run<S: Hash>(&self, target: impl Fn(&[u8]) -> S) {
        let asked = Asked::read();
        if let Some(path) = &asked.input {
            let input = fs::read(path)
                .unwrap_or_else(|error| panic!("TEST_FUZZ_INPUT={}: {error}", path.display()));
            target(&input);
            return;
        }
        let began = Instant::now();
        let mut kept = self.corpus();
        let corpus = kept.len();
        let mut seen = HashSet::new();
        for input in &kept {
            seen.insert(self.meet(input, &target));
        }
        let mut chance = Chance(digest(&(self.name, asked.seed)));
        let mut made = 0;
        loop {
            let goes_on = match asked.time {
                Some(time) => began.elapsed() < time,
                None => made < self.inputs,
            };
            if !goes_on {
                break;
            }
            let input = change::next(&mut chance, &kept, self.words, self.bytes_max);
            made += 1;
            if seen.insert(self.meet(&input, &target)) {
                if kept.len() < KEPT_MAX {
                    kept.push(input);
                } else {
                    let place = corpus + chance.below((KEPT_MAX - corpus) as u64) as usize;
                    kept[place] = input;
                }
            }
        }
        let counted =
            [("corpus", corpus as u64), ("inputs", made), ("kinds_seen", seen.len() as u64)];
        Figures::new(&format!("fuzz/{}", self.name), asked.seed, began).write(&counted, 0);
    }

    /// What the target saw of `input`, as a number.
    fn meet<S: Hash>(&self, input: &[u8], target: &impl Fn(&[u8]) -> S) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| target(input))) {
            Ok(saw) => digest(&saw),
            Err(_) => {
                self.fail(input, |input| catch_unwind(AssertUnwindSafe(|| target(input))).is_err())
            }
        }
    }

    fn fail(&self, input: &[u8], fails: impl Fn(&[u8]) -> bool) -> ! {
        let small = change::shrink(input, SHRINK_MAX, fails);
        let path = folder().join("found").join(format!("{}-{:016x}", self.name, digest(&small)));
        let kept =
            fs::create_dir_all(folder().join("found")).and_then(|()| fs::write(&path, &small));
        let how = match kept {
            Ok(()) => format!("cargo xtask fuzz {} --input {}", self.name, path.display()),
            Err(error) => format!("it could not be kept in {}: {error}", path.display()),
        };
        panic!(
            "{} fails on {} bytes: {:?}\nto see it again: {how}\nonce it is mended, move it to fuzz/corpus/{}",
            self.name,
            small.len(),
            String::from_utf8_lossy(&small),
            self.name
        )
    }

    /// The inputs that are always run, in the order of their names.
    fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = folder().join("corpus").join(self.name);
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("no corpus in {}: {error}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let read = |path: &PathBuf| fs::read(path).expect("a readable corpus");
        let mut inputs: Vec<Vec<u8>> = paths.iter().map(read).collect();
        assert!(!inputs.is_empty(), "the corpus in {} is empty", folder.display());
        inputs.extend(self.more.iter().cloned());
        inputs
    }
}

/// The folder `fuzz`.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

//! Runs worlds and says what they amount to: one, so many, or as many as fit into a time.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onceward_sim::{Amount, Tally, run_many};

const USAGE: &str = "\
usage: onceward-sim [--seed S] [--worlds N | --seconds N | --minutes N]

Worlds from the seed S on, else from a seed of this moment. With a seed alone it is that one world;
with nothing at all, as many as fit into a minute.";

struct Options {
    seed: u64,
    amount: Amount,
}

fn main() -> ExitCode {
    let options = match read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            say(&format!("error: {why}\n\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let tally = run_many(options.seed, options.amount);
    say(&told(&tally));
    note_figures(&tally);
    if tally.broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("\n{} worlds broke a promise:\n{}", tally.broken.len(), tally.account()));
    ExitCode::from(5)
}

fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let (mut seed, mut amount) = (None, None);
    while let Some(flag) = args.next() {
        if ["-h", "--help"].contains(&flag.as_str()) {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| format!("{flag} wants a number"))?;
        let number: u64 = value.parse().map_err(|_| format!("{flag}: {value:?} is no number"))?;
        match flag.as_str() {
            "--seed" => seed = Some(number),
            "--worlds" => amount = Some(Amount::Worlds(number)),
            "--seconds" => amount = Some(Amount::Time(Duration::from_secs(number))),
            "--minutes" => amount = Some(Amount::Time(Duration::from_secs(60 * number))),
            _ => return Err(format!("no such flag: {flag}")),
        }
    }
    let alone =
        if seed.is_some() { Amount::Worlds(1) } else { Amount::Time(Duration::from_mins(1)) };
    Ok(Some(Options { seed: seed.unwrap_or_else(seed_of_now), amount: amount.unwrap_or(alone) }))
}

/// A seed that is short enough to be typed.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 & 0xffff_ffff
}

fn told(tally: &Tally) -> String {
    let seconds = tally.took.as_secs_f64().max(1e-9);
    let mut text = format!(
        "{} worlds from seed {} in {:.1} s ({:.0} a second), {:.1} hours simulated\n\
         {} operations, {} arrivals, {} faults, {} broken\n",
        tally.worlds,
        tally.first,
        tally.took.as_secs_f64(),
        tally.worlds as f64 / seconds,
        tally.simulated.as_secs_f64() / 3600.0,
        tally.operations,
        tally.arrivals,
        tally.faults_in_all(),
        tally.broken.len(),
    );
    let list = |title: &str, rows: Vec<(String, u64)>| {
        let rows: Vec<String> = rows.iter().map(|(name, n)| format!("  {n:>9}  {name}")).collect();
        format!("\n{title}\n{}\n", rows.join("\n"))
    };
    let plain = |(name, n): (&&str, &u64)| ((*name).to_owned(), *n);
    text += &list("faults", tally.faults.iter().map(plain).collect());
    text += &list("occasions", tally.occasions.iter().map(plain).collect());
    let arrows = tally.arrows.iter().map(|((from, to), n)| (format!("{from} -> {to}"), *n));
    text + &list("arrows", arrows.collect())
}

/// A line for whoever collects figures, where one is wanted.
fn note_figures(tally: &Tally) {
    let Some(file) = std::env::var_os("TEST_FIGURES") else { return };
    let line = format!(
        "{{\"suite\":\"simulation\",\"worlds\":{},\"operations\":{},\"arrivals\":{},\"faults\":{},\"simulated_hours\":{:.0},\"violations\":{},\"seconds\":{:.0},\"seed\":{}}}\n",
        tally.worlds,
        tally.operations,
        tally.arrivals,
        tally.faults_in_all(),
        tally.simulated.as_secs_f64() / 3600.0,
        tally.broken.len(),
        tally.took.as_secs_f64(),
        tally.first,
    );
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
    if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
        say(&format!("TEST_FIGURES: {error}"));
    }
}

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
fn say(text: &str) {
    println!("{text}");
}

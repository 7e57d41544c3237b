//! A wall clock that is set while the gateway runs: no key expires early, nothing is sent twice,
//! nothing waits for days, and no storm of retries breaks loose.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crash_load::{Load, settle_and_check, until_acknowledged};
use crate::crash_world::{World, until, words};
use onceward_proof::chance::Chance;
use onceward_proof::check::Log;
use onceward_proof::figures::{Figures, number, seed, tell};

/// What the upstream refuses is tried again this often.
const AGAIN: Duration = Duration::from_millis(100);

const ROUTES: &str = r#"
[routes.steady]
upstream = "http://AUDITOR/keyed"
effects = "keyed"
breaker = false
retry = { attempts_max = 100000, horizon = "72h", table = ["100ms"] }
"#;

/// Debian's libfaketime.
fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten().map(|place| place.path());
    places
        .chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")])
        .map(|place| place.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file())
}

/// A file that says what time it is; it is replaced whole, since it is read at any moment.
struct WallClock(PathBuf);

impl WallClock {
    fn set(&self, to: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, to).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// What makes a process believe the file. The time since boot is left alone, as it is where
    /// somebody sets a clock.
    fn wrapper(&self, library: &Path) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

/// Three days on and back, to and fro, the ends of what 32 bits count, and a leap of centuries.
const JUMPS: [&str; 12] = [
    "+3d",
    "+0",
    "-3d",
    "+0",
    "@1970-01-01 00:00:01",
    "+40d",
    "@2038-01-19 03:14:06",
    "-1",
    "+1",
    "@2106-02-07 06:28:14",
    "-40d",
    "+0",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_makes_no_key_expire_and_nothing_be_sent_twice() {
    let Some(library) = library() else {
        return tell("SKIPPED, no clock is set: there is no libfaketime (Debian: libfaketime)");
    };
    let seed = seed();
    let rounds = number("TEST_CLOCK_ROUNDS", 1);
    let mut told = Figures::of("clock", seed);
    let world = World::with(seed, ROUTES).await;
    let clock = WallClock(world.folder.path().join("clock"));
    clock.set("+0");
    let gateway = world.start_behind(&words(&clock.wrapper(&library))).await.expect("a start");
    let (log, mut chance) = (Arc::new(Log::default()), Chance(seed));
    // The first pass of retention comes while the clock is far ahead.
    clock.set("+40d");
    let began = Instant::now();
    let steady = gateway.post("/steady/refuse/things", "steady", b"{}").await.unwrap();
    assert_eq!(steady.status(), 202);
    // A delay is counted by the time that passes, whatever the clock says.
    let mut line = gateway.line().await;
    let delayed =
        [("idempotency-key", "delayed"), ("prefer", "respond-async"), ("onceward-delay", "300ms")];
    let accepted = line.ask("POST", "/to/keyed/things", &delayed, b"{}").await.unwrap();
    assert_eq!(accepted.status(), 202, "{}", accepted.json());
    clock.set("-3d");
    until("a delayed call", async || {
        (!world.auditor.arrived_with("delayed").is_empty()).then_some(())
    })
    .await;
    let arrivals = || world.auditor.arrived_with("steady").len();
    let mut jumps = 0u64;
    for round in 0..rounds {
        for (place, jump) in JUMPS.into_iter().enumerate() {
            let name = format!("{round}-{place}");
            let load = Load::start(gateway.address, &log, &mut chance, &name, 4);
            clock.set(jump);
            jumps += 1;
            // What waits goes on, whichever way the clock went.
            let before = arrivals();
            until(&format!("another attempt after {jump}"), async || {
                (arrivals() > before + 1).then_some(())
            })
            .await;
            load.end().await;
        }
        let load = Load::start(gateway.address, &log, &mut chance, &format!("{round}-slew"), 4);
        for second in 0..number("TEST_SLEWS", 200) {
            clock.set(if second % 2 == 0 { "-1" } else { "+1" });
            jumps += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        until_acknowledged(&log, 250).await;
        load.end().await;
    }
    let (attempts, lasted) = (arrivals(), began.elapsed());
    let waits = gateway.get("/v1/keys/steady/steady").await;
    let path = format!("/v1/operations/{}/cancel", waits["id"].as_str().unwrap());
    let order = br#"{"reason": "the test is over"}"#;
    let json = [("content-type", "application/json")];
    // While an attempt is under way it cannot be given up.
    until("it to be given up", async || {
        let told = gateway.line().await.ask("POST", &path, &json, order).await.unwrap();
        (told.status() == 200).then_some(())
    })
    .await;
    let said = gateway.said();
    let checked = settle_and_check(&world, gateway, &log).await;
    let expired = {
        let asked = log.lock();
        let is_over = |code: &str| ["key-expired", "key-invalidated"].contains(&code);
        asked.told.values().flatten().filter(|told| is_over(&told.code)).count()
    };
    told.count("jumps", jumps);
    told.count("keys_expired_early", expired);
    told.count("attempts_of_one", attempts);
    told.count("attempts_at_most", lasted.as_millis() / AGAIN.as_millis() + 1);
    told.checked(&checked.figures);
    told.tell(checked.violations.len() + expired);
    assert!(!said.contains("panicked"), "{said}");
    let is_told = |year: &str| said.contains(&format!("\"timestamp\":\"{year}-"));
    assert!(is_told("1970") && is_told("2106"), "the clock was never set:\n{said}");
    assert_eq!(expired, 0, "keys expired early");
    assert!(attempts as u128 <= lasted.as_millis() / AGAIN.as_millis() + 1, "a storm: {attempts}");
    let figures = checked.expect_kept();
    assert!(figures.acknowledged > 200 && figures.replayed > 50, "too tame: {figures:?}");
}

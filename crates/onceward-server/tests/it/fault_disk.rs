//! Disks that fill up and disks that fail: new calls are refused before anything is sent, what
//! was acknowledged stays, and the service comes back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::crash_world::{Gateway, World, can_trace, until};
use onceward_proof::check::{Ask, Log, Told, check};
use onceward_proof::figures::{Figures, tell};

/// A disk of its own for the data folder, seeded with what is in it; the gateway sees only that.
const SMALL_DISK: &str = "cp -a \"$0\" \"$0.seed\" && mount -t tmpfs -o size=24m tmpfs \"$0\" \
                          && cp -a \"$0.seed/.\" \"$0\" && exec \"$@\"";

fn ask(route: &str, path: &str, key: String, bytes: usize) -> Ask {
    let body = format!("{{\"ask\":\"{key}\",\"pad\":\"{}\"}}", "d".repeat(bytes)).into_bytes();
    Ask { route: route.to_owned(), path: format!("/{route}/{path}"), key, body }
}

async fn call(gateway: &Gateway, log: &Log, ask: &Ask) -> Option<Told> {
    let answer = gateway.call(&ask.path, &ask.key, &ask.body).await;
    log.told(&ask.key, &answer);
    answer.ok().as_ref().map(Told::of)
}

async fn land(gateway: &Gateway, log: &Log, name: &str, count: usize) -> Vec<Ask> {
    let mut asks = Vec::new();
    for n in 0..count {
        let route = if n % 2 == 0 { "keyed" } else { "once" };
        let ask = ask(route, "things", format!("{route}-{name}-{n}"), 2000);
        log.ask(&ask);
        assert_eq!(call(gateway, log, &ask).await.unwrap().status, 201);
        asks.push(ask);
    }
    asks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_calls_and_heals_by_itself() {
    let mut figures = Figures::of("full-disk", 17);
    let world = World::new(17).await;
    let log = Arc::new(Log::default());
    let mut done = {
        let mut gateway = world.start().await;
        let done = land(&gateway, &log, "before", 40).await;
        gateway.stop().await;
        done
    };
    let data = world.data().display().to_string();
    let wrapper = ["unshare", "-r", "-m", "sh", "-c", SMALL_DISK, &data];
    let gateway = match world.start_behind(&wrapper).await {
        Ok(gateway) => Arc::new(gateway),
        Err(ended) if ended.said.contains("unshare:") || ended.said.contains("mount:") => {
            return tell(&format!("skipped: no disk of its own here: {}", ended.said.trim()));
        }
        Err(ended) => panic!("{}\n{}", ended.status, ended.said),
    };
    done.extend(land(&gateway, &log, "since", 40).await);

    // Some calls are under way while the disk fills.
    let mut under_way = Vec::new();
    for n in 0..8 {
        let route = if n % 2 == 0 { "keyed" } else { "once" };
        let ask = ask(route, "gate/things", format!("{route}-gate-{n}"), 2000);
        log.ask(&ask);
        let (gateway, log) = (Arc::clone(&gateway), Arc::clone(&log));
        under_way.push(tokio::spawn(async move { call(&gateway, &log, &ask).await }));
    }
    until("the calls under way", async || (world.auditor.arrivals() >= 88).then_some(())).await;

    // The disk as the gateway sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{data}", gateway.id()));
    assert!(!disk.join("ledger.seed").exists());
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let piece = vec![1; 4096];
    while file.write_all(&piece).is_ok() {}
    drop(file);

    // Whatever is refused from now on was not sent.
    let (mut refused, mut taken) = (Vec::new(), 0u64);
    for n in 0..2000 {
        let ask = ask("keyed", "things", format!("keyed-full-{n}"), 20_000);
        log.ask(&ask);
        let told = call(&gateway, &log, &ask).await.expect("an answer");
        match told.status {
            201 => taken += 1,
            status => {
                assert_eq!((status, told.code.as_str()), (507, "ledger-full"), "{told:?}");
                refused.push(ask);
            }
        }
        if refused.len() >= 30 {
            break;
        }
    }
    assert_eq!(refused.len(), 30, "the disk never was full: {taken} were taken");
    for ask in &refused {
        assert_eq!(world.auditor.arrived_with(&ask.key).len(), 0, "{}: refused, and sent", ask.key);
    }
    let accepted = gateway.post("/once/things", "once-full-accepted", b"{}").await.unwrap();
    assert_eq!((accepted.status(), accepted.code().as_str()), (507, "ledger-full"));
    assert!(accepted.header("retry-after").is_some());

    // Reading goes on: every duplicate of what is done gets its answer, those of an earlier
    // process too.
    for ask in &done {
        let told = call(&gateway, &log, ask).await.expect("an answer");
        assert_eq!((told.status, told.replayed), (201, true), "{}: {told:?}", ask.key);
    }
    // What was under way settles.
    world.auditor.open_gate();
    for caller in under_way {
        assert_eq!(caller.await.unwrap().expect("an answer").status, 201);
    }

    // Space comes back, and so does the service, without a restart.
    let freed = std::time::Instant::now();
    fs::remove_file(&filler).unwrap();
    until("the service to come back", async || {
        call(&gateway, &log, &refused[0]).await.filter(|told| told.status == 201)
    })
    .await;
    let healed = freed.elapsed();
    for ask in &refused {
        assert_eq!(call(&gateway, &log, ask).await.unwrap().status, 201);
    }
    gateway.quiet().await;
    let checked = check(&log, &world.auditor, &gateway.operations().await);
    figures.count("taken_while_it_filled", taken);
    figures.count("refused", refused.len());
    figures.count("healed_ms", healed.as_millis());
    figures.checked(&checked.figures);
    figures.tell(checked.violations.len());
    checked.expect_kept();
}

/// Calls until the gateway is gone or `calls` were made.
async fn scenario(gateway: &Gateway, log: &Log, name: &str, calls: usize) -> Vec<Told> {
    let mut told = Vec::new();
    for n in 0..calls {
        let route = if n % 2 == 0 { "keyed" } else { "once" };
        let ask = ask(route, "things", format!("{route}-{name}-{n}"), 900);
        log.ask(&ask);
        let answer = if n % 4 >= 2 {
            gateway.post(&ask.path, &ask.key, &ask.body).await
        } else {
            gateway.call(&ask.path, &ask.key, &ask.body).await
        };
        log.told(&ask.key, &answer);
        told.extend(answer.as_ref().ok().map(Told::of));
    }
    told
}

/// Runs into a disk that fails, then starts again on one that works.
async fn fail_and_recover(call: &str, error: &str, when: &str) -> (bool, usize) {
    let world = World::new(23).await;
    let log = Log::default();
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:error={error}:when={when}");
    let wrapper = ["strace", "-f", "-D", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let mut has_ended = false;
    match world.start_behind(&wrapper).await {
        Err(ended) => {
            has_ended = true;
            let code = ended.status.code();
            assert!(matches!(code, Some(1 | 70)), "{call} {when}: {}", ended.status);
            assert!(ended.said.contains("error: "), "{call} {when}: it says nothing");
        }
        Ok(mut gateway) => {
            // How many writes a call takes depends on how calls fall together: on until it is met.
            let (mut told, mut is_hit) = (Vec::new(), false);
            for round in 0..10 {
                let some = scenario(&gateway, &log, &format!("first-{round}"), 24).await;
                is_hit = some.len() < 24 || some.iter().any(|told| !told.is_acknowledged());
                told.extend(some);
                if is_hit {
                    break;
                }
            }
            for told in told.iter().filter(|told| !told.is_acknowledged()) {
                // Who comes after the one that met it finds a gateway that is ending.
                let refusals = ["ledger-unavailable", "draining"];
                let is_refused = told.status == 503 && refusals.contains(&told.code.as_str());
                assert!(is_refused, "{call} {when}: {told:?}");
            }
            if is_hit {
                has_ended = true;
                let status = gateway.ended().await;
                assert_eq!(status.code(), Some(70), "{call} {when}: {status}");
                let said = gateway.said();
                assert!(said.contains("error: the ledger cannot be used any more"), "{said}");
                assert!(said.contains("the ledger cannot be used: "), "{said}");
            }
        }
    }
    let gateway = world.start().await;
    gateway.quiet().await;
    // The same keys again, and then others.
    scenario(&gateway, &log, "first-0", 24).await;
    scenario(&gateway, &log, "second", 8).await;
    gateway.quiet().await;
    let figures = check(&log, &world.auditor, &gateway.operations().await).expect_kept();
    (has_ended, figures.acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_became_read_only_refuses_and_ends_the_process() {
    if !can_trace() {
        return;
    }
    let mut told = Figures::of("read-only", 23);
    let (mut ended, mut acknowledged) = (0, 0);
    for (error, when) in [("EROFS", "40+"), ("EIO", "45+"), ("EROFS", "50+")] {
        let (has_ended, figures) = fail_and_recover("pwrite64", error, when).await;
        ended += u64::from(has_ended);
        acknowledged += figures;
    }
    told.count("disks", 3u64);
    told.count("ended", ended);
    told.count("acknowledged", acknowledged);
    told.tell(0);
    assert_eq!(ended, 3, "a disk that takes nothing was not noticed");
}

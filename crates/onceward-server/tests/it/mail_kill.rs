//! A gateway that sends mails is killed again and again: what was acknowledged is sent, nobody gets a mail
//! twice, and what nobody can know is in doubt.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{number, seed, tell};

use crate::mail::{had, letter, resolve_by_the_log, route};
use crate::mail_world::{Fault, MailServer, Tls};
use crate::postgres::database;
use crate::world::{Gateway, World, call, until};

const CALLERS: u64 = 4;

/// Whom each mail is for; one of them is put off time and again.
const TO: [&str; 3] = ["ada@example.com", "grey@example.com", "bob@example.com"];

#[test]
fn killed_while_it_sends_mails_it_loses_none_and_doubles_none() {
    killed_again_and_again("", number("TEST_MAIL_KILLS", 20));
}

#[test]
fn killed_while_it_sends_mails_it_loses_none_and_doubles_none_in_postgresql() {
    let Some(database) = database() else { return };
    // A session that was killed is judged when it lapses, which takes its time.
    killed_again_and_again(&format!("store = \"{database}\"\n"), number("TEST_MAIL_KILLS", 5));
}

fn killed_again_and_again(store: &str, kills: u64) {
    let seed = seed();
    tell(&format!("TEST_SEED={seed} TEST_MAIL_KILLS={kills}"));
    let (world, server) = (World::new(), MailServer::start(Tls::Never, None));
    world.write("onceward.toml", &format!("{store}{}", route(&server, "mode = \"accepted\"")));
    let (mut chance, mut keys) = (Chance(seed), BTreeMap::new());
    for cycle in 0..kills {
        let gateway = world.serve();
        server.break_off((0..20).map(|_| match chance.below(3) {
            0 => Fault::Taken,
            1 => Fault::InData,
            _ => Fault::Say("RCPT", "450 later"),
        }));
        server.put_off(20);
        burst(gateway, &mut chance, cycle, &mut keys);
    }
    server.clear();
    server.put_off(0);
    let gateway = world.serve();
    let (mut doubts, mut done) = (0, 0);
    for (key, is_acknowledged) in &keys {
        let state = || {
            let found = gateway.run(&["ls", "--key", key, "--json"]).json();
            found[0].clone()
        };
        if state().is_null() {
            assert!(!is_acknowledged, "{key} was acknowledged, and is lost");
            gateway.call("POST", "/to/mail", &[("idempotency-key", key)], &mail(key));
        }
        let mut is_by_a_person = false;
        let rested = until(&format!("{key} is done"), || {
            let found = state();
            if found["state"] == "in_doubt" {
                doubts += 1;
                // Its own log tells what became of it.
                is_by_a_person |= resolve_by_the_log(&gateway, &server, &found);
            }
            (found["state"] == "done").then_some(found)
        });
        done += u64::from(!is_by_a_person);
        let had = had(&server);
        for to in TO {
            let count = had.get(&(key.clone(), to.to_owned())).copied().unwrap_or_default();
            // Who spoke for a mail spoke for those whom the server took then.
            let may_lack_it = is_by_a_person && to.starts_with("grey");
            assert!(count == 1 || (count == 0 && may_lack_it), "{count} for {to}, {key}: {rested}");
        }
    }
    assert!(doubts > 0 && done > 0, "too tame: {doubts} in doubt, {done} done");
    tell(&format!("{kills} kills, {} mails, {doubts} in doubt, each had once", keys.len()));
}

fn mail(key: &str) -> String {
    letter(&TO, key)
}

/// Callers post until the gateway is killed; tells of each key whether it was acknowledged.
fn burst(gateway: Gateway, chance: &mut Chance, cycle: u64, keys: &mut BTreeMap<String, bool>) {
    let (is_over, next, address) = (AtomicBool::new(false), AtomicU64::new(0), gateway.address);
    let posts = || {
        let mut told = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let key = format!("c{cycle}-{}", next.fetch_add(1, Ordering::Relaxed));
            let answer =
                call(address, "POST", "/to/mail", &[("idempotency-key", &key)], &mail(&key));
            let is_acknowledged = answer.is_ok_and(|answer| matches!(answer.status, 200 | 202));
            told.push((key, is_acknowledged));
            if !is_acknowledged {
                break;
            }
        }
        told
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(posts)).collect();
        std::thread::sleep(Duration::from_millis(5 + chance.below(60)));
        gateway.kill();
        is_over.store(true, Ordering::Relaxed);
        for caller in callers {
            keys.extend(caller.join().unwrap());
        }
    });
}

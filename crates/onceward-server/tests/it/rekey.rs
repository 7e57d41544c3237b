//! Master keys while the gateway runs: a new one, the old one gone, a kill between, and starts without
//! the one that is needed.

use std::fs;
use std::time::Duration;

use onceward_proof::chance::Chance;
use onceward_proof::figures::{seed, tell};
use serde_json::Value;

use crate::nodes_server::Database;
use crate::sealed::{ask, config, upstream};
use crate::world::{Gateway, World, until};

fn sealed() -> World {
    let world = World::new();
    world.write("onceward.toml", &config(upstream()));
    world
}

fn is_replayed(gateway: &Gateway, key: &str) {
    let again = ask(gateway, key, "1");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:?}");
    assert_eq!(again.text(), "canary-answer ");
}

fn standing(gateway: &Gateway) -> Value {
    gateway.run(&["rekey", "--status", "--json"]).json()
}

#[test]
fn a_ledger_gets_a_new_master_key_while_it_is_in_use_and_the_old_one_may_go() {
    let world = sealed();
    let gateway = world.serve();
    ask(&gateway, "before", "1");
    gateway.run(&["backup", "copy"]).ok();
    let old = fs::read(world.path("onceward-data/master.key")).unwrap();
    let before = standing(&gateway);
    let rekeyed = gateway.run(&["rekey", "--reason", "a copy was lost"]);
    let (was, is) = (before["current"].as_str().unwrap(), rekeyed.out.trim().to_owned());
    assert_ne!(is, was);
    assert!(rekeyed.err.contains(&format!("{was} may go")), "{rekeyed:?}");
    let after = standing(&gateway);
    assert_eq!((&after["waiting"], after["keys"].as_array().unwrap().len()), (&0.into(), 2));
    assert_eq!(after["keys"][1]["seals"], true, "a new data key seals from now on");
    assert!(gateway.run(&["audit", "--json"]).ok().contains("a copy was lost"));
    is_replayed(&gateway, "before");
    ask(&gateway, "after", "1");
    gateway.run(&["rekey", "--retire"]).ok();
    let new = fs::read_to_string(world.path("onceward-data/master.key")).unwrap();
    assert_eq!(new.lines().count(), 1);
    gateway.kill();
    // The old one opens nothing any more, and the start says which is needed.
    fs::write(world.path("onceward-data/master.key"), &old).unwrap();
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0"]).failed(1);
    assert!(refused.contains(&is) && refused.contains(was), "{refused}");
    assert!(
        refused.contains("not the key of this ledger") && refused.contains("help:"),
        "{refused}"
    );
    fs::write(world.path("onceward-data/master.key"), &new).unwrap();
    let gateway = world.serve();
    is_replayed(&gateway, "before");
    is_replayed(&gateway, "after");
    // A backup has the key of its time.
    let place = World::new();
    place.write("onceward.toml", &config(upstream()));
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    let restored = place.serve();
    restored.run(&["restore", "--release"]).ok();
    is_replayed(&restored, "before");
}

#[test]
fn a_backup_after_a_new_key_has_it() {
    let world = sealed();
    let gateway = world.serve();
    ask(&gateway, "k", "1");
    gateway.run(&["rekey"]).ok();
    gateway.run(&["backup", "copy"]).ok();
    let place = World::new();
    place.write("onceward.toml", &config(upstream()));
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    let restored = place.serve();
    restored.run(&["restore", "--release"]).ok();
    is_replayed(&restored, "k");
}

#[test]
fn nothing_is_wrapped_with_a_master_key_that_is_not_on_disk() {
    let world = sealed();
    let gateway = world.serve();
    ask(&gateway, "k", "1");
    // What it writes a file beside is a folder, so it cannot.
    fs::create_dir_all(world.path("onceward-data/master.new/there")).unwrap();
    gateway.run(&["rekey"]).failed(1);
    gateway.kill();
    fs::remove_dir_all(world.path("onceward-data/master.new")).unwrap();
    let started = world.serve();
    is_replayed(&started, "k");
}

#[test]
fn killed_while_it_rekeys_it_loses_nothing_and_goes_on_at_the_next_start() {
    let world = sealed();
    let mut chance = Chance(seed());
    let mut broke_off = 0;
    for round in 0..12 {
        let gateway = world.serve();
        let key = format!("k{round}");
        ask(&gateway, &key, "1");
        let (_verb, ..) = gateway.start(&["rekey"]);
        // Somewhere between its start and its end.
        std::thread::sleep(Duration::from_millis(chance.below(60)));
        gateway.kill();
        let ring = fs::read(world.path("onceward-data/master.key")).unwrap();
        let gateway = world.serve();
        until("all is wrapped anew", || (standing(&gateway)["waiting"] == 0).then_some(()));
        broke_off +=
            usize::from(ring.len() > 65 * standing(&gateway)["keys"].as_array().unwrap().len());
        for before in 0..=round {
            is_replayed(&gateway, &format!("k{before}"));
        }
        gateway.kill();
    }
    tell(&format!("{broke_off} of 12 broke off between the file and the ledger"));
    let gateway = world.serve();
    gateway.run(&["rekey", "--retire"]).ok();
    drop(gateway);
    is_replayed(&world.serve(), "k0");
}

#[test]
fn keys_that_are_given_change_where_they_are_given() {
    let world = sealed();
    let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
    let with = |keys: &str| world.serve_in(&[("ONCEWARD_MASTER_KEY", keys)]);
    let gateway = with(&one);
    ask(&gateway, "k", "1");
    let said = gateway.run(&["rekey"]).failed(1);
    assert!(said.contains("NEW,OLD"), "{said}");
    let audit = gateway.run(&["audit", "--json"]).ok();
    assert!(audit.contains("\"refused\":true"), "it came to nothing: {audit}");
    assert!(!world.path("onceward-data/master.key").exists());
    gateway.kill();
    // A start with another first key wraps the ledger's keys with it by itself.
    let gateway = with(&format!("{two},{one}"));
    until("all is wrapped anew", || (standing(&gateway)["waiting"] == 0).then_some(()));
    is_replayed(&gateway, "k");
    gateway.kill();
    world.write("keys", &format!("{two}\n"));
    let file = world.path("keys").display().to_string();
    let gateway = world.serve_in(&[("ONCEWARD_MASTER_KEY_FILE", &file)]);
    is_replayed(&gateway, "k");
    let said = gateway.run(&["rekey"]).failed(1);
    assert!(said.contains("first line"), "{said}");
    world.write("keys", &format!("{three}\n{two}\n"));
    gateway.run(&["rekey"]).ok();
    assert_eq!(standing(&gateway)["waiting"], 0);
    assert!(gateway.run(&["rekey", "--retire"]).failed(1).contains("where they are kept"));
    gateway.kill();
    is_replayed(&with(&three), "k");
}

#[test]
fn nodes_of_one_ledger_have_their_keys_in_whatever_order() {
    let Some(database) = Database::shared() else { return };
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let node = |keys: String| {
        let world = World::new();
        let text = format!("store = \"{}\"\n{}", database.url(), config(upstream()));
        world.write("onceward.toml", &text);
        let gateway = world.serve_in(&[("ONCEWARD_MASTER_KEY", &keys)]);
        (world, gateway)
    };
    let (_folder, earlier) = node(one.clone());
    ask(&earlier, "earlier", "1");
    // As they are replaced one by one: each has both before any has the new one first.
    let (_folder_of_both, both) = node(format!("{one},{two}"));
    let (_folder_of_later, later) = node(format!("{two},{one}"));
    until("all is wrapped anew", || (standing(&later)["waiting"] == 0).then_some(()));
    ask(&both, "both", "1");
    ask(&later, "later", "1");
    for gateway in [&earlier, &both, &later] {
        for key in ["earlier", "both", "later"] {
            is_replayed(gateway, key);
        }
    }
    drop((earlier, both, later));
    let (_folder, last) = node(format!("{two},{one}"));
    until("all is wrapped anew", || (standing(&last)["waiting"] == 0).then_some(()));
    drop(last);
    let (_folder, alone) = node(two);
    is_replayed(&alone, "earlier");
}

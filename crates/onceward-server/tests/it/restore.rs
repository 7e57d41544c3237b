//! A backup of a live ledger, and a restored one that sends nothing until a person says so.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::{Value, json};

use crate::world::{Gateway, Upstream, World, is_in_a_file, route, until};

/// A gateway with one operation that its upstream refuses for now, and a backup of it.
fn backed_up(world: &World, upstream: &Upstream) -> Gateway {
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    gateway.run(&["send", "pay/orders", "--key", "waits", "--accepted", "--body", "{}"]).ok();
    until("it was tried", || (upstream.calls() > 0).then_some(()));
    let to = gateway.run(&["backup", "copy"]).ok();
    assert_eq!(to.trim(), world.path("copy").canonicalize().unwrap().to_str().unwrap());
    gateway
}

#[test]
fn a_restored_ledger_sends_nothing_until_it_is_released_and_then_goes_on() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(503)));
    backed_up(&world, &upstream).kill();
    let place = World::new();
    place.write("onceward.toml", &route("pay", upstream.address));
    let copy = world.path("copy");
    let restored = place.run(&["restore", copy.to_str().unwrap()]);
    assert!(restored.err.contains("restore --release"), "{restored:?}");
    restored.ok();
    upstream.set(201);
    let before = upstream.calls();
    let gateway = place.serve();
    let ready = gateway.call("GET", "/readyz", &[], "");
    assert_eq!((ready.status, ready.text().as_str()), (503, "quarantine\n"));
    let refused = gateway.call("POST", "/to/pay/orders", &[("idempotency-key", "new")], "{}");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &Value::from("quarantine")));
    assert!(gateway.run(&["send", "pay/orders"]).failed(75).contains("restore --release"));
    let waits = gateway.run(&["ls", "--key", "waits", "--json"]).json();
    assert_ne!(waits[0]["state"], "done");
    assert_eq!(upstream.calls(), before, "nothing is sent");
    gateway.run(&["restore", "--release"]).ok();
    gateway.until_state("waits", "done");
    assert_eq!(upstream.calls(), before + 1);
    assert_eq!(gateway.call("GET", "/readyz", &[], "").status, 200);
    gateway.run(&["restore", "--release"]).failed(1);
}

#[test]
fn sagas_that_were_open_come_up_paused_and_what_a_person_resumes_stays_so() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(503)));
    world.write("onceward.toml", &route("pay", upstream.address));
    let gateway = world.serve();
    let steps = |of: &str| json!([{"name": "one", "to": "pay/one"}, {"name": of, "to": "pay/two"}]);
    for key in ["a", "b"] {
        world.write("saga.json", &json!({"key": key, "steps": steps("two")}).to_string());
        gateway.run(&["saga", "start", "saga.json"]).ok();
    }
    until("both were tried", || (upstream.calls() > 1).then_some(()));
    gateway.run(&["backup", "copy"]).ok();
    gateway.kill();
    let place = World::new();
    place.write("onceward.toml", &route("pay", upstream.address));
    let restored = place.run(&["restore", world.path("copy").to_str().unwrap()]);
    assert!(restored.err.contains("onceward saga ls"), "{restored:?}");
    restored.ok();
    let mark = std::fs::read_to_string(place.path("onceward-data/quarantine")).unwrap();
    let gateway = place.serve();
    let paused = || {
        let sagas = gateway.call("GET", "/v1/sagas?state=paused", &[], "").json();
        sagas["data"].as_array().unwrap().clone()
    };
    assert_eq!(paused().len(), 2);
    let id = paused()[0]["id"].as_str().unwrap().to_owned();
    let told = gateway.call("GET", &format!("/v1/sagas/{id}"), &[], "").json();
    assert_eq!(told["deeds"][0]["who"], "restore", "{told}");
    gateway.run(&["saga", "resume", &id, "--reason", "the books say so"]).ok();
    drop(gateway);
    // As another node of the ledger has it, which starts later.
    place.write("onceward-data/quarantine", &mark);
    let gateway = place.serve();
    let state = || gateway.call("GET", &format!("/v1/sagas/{id}"), &[], "").json()["state"].clone();
    assert_eq!(state(), "running", "a person said so");
    upstream.set(201);
    gateway.run(&["restore", "--release"]).ok();
    until("the one that goes on is done", || (state() == "done").then_some(()));
    let held = gateway.call("GET", "/v1/sagas?state=paused", &[], "").json();
    let held = held["data"].as_array().unwrap().clone();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0]["key"], if told["key"] == "a" { "b" } else { "a" });
}

#[test]
fn quarantine_holds_over_a_restart() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(503)));
    backed_up(&world, &upstream).kill();
    let place = World::new();
    place.write("onceward.toml", &route("pay", upstream.address));
    place.run(&["restore", world.path("copy").to_str().unwrap(), "--json"]).json();
    drop(place.serve());
    let gateway = place.serve();
    assert_eq!(gateway.call("GET", "/readyz", &[], "").text(), "quarantine\n");
}

#[test]
fn answers_are_replayed_from_a_restored_ledger() {
    let world = World::new();
    let gateway = world.serve();
    let first = gateway.run(&["send", "demo/orders", "--key", "known", "--body", "{}"]).ok();
    gateway.run(&["backup", "copy"]).ok();
    assert!(gateway.run(&["backup", "copy"]).failed(1).contains("there already"));
    drop(gateway);
    let place = World::new();
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    let gateway = place.serve();
    gateway.run(&["restore", "--release"]).ok();
    let again = gateway.run(&["send", "demo/orders", "--key", "known", "--body", "{}"]);
    assert!(again.err.contains("replayed"), "{again:?}");
    assert_eq!(again.ok(), first);
}

#[test]
fn a_ledger_may_have_another_name() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo/orders", "--key", "known"]).ok();
    gateway.run(&["backup", "copy"]).ok();
    drop(gateway);
    let place = World::new();
    place.write("onceward.toml", "store = \"sqlite:here/books.sqlite\"\ndemo = true\n");
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    assert!(place.path("here/books.journal").is_dir());
    let gateway = place.serve();
    assert_eq!(gateway.run(&["ls", "--json"]).json()[0]["key"], "known");
}

#[test]
fn a_ledger_that_is_there_is_never_written_over() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo/orders", "--key", "mine"]).ok();
    gateway.run(&["backup", "copy"]).ok();
    assert!(world.run(&["restore", "copy"]).failed(1).contains("a gateway runs"));
    drop(gateway);
    let said = world.run(&["restore", "copy"]).failed(1);
    assert!(said.contains("is there already") && said.contains("help:"), "{said}");
    assert!(!world.path("onceward-data/quarantine").exists());
    let gateway = world.serve();
    assert_eq!(gateway.run(&["ls", "--json"]).json()[0]["key"], "mine");
}

#[test]
fn what_is_no_whole_backup_is_refused_before_anything_is_written() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["backup", "copy"]).ok();
    drop(gateway);
    std::fs::remove_file(world.path("copy/master.key")).unwrap();
    let place = World::new();
    for folder in [world.path("copy"), world.path("nowhere")] {
        let said = place.run(&["restore", folder.to_str().unwrap()]).failed(1);
        assert!(said.contains("onceward backup"), "{said}");
    }
    assert!(!place.path("onceward-data").exists());
}

#[test]
fn a_backup_of_a_gateway_whose_key_is_given_has_none_and_is_restored_with_it() {
    let (world, place) = (World::new(), World::new());
    let digits = "70".repeat(32);
    let serve = |world: &World, key: &str| {
        let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
        world.write("key", key);
        command.env("ONCEWARD_MASTER_KEY_FILE", world.path("key"));
        command
    };
    let gateway = world.serve_by(serve(&world, &digits));
    gateway.run(&["send", "demo/orders", "--key", "mine"]).ok();
    let said = gateway.run(&["backup", "copy"]);
    assert!(said.err.contains("not in it"), "{said:?}");
    said.ok();
    drop(gateway);
    for key in [digits.clone(), "p".repeat(32)] {
        assert!(!is_in_a_file(&world.path("copy"), &key), "{key} is in the copy");
    }
    assert!(
        !world.path("copy/master.key").exists() && !world.path("onceward-data/master.key").exists()
    );
    place.run(&["restore", world.path("copy").to_str().unwrap()]).ok();
    let wrong = serve(&place, &"71".repeat(32)).output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("not the key of this ledger"));
    let gateway = place.serve_by(serve(&place, &digits));
    assert_eq!(gateway.run(&["ls", "--json"]).json()[0]["key"], "mine");
}

#[test]
fn a_restore_that_broke_off_leaves_nothing_that_opens_and_begins_anew() {
    let world = World::new();
    let gateway = world.serve();
    gateway.run(&["send", "demo/orders", "--key", "known"]).ok();
    gateway.run(&["backup", "copy"]).ok();
    drop(gateway);
    let (place, copy) = (World::new(), world.path("copy"));
    // As it is where the process ended between the journal and the index.
    std::fs::create_dir_all(place.path("onceward-data/ledger.journal")).unwrap();
    place.write("onceward-data/restoring", "");
    place.write("onceward-data/ledger.journal/segment-00000001", "half");
    let said = place.run(&["serve", "--listen", "127.0.0.1:0"]).failed(1);
    assert!(said.contains("broke off") && said.contains("onceward restore"), "{said}");
    assert!(!place.path("onceward-data/ledger.db").exists(), "nothing was made of it");
    place.run(&["restore", copy.to_str().unwrap()]).ok();
    let gateway = place.serve();
    assert_eq!(gateway.run(&["ls", "--json"]).json()[0]["key"], "known");
}

#[test]
fn a_backup_goes_into_a_folder_of_its_own_and_only_its_owner_enters() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    world.write("onceward.toml", "store = \"sqlite:here/books.sqlite\"\ndemo = true\n");
    let gateway = world.serve();
    let key = std::fs::read(world.path("here/master.key")).unwrap();
    let said = gateway.run(&["backup", "here"]).failed(1);
    assert!(said.contains("folder of its own"), "{said}");
    assert_eq!(std::fs::read(world.path("here/master.key")).unwrap(), key, "it is as it was");
    gateway.run(&["backup", "copy"]).ok();
    for folder in ["here", "copy"] {
        let mode = std::fs::metadata(world.path(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
}

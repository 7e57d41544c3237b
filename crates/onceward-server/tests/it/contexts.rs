//! Contexts: gateways by name.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{Ended, World};

fn run(world: &World, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = world.command(arguments);
    command.envs(environment.iter().copied());
    Ended::from(command.output().expect("it runs"))
}

#[test]
fn a_gateway_is_asked_by_its_name_with_the_key_that_is_kept_for_it() {
    let world = World::new();
    let gateway = world.serve();
    let (url, key) = (
        format!("http://{}", gateway.address),
        std::fs::read_to_string(world.path("onceward-data/operator.key")).expect("a key"),
    );
    let elsewhere = World::new();
    elsewhere.write("onceward.toml", "listen = \"127.0.0.1:5\"\n");
    assert_eq!(elsewhere.run(&["context", "ls", "--json"]).ok(), "[]\n");
    elsewhere.run(&["context", "add", "prod", "--url", &url, "--access-key", key.trim()]).ok();
    let file = elsewhere.path("config/onceward/contexts.toml");
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nobody asks it before it is said.
    assert!(elsewhere.run(&["access", "ls"]).failed(75).contains("127.0.0.1:5/"));
    elsewhere.run(&["--context", "prod", "access", "ls"]).ok();
    elsewhere.run(&["context", "use", "prod"]).ok();
    elsewhere.run(&["access", "ls"]).ok();
    let listed = elsewhere.run(&["context", "ls"]).ok();
    assert_eq!(listed, format!("prod\t{url}\t-\tyes\tyes\n"));
    let document = elsewhere.run(&["context", "ls", "--json"]).ok();
    assert!(!document.contains(key.trim()) && document.contains("\"access_key\":true"));
    elsewhere.run(&["context", "rm", "prod"]).ok();
    assert!(elsewhere.run(&["access", "ls"]).failed(75).contains("127.0.0.1:5/"));
    assert!(elsewhere.run(&["context", "use", "prod"]).failed(3).contains("context ls"));
}

#[test]
fn a_key_of_a_context_may_stay_in_its_own_file() {
    let world = World::new();
    world.write("key", "onceward_one\n");
    let add = ["context", "add", "a", "--url", "http://127.0.0.1:1", "--access-key-file"];
    world.run(&[&add[..], &["nowhere"]].concat()).failed(4);
    world.run(&[&add[..], &["key"]].concat()).ok();
    let kept = std::fs::read_to_string(world.path("config/onceward/contexts.toml")).expect("it");
    assert!(kept.contains("access_key_file") && !kept.contains("onceward_one"), "{kept}");
    std::fs::remove_file(world.path("key")).expect("removed");
    assert!(world.run(&["--context", "a", "ls"]).failed(4).contains("key"));
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_context_that_is_used() {
    let world = World::new();
    for (name, port) in [("one", 1), ("two", 2)] {
        let url = format!("http://127.0.0.1:{port}");
        world.run(&["context", "add", name, "--url", &url, "--access-key", "canary"]).ok();
    }
    world.run(&["context", "use", "one"]).ok();
    let asked = |arguments: &[&str], environment: &[(&str, &str)]| {
        let said = run(&world, arguments, environment).failed(75);
        let place = said.split("http://127.0.0.1:").nth(1).expect("a place");
        place[..1].parse::<u8>().expect("a port")
    };
    let (url, context) = (("ONCEWARD_URL", "http://127.0.0.1:3"), ("ONCEWARD_CONTEXT", "two"));
    assert_eq!(asked(&["ls"], &[]), 1);
    assert_eq!(asked(&["ls"], &[context]), 2);
    assert_eq!(asked(&["ls"], &[url]), 3);
    assert_eq!(asked(&["ls"], &[url, context]), 3);
    assert_eq!(asked(&["ls", "--context", "two"], &[url]), 2);
    assert_eq!(asked(&["ls", "--url", "http://127.0.0.1:4"], &[url, context]), 4);
    run(&world, &["ls", "--url", "http://127.0.0.1:4", "--context", "one"], &[]).failed(2);
    run(&world, &["ls", "--context", "three"], &[]).failed(3);
}

#[test]
fn a_key_that_a_context_keeps_goes_to_its_own_gateway_alone() {
    let world = World::new();
    let upstream = crate::world::Upstream::answering(Some(200));
    let there = format!("http://{}", upstream.address);
    world
        .run(&["context", "add", "a", "--url", "http://127.0.0.1:1", "--access-key", "canary"])
        .ok();
    world.run(&["context", "use", "a"]).ok();
    run(&world, &["ls", "--url", &there], &[]).failed(1);
    assert_eq!((upstream.calls(), upstream.authorization()), (1, None));
}

#[test]
fn a_file_of_contexts_that_cannot_be_read_is_named_and_nothing_of_it_is_shown() {
    let world = World::new();
    std::fs::create_dir_all(world.path("config/onceward")).expect("a folder");
    world.write("config/onceward/contexts.toml", "access_key = canary\n");
    let said = world.run(&["ls"]).failed(78);
    assert!(said.contains("contexts.toml") && !said.contains("canary"), "{said}");
}

#[test]
fn a_key_that_a_variable_says_is_kept_for_no_other_gateway_and_goes_to_none() {
    let world = World::new();
    let upstream = crate::world::Upstream::answering(Some(200));
    let there = format!("http://{}", upstream.address);
    let key = ("ONCEWARD_ACCESS_KEY", "canary");
    world.write("key", "onceward_one\n");
    let add = ["context", "add", "prod", "--url", &there];
    run(&world, &add, &[key]).ok();
    let kept = || {
        let file = world.path("config/onceward/contexts.toml");
        std::fs::read_to_string(file).expect("a file")
    };
    assert!(!kept().contains("canary"), "{}", kept());
    run(&world, &["context", "use", "prod"], &[]).ok();
    run(&world, &["ls"], &[key]).failed(1);
    assert_eq!(upstream.authorization(), None);
    // A variable is no flag that nobody wrote.
    run(&world, &[&add[..], &["--access-key-file", "key"]].concat(), &[key]).ok();
    let both = [&add[..], &["--access-key-file", "key", "--access-key", "x"]].concat();
    run(&world, &both, &[]).failed(2);
    run(&world, &["context", "add", "dev"], &[key, ("ONCEWARD_URL", &there)]).ok();
    assert!(kept().contains("canary"), "{}", kept());
}

//! The examples, as whoever tries them meets them: each is run whole, and says what its page shows.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::browser_world::on_path;
use crate::guides_world::is_like;
use crate::nodes_server::Database;
use crate::outbox_tables::postgres;
use crate::world::{BINARY, Ended, Gateway, Upstream, World, clean, until};

/// Those whose `run.py` is not run here: what the signup shows has a test of its own, and the source of the
/// other is built into this one.
const ELSEWHERE: &[&str] = &["outbox-tokio-postgres", "signup"];

#[expect(dead_code, reason = "its `main` is for whoever copies it")]
#[path = "../../../../examples/outbox-tokio-postgres/src/main.rs"]
mod shop_of_rust;

/// The calls in this very file: a test that is gone runs nothing.
const TESTS: &str = include_str!("examples.rs");

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// What a page says that its program prints.
fn shown(name: &str) -> String {
    let page = std::fs::read_to_string(folder(name).join("README.md")).unwrap();
    let (_, behind) = page.split_once("```text\n").unwrap();
    behind.split_once("```").unwrap().0.to_owned()
}

/// The interpreter that has what examples import.
fn with_packages() -> Option<OsString> {
    std::env::var_os("TEST_SDKS_PYTHON")
}

/// Any interpreter, for those that import nothing.
fn plain() -> Option<OsString> {
    with_packages().or_else(|| on_path("python3").map(Into::into))
}

/// Runs an example to its end.
fn run(name: &str, python: Option<OsString>, environment: &[(&str, OsString)], flags: &[&str]) {
    let Some(python) = python else {
        eprintln!("SKIPPED, examples/{name}: there is no Python with what it imports");
        return;
    };
    let mut command = Command::new(python);
    clean(&mut command);
    command.arg(folder(name).join("run.py")).args(["--onceward", BINARY]).args(flags);
    command.env("PYTHONDONTWRITEBYTECODE", "1").envs(environment.iter().cloned());
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "examples/{name}: {}\n{}", ended.out, ended.err);
    let shown = shown(name);
    assert!(is_like(&shown, &ended.out), "examples/{name} shows\n{shown}\nand said\n{}", ended.out);
}

#[test]
fn stripe_python_behind_a_route_charges_each_invoice_once() {
    run("stripe-behind-a-route", with_packages(), &[], &[]);
}

#[test]
fn an_api_in_fastapi_behind_a_guard_has_each_order_once() {
    run("guard-an-api", with_packages(), &[], &[]);
}

#[test]
fn an_api_in_express_behind_a_guard_has_each_order_once() {
    let Some(modules) = std::env::var_os("TEST_SDKS_NODE") else {
        eprintln!(
            "SKIPPED, examples/guard-an-api in Express: there is no node with what it imports"
        );
        return;
    };
    let modules = Path::new(&modules).join("node_modules").into_os_string();
    run("guard-an-api", plain(), &[("NODE_PATH", modules)], &["--api", "express"]);
}

#[test]
fn a_push_that_github_delivers_three_times_is_deployed_once() {
    run("github-webhooks-in", plain(), &[], &[]);
}

#[test]
fn orders_of_sqlalchemy_are_picked_once_if_and_only_if_they_are_committed() {
    run("outbox-sqlalchemy", with_packages(), &[], &[]);
}

#[test]
fn a_trip_is_booked_or_undone_each_step_once() {
    run("saga", plain(), &[], &[]);
}

#[test]
fn an_agent_that_is_resumed_refunds_once_and_stops_where_nobody_knows() {
    run("agent-tool-calls", plain(), &[], &[]);
}

/// The program of the example in Rust, its calls lost and its gateway killed.
#[tokio::test(flavor = "multi_thread")]
async fn orders_from_rust_are_picked_once_if_and_only_if_they_are_committed() {
    let Some(database) = Database::shared() else { return };
    let (world, warehouse) = (World::new(), Upstream::answering(None));
    let configuration = std::fs::read_to_string(folder("outbox-tokio-postgres/onceward.toml"));
    world.write("onceward.toml", &configuration.unwrap());
    let (url, place) = (database.url(), warehouse.address.to_string());
    let serve = || world.serve_in(&[("DATABASE_URL", &url), ("WAREHOUSE", &place)]);
    let mut shop = postgres(&url).await;
    let ddl = onceward::sql::ddl(onceward::sql::Dialect::Postgres);
    shop.batch_execute(&ddl).await.unwrap();
    shop.batch_execute(shop_of_rust::ORDERS).await.unwrap();
    serve().kill();
    for (item, wanted) in [("lamp", Some(1)), ("sold out", None), ("desk", Some(3))] {
        let order = shop_of_rust::place_order(&mut shop, "ada", item).await;
        assert_eq!(order.as_ref().ok().copied(), wanted, "{item}: {order:?}");
    }
    tokio::task::block_in_place(|| {
        // The first call is under way, and its answer is lost with the gateway.
        let gateway = serve();
        until("the warehouse was asked", || (warehouse.calls() > 0).then_some(()));
        gateway.kill();
        warehouse.set(201);
        is_picked_once(&serve(), &database);
    });
}

fn is_picked_once(gateway: &Gateway, database: &Database) {
    gateway.until_state("pick-1", "done");
    let desk = gateway.until_state("pick-3", "done");
    assert_eq!(desk["path"], "/picks", "{desk}");
    let all = gateway.run(&["ls", "--json"]).json();
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    until("the outbox is empty", || {
        (database.sql("SELECT count(*) FROM onceward.outbox") == "0").then_some(())
    });
}

#[test]
fn every_example_is_run_and_listed() {
    let list = std::fs::read_to_string(folder("../docs/examples.md")).unwrap();
    for entry in std::fs::read_dir(folder("")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() && !name.starts_with("__") {
            let is_run = TESTS.contains(&format!("    run({name:?}, "));
            assert!(is_run || ELSEWHERE.contains(&&*name), "examples/{name} is run by no test");
            assert!(list.contains(&format!("../examples/{name}")), "docs/examples.md lacks {name}");
        }
    }
}

#[test]
fn the_example_in_rust_names_the_versions_that_it_is_built_with_here() {
    let manifest = std::fs::read_to_string(folder("outbox-tokio-postgres/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let lock = std::fs::read_to_string(folder("../Cargo.lock")).unwrap();
    for (name, wanted) in manifest["dependencies"].as_table().unwrap() {
        let version = wanted.get("version").unwrap_or(wanted).as_str().unwrap();
        let locked = format!("name = \"{name}\"\nversion = \"{version}.");
        let exactly = format!("name = \"{name}\"\nversion = \"{version}\"");
        assert!(lock.contains(&locked) || lock.contains(&exactly), "{name} {version}");
    }
}

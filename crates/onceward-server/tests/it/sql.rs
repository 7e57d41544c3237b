//! `sql ddl`: what is printed is what the library installs.

use serde_json::Value;

use crate::world::World;

#[test]
fn the_script_of_each_dialect_is_printed() {
    let world = World::new();
    for (dialect, begins, has) in [
        ("postgres", "-- Onceward", "CREATE OR REPLACE FUNCTION onceward_enqueue("),
        ("sqlite", "-- Onceward", "CREATE TABLE IF NOT EXISTS onceward_outbox ("),
    ] {
        let script = world.run(&["sql", "ddl", "--dialect", dialect]).ok();
        assert!(script.starts_with(begins) && script.contains(has), "{script}");
        let json = world.run(&["sql", "ddl", "--dialect", dialect, "--json"]).ok();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["sql"], script.as_str());
    }
}

#[test]
fn another_schema_is_named_where_there_are_schemas() {
    let world = World::new();
    let ddl =
        |dialect, schema| world.run(&["sql", "ddl", "--dialect", dialect, "--schema", schema]);
    let script = ddl("postgres", "events").ok();
    assert!(script.contains("CREATE TABLE IF NOT EXISTS \"events\".outbox ("), "{script}");
    assert!(!script.contains("onceward.outbox"), "{script}");
    assert!(ddl("postgres", "a-b").failed(2).contains("a schema's name"));
    assert!(ddl("sqlite", "events").failed(2).contains("SQLite has no schemas"));
}

#[test]
fn a_dialect_has_to_be_named() {
    let world = World::new();
    world.run(&["sql"]).failed(2);
    world.run(&["sql", "ddl"]).failed(2);
    let said = world.run(&["sql", "ddl", "--dialect", "mysql"]).failed(2);
    assert!(said.contains("postgres") && said.contains("sqlite"), "{said}");
}

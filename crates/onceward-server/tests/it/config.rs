//! The configuration as a person meets it: what is wrong is said, with its place and its mend.

use crate::world::World;

#[test]
fn a_wrong_configuration_is_said_with_file_line_and_mend_and_exits_78() {
    let world = World::new();
    world.write(
        "onceward.toml",
        "\n[routes.pay]\nupstream = \"https://api.example.com\"\ntimeout = \"30 parsecs\"\n",
    );
    for verb in ["check", "serve"] {
        let said = world.run(&[verb]).failed(78);
        for words in ["error: onceward.toml", "line 4", "30s", "help:"] {
            assert!(said.contains(words), "{verb}: {words}\n{said}");
        }
    }
    let said = world.run(&["--config", "nowhere.toml", "check"]).failed(78);
    assert!(said.contains("nowhere.toml") && said.contains("help: name the file"), "{said}");
}

#[test]
fn a_check_shows_the_inferred_effects_and_warns() {
    let world = World::new();
    world.write("onceward.toml", "[routes.crm]\nupstream = \"https://crm.example.com\"\n[[routes.crm.rules]]\nmatch = \"POST /search\"\neffects = \"idempotent\"\n");
    let shown = world.run(&["check"]).ok();
    for words in [
        "onceward.toml",
        "POST /search",
        "sent again",
        "non-idempotent",
        "inferred",
        "in doubt",
        "warning: [routes.crm]",
    ] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let document = world.run(&["check", "--json"]).json();
    assert_eq!(document["effects"][0]["effects"], "idempotent");
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn where_strict_is_said_a_warning_exits_5() {
    let world = World::new();
    world.write(
        "onceward.toml",
        "strict = true\n[routes.crm]\nupstream = \"https://crm.example.com\"\n",
    );
    assert!(world.run(&["check"]).failed(5).contains("strict"));
    world.write("onceward.toml", "strict = true\n[routes.crm]\nupstream = \"https://crm.example.com\"\neffects = \"non-idempotent\"\n");
    world.run(&["check"]).ok();
}

#[test]
fn a_verb_finds_the_gateway_without_the_variables_of_its_routes() {
    let world = World::new();
    world.write("onceward.toml", "listen = \"127.0.0.1:1\"\n[routes.a]\nupstream = \"https://a.example.com\"\nset_headers = { Authorization = \"Bearer ${NOT_SET_HERE}\" }\n");
    assert!(world.run(&["check"]).failed(78).contains("NOT_SET_HERE"));
    assert!(world.run(&["ls"]).failed(1).contains("http://127.0.0.1:1/"));
}

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
fn a_check_shows_each_setting_of_a_profile_and_where_it_comes_from() {
    let world = World::new();
    world.write("onceward.toml", "strict = true\n[routes.pay]\nupstream = \"https://api.stripe.com\"\nprofile = \"stripe\"\nwindow = \"7d\"\nset_headers = { Authorization = \"Bearer canary\" }\n");
    let document = world.run(&["check", "--json"]).json();
    let settings = document["settings"].as_array().unwrap();
    let from = |matched: Option<&str>, key: &str| {
        let is_it = |setting: &&serde_json::Value| {
            setting["match"].as_str() == matched && setting["key"] == key
        };
        let found = settings.iter().find(is_it).unwrap_or_else(|| panic!("no {key}: {document}"));
        (found["value"].as_str().unwrap(), found["from"].as_str().unwrap())
    };
    assert_eq!(from(None, "effects"), ("keyed", "profile stripe"));
    assert_eq!(from(None, "upstream_key.window"), ("1d", "profile stripe"));
    assert_eq!(from(None, "window"), ("7d", "route"));
    assert_eq!(from(Some("POST /v1/refunds/**"), "key.missing"), ("require", "profile stripe"));
    let shown = world.run(&["check"]).ok();
    assert!(shown.contains("stripe-should-retry") && !shown.contains("canary"), "{shown}");
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
    assert!(world.run(&["ls"]).failed(75).contains("http://127.0.0.1:1/"));
}

#[test]
fn what_holds_is_shown_with_who_says_it() {
    let world = World::new();
    world.write("onceward.toml", "[routes.crm]\nupstream = \"https://crm.example.com\"\ntimeout = \"9s\"\nset_headers = { x = \"canary\" }\n");
    let mut command = world.command(&["config", "show"]);
    command.env("ONCEWARD_LIMITS__IDLE_TIMEOUT", "8s");
    let shown = crate::world::Ended::from(command.output().expect("it runs")).ok();
    for line in [
        "routes.crm.timeout\t9s\tonceward.toml:3\n",
        "limits.idle_timeout\t8s\tONCEWARD_LIMITS__IDLE_TIMEOUT\n",
        "routes.crm.set_headers.x\t…\tonceward.toml:4\n",
        "listen\t127.0.0.1:7077\tdefault\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let document = world.run(&["config", "show", "--json"]).json();
    let rows = document.as_array().expect("a list");
    assert!(rows.iter().any(|it| it["key"] == "strict" && it["from"] == "default"), "{document}");
}

#[test]
fn the_example_is_a_file_that_the_gateway_takes_and_the_schema_is_json() {
    let world = World::new();
    let example = world.run(&["config", "example"]).ok();
    world.write("onceward.toml", &example);
    world.run(&["check", "--file-only"]).ok();
    assert_eq!(world.run(&["config", "schema"]).json()["type"], "object");
}

#[test]
fn what_a_flag_may_come_from_is_no_part_of_the_configuration() {
    let world = World::new();
    let mut command = world.command(&["check", "--file-only"]);
    let variables = ["TENANT", "CA_FILE", "COMMIT", "CONTEXT", "WEBHOOK_SECRET"];
    command.envs(variables.map(|name| (format!("ONCEWARD_{name}"), "x")));
    crate::world::Ended::from(command.output().expect("it runs")).ok();
}

//! Endpoints of other products become subscriptions, once.

use serde_json::{Value, json};

use crate::callbacks::{Hooks, SECRET};
use crate::world::{World, until};

fn list(url: &str) -> Value {
    json!({"done": true, "iterator": null, "data": [
        {"id": "ep_1", "uid": null, "url": url, "filterTypes": ["order.created"], "description": "Acme",
         "disabled": false, "rateLimit": 10, "secret": SECRET},
        {"id": "ep_2", "uid": "bolt", "url": "https://bolt.example/hooks", "filterTypes": null, "description": "",
         "disabled": true},
        {"id": "ep_3", "uid": null, "url": "https://c.example/hooks", "channels": ["eu"], "disabled": false},
        {"id": "ep_4", "uid": null, "url": "https://169.254.169.254/hooks", "disabled": false, "secret": SECRET},
    ]})
}

#[test]
fn a_list_of_svix_is_taken_once_and_what_cannot_be_is_named() {
    let (world, hooks) = (World::new(), Hooks::start());
    world.write("onceward.toml", "[egress]\nallow = [\"127.0.0.0/8\"]\n");
    let gateway = world.serve();
    let url = format!("http://{}/hooks", hooks.address);
    let mut given = list(&url);
    world.write("svix.json", &given.to_string());
    let import = ["subscriptions", "import", "--from", "svix", "svix.json", "--tenant", "default"];
    let whose = gateway.run(&import[..5]).failed(2);
    assert!(whose.contains("--tenant"), "{whose}");
    let dry = gateway.run(&[&import[..], &["--dry-run"]].concat());
    assert!(dry.out.contains("ep_1\twould be created"), "{dry:?}");
    assert_eq!(
        gateway.run(&["subscriptions", "ls", "--json"]).json(),
        json!([]),
        "nothing was done"
    );
    let done = gateway.run(&[&import[..], &["--json"]].concat());
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("2 of 4 endpoints were not taken"), "{done:?}");
    let lines: Value = serde_json::from_str(&done.out).unwrap();
    let whats: Vec<&str> =
        lines.as_array().unwrap().iter().filter_map(|line| line["what"].as_str()).collect();
    assert_eq!(whats, ["created", "created", "not taken", "not taken"]);
    assert!(lines[0]["secret"].is_null(), "its receiver has it");
    assert!(lines[0]["notes"].to_string().contains("rate limit"));
    assert!(
        lines[1]["secret"].as_str().unwrap().starts_with("whsec_"),
        "it was made, and is shown once"
    );
    assert!(lines[2]["notes"].to_string().contains("channels"));
    let made =
        gateway.run(&["subscriptions", "show", lines[0]["id"].as_str().unwrap(), "--json"]).json();
    assert_eq!(
        (&made["description"], &made["signature"]),
        (&json!("Acme [svix:ep_1]"), &json!("svix"))
    );
    assert_eq!((&made["types"], &made["state"]), (&json!(["order.created"]), &json!("active")));
    // Its receiver goes on verifying as it did.
    gateway.run(&["publish", "order.created", "--data", "{}"]).ok();
    let told = until("it is delivered", || hooks.told().first().cloned());
    let (id, at) = (&told.headers["svix-id"], told.headers["svix-timestamp"].parse().unwrap());
    let wanted = onceward::webhook::sign(&crate::callbacks::SECRET_BYTES, id, at, &told.body);
    assert_eq!(told.headers["svix-signature"], wanted);
    // The same again changes nothing, and another what differs.
    let before = gateway.run(&["subscriptions", "ls", "--json"]).json();
    let again = gateway.run(&import);
    assert!(
        again.out.contains("ep_1\tunchanged") && again.out.contains("ep_2\tunchanged"),
        "{again:?}"
    );
    assert_eq!(gateway.run(&["subscriptions", "ls", "--json"]).json(), before);
    given["data"][1]["disabled"] = json!(false);
    world.write("svix.json", &given.to_string());
    let changed = gateway.run(&import);
    assert!(
        changed.out.contains("ep_1\tunchanged") && changed.out.contains("ep_2\tchanged"),
        "{changed:?}"
    );
    let all = gateway.run(&["subscriptions", "ls", "--json"]).json();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert!(all.as_array().unwrap().iter().all(|one| one["enabled"] == true), "{all}");
}

#[test]
fn what_is_no_list_is_refused_and_nothing_is_done() {
    let world = World::new();
    let gateway = world.serve();
    world.write("none.json", "{\"detail\": \"not found\"}");
    let import =
        ["subscriptions", "import", "--from", "convoy", "none.json", "--tenant", "default"];
    assert!(gateway.run(&import).failed(2).contains("projects/{project}/subscriptions"));
    world.write("none.json", "not json");
    assert!(gateway.run(&import).failed(2).contains("no JSON"));
}

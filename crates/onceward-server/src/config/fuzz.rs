//! A fuzz target: any text is a configuration that can be run, or refused with its place.

use std::time::Instant;

use onceward::core::backoff::delay;
use onceward::core::id::OperationId;
use onceward_fuzz::Fuzz;

use super::{Config, ConfigError, Overrides, Places, Text, interpolate};

const WORDS: &[&str] = &[
    "listen = \"127.0.0.1:0\"\n",
    "store = \"sqlite:l.db\"\n",
    "[routes.a]\n",
    "upstream = \"https://a.example\"\n",
    "effects = \"keyed\"\n",
    "effects = \"non-idempotent\"\n",
    "[[routes.a.rules]]\nmatch = \"PUT /*\"\n",
    "retry = { table = [\"1s\"], factor = nan, base = \"0s\", cap = \"7d\" }\n",
    "held = { attempts_max = 0 }\n",
    "upstream_key = { header = \"x\", value = \"derived\", window = \"1h\" }\n",
    "key = { missing = \"require\", headers = [\"x-key\"] }\n",
    "profile = \"stripe\"\n",
    "profile = \"own\"\n",
    "[profiles.own]\n",
    "[[profiles.own.rules]]\nmatch = \"/a\"\n",
    "hints = [\"transient-error\"]\n",
    "not_processed = [503]\nfinal = [500]\n",
    "upstream_key = { json = \"/key\", bytes_max = 45 }\n",
    "timeout = \"200000000000000d\"\n",
    "window = \"0s\"\n",
    "tombstone = \"1ms\"\n",
    "[limits]\nsegment_bytes = \"1GiB\"\n",
    "set_headers = { Authorization = \"Bearer ${SECRET}\" }\n",
    "${SET}",
    "${",
    "}",
    ":-",
    "#",
    "\"\"\"",
    "'",
    "[sources.a]\nverify = { scheme = \"github\", secret = \"${SECRET}\" }\n",
    "verify = { scheme = \"hmac\", header = \"x\", secrets = [\"${SECRET}\"] }\n",
    "deliver = \"http://a.example/hooks\"\n",
    "to = \"a\"\n",
    "id = \"content\"\n",
    "resolve = { route = \"a\", key = { json = \"/k\" }, found = { status = 200 } }\n",
    "[egress]\nallow = [\"10.0.0.0/8\"]\n",
    "unknown = 1\n",
];

/// What the environment holds.
fn variable(name: &str) -> Option<String> {
    match name {
        "SET" => Some("text".to_owned()),
        "SECRET" => Some("canary".to_owned()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let text = interpolate(text, "x.toml", None, variable)?;
    Config::read(&Text::new(text, "x.toml", std::iter::empty()), None, &Overrides::default())
}

/// Whether a refusal says where: a line, or the name of what is wrong.
fn names_its_place(said: &str) -> bool {
    let by_line = said.strip_prefix("x.toml:").is_some_and(|rest| {
        rest.contains(" at line ") || rest.starts_with(|first: char| first.is_ascii_digit())
    });
    by_line
        || ["[routes.", "[sources.", "[profiles.", "limits.", "store = "]
            .iter()
            .any(|name| said.contains(name))
}

#[test]
fn any_text_is_a_configuration_that_can_run_or_is_refused_with_its_place() {
    Fuzz::new("config", 3_000, WORDS).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return (0, String::new()) };
        let places = Places::build(text, "x.toml", variable);
        let config = match load(text) {
            Ok(config) => config,
            Err(error) => {
                let said = error.to_string();
                assert!(names_its_place(&said), "no place: {said}");
                let last = said.lines().last().unwrap_or_default();
                let kind = last.split(['"', '`', '\'']).next().unwrap_or_default().to_owned();
                return (1, kind);
            }
        };
        let places = places.expect("what serves is found by the other verbs");
        assert_eq!((places.listen, &places.store), (config.listen, &config.store));
        for route in config.routes.values() {
            assert!(Instant::now().checked_add(route.target.timeouts.total).is_some());
            assert!(route.protection.slots_max > 0);
            let rules = route.rules.iter().map(|rule| &rule.policy);
            for policy in rules.chain([&route.policy]) {
                for backoff in [&policy.held, &policy.accepted] {
                    let waits =
                        [1, 2, 40].map(|n| delay(backoff, OperationId::from_u128(9), n, None));
                    assert!(
                        waits
                            .iter()
                            .all(|wait| *wait >= backoff.floor || !backoff.table.is_empty())
                    );
                }
            }
        }
        let shown = config.warnings().join("\n");
        assert!(!shown.contains("canary"), "a secret in a warning: {shown}");
        (2, format!("{} {}", config.routes.len().min(3), shown.len() / 100))
    });
}

//! The file as a whole: its keys, its variables, and what is said of what is wrong.

use onceward::core::policy::Effects;
use onceward::core::upstream_key::KeyPlace;

use super::*;

pub(super) fn load(text: &str) -> Result<Config, String> {
    load_with(text, &[], &Overrides::default())
}

fn load_with(text: &str, variables: &[(&str, &str)], flags: &Overrides) -> Result<Config, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let text = Text::new(text, "onceward.toml", variables);
    Config::read(&text, Some("onceward.toml".into()), flags).map_err(|error| error.to_string())
}

#[test]
fn a_body_that_is_kept_fits_a_segment_of_the_ledger() {
    let small = "[limits]\nsegment_bytes = \"1MiB\"\n[routes.a]\nupstream = \"http://a.example\"\n";
    let route = Arc::clone(&load(small).unwrap().routes["a"]);
    assert_eq!((route.response_bytes_max, route.body_bytes_max), (512 << 10, 512 << 10));
    let refused = load(&format!("{small}response_bytes_max = \"1MiB\"")).unwrap_err();
    assert!(refused.contains("limits.segment_bytes"), "{refused}");
}

#[test]
fn a_full_route_reads() {
    let config = load(
        r#"
        listen = "127.0.0.1:1"
        store = "sqlite:d/l.db"
        [routes.crm]
        upstream = "https://crm.example.com/base"
        effects = "keyed"
        upstream_key = { header = "X-Key", value = "derived", window = "24h" }
        window = "7d"
        timeout = "20s"
        retry = { attempts_max = 5, horizon = "1h", base = "5s", factor = 3, cap = "12h" }
        set_headers = { Authorization = "Bearer x" }
        [[routes.crm.rules]]
        match = "PUT /orders/*"
        effects = "idempotent"
        "#,
    )
    .unwrap();
    let route = &config.routes["crm"];
    assert_eq!(route.policy.upstream_key.place, KeyPlace::Header("x-key".into()));
    assert_eq!(route.policy.accepted.attempts_max, 5);
    assert_eq!(route.policy_for("PUT", "/orders/1").effects, Some(Effects::Idempotent));
    assert_eq!(route.policy_for("POST", "/orders").effects, Some(Effects::Keyed));
    assert_eq!(route.target.timeouts.total, Duration::from_secs(20));
    assert_eq!(route.set_headers.text("authorization"), Some("Bearer x"));
}

#[test]
fn no_error_shows_what_may_be_a_secret() {
    for text in [
        "[routes.a]\nset_headers = { Authorization = \"Bearer canary\" ",
        "[routes.a]\nset_headers = { Authorization = \"Bearer canary",
        "[routes.a]\nset_headers = { Authorization = Bearer canary }",
        "[routes.a]\nset_headers = \"canary\"",
        "[routes.a]\nset_headers = { Authorization = [\"canary\"] }",
        "[routes.a]\nset_headers = { Authorization = \"can\\nary\" }",
        "[routes.a]\nset_headers = { Authorization = \"canary\", \"a b\" = \"canary\" }",
        "[routes.a]\nupstream = \"https://u:canary@a.example\"",
        "[routes.a]\nupstream = \"htps://u:canary@a.example\"",
        "[sources.a]\nverify = { scheme = \"github\", secret = \"canary }",
        "[sources.a]\nverify = \"canary\"",
        "[sources.a]\nverify = { scheme = \"github\", secret = { text = \"canary\" } }",
        "callbacks = \"canary\"",
        "[callbacks]\nsecret = \"canary\"",
        "[callbacks]\nsecret = 'canary",
        "[outbox.a]\ndatabase = \"mysql://u:canary@h/d\"",
        "[outbox.a]\ndatabase = [\"postgres://u:canary@h/d\"]",
        "store = \"mysql://u:canary@h/d\"",
        "[routes.a]\nupstream = \"http://x\"\nauth = \"canary\"",
        "[routes.a]\nupstream = \"http://x\"\nauth.bearer = \"can\\nary\"",
        "[routes.a]\nupstream = \"http://x\"\nauth.bearer = [\"canary\"]",
        "[routes.a]\nupstream = \"http://x\"\nauth.bearer = { text = \"canary\" }",
        "[routes.a]\nupstream = \"http://x\"\nauth.basic = { user = \"a:b\", password = \"canary\" }",
        "[routes.a]\nupstream = \"http://x\"\nauth.oauth2 = { client_secret = \"canary\" }",
        "[routes.a]\nupstream = \"http://x\"\nauth.oauth2 = { token_url = \"https://u:canary@x\" }",
        "[routes.a]\nupstream = \"http://x\"\nauth.standard_webhooks.secret = \"canary\"",
    ] {
        let error = load(text).unwrap_err();
        assert!(!error.contains("canary"), "{text}\n{error}");
    }
    for (text, place) in [
        ("\na = \"x", "at line 2, column 7: invalid basic string"),
        ("[routes.a]\ntimeout = 1 2", "at line 2, column"),
        ("[routes.a]\nset_headers = \"x\"", "at line 2, column 15: [routes.a] set_headers: "),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.starts_with(&format!("onceward.toml: {place}")), "{text}\n{error}");
    }
}

#[test]
fn a_slip_of_the_pen_is_told_with_what_was_meant() {
    for (text, meant) in [
        ("listn = 1", "`listn`: did you mean \"listen\"?"),
        ("[limits]\nconections_max = 1", "`limits.conections_max`: did you mean"),
        ("[routes.a]\nupsteam = \"http://x\"", "\"upsteam\": did you mean \"upstream\"?"),
        (
            "[routes.a]\nupstream = \"http://x\"\nefects = \"keyed\"\nupstream_key = {}",
            "\"efects\": did you mean \"effects\"?",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nkey = { mising = \"make\" }",
            "\"key.mising\": did you mean \"missing\"?",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nkey = { missing = \"mak\" }",
            "\"mak\" is none of \"make\", \"require\", \"pass\": did you mean \"make\"?",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nlookup = { get = \"/o\", fuond = {} }",
            "\"lookup.fuond\": did you mean \"found\"?",
        ),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(meant), "{text}\n{error}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_its_mend() {
    for (text, place, mend) in [
        ("listn = 1", "line 1", "unknown field `listn`"),
        ("\n[routes.a]\nupstream = \"ftp://x\"", "line 3", "not an http or https URL"),
        ("[routes.a]\nupstream = \"http://x\"\ntimeout = \"30 parsecs\"", "line", "30s"),
        ("[routes.a]\nupstream = \"http://x\"\neffects = \"maybe\"", "line", "keyed"),
        ("[routes.a]\nupstream = \"http://x\"\nefects = \"keyed\"", "[routes.a]", "efects"),
        ("[routes.a]\neffects = \"keyed\"", "[routes.a]", "add upstream"),
        ("[routes.a]\nupstream = \"http://x\"\nhints = [\"x-retry\"]", "line", "retry-after-ms"),
        ("store = \"mysql:x\"", "store", "sqlite:"),
        ("[routes.a]\nupstream = \"http://x\"\nupstream_tls = {}", "line 3", "https"),
        (
            "[routes.a]\nupstream = \"http://x\"\nauth.bearer = { file = \"/nowhere/token\" }",
            "line 3",
            "/nowhere/token: ",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nauth.bearer = \"\"",
            "[routes.a]",
            "empty auth.bearer",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nauth = { bearer = \"a\", basic = { user = \"a\", password = \"b\" } }",
            "line 3",
            "one of bearer, basic and oauth2",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nauth.bearer = \"a\"\nset_headers = { authorization = \"b\" }",
            "[routes.a]",
            "keep one of them",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\neffects = \"keyed\"\nupstream_key = { json = \"/k\" }\nauth.standard_webhooks.secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            "[routes.a]",
            "into a header",
        ),
        (
            "[routes.a]\nupstream = \"https://x\"\nupstream_tls.cert_file = \"c.pem\"",
            "[routes.a]",
            "cert_file and key_file together",
        ),
        (
            "[routes.a]\nupstream = \"https://x\"\nupstream_tls = { ca_file = \"/nowhere/ca.pem\" }",
            "line 3",
            "/nowhere/ca.pem: ",
        ),
        (
            "[routes.a]\nupstream = \"https://x\"\nupstream_tls = { min_version = \"1.1\" }",
            "line 3",
            "\"1.3\"",
        ),
        ("[routes.a]\nupstream = \"http://u:p@x\"", "line 2", "set_headers"),
        ("[routes.a]\nupstream = \"http://x\"\n[routes.a.chaos]\ndorp = 1", "line", "dorp"),
        (
            "[routes.a]\nupstream = \"http://x\"\nchaos.drop = 1",
            "[routes.a.chaos]",
            "--allow-chaos",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\neffects = \"keyed\"\nupstream_key = { json = \"key\" }",
            "line",
            "/idempotency_key",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\neffects = \"keyed\"\nupstream_key = { json = \"/key\", query = \"key\" }",
            "[routes.a]",
            "one of header, json and query",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nchaos = { drop = 60, reset = 41 }",
            "[routes.a]",
            "1 to 100",
        ),
        (
            "[routes.a]\nupstream = \"http://x\"\nchaos = { delay = 1, delay_for = \"30s\" }",
            "[routes.a]",
            "shorter delay",
        ),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(place) && error.contains(mend), "{text}\n{error}");
    }
}

#[test]
fn chaos_is_read_where_it_is_allowed() {
    let text = "[routes.a]\nupstream = \"http://x\"\nchaos = { seed = 7, drop = 10 }";
    let flags = Overrides { allow_chaos: true, ..Overrides::default() };
    let config = load_with(text, &[], &flags).unwrap();
    let chaos = config.routes["a"].chaos.as_ref().unwrap();
    assert_eq!((chaos.seed, chaos.drop, chaos.refuse), (7, 10, 0));
    assert!(config.warnings().iter().any(|warning| warning.contains("drop 10 %")));
}

#[test]
fn variables_are_put_in_and_may_not_break_out() {
    let variable = |name: &str| match name {
        "KEY" => Some("secret".to_owned()),
        "EVIL" => Some("\"\nlisten = 1".to_owned()),
        _ => None,
    };
    assert_eq!(
        interpolate("a = \"${KEY}${NO:-d}\"", "f", None, variable).unwrap(),
        "a = \"secretd\""
    );
    for comments in [
        "# ${NOT_SET}\n",
        "a = 1 # ${NOT_SET}\n",
        "a = \"\" # ${NOT_SET}",
        "a = 'it''s' # ${NOT_SET}\n",
        "a = \"\\\"\" # '${NOT_SET}\n",
        "a = \"\"\"\n# in it \"\"\"\" # ${NOT_SET}\n",
        "a = \"not ended\n# ${NOT_SET}\n",
    ] {
        assert_eq!(interpolate(comments, "f", None, variable).unwrap(), comments);
    }
    for (text, filled) in [
        ("a = \"#${KEY}\" # ${KEY}", "a = \"#VALUE\" # ${KEY}"),
        ("a = '''\n# ${KEY}'''\nb = \"${KEY}\"", "a = '''\n# VALUE'''\nb = \"VALUE\""),
    ] {
        let value = variable("KEY").unwrap();
        assert_eq!(
            interpolate(text, "f", None, variable).unwrap(),
            filled.replace("VALUE", &value)
        );
    }
    assert!(
        interpolate("a\nb = \"${NOT_SET}\"", "f", None, variable)
            .unwrap_err()
            .to_string()
            .starts_with("f:2: the variable NOT_SET")
    );
    let said = |text: &str| interpolate(text, "f", None, variable).unwrap_err().to_string();
    assert_eq!(said("${NO:?ask ops: x}"), "f:1: the variable NO is not set: ask ops: x");
    assert!(said("${NO:?}").contains("the variable NO is not set\nhelp"));
    assert!(said("${KEY:other}").starts_with("f:1: the variable KEY:other is not set"));
    assert_eq!(interpolate("${KEY:?no}", "f", None, variable).unwrap(), "secret");
    assert!(interpolate("b = \"${EVIL}\"", "f", None, variable).is_err());
}

#[test]
fn the_environment_lies_over_the_file() {
    let variables = [("ONCEWARD_LISTEN", "127.0.0.1:9"), ("ONCEWARD_LIMITS__CONNECTIONS_MAX", "7")];
    let load =
        |variables: &[_]| load_with("listen = \"127.0.0.1:1\"", variables, &Overrides::default());
    let config = load(&variables).unwrap();
    assert_eq!((config.listen.port(), config.connections_max), (9, 7));
    for (variable, value) in [
        ("ONCEWARD_NONSENSE", "1"),
        ("ONCEWARD_LISTEN__PORT", "1"),
        ("ONCEWARD_LIMITS__CONNECTIONS_MAX", "[1, \"canary\"]"),
    ] {
        let error = load(&[(variable, value)]).unwrap_err();
        assert!(error.contains(variable) && !error.contains("canary"), "{error}");
    }
    // A secret of digits is none of our numbers.
    let route = "[routes.a]\nupstream = \"http://127.0.0.1:1\"\nset_headers = { token = \"x\" }";
    let digits = [("ONCEWARD_ROUTES__A__SET_HEADERS__TOKEN", "12345678901234567890")];
    load_with(route, &digits, &Overrides::default()).unwrap();
}

#[test]
fn where_a_service_is_says_nothing_of_the_configuration_and_a_slip_does() {
    for (variable, value) in [
        ("ONCEWARD_SERVICE_HOST", "10.96.0.7"),
        ("ONCEWARD_SERVICE_HOST", "fd00::7"),
        ("ONCEWARD_SERVICE_PORT", "7077"),
        ("ONCEWARD_SERVICE_PORT_HTTP", "7077"),
        ("ONCEWARD_PORT", "tcp://10.96.0.7:7077"),
        ("ONCEWARD_PORT_7077_TCP", "tcp://10.96.0.7:7077"),
        ("ONCEWARD_PORT_7077_TCP_PROTO", "tcp"),
        ("ONCEWARD_PORT_7077_TCP_PORT", "7077"),
        ("ONCEWARD_PORT_7077_TCP_ADDR", "10.96.0.7"),
        ("ONCEWARD_POSTGRES_SERVICE_PORT", "5432"),
        ("ONCEWARD_POSTGRES_PORT_5432_TCP", "tcp://10.96.0.8:5432"),
    ] {
        assert!(text::is_service(variable, value), "{variable}");
    }
    for (variable, value) in [
        ("ONCEWARD_PORT", "7077"),
        ("ONCEWARD_LISTEN_PORT", "7077"),
        ("ONCEWARD_SERVICE_HOST", "gateway.example.com"),
        ("ONCEWARD_SERVICE_PORT", "http"),
        ("ONCEWARD_PORT_7077_TCP", "7077"),
        ("ONCEWARD_PORT_HTTP", "7077"),
        ("ONCEWARD_LISTEN", "127.0.0.1:7077"),
    ] {
        assert!(!text::is_service(variable, value), "{variable}");
    }
}

#[test]
fn the_word_for_a_restore_may_be_a_date_and_an_empty_one_is_none() {
    let over = |word| {
        let config = load_with("", &[("ONCEWARD_QUARANTINE", word)], &Overrides::default());
        config.map(|config| config.quarantine)
    };
    for word in ["2026-11-27", "of Friday", "dump of 03:00"] {
        assert_eq!(over(word), Ok(Some(word.to_owned())));
    }
    assert_eq!((over(""), over("  ")), (Ok(None), Ok(None)));
    assert!(over(&"w".repeat(201)).unwrap_err().contains("quarantine"));
}

#[test]
fn limits_of_callers_are_what_the_file_says() {
    let usual = Config::of_text("").unwrap();
    let said = "[limits]\nidle_timeout = \"5s\"\nbody_timeout = \"2m\"\nbody_rate_min = \"64KiB\"";
    let config = Config::of_text(said).unwrap();
    assert_eq!(config.idle_timeout, Duration::from_secs(5));
    assert_eq!(config.pace, Pace { total: Duration::from_mins(2), bytes_per_second: 64 << 10 });
    assert_eq!((usual.idle_timeout, usual.pace), (Duration::from_secs(75), Pace::default()));
    assert!(!config.is_served_as(&usual), "they are read at a start");
    for key in ["idle_timeout", "body_timeout"] {
        assert!(load(&format!("[limits]\n{key} = \"1ms\"")).unwrap_err().contains(key));
    }
}

#[test]
fn a_verb_beside_the_gateway_needs_no_credentials_to_find_it() {
    let text = "listen = \"127.0.0.1:1\"\nstore = \"sqlite:d/l.db\"\n[routes.a]\nupstream = \"${UPSTREAM}\"\nset_headers = { A = \"${KEY}\" }";
    let places = Places::build(text, "f", |_| None).unwrap();
    assert_eq!((places.listen.port(), places.data()), (1, PathBuf::from("d")));
    let with_default = "listen = \"${NOT_SET:-127.0.0.1:2}\"";
    assert_eq!(Places::build(with_default, "f", |_| None).unwrap().listen.port(), 2);
    let over = |name: &str| (name == "ONCEWARD_STORE").then(|| "sqlite:e/l.db".to_owned());
    assert_eq!(Places::build(text, "f", over).unwrap().data(), PathBuf::from("e"));
    assert!(Places::build("listen = 1", "f", |_| None).unwrap_err().to_string().contains("listen"));
}

#[test]
fn without_a_file_the_demo_upstreams_are_there() {
    let config = Config::of_text("").unwrap();
    assert!(config.demo && config.listen.ip().is_loopback());
    assert!(!load("").unwrap().demo);
}

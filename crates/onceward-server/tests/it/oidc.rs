//! Logging in with an identity provider that is really there: what it is asked, whom it lets in, and that
//! nothing is believed that it has not signed for this login.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::{Value, json};
use url::Url;

use crate::browser_world::{Browser, Server};
use crate::oidc_world::{Algorithm, CLIENT, Lie, Provider};
use crate::world::{Gateway, Response, World, call, until};

const HTML: (&str, &str) = ("accept", "text/html");

/// A gateway that knows the provider, and where a key is needed.
fn start(provider: &Provider, lines: &str) -> (World, Gateway, String) {
    let world = World::new();
    world.write("onceward.toml", &provider.config(lines));
    let gateway = world.serve();
    let key = gateway.run(&["access", "create", "ada"]).ok().trim().to_owned();
    (world, gateway, key)
}

/// The cookie of this name that an answer sets, as a browser sends it.
fn cookie(answer: &Response, name: &str) -> Option<String> {
    let lines = answer.headers.iter().filter(|(header, _)| header == "set-cookie");
    let line = lines.map(|(_, line)| line).find(|line| line.starts_with(&format!("{name}=")))?;
    line.split(';').next().map(str::to_owned)
}

/// A login that is under way: what the browser keeps, and where it is to go.
struct Way {
    kept: String,
    to: Url,
}

fn begin(gateway: &Gateway, next: &str) -> Way {
    let answer = gateway.call("GET", &format!("/login/oidc?next={next}"), &[HTML], "");
    assert_eq!(answer.status, 303, "{}", answer.text());
    let to = Url::parse(answer.header("location").unwrap()).unwrap();
    Way { kept: cookie(&answer, "onceward-login").unwrap(), to }
}

impl Way {
    fn asked(&self, name: &str) -> String {
        self.to.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned()
    }

    /// The provider's answer: the path that the browser comes back by.
    fn back(&self, provider: &Provider) -> String {
        let path = format!("{}?{}", self.to.path(), self.to.query().unwrap());
        let answer = call(provider.address, "GET", &path, &[], "").unwrap();
        let back = Url::parse(answer.header("location").unwrap()).unwrap();
        format!("{}?{}", back.path(), back.query().unwrap())
    }
}

/// The browser comes back by this path, with what it keeps.
fn come_back(gateway: &Gateway, path: &str, kept: &str) -> Response {
    let headers = [HTML, ("cookie", kept), ("sec-fetch-site", "cross-site")];
    gateway.call("GET", path, &headers, "")
}

fn log_in(gateway: &Gateway, provider: &Provider) -> Response {
    let way = begin(gateway, "%2Fdead");
    come_back(gateway, &way.back(provider), &way.kept)
}

/// Its cookie, where somebody was logged in.
fn session(answer: &Response) -> Option<String> {
    cookie(answer, "onceward").filter(|_| answer.status == 303)
}

fn is_in(gateway: &Gateway, cookie: &str) -> bool {
    gateway.call("GET", "/dead", &[HTML, ("cookie", cookie)], "").status == 200
}

#[test]
fn a_person_logs_in_with_each_algorithm_and_has_the_roles_of_a_group() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let provider = Provider::start(algorithm);
        let (_world, gateway, _) = start(&provider, "");
        let answer = log_in(&gateway, &provider);
        assert_eq!(answer.header("location"), Some("/dead"), "{algorithm:?}: {}", answer.text());
        assert_eq!(cookie(&answer, "onceward-login").as_deref(), Some("onceward-login="));
        let cookie = session(&answer).unwrap();
        assert!(is_in(&gateway, &cookie));
        let audit = gateway.call("GET", "/audit", &[HTML, ("cookie", &cookie)], "");
        assert_eq!(audit.status, 403, "the group has no admin");
        let listed = &gateway.run(&["access", "sessions", "--json"]).json()[0];
        assert_eq!(
            (&listed["who"], &listed["by"], &listed["subject"], &listed["roles"]),
            (
                &json!("oidc:ada@example.com"),
                &json!("oidc"),
                &json!("u-1"),
                &json!(["read", "operate"])
            )
        );
        gateway.run(&["access", "revoke", listed["id"].as_str().unwrap()]).ok();
        assert!(!is_in(&gateway, &cookie));
    }
}

#[test]
fn a_browser_goes_there_and_back_by_a_click_and_is_told_where_it_logs_out_too() {
    let provider = Provider::start(Algorithm::Es256);
    let server = Server::with(&provider.config(""));
    server.gateway().run(&["access", "create", "ada"]).ok();
    let browser = Browser::start();
    browser.open(&server.url("/dead?route=demo"));
    browser.click_link("Log in with Example");
    until("it is back", || browser.url().ends_with("/dead?route=demo").then_some(()));
    assert_eq!(browser.text(".viewer bdi"), "oidc:ada@example.com");
    assert_eq!(browser.console(), Vec::<String>::new());
    browser.click(".viewer button");
    until("it is out", || browser.url().contains("/login?out=").then_some(()));
    assert!(browser.text("[role=status]").contains("Log out at 127.0.0.1, too"));
    let link = browser.evaluate("document.querySelector('[role=status] a').href");
    let link = Url::parse(link.as_str().unwrap()).unwrap();
    let asked: Vec<_> = link.query_pairs().collect();
    assert_eq!((link.path(), &*asked[0].1), ("/realms/main/logout", CLIENT));
    assert_eq!(asked[1].1, server.url("/login"));
}

#[test]
fn what_the_provider_has_not_signed_for_this_login_lets_nobody_in() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let provider = Provider::start(algorithm);
        let (_world, gateway, _) = start(&provider, "");
        let lies = [
            Lie::Unsigned,
            Lie::ByPublicKey,
            Lie::ByStranger,
            Lie::ByUnknown,
            Lie::Changed,
            Lie::Claim("iss", json!("https://evil.example")),
            Lie::Claim("aud", json!("another-client")),
            Lie::Claim("aud", json!([CLIENT, "another-client"])),
            Lie::Claim("azp", json!("another-client")),
            Lie::Claim("nonce", json!("another-login")),
            Lie::Claim("nonce", Value::Null),
            Lie::Claim("exp", json!(1_000_000_000)),
            Lie::Claim("exp", Value::Null),
            Lie::Claim("iat", json!(99_999_999_999_i64)),
            Lie::Claim("sub", json!("")),
            Lie::Issuer("https://evil.example"),
        ];
        for lie in lies {
            provider.lie(lie.clone());
            let answer = log_in(&gateway, &provider);
            assert_eq!(answer.status, 403, "{algorithm:?} {lie:?}: {}", answer.text());
            assert!(answer.text().contains("not believed"), "{lie:?}: {}", answer.text());
            assert_eq!(session(&answer), None, "{lie:?}");
            // One who gets in has five tries again.
            provider.lie(Lie::None);
            assert!(session(&log_in(&gateway, &provider)).is_some(), "{lie:?} was the reason");
        }
    }
}

#[test]
fn a_login_ends_once_in_the_browser_where_it_began_and_with_what_it_asked_for() {
    let provider = Provider::start(Algorithm::Es256);
    let (_world, gateway, key) = start(&provider, "");
    let fresh = || begin(&gateway, "");
    let again = || assert!(session(&log_in(&gateway, &provider)).is_some());

    let way = fresh();
    let back = way.back(&provider);
    assert!(session(&come_back(&gateway, &back, &way.kept)).is_some());
    assert_eq!(come_back(&gateway, &back, &way.kept).status, 403, "the same state, once more");
    let other_code = fresh().back(&provider);
    let stolen = back
        .replace("code-1", other_code.split("code=").nth(1).unwrap().split('&').next().unwrap());
    assert_eq!(come_back(&gateway, &stolen, &way.kept).status, 403, "a state that was used");
    again();

    // Somebody's finished login, put before another's browser.
    let (mine, theirs) = (fresh(), fresh());
    assert_eq!(come_back(&gateway, &mine.back(&provider), &theirs.kept).status, 403);
    assert_eq!(come_back(&gateway, &mine.back(&provider), "").status, 403);
    assert_eq!(come_back(&gateway, &mine.back(&provider), "onceward-login=AAAA").status, 403);
    again();

    // A code of another login, put into one's own: its verifier is another, and its nonce.
    let (one, other) = (fresh(), fresh());
    let code =
        |path: &str| path.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let (of_one, of_other) = (one.back(&provider), other.back(&provider));
    let mixed = of_one.replace(&code(&of_one), &code(&of_other));
    let answer = come_back(&gateway, &mixed, &one.kept);
    assert!(answer.status == 403 && answer.text().contains("does not take the code"));
    again();

    // A code once more, with a login of its own.
    let way = fresh();
    let used = code(&back);
    let back = way.back(&provider);
    let answer = come_back(&gateway, &back.replace(&code(&back), &used), &way.kept);
    assert!(answer.status == 403 && answer.text().contains("does not take the code"));
    again();

    // An answer that names nobody, where this provider always does; and one of another.
    let way = fresh();
    let back = way.back(&provider);
    let anonymous = back.split("&iss=").next().unwrap();
    assert_eq!(come_back(&gateway, anonymous, &way.kept).status, 403);
    let way = fresh();
    let refused = format!(
        "/login/oidc/callback?error=access_denied&state={}&iss={}",
        way.asked("state"),
        way.asked("state")
    );
    assert!(!come_back(&gateway, &refused, &way.kept).text().contains("access_denied"));
    again();
    let way = fresh();
    let issuer: String =
        url::form_urlencoded::byte_serialize(provider.issuer().as_bytes()).collect();
    let refused = format!(
        "/login/oidc/callback?error=access_denied&state={}&iss={issuer}",
        way.asked("state")
    );
    let answer = come_back(&gateway, &refused, &way.kept);
    assert!(answer.status == 403 && answer.text().contains("access_denied"));

    let bearer = format!("Bearer {key}");
    let audit =
        gateway.call("GET", "/v1/audit?limit=100", &[("authorization", &bearer)], "").text();
    assert!(audit.contains("failed to log in") && !audit.contains("code-1"));
}

#[test]
fn each_login_asks_with_its_own_chance_and_leads_nobody_elsewhere() {
    let provider = Provider::start(Algorithm::Es256);
    let (_world, gateway, _) = start(&provider, "scopes = [\"openid\", \"groups\"]");
    let (one, other) = (begin(&gateway, "%2F%2Fevil.example"), begin(&gateway, ""));
    for name in ["state", "nonce", "code_challenge"] {
        let (one, other) = (one.asked(name), other.asked(name));
        assert!(one.len() == 43 && one != other, "{name}: {one} {other}");
    }
    assert_eq!(one.asked("scope"), "openid groups");
    let here = format!("http://{}/login/oidc/callback", gateway.address);
    assert_eq!(one.asked("redirect_uri"), here);
    assert!(!one.kept.contains(&one.asked("nonce")), "what is kept is sealed");
    let answer = come_back(&gateway, &one.back(&provider), &one.kept);
    assert_eq!(answer.header("location"), Some("/"));
    assert_eq!(
        provider.asked("/realms/main/.well-known/openid-configuration"),
        1,
        "it is remembered"
    );
}

#[test]
fn a_key_that_the_provider_has_just_made_is_asked_for() {
    let provider = Provider::start(Algorithm::Rs256);
    let (_world, gateway, _) = start(&provider, "");
    for id in ["key-1", "key-2", "key-2"] {
        if provider.asked("/realms/main/keys") > 0 {
            provider.rotate(id);
        }
        assert!(session(&log_in(&gateway, &provider)).is_some(), "{id}");
    }
    assert_eq!(
        provider.asked("/realms/main/keys"),
        3,
        "only where a key is not known, or does not fit"
    );
    assert!(session(&log_in(&gateway, &provider)).is_some());
    assert_eq!(provider.asked("/realms/main/keys"), 3);
}

#[test]
fn who_has_no_role_or_no_address_of_the_domain_stays_out() {
    let provider = Provider::start(Algorithm::Es256);
    let (_world, gateway, _) = start(&provider, "domains = [\"example.com\"]");
    assert!(session(&log_in(&gateway, &provider)).is_some());
    for (claim, bad, good, said) in [
        ("groups", json!(["dev"]), json!(["oncall"]), "no role"),
        ("email", json!("ada@evil.example"), json!("ada@example.com"), "domain"),
        ("email_verified", json!(false), json!(true), "domain"),
    ] {
        provider.user(claim, bad);
        let answer = log_in(&gateway, &provider);
        assert!(answer.status == 403 && answer.text().contains(said), "{claim}: {}", answer.text());
        provider.user(claim, good);
        assert!(session(&log_in(&gateway, &provider)).is_some());
    }
}

#[test]
fn what_a_token_does_not_say_is_asked_for_and_only_of_the_same_person() {
    let provider = Provider::start(Algorithm::Es256);
    let (_world, gateway, _) = start(&provider, "");
    assert!(session(&log_in(&gateway, &provider)).is_some());
    assert_eq!(provider.asked("/realms/main/userinfo"), 0, "the token says it all");
    provider.tell_beside("u-1");
    assert!(session(&log_in(&gateway, &provider)).is_some());
    provider.tell_beside("u-2");
    let answer = log_in(&gateway, &provider);
    assert!(answer.status == 403 && answer.text().contains("somebody else"), "{}", answer.text());
    assert_eq!(provider.asked("/realms/main/userinfo"), 2);
}

#[test]
fn a_secret_goes_where_the_provider_takes_it_and_shows_nowhere() {
    let provider = Provider::start(Algorithm::Es256);
    provider.take_secret_in_form();
    let (world, gateway, _) = start(&provider, "");
    assert!(session(&log_in(&gateway, &provider)).is_some());
    let secret = crate::oidc_world::SECRET;
    for shown in [gateway.run(&["check"]).ok(), gateway.run(&["check", "--json"]).ok()] {
        assert!(shown.contains(&provider.issuer()) && !shown.contains(secret), "{shown}");
    }
    gateway.kill();
    assert!(!crate::world::is_in_a_file(&world.path("onceward-data"), secret));
}

#[test]
fn a_provider_that_is_away_or_another_is_said_and_the_key_still_opens() {
    let provider = Provider::start(Algorithm::Es256);
    let (_world, gateway, key) = start(&provider, "");
    let ask = || gateway.call("GET", "/login/oidc", &[HTML], "");
    provider.lie(Lie::Document("issuer", json!("https://evil.example")));
    let answer = ask();
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("calls itself"), "{}", answer.text());
    provider.lie(Lie::None);
    assert!(ask().text().contains("calls itself"), "nobody asks again at once");
    until("it is asked again", || (ask().status == 303).then_some(()));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let by_key = gateway.call("POST", "/login", &[HTML, form], &format!("key={key}"));
    assert_eq!(by_key.status, 303);
}

#[test]
fn a_providers_document_leads_to_no_place_that_a_caller_could_not_name() {
    for (name, place) in [
        ("jwks_uri", "http://169.254.169.254/latest/meta-data/"),
        ("jwks_uri", "http://10.0.0.1/keys"),
        ("token_endpoint", "file:///etc/passwd"),
        ("token_endpoint", "http://evil.example/token"),
        ("authorization_endpoint", "javascript:alert(1)"),
    ] {
        let provider = Provider::start(Algorithm::Es256);
        provider.lie(Lie::Document(name, json!(place)));
        let (_world, gateway, _) = start(&provider, "");
        let answer = gateway.call("GET", "/login/oidc", &[HTML], "");
        assert!(answer.status == 502 && answer.text().contains(name), "{place}: {}", answer.text());
    }
    // By https a private address is refused by the egress policy, when it is asked.
    let provider = Provider::start(Algorithm::Es256);
    provider.lie(Lie::Document("jwks_uri", json!("https://10.0.0.1/keys")));
    let (_world, gateway, _) = start(&provider, "");
    let answer = log_in(&gateway, &provider);
    assert!(answer.status == 502 && answer.text().contains("10.0.0.1"), "{}", answer.text());
}

#[test]
fn a_login_that_began_at_one_node_ends_at_another_and_only_once() {
    let Some(ledger) = crate::postgres::database() else { return };
    let provider = Provider::start(Algorithm::Es256);
    let worlds = [World::new(), World::new()];
    let nodes = worlds.each_ref().map(|world| {
        world.write("onceward.toml", &format!("store = {ledger:?}\n{}", provider.config("")));
        world.serve_in(&[("ONCEWARD_MASTER_KEY", &"07".repeat(32))])
    });
    let [one, other] = &nodes;
    one.run(&["access", "create", "ada"]).ok();
    until("the other wants a key", || {
        (other.call("GET", "/v1/operations", &[], "").status == 401).then_some(())
    });
    let way = begin(one, "%2Fdead");
    let back = way.back(&provider);
    let answer = come_back(other, &back, &way.kept);
    assert_eq!(answer.header("location"), Some("/dead"), "{}", answer.text());
    let again = come_back(one, &back, &way.kept);
    assert!(again.status == 403 && again.text().contains("does not take the code"));
    let cookie = session(&answer).unwrap();
    until("the one knows the session", || is_in(one, &cookie).then_some(()));
}

#[test]
fn a_provider_that_is_said_later_is_there_after_a_reload() {
    let provider = Provider::start(Algorithm::Es256);
    let world = World::new();
    world.write("onceward.toml", "demo = true\n");
    let gateway = world.serve();
    gateway.run(&["access", "create", "ada"]).ok();
    let login = || gateway.call("GET", "/login", &[HTML], "").text();
    assert!(!login().contains("/login/oidc"));
    assert_eq!(gateway.call("GET", "/login/oidc", &[HTML], "").status, 403);
    world.write("onceward.toml", &provider.config(""));
    gateway.signal(rustix::process::Signal::HUP);
    until("it is offered", || login().contains("Log in with Example").then_some(()));
    assert!(session(&log_in(&gateway, &provider)).is_some());
}

use super::super::tests::load;
use super::*;

fn alerts(lines: &str) -> Result<AlertsConfig, String> {
    Ok((*load(lines)?.alerts.expect("[alerts]")).clone())
}

const SECRET: &str = "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";

#[test]
fn without_a_word_nothing_is_watched_and_with_one_all_is() {
    assert!(load("listen = \"127.0.0.1:1\"").unwrap().alerts.is_none());
    let read = alerts(
        "[alerts]\ndisk_low = false\nin_doubt = { for = \"1m\" }\nbacklog_old = { above = \"2m\" }",
    )
    .unwrap();
    assert_eq!(read.rules.of.len(), Kind::ALL.len() - 1);
    assert_eq!(read.rules.of[&Kind::InDoubt].hold, Duration::from_mins(1));
    assert_eq!(read.rules.of[&Kind::BacklogOld].bound, 120);
    assert_eq!(read.rules.of[&Kind::DeadLetters], Kind::DeadLetters.usual());
    assert!(read.warnings(&BTreeMap::new())[0].contains("tells nobody"));
}

#[test]
fn the_words_for_alerts_are_the_same_everywhere() {
    for kind in Kind::ALL {
        assert!(kinds().contains(&(kind.key(), kind)));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.key());
    }
}

#[test]
fn receivers_are_told_by_webhook_slack_or_mail_and_their_secrets_never_show() {
    let text = format!(
        "public_url = \"https://onceward.example\"\n[alerts.to.hook]\nwebhook = \"https://hooks.example/canary-w?t=canary-q\"\n{SECRET}\ntimeout = \"5s\"\n\
         [alerts.to.chat]\nslack = \"https://hooks.slack.example/services/canary-s\"\nalerts = [\"in_doubt\"]\nrepeat = false\n\
         [alerts.to.mail]\nmail = {{ to = \"On call <oncall@example.com>\", from = \"onceward@example.com\", smtp = \"smtp://mail.example.com\", user = \"u\", password = \"canary-p\" }}\n"
    );
    let config = load(&text).unwrap();
    let read = config.alerts.clone().unwrap();
    assert_eq!(read.to["hook"].way, Way::Webhook);
    assert_eq!(read.to["chat"].wish.repeat, None);
    assert_eq!(read.to["chat"].wish.kinds, [Kind::InDoubt]);
    let Way::Mail(by) = &read.to["mail"].way else { panic!("{read:?}") };
    assert_eq!(
        (by.server.place.as_str(), by.server.by.safe),
        ("http://mail.example.com:587/", Safe::StartTls)
    );
    let route = &config.routes["alerts/hook"];
    assert_eq!(route.target.base.as_str(), "https://hooks.example/");
    assert_eq!(route.auth.address.as_ref().unwrap().0, "/canary-w?t=canary-q");
    assert_eq!(route.target.timeouts.total, Duration::from_secs(5));
    let shown = format!("{config:?} {:?} {:?}", read.described(), config.warnings());
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(read.warnings(&config.routes), Vec::<String>::new());
    let of = load(&text.replace("timeout = \"5s\"", "routes = [\"crm\"]")).unwrap();
    assert!(of.warnings().iter().any(|it| it.contains("a route \"crm\" that is not there")));
}

#[test]
fn what_is_wrong_with_alerts_is_said_and_no_secret_with_it() {
    let mail = |more: &str| {
        format!(
            "[alerts.to.a]\nmail = {{ to = [\"a@b.example\"], from = \"c@d.example\", {more} }}"
        )
    };
    for (text, said) in [
        ("[alerts]\nin_doubt = \"often\"".to_owned(), "write false, or a table"),
        ("[alerts]\nin_doubt = { abov = 1 }".to_owned(), "abov"),
        ("[alerts]\nevery = \"1ms\"".to_owned(), "100ms at least"),
        ("[alerts]\ndead_letters = { within = \"0s\" }".to_owned(), "less than a second"),
        ("[alerts]\nevery = \"61s\"".to_owned(), "longer than a minute"),
        ("[alerts.to.a]\nrepeat = \"0s\"".to_owned(), "less than a minute"),
        ("[alerts.to.a]\ngroup = \"31m\"".to_owned(), "longer than half an hour"),
        ("[alerts.to.a]\nrepeat = \"1m\"\ngroup = \"30m\"".to_owned(), "in no way, or in several"),
        ("[alerts.to.a]\nrepeat = \"4h\"".to_owned(), "in no way, or in several"),
        (format!("[alerts.to.a]\nwebhook = \"https://a.example/canary\"\nslack = \"https://b.example/canary\"\n{SECRET}"), "in no way, or in several"),
        ("[alerts.to.a]\nwebhook = \"https://a.example/canary\"".to_owned(), "missing field `secret`"),
        ("[alerts.to.a]\nwebhook = \"https://a.example/canary\"\nsecret = \"canary\"".to_owned(), "no secret of Standard Webhooks"),
        ("[alerts.to.a]\nslack = \"ftp://a.example/canary\"".to_owned(), "no http or https URL"),
        ("[alerts.to.a]\nslack = \"https://u:canary@a.example/\"".to_owned(), "no http or https URL"),
        ("[alerts.to.a]\nslack = \"https://a.example/\"\neffects = \"keyed\"".to_owned(), "not to be chosen"),
        ("[alerts.to.a]\nslack = \"https://a.example/\"\nalerts = [\"in_dout\"]".to_owned(), "did you mean \"in_doubt\""),
        (mail("smtp = \"mail.example.com\""), "no mail server"),
        (mail("smtp = \"smtp://u:canary@mail.example.com\""), "no mail server"),
        (mail("smtp = \"smtp://mail.example.com/canary\""), "no mail server"),
        (mail("smtp = \"smtp://mail.example.com\", user = \"u\""), "half of a login"),
        (mail("smtp = \"smtp://mail.example.com\", user = \"u\", password = \"canary\", tls = \"never\""), "others can read"),
        ("[alerts.to.a]\nmail = { to = \"nobody\", from = \"c@d.example\", smtp = \"smtp://x.example\" }".to_owned(), "nobody"),
    ] {
        let wrong = alerts(&text).unwrap_err();
        assert!(wrong.contains(said), "{text}: {wrong}");
        assert!(!wrong.contains("canary"), "{wrong}");
    }
}

#[test]
fn a_mail_servers_place_is_read_with_the_usual_port_of_its_scheme() {
    for (text, place, is_implicit) in [
        ("smtp://mail.example.com", "http://mail.example.com:587/", false),
        ("smtps://mail.example.com", "http://mail.example.com:465/", true),
        ("smtp://127.0.0.1:2525", "http://127.0.0.1:2525/", false),
        ("smtp://[::1]:25/", "http://[::1]:25/", false),
    ] {
        let read = mail::server(text).unwrap();
        assert_eq!((read.0.as_str(), read.1), (place, is_implicit));
    }
}

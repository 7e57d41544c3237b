//! Alerts by mail, to a server that speaks SMTP in each way that there is.

use std::net::SocketAddr;

use crate::alerts_world::{QUICK, bury};
use crate::guard_tls::Authority;
use crate::mail_world::{MailServer, Tls};
use crate::world::{Upstream, World, is_in_a_file, route, until};

/// A receiver by mail.
fn mail(smtp: &str, more: &str) -> String {
    format!(
        "[alerts.to.mail]\ngroup = \"0s\"\nmail = {{ to = [\"On call <oncall@example.com>\", \"second@example.com\"], from = \"Onceward <onceward@example.com>\", smtp = \"{smtp}\"{more} }}\n"
    )
}

fn dying(address: SocketAddr) -> String {
    format!(
        "dead_letters = {{ above = 0, within = \"1h\" }}\ndisk_low = false\n{}",
        route("a", address)
    )
}

#[test]
fn an_alert_goes_out_by_starttls_and_login_and_is_the_same_mail_when_it_is_sent_again() {
    let (world, authority) = (World::new(), Authority::new());
    let server = MailServer::start(Tls::Start, Some(&authority.sign_for("mail", "localhost")));
    let upstream = Upstream::answering(Some(422));
    world.write("ca.pem", &authority.pem());
    world.write("password", "canary-pw\n");
    let smtp = format!("smtp://localhost:{}", server.address.port());
    let login = ", user = \"onceward\", password = { file = \"password\" }, tls = \"required\"";
    let text = format!(
        "public_url = \"https://onceward.example\"\n[tls]\nca_file = \"ca.pem\"\n{}[alerts]\n{QUICK}{}",
        mail(&smtp, login),
        dying(upstream.address)
    );
    world.write("onceward.toml", &text);
    // It is put off once, and once nobody knows.
    server.fail(&[Some("451 later"), None]);
    let gateway = world.serve();
    bury(&gateway, "a", "k-1");
    until("it says why", || {
        let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
        let why = listed["data"][0]["told"][0]["error"].as_str()?.to_owned();
        why.contains("later").then_some(())
    });
    let taken = until("it is taken", || server.taken().first().cloned());
    assert_eq!(taken.from, "onceward@example.com");
    assert_eq!(taken.to, ["oncall@example.com", "second@example.com"]);
    assert_eq!(taken.login.as_deref(), Some("/onceward/canary-pw"));
    assert!(taken.is_safe);
    assert_eq!(taken.header("Subject"), "Onceward: 1 firing: OncewardDeadLetters");
    for wanted in [
        "1 operation of a became dead letters",
        "https://onceward.example/dead",
        "https://onceward.example/docs/on-call/OncewardDeadLetters",
    ] {
        let text = taken.text.replace("=\n", "");
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let id = taken.header("Message-ID");
    assert!(id.starts_with("<alert-1-") && id.ends_with("@example.com>"), "{id}");
    let before: Vec<_> = server.refused().iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(before, [id.clone(), id]);
    assert_eq!(server.taken().len(), 1);
    let shown = format!(
        "{}{}",
        gateway.run(&["alerts", "--json"]).ok(),
        world.run(&["check", "--json"]).ok()
    );
    assert!(shown.contains("oncall@example.com") && !shown.contains("canary"), "{shown}");
    assert!(!gateway.log.has("canary"));
    drop(gateway);
    assert!(!is_in_a_file(&world.path("onceward-data"), "canary"));
}

#[test]
fn a_test_goes_out_over_tls_from_the_first_byte_and_in_the_clear_on_this_machine() {
    let (world, authority) = (World::new(), Authority::new());
    let safe = MailServer::start(Tls::Implicit, Some(&authority.sign_for("mail", "localhost")));
    let clear = MailServer::start(Tls::Never, None);
    world.write("ca.pem", &authority.pem());
    let smtps = format!("smtps://localhost:{}", safe.address.port());
    let smtp = format!("smtp://{}", clear.address);
    let here = mail(&smtp, "").replace("to.mail]", "to.here]").replace("second@", "nobody@");
    let strict = mail(&smtp, ", tls = \"required\"").replace("to.mail]", "to.strict]");
    world.write(
        "onceward.toml",
        &format!("[tls]\nca_file = \"ca.pem\"\n{}{here}{strict}", mail(&smtps, "")),
    );
    let gateway = world.serve();
    gateway.run(&["alerts", "test", "mail"]).ok();
    let taken = safe.taken();
    assert_eq!((taken.len(), taken[0].header("Subject").as_str()), (1, "Onceward: a test"));
    gateway.run(&["alerts", "test", "here"]).ok();
    assert_eq!(clear.taken()[0].to, ["oncall@example.com"]);
    assert!(gateway.log.until("not taken for all").contains("nobody@example.com"));
    let said = gateway.run(&["alerts", "test", "strict"]).failed(1);
    assert!(said.contains("STARTTLS"), "{said}");
    assert_eq!(clear.taken().len(), 1);
}

#[test]
fn who_is_put_off_gets_the_mail_later_and_nobody_waits_for_them_or_gets_it_twice() {
    let (world, upstream) = (World::new(), Upstream::answering(Some(422)));
    let server = MailServer::start(Tls::Never, None);
    let receiver = mail(&format!("smtp://{}", server.address), "").replace("second@", "grey@");
    let text = format!("{receiver}[alerts]\n{QUICK}{}", dying(upstream.address));
    world.write("onceward.toml", &text);
    server.put_off(1);
    let gateway = world.serve();
    bury(&gateway, "a", "k-1");
    let taken = until("all have it", || Some(server.taken()).filter(|taken| taken.len() == 2));
    assert_eq!([&taken[0].to, &taken[1].to], [&["oncall@example.com"], &["grey@example.com"]]);
    assert_eq!(taken[0].text, taken[1].text);
    let why = gateway.log.until("could not be told");
    assert!(why.contains("not for grey@example.com") && why.contains("come again"), "{why}");
    until("it is noted", || {
        let listed = gateway.call("GET", "/v1/alerts", &[], "").json();
        (listed["data"][0]["told"][0]["sent"] == true).then_some(())
    });
    assert_eq!(server.taken().len(), 2);
}

#[test]
fn a_server_whose_certificate_nobody_signed_gets_no_mail() {
    let (world, authority) = (World::new(), Authority::new());
    let server = MailServer::start(Tls::Implicit, Some(&authority.sign_for("mail", "localhost")));
    let smtps = format!("smtps://localhost:{}", server.address.port());
    world.write("onceward.toml", &mail(&smtps, ""));
    let gateway = world.serve();
    let said = gateway.run(&["alerts", "test", "mail"]).failed(1);
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(server.taken().len(), 0);
}

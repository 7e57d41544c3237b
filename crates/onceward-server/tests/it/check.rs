//! `check`: what it finds on this machine, in the ledger and among the keys; and with `--connect`, whom it reaches.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use rustix::process::Signal;
use serde_json::Value;

use crate::guard_tls::Authority;
use crate::postgres::database;
use crate::world::{Ended, World};

/// What was found of a group, by its result.
fn found(document: &Value, group: &str, result: &str) -> Vec<String> {
    let all = document["checks"].as_array().expect("a list").iter();
    let of_it = all.filter(|it| it["group"] == group && it["result"] == result);
    of_it.map(|it| it["says"].as_str().expect("a text").to_owned()).collect()
}

/// What a check that fails found.
fn failed(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(5), "{ended:?}");
    serde_json::from_str(&ended.out).expect("a document")
}

#[test]
fn a_check_before_the_first_start_looks_at_the_machine_and_leaves_nothing_behind() {
    let world = World::new();
    world.write("onceward.toml", "listen = \"127.0.0.1:0\"\n");
    let said = world.run(&["check"]).ok();
    for words in [
        "\nthis machine\nok: ",
        "onceward-data is made at the first start",
        "\nledger\n",
        "master.key is made at the first start",
        "\nlisteners\nok: 127.0.0.1:0 is free",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    assert!(!world.path("onceward-data").exists());
    let of_file = world.run(&["check", "--file-only", "--json"]).json();
    let groups = of_file["checks"].as_array().expect("a list").iter().map(|it| &it["group"]);
    assert_eq!(groups.collect::<Vec<_>>(), ["configuration"]);
}

#[test]
fn a_check_beside_the_gateway_measures_its_disk_and_knows_it_on_its_port() {
    let world = World::new();
    let gateway = world.serve();
    world.write("onceward.toml", &format!("listen = \"{}\"\n", gateway.address));
    let before = std::fs::read_dir(world.path("onceward-data")).expect("a folder").count();
    let told = world.run(&["check", "--json"]).json();
    let all = |group: &str| {
        ["ok", "warning"].into_iter().flat_map(|it| found(&told, group, it)).collect::<Vec<_>>()
    };
    assert!(all("this machine").iter().any(|it| it.contains("a durable write")), "{told}");
    assert!(all("ledger")[0].contains("as this release wants it"), "{told}");
    assert_eq!(found(&told, "listeners", "ok"), [format!("a gateway is on {}", gateway.address)]);
    let after = std::fs::read_dir(world.path("onceward-data")).expect("a folder").count();
    assert_eq!(before, after, "nothing is left behind");
}

#[test]
fn a_port_that_something_else_has_fails_a_check_with_its_mend_and_its_page() {
    let world = World::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address");
    std::thread::spawn(move || other.incoming().for_each(drop));
    world.write("onceward.toml", &format!("listen = \"{address}\"\n"));
    let checked = world.run(&["check"]);
    let shown = format!("failed: {address} is taken by what is no gateway\n    help: ");
    assert!(checked.out.contains(&shown), "{checked:?}");
    assert!(checked.out.contains("    see:  docs/configuration.md"), "{checked:?}");
    assert!(checked.failed(5).contains("one of these fails"));
}

#[test]
fn a_port_of_which_nobody_says_whose_it_is_is_a_warning() {
    let world = World::new();
    let [socket, guard] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = |listener: &TcpListener| listener.local_addr().expect("an address");
    let (held, at_guard) = (address(&socket), address(&guard));
    world.write(
        "onceward.toml",
        &format!(
            "listen = \"{held}\"\n[routes.a]\nlisten = \"{at_guard}\"\nupstream = \"http://127.0.0.1:9\"\neffects = \"keyed\"\n"
        ),
    );
    let told = world.run(&["check", "--json"]).json();
    let unseen = |address| format!("{address} is taken, and it is not seen by whom");
    assert_eq!(found(&told, "listeners", "warning"), [unseen(held), unseen(at_guard)]);
    guard.set_nonblocking(true).expect("set");
    assert!(guard.accept().is_err(), "what is asked at a guard goes to its upstream");
}

#[test]
fn a_ledger_that_cannot_be_used_fails_a_check_before_a_start_does() {
    let world = World::new();
    world.write("onceward.toml", "listen = \"127.0.0.1:0\"\n");
    let gateway = world.serve();
    gateway.signal(Signal::TERM);
    gateway.ended();
    let ledger = world.path("onceward-data/ledger.db");
    let whole = std::fs::read(&ledger).expect("a ledger");
    let mut later = whole.clone();
    // SQLite's `user_version`.
    later[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&ledger, later).expect("written");
    let told = failed(&world.run(&["check", "--json"]));
    assert!(
        found(&told, "ledger", "failed")[0].contains("of a later release: schema 99"),
        "{told}"
    );
    std::fs::write(&ledger, "no ledger").expect("written");
    let told = failed(&world.run(&["check", "--json"]));
    assert!(found(&told, "ledger", "failed")[0].contains("no file of SQLite's"), "{told}");
    // A first start that was cut off leaves one, and the next one goes on with it.
    std::fs::write(&ledger, "").expect("written");
    let told = world.run(&["check", "--json"]).json();
    assert!(found(&told, "ledger", "ok")[0].contains("is empty"), "{told}");
    std::fs::write(&ledger, whole).expect("written");
    std::fs::remove_file(world.path("onceward-data/master.key")).expect("removed");
    let told = failed(&world.run(&["check", "--json"]));
    assert!(found(&told, "keys", "failed")[0].contains("master.key is missing"), "{told}");
}

#[test]
fn a_certificate_that_has_run_out_fails_a_check() {
    let world = World::new();
    let mut made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    made.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    world.write("cert.pem", &made.self_signed(&key).expect("a certificate").pem());
    world.write("key.pem", &key.serialize_pem());
    world.write(
        "onceward.toml",
        "listen = \"127.0.0.1:0\"\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n",
    );
    let told = failed(&world.run(&["check", "--json"]));
    assert!(found(&told, "keys", "failed")[0].contains("has held until 2020-01-01"), "{told}");
}

/// A place that counts what it is sent by those who come, one after the other.
fn counting() -> (SocketAddr, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut sent = Vec::new();
            // Whoever resets has sent nothing either.
            let _ = stream.read_to_end(&mut sent);
            if tell.send(sent.len()).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn upstreams_are_reached_where_that_is_asked_for_and_are_sent_nothing() {
    let world = World::new();
    let (address, sent) = counting();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
    world.write(
        "onceward.toml",
        &format!(
            "listen = \"127.0.0.1:0\"\n[routes.here]\nupstream = \"http://{address}\"\neffects = \"keyed\"\n\
             [routes.nobody]\nupstream = \"http://{nobody}\"\neffects = \"keyed\"\n\
             [routes.unnamed]\nupstream = \"https://unnamed.invalid\"\neffects = \"keyed\"\n"
        ),
    );
    world.run(&["check"]).ok();
    let told = failed(&world.run(&["check", "--connect", "--json"]));
    let reached = found(&told, "upstreams", "ok");
    assert!(reached[0].starts_with(&format!("[routes.here] {address} is reached")), "{told}");
    assert_eq!(sent.recv().expect("somebody came"), 0);
    let failures = found(&told, "upstreams", "failed");
    assert!(failures[0].starts_with("[routes.nobody] cannot connect"), "{told}");
    assert!(failures[1].starts_with("[routes.unnamed] cannot resolve"), "{told}");
    assert_eq!(reached.len() + failures.len(), 3, "{told}");
}

#[test]
fn an_upstream_whose_authority_is_not_known_is_told_with_the_key_that_mends_it() {
    let world = World::new();
    let authority = Authority::new();
    let own = authority.sign_for("upstream", "localhost");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![own.cert],
            rustls::pki_types::PrivateKeyDer::try_from(own.key).expect("a key"),
        )
        .expect("a certificate");
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut agreeing = rustls::ServerConnection::new(config.clone()).expect("TLS");
            while agreeing.is_handshaking() && agreeing.complete_io(&mut stream).is_ok() {}
        }
    });
    let file = |more: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\n[routes.a]\nupstream = \"https://localhost:{port}\"\neffects = \"keyed\"\n{more}"
        )
    };
    world.write("onceward.toml", &file(""));
    let checked = world.run(&["check", "--connect"]);
    assert!(checked.out.contains("no authority that is trusted here"), "{checked:?}");
    assert!(checked.out.contains("upstream_tls") && checked.code == Some(5), "{checked:?}");
    world.write("ca.pem", &authority.pem());
    world.write("onceward.toml", &file("upstream_tls = { ca_file = \"ca.pem\" }\n"));
    assert!(world.run(&["check", "--connect"]).ok().contains("is reached in"));
}

#[test]
fn a_shared_ledger_is_looked_at_where_that_is_asked_for() {
    let Some(url) = database() else { return };
    let world = World::new();
    world.write("onceward.toml", &format!("listen = \"127.0.0.1:0\"\nstore = \"{url}\"\n"));
    let look = || found(&world.run(&["check", "--connect", "--json"]).json(), "ledger", "ok");
    let before = look();
    assert!(before[0].contains("is PostgreSQL ") && before[1].contains("is empty"), "{before:?}");
    assert!(before[2].contains("clock is as this one"), "{before:?}");
    let gateway = world.serve();
    gateway.signal(Signal::TERM);
    gateway.ended();
    assert!(look()[1].contains("as this release wants it"));
    assert!(found(&world.run(&["check", "--json"]).json(), "ledger", "ok").is_empty());
}

//! A route to a mail server, as the file says it: `upstream = "smtp://…"`, and who we are to it.

use std::borrow::Cow;

use onceward::core::policy::{Effects, KeyMissing, Policy};
use onceward::upstream::{Login, MailServer, Safe};
use percent_encoding::percent_decode_str;
use url::Url;

use super::ConfigError;
use super::auth::secret;
use super::profile::Laid;
use super::table::{Table, Words};
use super::words::{is_here, url};

/// How the way to a server is made safe, where the file says so.
pub(super) const SAFE: &Words<Safe> = &[("required", Safe::StartTls), ("never", Safe::Not)];

const NO_SERVER: &str = "this is no mail server: write \"smtp://mail.example.com:587\" or \"smtps://mail.example.com\", with user and password beside it";

/// What a route to an HTTP upstream takes, and one to a mail server has no use for.
const NOT_OF_MAIL: [&str; 6] =
    ["http2", "set_headers", "auth", "upstream_key", "reconcile", "delete_gone"];

/// Whether an upstream is a mail server.
pub(super) fn is_server(upstream: &str) -> bool {
    let scheme = upstream.split("://").next().unwrap_or_default();
    ["smtp", "smtps"].iter().any(|it| scheme.eq_ignore_ascii_case(it))
}

/// The upstream of a route that is one, as it is shown, and how mails are handed over to it.
pub(super) fn upstream(written: &str, table: &Table<'_>) -> Result<(Url, MailServer), ConfigError> {
    let wrong = |what: &str| table.cannot("upstream", what);
    let (without_login, in_url) = login_of(written).ok_or_else(|| wrong(NO_SERVER))?;
    let (place, is_implicit) = server(&without_login).map_err(|what| wrong(&what))?;
    let server = MailServer {
        safe: safe(table, "starttls", &place, is_implicit)?,
        login: login(table)?.or(in_url),
    };
    check(&server, &place, table)?;
    if let Some(key) = NOT_OF_MAIL.into_iter().find(|key| table.has(key)) {
        let mend =
            if key == "auth" { "who we are to it is user and password" } else { "take it out" };
        return Err(
            table.wrong(&format!("has {key}, which a mail server has no use for\nhelp: {mend}"))
        );
    }
    let scheme = if is_implicit { "smtps" } else { "smtp" };
    let host = place.host_str().unwrap_or_default();
    let number = place.port_or_known_default().unwrap_or_default();
    let base = format!("{scheme}://{host}:{number}").parse().map_err(|_| wrong(NO_SERVER))?;
    Ok((base, server))
}

/// What no route to a mail server can say of what a second arrival would do.
pub(super) fn check_effects(laid: &Laid, table: &Table<'_>) -> Result<(), ConfigError> {
    let mut policies = laid.rules.iter().map(|rule| &*rule.policy).chain([&laid.policy]);
    let asks = |it: &Policy| it.lookup.is_some() || it.effects == Some(Effects::Keyed);
    if policies.clone().any(|it| it.key_missing == KeyMissing::Pass) {
        return Err(table.wrong(
            "lets pass what has no key, and a mail that is not remembered is not sent\nhelp: leave key.missing out, or say \"require\"",
        ));
    }
    if policies.any(asks) {
        return Err(table.wrong(
            "leads to a mail server, which dedupes by no key and answers no lookup\nhelp: a mail is non-idempotent; say effects = \"idempotent\" where rather two than none",
        ));
    }
    Ok(())
}

/// `smtp://HOST:PORT` or `smtps://HOST:PORT`: the place, and whether it speaks TLS from the first byte.
pub(super) fn server(text: &str) -> Result<(Url, bool), String> {
    let wrong = || NO_SERVER.to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let (is_implicit, usual) = match scheme.to_ascii_lowercase().as_str() {
        "smtp" => (false, 587),
        "smtps" => (true, 465),
        _ => return Err(wrong()),
    };
    // A host and a port as those of an http URL; a path or a login is none.
    let mut place = url(&format!("http://{rest}")).map_err(|_| wrong())?;
    let is_bare = matches!(place.path(), "" | "/");
    let said = rest.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port == "80");
    if !is_bare || (place.port().is_none() && !said && place.set_port(Some(usual)).is_err()) {
        return Err(wrong());
    }
    Ok((place, is_implicit))
}

/// By STARTTLS beyond this machine, where `key` says nothing.
pub(super) fn safe(
    table: &Table<'_>,
    key: &'static str,
    place: &Url,
    is_implicit: bool,
) -> Result<Safe, ConfigError> {
    Ok(match table.word(key, SAFE)? {
        Some(Safe::Not) if is_implicit => {
            return Err(table.cannot(
                key,
                "smtps:// speaks TLS from the first byte: write smtp:// where none is wanted",
            ));
        }
        _ if is_implicit => Safe::Implicit,
        Some(safe) => safe,
        None if is_here(place) => Safe::Not,
        None => Safe::StartTls,
    })
}

/// `user` and `password`.
pub(super) fn login(table: &Table<'_>) -> Result<Option<Login>, ConfigError> {
    match (table.read::<String>("user")?, secret(table, "password")?) {
        (Some(user), Some(password)) => Ok(Some(Login { user, password })),
        (None, None) => Ok(None),
        _ => Err(table.wrong("has half of a login\nhelp: user and password go together")),
    }
}

/// That nobody on the way reads a password.
pub(super) fn check(
    server: &MailServer,
    place: &Url,
    table: &Table<'_>,
) -> Result<(), ConfigError> {
    if server.login.is_some() && server.safe == Safe::Not && !is_here(place) {
        return Err(table.wrong(
            "would send a password that others can read\nhelp: let it speak TLS, or say smtps://",
        ));
    }
    Ok(())
}

/// The server without the login that stands before it.
fn login_of(written: &str) -> Option<(String, Option<Login>)> {
    let (scheme, rest) = written.split_once("://")?;
    let Some((login, place)) = rest.rsplit_once('@') else {
        return Some((written.to_owned(), None));
    };
    let (user, password) = login.split_once(':')?;
    let read = |text| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
    let login = Login { user: read(user)?, password: read(password)? };
    Some((format!("{scheme}://{place}"), Some(login)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceward::core::policy::Meaning;

    use super::super::tests::load;
    use super::*;

    fn route(lines: &str) -> Result<(Url, MailServer), String> {
        let config = load(&format!("[routes.mail]\n{lines}"))?;
        let target = &config.routes["mail"].target;
        Ok((target.base.clone(), (**target.mail.as_ref().unwrap()).clone()))
    }

    #[test]
    fn the_way_is_safe_beyond_this_machine_and_a_login_stands_in_the_url_or_beside_it() {
        let login = |user: &str, password: &str| {
            Some(Login { user: user.to_owned(), password: password.to_owned() })
        };
        for (lines, base, safe, logs_in) in [
            ("upstream = \"smtp://mx.example\"", "smtp://mx.example:587", Safe::StartTls, None),
            ("upstream = \"SMTPS://mx.example\"", "smtps://mx.example:465", Safe::Implicit, None),
            ("upstream = \"smtp://127.0.0.1:25\"", "smtp://127.0.0.1:25", Safe::Not, None),
            (
                "upstream = \"smtp://127.0.0.1:25\"\nstarttls = \"required\"",
                "smtp://127.0.0.1:25",
                Safe::StartTls,
                None,
            ),
            (
                "upstream = \"smtp://mailpit:1025\"\nstarttls = \"never\"",
                "smtp://mailpit:1025",
                Safe::Not,
                None,
            ),
            (
                "upstream = \"smtp://me%40a.example:p%3Aw@mx.example:25\"",
                "smtp://mx.example:25",
                Safe::StartTls,
                login("me@a.example", "p:w"),
            ),
            (
                "upstream = \"smtps://mx.example\"\nuser = \"u\"\npassword = \"p\"",
                "smtps://mx.example:465",
                Safe::Implicit,
                login("u", "p"),
            ),
        ] {
            let (is, server) = route(lines).unwrap();
            assert_eq!(
                (is.as_str(), server),
                (base, MailServer { safe, login: logs_in }),
                "{lines}"
            );
        }
    }

    #[test]
    fn a_mail_is_non_idempotent_and_what_a_server_puts_off_is_tried_again() {
        let config = load("[routes.mail]\nupstream = \"smtp://mx.example\"\n").unwrap();
        let route = &config.routes["mail"];
        assert_eq!(route.policy.effects, Some(Effects::NonIdempotent));
        assert_eq!(
            route.policy.statuses,
            [(422, Meaning::Refused), (503, Meaning::NotProcessed)].into()
        );
        assert_eq!(route.target.timeouts.total, Duration::from_mins(2));
        assert_eq!(config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn what_a_mail_server_cannot_do_is_refused_with_its_mend() {
        for (lines, said) in [
            ("upstream = \"smtp://mx.example/inbox\"", "no mail server"),
            ("upstream = \"smtp://canary@mx.example\"", "no mail server"),
            ("upstream = \"smtp://u:canary@mx.example\"\nstarttls = \"never\"", "others can read"),
            ("upstream = \"smtp://mx.example\"\nuser = \"u\"", "half of a login"),
            ("upstream = \"smtp://mx.example\"\neffects = \"keyed\"", "dedupes by no key"),
            ("upstream = \"smtp://mx.example\"\nset_headers = { a = \"b\" }", "no use for"),
            ("upstream = \"smtp://mx.example\"\nauth = { bearer = \"b\" }", "user and password"),
            ("upstream = \"https://a.example\"\nuser = \"u\"", "user"),
            ("upstream = \"smtps://mx.example\"\nstarttls = \"never\"", "from the first byte"),
            ("upstream = \"smtp://mx.example\"\nkey = { missing = \"pass\" }", "is not sent"),
        ] {
            let refused = load(&format!("[routes.mail]\n{lines}\n")).map(|_| ()).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("canary"), "{lines}\n{refused}");
        }
    }
}

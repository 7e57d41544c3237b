//! Tenants: what is one's is not there for another, by whatever endpoint, with whatever key.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use serde_json::json;

use crate::postgres;
use crate::tenants_world::{Own, ask, canary, make, plant, serve};
use crate::world::{Gateway, Response, World, until};

/// Where the gateway says which endpoints there are, and what each needs.
const TABLE: &str = include_str!("../../src/access/endpoint.rs");

/// What another tenant meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meets {
    /// Its path names what is one tenant's: for another that is not there.
    Nothing,
    /// Keys and claims are each tenant's own: another has none of that name, or makes its own.
    Its,
    /// It is about all of a tenant's: another's is about its own.
    Own,
    /// It is about the whole gateway: 403.
    House,
    /// It is nobody's.
    Open,
    /// It is the way in: who is nobody yet may ask for it.
    WayIn,
}

use Meets::{House, Its, Nothing, Open, Own as Owns, WayIn};

/// How each endpoint is asked. `+` before a line: it shows its owner what others must not see, so that
/// whoever shows nothing proves nothing. A new endpoint has no line, and the test says so.
const ASKED: &[(Meets, &str, &str)] = &[
    (Its, "POST /to", "{}"),
    (House, "GET /metrics", ""),
    (Owns, "+GET /v1/operations", ""),
    (Owns, "POST /v1/operations", r#"{"to": "shared/orders", "key": "order-1", "body": {}}"#),
    (Owns, "GET /v1/changes", ""),
    (Owns, "GET /v1/dead-letters/groups", ""),
    (Nothing, "+GET /v1/operations/{id}", ""),
    (Nothing, "+GET /v1/operations/{id}/request", ""),
    (Nothing, "+GET /v1/operations/{id}/response", ""),
    (Nothing, "+GET /v1/operations/{id}/evidence", ""),
    (Nothing, "POST /v1/operations/{id}/redeliver", r#"{"reason": "r", "risk": "accepted"}"#),
    (Nothing, "POST /v1/operations/{id}/resend", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/operations/{id}/cancel", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/operations/{id}/retry", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/operations/{id}/resolve", r#"{"reason": "r", "as": "done"}"#),
    (Nothing, "POST /v1/operations/{id}/lookup", ""),
    (Owns, "POST /v1/explain", r#"{"to": "shared/orders", "key": "order-1", "body": {}}"#),
    (Its, "+GET /v1/keys/{route}/{key}", ""),
    (Its, "DELETE /v1/keys/{route}/{key}", r#"{"reason": "r"}"#),
    (Its, "POST /v1/keys/{route}/{key}/extend", r#"{"reason": "r", "window": "90d"}"#),
    (Its, "POST /v1/keys/{route}/{key}/rotate", r#"{"reason": "r", "to": "other"}"#),
    (Owns, "POST /v1/keys/revoke", r#"{"reason": "r", "principal": "ada"}"#),
    (Owns, "POST /v1/erase", r#"{"reason": "r", "subject": "acme-subject"}"#),
    (Owns, "+GET /v1/approvals", ""),
    (Owns, "GET /v1/claims", ""),
    (Its, "+GET /v1/claims/{scope}/{key}", ""),
    (Its, "POST /v1/claims/{scope}/{verb}", r#"{"claims": [{"key": "order-1"}]}"#),
    (Its, "DELETE /v1/claims/{scope}/{key}", r#"{"reason": "r"}"#),
    (Its, "POST /v1/claims/{scope}/{key}/{verb}", "{}"),
    (Owns, "+GET /v1/sagas", ""),
    (Owns, "POST /v1/sagas", r#"{"key": "acme-saga", "steps": [{"name": "a", "to": "shared"}]}"#),
    (Nothing, "+GET /v1/sagas/{id}", ""),
    (Nothing, "POST /v1/sagas/{id}/pause", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/sagas/{id}/resume", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/sagas/{id}/retry", r#"{"reason": "r", "risk": "accepted"}"#),
    (Nothing, "POST /v1/sagas/{id}/cancel", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/sagas/{id}/resolve", r#"{"reason": "r", "step": "a", "as": "done"}"#),
    (Owns, "+GET /v1/routes", ""),
    (Nothing, "GET /v1/routes/{route}/advice", ""),
    (Nothing, "GET /v1/routes/{route}/contract", ""),
    (Nothing, "POST /v1/routes/{route}/pause", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/routes/{route}/resume", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/routes/{route}/probe", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/routes/{route}/lookup", ""),
    (Nothing, "GET /v1/routes/{route}/reconcile", ""),
    (
        Owns,
        "POST /v1/resolve",
        r#"{"route": "careful", "items": [{"k": "order-3"}], "match": "/k", "reason": "r"}"#,
    ),
    (Owns, "+GET /v1/bulk", ""),
    (
        Owns,
        "POST /v1/bulk",
        r#"{"action": "forget", "filter": {"route": "shared"}, "reason": "r"}"#,
    ),
    (Nothing, "+GET /v1/bulk/{bulk}", ""),
    (Nothing, "POST /v1/bulk/{bulk}/stop", r#"{"reason": "r"}"#),
    (Owns, "+GET /v1/filters", ""),
    (Owns, "POST /v1/filters", r#"{"name": "late", "query": "status=5xx"}"#),
    (Nothing, "DELETE /v1/filters/{filter}", "{}"),
    (Owns, "+GET /v1/events", ""),
    (Owns, "POST /v1/events", r#"{"type": "order.paid", "key": "event-1"}"#),
    (Nothing, "+GET /v1/events/{event}", ""),
    (Owns, "+GET /v1/subscriptions", ""),
    (Owns, "POST /v1/subscriptions", r#"{"to": "shared/hooks"}"#),
    (Nothing, "+GET /v1/subscriptions/{sub}", ""),
    (Nothing, "POST /v1/subscriptions/{sub}", r#"{"enabled": false}"#),
    (Nothing, "DELETE /v1/subscriptions/{sub}", ""),
    (Nothing, "POST /v1/subscriptions/{sub}/pause", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/subscriptions/{sub}/resume", r#"{"reason": "r"}"#),
    (Nothing, "POST /v1/subscriptions/{sub}/rotate", "{}"),
    (Nothing, "POST /v1/subscriptions/{sub}/test", "{}"),
    (
        Nothing,
        "POST /v1/subscriptions/{sub}/recover",
        r#"{"what": "missed", "since": "1h", "reason": "r"}"#,
    ),
    (Owns, "+GET /v1/outbox", ""),
    (Nothing, "+GET /v1/outbox/{outbox}", ""),
    (Nothing, "POST /v1/outbox/{outbox}/retry", r#"{"reason": "r"}"#),
    (Owns, "+GET /v1/sources", ""),
    (Nothing, "GET /v1/sources/{source}", ""),
    (Nothing, "+GET /v1/sources/{source}/rejects", ""),
    (Owns, "GET /v1/alerts", ""),
    (House, "POST /v1/alerts/test", r#"{"to": "oncall"}"#),
    (Owns, "GET /v1/stats", ""),
    (Owns, "+GET /v1/duplicates", ""),
    (Owns, "+GET /v1/suspects", ""),
    (Owns, "+GET /v1/audit", ""),
    (House, "GET /v1/audit/verify", ""),
    (House, "GET /v1/audit/export", ""),
    (House, "POST /v1/backup", r#"{"to": "/nowhere"}"#),
    (House, "POST /v1/release", "{}"),
    (House, "GET /v1/rekey", ""),
    (House, "POST /v1/rekey", "{}"),
    (Owns, "+GET /v1/access", ""),
    (Owns, "POST /v1/access", r#"{"name": "new"}"#),
    (Nothing, "DELETE /v1/access/{prefix}", "{}"),
    (Nothing, "POST /v1/access/{prefix}/rotate", "{}"),
    (Owns, "+GET /", ""),
    (Owns, "GET /alerts", ""),
    (Owns, "+GET /operations", ""),
    (Owns, "+GET /dead", ""),
    (Owns, "+GET /in-doubt", ""),
    (Owns, "+GET /audit", ""),
    (Owns, "+GET /bulk", ""),
    (Owns, "POST /bulk", "reason=r&rate=1"),
    (Owns, "GET /bulk/plan", ""),
    (Owns, "POST /bulk/plan", "op=op_01kb2n9f5nep3b8m6wq6r9t2vx"),
    (Nothing, "+GET /bulk/{bulk}", ""),
    (Nothing, "POST /bulk/{bulk}/stop", "reason=r"),
    (Owns, "POST /filters", "name=late"),
    (Owns, "POST /filters/delete", "name=canary-of-acme-filter"),
    (Nothing, "+GET /operations/{id}", ""),
    (Nothing, "+GET /operations/{id}/request", ""),
    (Nothing, "GET /operations/{id}/response", ""),
    (Nothing, "GET /operations/{id}/redeliver", ""),
    (Nothing, "POST /operations/{id}/redeliver", "reason=r"),
    (Nothing, "+GET /operations/{id}/resend", ""),
    (Nothing, "POST /operations/{id}/resend", "reason=r"),
    (Nothing, "GET /operations/{id}/cancel", ""),
    (Nothing, "POST /operations/{id}/cancel", "reason=r"),
    (Nothing, "GET /operations/{id}/retry", ""),
    (Nothing, "POST /operations/{id}/retry", "reason=r"),
    (Nothing, "GET /operations/{id}/resolve", ""),
    (Nothing, "POST /operations/{id}/resolve", "reason=r&as=done"),
    (Nothing, "GET /operations/{id}/forget", ""),
    (Nothing, "POST /operations/{id}/forget", "reason=r&then=new"),
    (Nothing, "GET /operations/{id}/lookup", ""),
    (Nothing, "POST /operations/{id}/lookup", "reason=r"),
    (Owns, "+GET /sagas", ""),
    (Nothing, "+GET /sagas/{id}", ""),
    (Nothing, "POST /sagas/{id}/pause", "reason=r"),
    (Nothing, "POST /sagas/{id}/resume", "reason=r"),
    (Nothing, "POST /sagas/{id}/retry", "reason=r"),
    (Nothing, "POST /sagas/{id}/cancel", "reason=r"),
    (Nothing, "POST /sagas/{id}/resolve", "reason=r&step=a&as=done"),
    (Owns, "+GET /sources", ""),
    (Owns, "+GET /events", ""),
    (Nothing, "+GET /events/{event}", ""),
    (Owns, "+GET /subscriptions", ""),
    (Nothing, "POST /subscriptions/{sub}/pause", "reason=r"),
    (Nothing, "POST /subscriptions/{sub}/resume", "reason=r"),
    (Nothing, "POST /subscriptions/{sub}/recover", "reason=r&what=missed&since=1h"),
    (Nothing, "POST /subscriptions/{sub}/test", "reason=r"),
    (Owns, "+GET /outboxes", ""),
    (Owns, "+GET /keys", ""),
    (Owns, "+GET /duplicates", ""),
    (Owns, "+GET /upstreams", ""),
    (Nothing, "POST /upstreams/{route}/pause", "reason=r"),
    (Nothing, "POST /upstreams/{route}/resume", "reason=r"),
    (Nothing, "POST /upstreams/{route}/probe", "reason=r"),
    (Owns, "GET /send", ""),
    (
        Owns,
        "POST /send",
        "to=shared&method=POST&path=/orders&body=%7B%7D&content_type=application/json&key=order-1&mode=held",
    ),
    (Open, "GET /v1/openapi.json", ""),
    (Open, "GET /openapi.json", ""),
    (Nothing, "GET /contract/{route}", ""),
    (Open, "GET /docs", ""),
    (Open, "GET /docs/problems", ""),
    (Open, "GET /docs/on-call/{alert}", ""),
    (Open, "GET /docs/{part}", ""),
    (Open, "GET /docs.css", ""),
    (House, "GET /v1/sessions", ""),
    (House, "DELETE /v1/sessions/{session}", ""),
    (WayIn, "GET /login", ""),
    (WayIn, "POST /login", "key=ow_none"),
    (WayIn, "GET /login/oidc", ""),
    (WayIn, "GET /login/oidc/callback", ""),
    (WayIn, "POST /logout", ""),
    (WayIn, "GET /style.css", ""),
    (WayIn, "GET /script.js", ""),
    (WayIn, "GET /icon.svg", ""),
    (WayIn, "GET /favicon.ico", ""),
];

/// What there is, under names that nobody has.
const NOBODYS: [(&str, &str); 8] = [
    ("{event}", "op_01kb2n9f5nep3b8m6wq6r9t2vx"),
    ("{sub}", "sub_01kb2n9f5nep3b8m6wq6r9t2vx"),
    ("{id}", "op_01kb2n9f5nep3b8m6wq6r9t2vx"),
    ("{bulk}", "bulk_01kb2n9f5nep3b8m6wq6r9t2vx"),
    ("{outbox}", "no-outbox"),
    ("{source}", "no-source"),
    ("{prefix}", "ow_nobodys0"),
    ("{filter}", "no-such-filter"),
];

/// An endpoint as the gateway's own table has it.
struct Endpoint {
    line: String,
    roles: Vec<&'static str>,
    or_own: bool,
}

/// All of them.
fn endpoints() -> Vec<Endpoint> {
    let table = TABLE.split("mod tests").next().unwrap();
    let begins = |line: &str| {
        let line = line.split_once("Endpoint = ").map_or(line, |(_, rest)| rest).trim_start();
        ["api(", "page("].iter().any(|it| line.starts_with(it))
    };
    let mut entries: Vec<String> = Vec::new();
    for line in table.lines() {
        if begins(line) {
            entries.push(String::new());
        }
        if let Some(entry) = entries.last_mut() {
            entry.push_str(line.trim());
        }
    }
    let mut found = Vec::new();
    for entry in &entries {
        let (begin, rest) = entry.split_once(", \"").unwrap();
        let method = begin.rsplit('(').next().unwrap();
        let (path, rest) = rest.split_once('"').unwrap();
        let rest = rest.split(';').next().unwrap();
        let method = if method == "\"ANY\"" { "POST" } else { method };
        let roles = ["SEND", "READ", "PAYLOADS", "OPERATE", "ADMIN"];
        let needs = |role: &&str| rest.contains(&format!("Roles::{role}"));
        found.push(Endpoint {
            line: format!("{method} {path}"),
            roles: roles.into_iter().filter(needs).collect(),
            or_own: rest.contains("or_own"),
        });
    }
    assert!(found.len() > 80, "{}", found.len());
    found
}

/// A line with what `own` has in the place of what it names.
fn filled(line: &str, own: &Own) -> String {
    let line = match line {
        "POST /to" => "POST /to/acme-only/orders",
        line => line.trim_start_matches('+'),
    };
    let is_about_a_route =
        ["/routes/", "/upstreams/", "/contract/"].iter().any(|it| line.contains(it));
    let id = if line.contains("/sagas/") { &own.saga } else { &own.operations[0] };
    line.replace("{id}", id)
        .replace("{bulk}", &own.bulk)
        .replace("{event}", &own.event)
        .replace("{sub}", &own.subscription)
        .replace("{outbox}", "acme-outbox")
        .replace("{source}", "acme-source")
        .replace("{prefix}", &own.prefix)
        .replace("{filter}", &own.filter)
        .replace("{route}", if is_about_a_route { "acme-only" } else { "shared" })
        .replace("{scope}", "mails")
        .replace("{key}", "order-1")
        .replace("{verb}", "begin")
        .replace("{session}", "ses_01kb2n9f5nep3b8m6wq6r9t2vx")
        // It would go on.
        .replace("/v1/changes", "/v1/changes?for=1")
        .replace("{part}", "operations")
        .replace("{alert}", "OncewardInDoubt")
}

/// The same with names that nobody has; nothing where it names none.
fn nobodys(line: &str, own: &Own) -> Option<String> {
    let line = line.trim_start_matches('+');
    let is_about_a_route =
        ["/routes/", "/upstreams/", "/contract/"].iter().any(|it| line.contains(it));
    let mut other = line.to_owned();
    for (name, value) in NOBODYS {
        other = other.replace(name, value);
    }
    if is_about_a_route {
        other = other.replace("{route}", "no-route");
    }
    (other != line).then(|| filled(&other, own))
}

/// What of another's stands in an answer, beside what was asked with.
fn told<'a>(answer: &Response, of: &'a Own, line: &str, body: &str) -> Option<&'a String> {
    let said = format!("{:?}\n{}", answer.headers, answer.text());
    let is_asked_with = |secret: &str| line.contains(secret) || body.contains(secret);
    of.secrets.iter().find(|secret| !is_asked_with(secret) && said.contains(*secret))
}

/// The answer without what it was asked with.
fn alike(answer: &Response, line: &str) -> (u16, String) {
    let mut text = answer.text();
    for part in line.split([' ', '/']).filter(|part| part.len() > 6) {
        text = text.replace(part, "NAME");
    }
    (answer.status, text)
}

/// Everything that a tenant can read of its own.
fn all_of(gateway: &Gateway, own: &Own) -> Vec<String> {
    let lines = [
        "GET /v1/operations?limit=1000",
        "GET /v1/bulk",
        "GET /v1/routes",
        "GET /v1/approvals",
        "GET /v1/filters",
        "GET /v1/claims/mails/order-1",
        "GET /v1/outbox/acme-outbox",
        "GET /v1/sources/acme-source/rejects",
    ];
    let mut all = String::new();
    for line in lines {
        all.push_str(&ask(gateway, &own.key, line, "").text());
    }
    for operation in &own.operations {
        all.push_str(
            &ask(gateway, &own.key, &format!("GET /v1/operations/{operation}/evidence"), "").text(),
        );
    }
    let keys = ask(gateway, &own.key, "GET /v1/access", "").json();
    let keys = keys["data"].as_array().unwrap().iter();
    let keys = keys.map(|key| json!([key["prefix"], key["expires_at"], key["roles"]]).to_string());
    let keys: Vec<String> = keys.collect();
    // How long ago a table was read goes on by itself, and a digest is over the time of asking.
    let moves = ["made_at", "read_at", "lag_seconds", "sha256", "asked_at"];
    let stays = |part: &&str| !moves.iter().any(|moving| part.contains(moving));
    all.split(',').filter(stays).map(str::to_owned).chain(keys).collect()
}

fn isolates(world: &World, gateway: &Gateway) {
    let [acme, bolt, default] =
        ["acme", "bolt", "default"].map(|tenant| plant(world, gateway, tenant));
    until("acme's bulk is over", || {
        let bulk = ask(gateway, &acme.key, &format!("GET /v1/bulk/{}", acme.bulk), "").json();
        (bulk["state"] == "done").then_some(())
    });
    let revoked = make(gateway, "acme", "revoked", &[]);
    ask(gateway, &acme.key, &format!("DELETE /v1/access/{}", &revoked[..11]), "{}");
    let expired = make(gateway, "acme", "expired", &["--expires", "1s"]);
    until("its time is over", || {
        (ask(gateway, &expired, "GET /v1/stats", "").status == 401).then_some(())
    });
    let all = ["send", "read", "payloads", "operate", "admin"];
    let without = all.map(|left_out| {
        let is_left_out =
            |role: &&str| **role == *left_out || (left_out == "read" && **role == *"payloads");
        let roles: Vec<&str> = all.iter().copied().filter(|role| !is_left_out(role)).collect();
        (left_out, make(gateway, "acme", &format!("no-{left_out}"), &["--role", &roles.join(",")]))
    });
    let send_less = make(gateway, "acme", "looks", &["--role", "operate,admin"]);
    // Of the tenant that is always there, but nobody who runs the gateway.
    let guest = make(gateway, "default", "guest", &["--role", "send,payloads,operate"]);
    let before = all_of(gateway, &acme);
    let mut rows: Vec<_> = ASKED.to_vec();
    let mut shown = 0;
    // All of them at once, so that one does not hide another.
    let mut faults = Vec::new();
    let mut check = |is_so: bool, what: String| {
        if !is_so {
            faults.push(what);
        }
    };
    for Endpoint { line, roles, or_own } in endpoints() {
        let place = rows
            .iter()
            .position(|(_, asked, _)| asked.trim_start_matches('+') == line)
            .or_else(|| rows.iter().position(|(_, asked, _)| is_the_claims_row(asked, &line)));
        let place = place.unwrap_or_else(|| panic!("{line} is asked by no row of ASKED"));
        let (meets, asked, body) = rows.remove(place);
        let full = filled(asked, &acme);
        if asked.starts_with('+') {
            let hers = ask(gateway, &acme.key, &full, body);
            check(hers.status == 200, format!("{full} for its owner: {}", hers.text()));
            let is_there = acme
                .secrets
                .iter()
                .any(|secret| !full.contains(secret) && hers.text().contains(secret));
            check(is_there, format!("{full} shows its owner nothing: {}", hers.text()));
            shown += 1;
        }
        for (who, key) in [("nobody", ""), ("revoked", &revoked), ("expired", &expired)] {
            let answer = ask(gateway, key, &full, body);
            // Whose key is gone is nobody, and may come in.
            let is_let_in = meets == WayIn && answer.status < 500;
            check(is_let_in || answer.status == 401, format!("{full}, {who}: {}", answer.status));
            let seen = told(&answer, &acme, &full, body);
            check(seen.is_none(), format!("{full}, {who}: {seen:?}"));
        }
        if let Some(role) = roles.first() {
            let lacks = without.iter().find(|(left_out, _)| role.eq_ignore_ascii_case(left_out));
            let (_, key) = lacks.unwrap();
            let key = if or_own { &send_less } else { key };
            let answer = ask(gateway, key, &full, body);
            check(answer.status == 403, format!("{full} without {role}: {}", answer.text()));
            let seen = told(&answer, &acme, &full, body);
            check(seen.is_none(), format!("{full}, {}: {seen:?}", "of a lower role"));
        }
        let narrowed = format!("{full}{}tenant=acme", if full.contains('?') { '&' } else { '?' });
        for (who, key) in [("another tenant's", &bolt.key), ("a guest's", &guest)] {
            if meets == House && who == "a guest's" {
                // It is of the tenant whose house it is.
                continue;
            }
            let answer = ask(gateway, key, &full, body);
            let seen = told(&answer, &acme, &full, body);
            check(seen.is_none(), format!("{full}, {who}: {seen:?}"));
            let status = answer.status;
            match meets {
                House => check(status == 403, format!("{full}, {who}: {}", answer.text())),
                Nothing => {
                    let is_refused = status == 404 || (status == 403 && roles.contains(&"ADMIN"));
                    check(is_refused, format!("{full}, {who}: {status} {}", answer.text()));
                    let other =
                        nobodys(asked, &acme).unwrap_or_else(|| panic!("{asked} names nothing"));
                    let nobodys = ask(gateway, key, &other, body);
                    let (is, other_is) = (alike(&answer, &full), alike(&nobodys, &other));
                    check(is == other_is, format!("{full}, {who}: {is:?} and not {other_is:?}"));
                }
                Its | Owns | Open | WayIn => {
                    check(status < 500, format!("{full}, {who}: {}", answer.text()));
                }
            }
            if !matches!(meets, Open | WayIn)
                && !line.starts_with("POST /to")
                && line != "GET /metrics"
            {
                let answer = ask(gateway, key, &narrowed, body);
                check(answer.status == 403, format!("{narrowed}, {who}: {}", answer.text()));
                let seen = told(&answer, &acme, &narrowed, body);
                check(seen.is_none(), format!("{narrowed}, {who}: {seen:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(rows.is_empty(), "no such endpoint: {rows:?}");
    assert!(shown > 25, "{shown}");
    let after = all_of(gateway, &acme);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(was, is)| was != is).collect();
    assert!(
        changed.is_empty() && before.len() == after.len(),
        "somebody changed what is acme's: {changed:?}"
    );
    // Who runs the gateway sees everybody's, or whose is named.
    for (of, named, sees) in [(&acme, "", true), (&acme, "acme", true), (&acme, "bolt", false)] {
        let line = format!("GET /v1/operations?limit=1000&tenant={named}");
        let listed = ask(gateway, &default.key, &line, "");
        assert_eq!(listed.text().contains(&of.operations[0]), sees, "{line}");
    }
    let canary = canary("acme");
    let line = "GET /v1/keys/shared/order-1?tenant=acme&principal=ada";
    assert!(ask(gateway, &default.key, line, "").text().contains(&canary));
}

/// The many of a scope are posted where one claim is looked at: `{key}` is a verb there.
fn is_the_claims_row(asked: &str, line: &str) -> bool {
    asked == "POST /v1/claims/{scope}/{verb}" && line == "POST /v1/claims/{scope}/{key}"
}

#[test]
fn what_is_one_tenants_is_not_there_for_another_by_whatever_endpoint() {
    let world = World::new();
    isolates(&world, &serve(&world, "", ""));
}

#[test]
fn the_same_on_a_shared_ledger() {
    let Some(url) = postgres::database() else { return };
    let world = World::new();
    isolates(&world, &serve(&world, &format!("store = {url:?}\n"), ""));
}

#[test]
fn one_key_of_two_tenants_is_two_operations_and_a_route_that_is_not_theirs_is_not_there() {
    let world = World::new();
    let gateway = serve(&world, "", "");
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    let send = |key: &str, route: &str, body: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("onceward-authorization", &*bearer), ("idempotency-key", "k")];
        gateway.call("POST", &format!("/to/{route}/orders"), &headers, body)
    };
    for (key, body) in [(&acme, "of acme"), (&bolt, "of bolt"), (&acme, "of acme")] {
        let answer = send(key, "shared", body);
        assert_eq!((answer.status, answer.text().as_str()), (201, body));
    }
    let again = send(&bolt, "shared", "of bolt");
    assert_eq!(
        (again.header("idempotent-replayed"), again.text().as_str()),
        (Some("true"), "of bolt")
    );
    let [hidden, nowhere] = ["acme-only", "nowhere"].map(|route| {
        let answer = send(&bolt, route, "{}");
        assert_eq!(answer.status, 404, "{route}");
        answer.text().replace(route, "NAME")
    });
    assert_eq!(hidden, nowhere);
    assert_eq!(send(&acme, "acme-only", "{}").status, 201);
    assert_eq!(
        ask(&gateway, &bolt, "GET /to/acme-only/orders", "").status,
        404,
        "what passes, too"
    );
    for document in [
        json!({"name": "x", "tenant": "acme"}),
        json!({"action": "forget", "filter": {"tenant": "acme"}, "reason": "r"}),
    ] {
        let path = if document["name"].is_string() { "access" } else { "bulk" };
        let refused = ask(&gateway, &bolt, &format!("POST /v1/{path}"), &document.to_string());
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
    let made = ask(&gateway, &bolt, "POST /v1/access", "{\"name\": \"x\", \"tenant\": \"bolt\"}");
    assert_eq!(made.json()["tenant"], "bolt");
}

#[test]
fn what_a_guard_a_source_and_an_outbox_take_is_their_tenants() {
    let world = World::new();
    let more = "[routes.guarded]\nupstream = \"http://127.0.0.1:9\"\nhost = \"acme.example\"\ntenant = \"acme\"\ntenants = [\"acme\"]\nkey.missing = \"make\"\n";
    let gateway = serve(&world, "", more);
    let [acme, bolt] = ["acme", "bolt"].map(|tenant| make(&gateway, tenant, "ada", &[]));
    gateway.call(
        "POST",
        "/orders",
        &[("host", "acme.example"), ("idempotency-key", "by-guard")],
        "{}",
    );
    // GitHub's own example, signed with this source's secret.
    let body = "{\"zen\": 1}";
    let signature = hmac(b"s3cret", body.as_bytes());
    let headers = [("x-github-delivery", "by-source"), ("x-hub-signature-256", &*signature)];
    let taken = gateway.call("POST", "/in/acme-source", &headers, body);
    assert_eq!(taken.status, 200, "{}", taken.text());
    let db = crate::outbox_tables::sqlite(&world.path("acme.db"));
    db.execute_batch("INSERT INTO onceward_outbox (key, route) VALUES ('by-outbox', 'shared')")
        .unwrap();
    for key in ["by-guard", "by-source", "by-outbox"] {
        let line = format!("GET /v1/operations?key={key}");
        let found = until(&format!("{key} is there"), || {
            let found = ask(&gateway, &acme, &line, "").json()["data"][0].clone();
            (!found.is_null()).then_some(found)
        });
        assert_eq!(found["tenant"], "acme", "{key}");
        assert_eq!(ask(&gateway, &bolt, &line, "").json()["data"], json!([]), "{key}");
    }
}

fn hmac(secret: &[u8], body: &[u8]) -> String {
    use onceward::webhook::{self, Algorithm};
    format!("sha256={}", crate::sources::hex(&webhook::hmac(Algorithm::Sha256, secret, body)))
}

#[test]
fn what_goes_by_a_route_that_is_not_its_tenants_is_refused_by_check() {
    let world = World::new();
    let route = "[routes.pay]\nupstream = \"http://127.0.0.1:9\"\ntenants = [\"acme\"]\n";
    for (rest, section) in [
        ("host = \"a.example\"\ntenant = \"bolt\"\n", "routes.pay"),
        (
            "[sources.s]\ntenant = \"bolt\"\nverify = { scheme = \"github\", secret = \"s\" }\nto = \"pay\"\n",
            "sources.s",
        ),
        ("[outbox.o]\ntenant = \"bolt\"\ndatabase = \"sqlite:o.db\"\nto = \"pay\"\n", "outbox.o"),
    ] {
        world.write("onceward.toml", &format!("{route}{rest}"));
        let said = world.run(&["check"]).failed(78);
        assert!(said.contains(&format!("[{section}] is the tenant bolt's")), "{said}");
        assert!(said.contains("help: add \"bolt\" to its tenants"), "{said}");
    }
}

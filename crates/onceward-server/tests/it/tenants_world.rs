//! A world of three tenants that have something of everything, each with words of its own in it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::outbox_tables::sqlite;
use crate::world::{Gateway, Response, World, read_head, until};

/// An upstream that answers with what it was asked: 201, or as its path says.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A caller that goes away is no matter of the upstream's.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    address
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (line, headers) = read_head(&mut reader)?;
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if line.contains("/drop") {
        return Ok(());
    }
    let status = if line.contains("/missing") { 404 } else { 201 };
    let head = format!(
        "HTTP/1.1 {status} As Asked\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// A gateway with two routes for all, and for acme and bolt a route, a source and an outbox each; `head`
/// stands before that in its configuration, and `more` behind.
pub(crate) fn serve(world: &World, head: &str, more: &str) -> Gateway {
    configure(world, head, more);
    world.serve()
}

/// The configuration of one.
pub(crate) fn configure(world: &World, head: &str, more: &str) {
    let upstream = echo();
    let mut text = format!("{head}approve = [\"rotate\"]\n");
    // Writing into a string does not fail.
    for (name, lines) in [
        ("shared", "effects = \"idempotent\""),
        ("careful", "effects = \"non-idempotent\""),
        ("acme-only", "effects = \"idempotent\"\ntenants = [\"acme\"]"),
        ("bolt-only", "effects = \"idempotent\"\ntenants = [\"bolt\", \"default\"]"),
    ] {
        let _ = write!(text, "[routes.{name}]\nupstream = \"http://{upstream}\"\n{lines}\n");
    }
    for tenant in ["acme", "bolt"] {
        let _ = write!(
            text,
            "[sources.{tenant}-source]\ntenant = \"{tenant}\"\nverify = {{ scheme = \"github\", secret = \"s3cret\" }}\n\
             deliver = \"http://{upstream}/{tenant}\"\n\
             [outbox.{tenant}-outbox]\ntenant = \"{tenant}\"\ndatabase = \"sqlite:{tenant}.db\"\n"
        );
        let db = sqlite(&world.path(&format!("{tenant}.db")));
        db.execute_batch(&onceward::sql::ddl(onceward::sql::Dialect::Sqlite)).unwrap();
    }
    text.push_str(more);
    world.write("onceward.toml", &text);
}

/// A key of `tenant`, with what else `options` say.
pub(crate) fn make(gateway: &Gateway, tenant: &str, name: &str, options: &[&str]) -> String {
    let verb = ["--tenant", tenant, "access", "create", name];
    gateway.run(&[&verb, options].concat()).ok().trim().to_owned()
}

/// One request with an access key; a page's form where its path is no API's.
pub(crate) fn ask(gateway: &Gateway, key: &str, line: &str, body: &str) -> Response {
    let (method, path) = line.split_once(' ').unwrap();
    let bearer = format!("Bearer {key}");
    let is_form = !path.starts_with("/v1/") && !path.starts_with("/to/");
    let kind = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
    let mut headers = vec![("content-type", kind)];
    if !key.is_empty() {
        headers.push(("onceward-authorization", &*bearer));
    }
    gateway.call(method, path, &headers, body)
}

/// What a tenant has, and what it is called.
pub(crate) struct Own {
    /// A key of its own that may do everything.
    pub(crate) key: String,
    /// Operations that stand differently: done, dead, in doubt.
    pub(crate) operations: Vec<String>,
    pub(crate) bulk: String,
    pub(crate) saga: String,
    pub(crate) event: String,
    pub(crate) subscription: String,
    /// What a filter of its own is saved as.
    pub(crate) filter: String,
    /// Of an access key that nobody uses.
    pub(crate) prefix: String,
    /// What nobody else may read.
    pub(crate) secrets: Vec<String>,
}

/// What stands in everything that a tenant wrote.
pub(crate) fn canary(tenant: &str) -> String {
    format!("canary-of-{tenant}")
}

/// Gives a tenant something of everything.
pub(crate) fn plant(world: &World, gateway: &Gateway, tenant: &str) -> Own {
    let canary = canary(tenant);
    let key = make(gateway, tenant, "ada", &[]);
    let unused = make(gateway, tenant, &format!("{canary}-name"), &["--reason", &canary]);
    let bearer = format!("Bearer {key}");
    let send = |path: &str, idempotency: &str, more: &[(&str, &str)]| {
        let mut headers = vec![
            ("onceward-authorization", &*bearer),
            ("idempotency-key", idempotency),
            ("content-type", "application/json"),
            ("onceward-label", &*canary),
            ("onceward-subject", &*canary),
        ];
        headers.extend_from_slice(more);
        let body = json!({"note": canary}).to_string();
        let answer = gateway.call("POST", path, &headers, &body);
        answer.header("onceward-operation").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let do_it = |line: &str, document: Value, wanted: u16| {
        let answer = ask(gateway, &key, line, &document.to_string());
        assert_eq!(answer.status, wanted, "{line}: {}", answer.text());
        answer.json()
    };
    let is = |id: &str, state: &str| {
        until(&format!("{id} is {state}"), || {
            let shown = ask(gateway, &key, &format!("GET /v1/operations/{id}"), "").json();
            (shown["state"] == state).then_some(())
        });
    };
    let done = send("/to/shared/orders", "order-1", &[]);
    assert_eq!(send("/to/shared/orders", "order-1", &[]), done, "a duplicate");
    assert_ne!(send("/to/shared/orders", "order-4", &[]), done, "a suspected double");
    let dead = send("/to/shared/missing", "order-2", &[("prefer", "respond-async")]);
    let doubt = send("/to/careful/drop", "order-3", &[]);
    is(&dead, "dead");
    is(&doubt, "in_doubt");
    let reason = json!({"reason": canary});
    if tenant == "acme" {
        do_it("POST /v1/routes/acme-only/pause", reason.clone(), 200);
    }
    do_it("POST /v1/claims/mails/order-1/begin", json!({"holder": canary, "lease": "1h"}), 200);
    let rotated = json!({"reason": canary, "to": format!("{canary}-key")});
    let wanted = ask(gateway, &key, "POST /v1/keys/shared/order-1/rotate", &rotated.to_string());
    assert_eq!(wanted.json()["code"], "approval-wanted", "{}", wanted.text());
    let order = json!({"action": "cancel", "filter": {"label": canary}, "reason": canary});
    let bulk = do_it("POST /v1/bulk", order, 202)["id"].as_str().unwrap().to_owned();
    let asked =
        json!({"key": format!("{canary}-saga"), "steps": [{"name": "a", "to": "shared/orders"}]});
    let filter = format!("{canary}-filter");
    let query = format!("label={canary}");
    do_it("POST /v1/filters", json!({"name": filter, "query": query, "reason": canary}), 200);
    let saga = do_it("POST /v1/sagas", asked, 202)["id"].as_str().unwrap().to_owned();
    until("its saga is done", || {
        let shown = ask(gateway, &key, &format!("GET /v1/sagas/{saga}"), "").json();
        (shown["state"] == "done").then_some(())
    });
    let wanted = json!({"to": "shared/hooks", "description": canary, "types": ["none.such"]});
    let subscription =
        do_it("POST /v1/subscriptions", wanted, 201)["id"].as_str().unwrap().to_owned();
    let event = json!({"type": "order.paid", "subject": canary, "key": format!("{canary}-event"), "data": canary});
    let event = do_it("POST /v1/events", event, 202)["id"].as_str().unwrap().to_owned();
    if tenant != "default" {
        let body = json!({"note": canary}).to_string();
        let refused = gateway.call("POST", &format!("/in/{tenant}-source"), &[], &body);
        assert_eq!(refused.status, 400, "{}", refused.text());
        let db = sqlite(&world.path(&format!("{tenant}.db")));
        let row = "INSERT INTO onceward_outbox (key, route) VALUES ('k', ?1)";
        db.execute(row, [&canary]).unwrap();
        until("its row is parked", || {
            let line = format!("GET /v1/outbox/{tenant}-outbox");
            ask(gateway, &key, &line, "").text().contains(&canary).then_some(())
        });
    }
    let operations = vec![done, dead, doubt];
    let prefix = unused[..11].to_owned();
    let mut secrets = operations.clone();
    secrets.extend([canary.clone(), bulk.clone(), saga.clone(), prefix.clone()]);
    secrets.extend([event.clone(), subscription.clone()]);
    secrets.extend(["only", "source", "outbox"].map(|what| format!("{tenant}-{what}")));
    Own { key, operations, bulk, saga, event, subscription, filter, prefix, secrets }
}

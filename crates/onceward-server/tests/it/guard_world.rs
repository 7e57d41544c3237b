//! A plain API that knows nothing of idempotency: it makes, shows, changes and removes orders, asks for
//! no more than a credential that was not revoked, and lets one page read it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use onceward_proof::line::{Line, Message};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::world::Gateway;

/// The page that may read it.
pub(crate) const PAGE: &str = "https://app.example";

#[derive(Debug, Default)]
struct Orders {
    made: u64,
    by_number: BTreeMap<u64, Value>,
    revoked: HashSet<String>,
    heard: Vec<Message>,
    /// How many changes it fails to begin with, and how.
    fails: (usize, u16),
    /// What it says when it is asked who somebody is.
    me: Option<u16>,
}

/// A running API; it ends with the test.
pub(crate) struct Crud {
    pub(crate) address: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    /// Whether orders are made at once, or wait.
    open: watch::Sender<bool>,
    _runtime: Runtime,
}

/// A runtime of one thread, and a socket that it listens on.
pub(crate) fn listening() -> (Runtime, TcpListener, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    (runtime, listener, address)
}

impl Crud {
    pub(crate) fn start() -> Self {
        let (runtime, listener, address) = listening();
        let orders = Arc::<Mutex<Orders>>::default();
        let (open, is_open) = watch::channel(true);
        let serving = Arc::clone(&orders);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (orders, mut is_open) = (Arc::clone(&serving), is_open.clone());
                tokio::spawn(async move {
                    let mut line = Line::new(stream);
                    // A connection that ends badly ends alone.
                    while let Ok(Some(request)) = line.read().await {
                        orders.lock().unwrap().heard.push(request.clone());
                        if request.start.starts_with("POST ") {
                            let _ = is_open.wait_for(|open| *open).await;
                        }
                        let answer = orders.lock().unwrap().answer(&request);
                        if line.write(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, orders, open, _runtime: runtime }
    }

    /// A route before it, with a listener of its own.
    pub(crate) fn guard(&self, lines: &str) -> String {
        format!(
            "[routes.orders]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\n{lines}\n",
            self.address
        )
    }

    /// How many orders were made.
    pub(crate) fn made(&self) -> u64 {
        self.orders.lock().unwrap().made
    }

    /// What it was asked so far with this method and path.
    pub(crate) fn heard(&self, what: &str) -> Vec<Message> {
        let orders = self.orders.lock().unwrap();
        let is_it = |message: &&Message| message.start.strip_suffix(" HTTP/1.1") == Some(what);
        orders.heard.iter().filter(is_it).cloned().collect()
    }

    /// Orders wait from now on, or those that wait are made.
    pub(crate) fn hold(&self, holds: bool) {
        self.open.send(!holds).unwrap();
    }

    /// Takes this credential no more.
    pub(crate) fn revoke(&self, authorization: &str) {
        self.orders.lock().unwrap().revoked.insert(authorization.to_owned());
    }

    /// Fails the next changes.
    pub(crate) fn fail(&self, times: usize, status: u16) {
        self.orders.lock().unwrap().fails = (times, status);
    }

    /// Says this when it is asked who somebody is.
    pub(crate) fn say_of_me(&self, status: u16) {
        self.orders.lock().unwrap().me = Some(status);
    }
}

impl Orders {
    fn answer(&mut self, request: &Message) -> Vec<u8> {
        let mut words = request.start.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if request.header("origin") == Some(PAGE) {
            headers.push(("access-control-allow-origin", PAGE.to_owned()));
            headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        if method == "OPTIONS" {
            headers.push(("access-control-allow-headers", "content-type".to_owned()));
            return written(204, &headers, "");
        }
        if request.header("authorization").is_some_and(|it| self.revoked.contains(it)) {
            headers.push(("www-authenticate", "Bearer error=\"invalid_token\"".to_owned()));
            return written(401, &headers, "{\"error\":\"who are you?\"}");
        }
        if path == "/me" {
            return written(self.me.unwrap_or(200), &headers, "{}");
        }
        if method != "GET" && self.fails.0 > 0 {
            self.fails.0 -= 1;
            return written(self.fails.1, &headers, "{\"error\":\"not now\"}");
        }
        let number = path.strip_prefix("/orders/").and_then(|number| number.parse().ok());
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        match (method, path, number) {
            ("POST", "/orders", _) if body["ref"].is_string() => {
                self.made += 1;
                self.by_number.insert(self.made, body.clone());
                headers.push(("location", format!("/orders/{}", self.made)));
                headers.push(("set-cookie", format!("last={}", self.made)));
                written(201, &headers, &json!({"id": self.made, "ref": body["ref"]}).to_string())
            }
            ("POST", "/orders", _) => written(400, &headers, "{\"error\":\"an order has a ref\"}"),
            ("GET", "/orders", _) => {
                let of = query.strip_prefix("ref=").unwrap_or_default();
                let found: Vec<_> = self.by_number.values().filter(|it| it["ref"] == of).collect();
                written(200, &headers, &json!(found).to_string())
            }
            ("GET", _, Some(number)) if self.by_number.contains_key(&number) => {
                written(200, &headers, &self.by_number[&number].to_string())
            }
            ("PUT", _, Some(number)) => {
                self.by_number.insert(number, body);
                written(200, &headers, "{}")
            }
            ("DELETE", _, Some(number)) if self.by_number.remove(&number).is_some() => {
                written(204, &headers, "")
            }
            _ => written(404, &headers, &json!({"api": path}).to_string()),
        }
    }
}

pub(crate) fn written(status: u16, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As Told\r\n");
    for (name, value) in headers {
        // Writing into a string does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if status != 204 {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    format!("{head}\r\n{body}").into_bytes()
}

/// Where the route's guard listens.
pub(crate) fn guard_of(gateway: &Gateway, route: &str) -> SocketAddr {
    let line = gateway.log.until(&format!("\"route\":\"{route}\",\"tls\""));
    let line: Value = serde_json::from_str(&line).unwrap_or_default();
    line["address"].as_str().unwrap_or_default().parse().unwrap_or_else(|_| panic!("{line}"))
}

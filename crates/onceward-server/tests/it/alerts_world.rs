//! Whoever is told of alerts, and what goes wrong so that there are some.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::callbacks::SECRET;
use crate::world::{Gateway, read_head, until};

/// Looks often, collects nothing, and forgets soon.
pub(crate) const QUICK: &str = "every = \"100ms\"\nrecover_after = \"300ms\"\n";

/// What was sent to a receiver.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Its alerts: name, state and route.
    pub(crate) fn alerts(&self) -> Vec<(String, String, String)> {
        let document = self.json();
        let alerts = document["data"]["alerts"].as_array().unwrap().iter();
        let text = |alert: &Value, of: &str| alert[of].as_str().unwrap_or_default().to_owned();
        alerts.map(|it| (text(it, "name"), text(it, "state"), text(it, "route"))).collect()
    }
}

/// Takes notices, with the status that holds then.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    pub(crate) fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, told: Arc::default(), status: Arc::new(Mutex::new(status)) };
        let heard = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let Ok((first, headers)) = read_head(&mut reader) else { continue };
                let headers: HashMap<_, _> = headers.into_iter().collect();
                let length = headers.get("content-length").and_then(|length| length.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                // Whoever was killed in the midst of it told nothing; a probe tells nothing either.
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let status = *heard.status.lock().unwrap();
                if first.starts_with("POST") && status < 300 {
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    heard.told.lock().unwrap().push(Told { path, headers, body });
                }
                let answer = format!(
                    "HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                // A gateway that was killed hears no answer.
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        receiver
    }

    pub(crate) fn set(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until it is told that this alert is in this state, and gives the line.
    pub(crate) fn until_told(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} is {state}"), || {
            let told = self.told();
            let alerts = told.iter().map(Told::json).flat_map(|document| {
                document["data"]["alerts"].as_array().cloned().unwrap_or_default()
            });
            let mut alerts =
                alerts.filter(|alert| alert["name"] == name && alert["state"] == state);
            alerts.next()
        })
    }

    /// How it is configured as a webhook; what is sent to it is tried again soon.
    pub(crate) fn webhook(&self, name: &str, more: &str) -> String {
        format!(
            "[alerts.to.{name}]\nwebhook = \"http://{}/told\"\nsecret = \"{SECRET}\"\ngroup = \"0s\"\n\
             retry = {{ attempts_max = 1000, base = \"50ms\", floor = \"10ms\", cap = \"100ms\" }}\n{more}\n",
            self.address
        )
    }
}

/// An upstream that takes each request and never answers.
pub(crate) fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            // It hangs up behind the head.
            drop(read_head(&mut reader));
        }
    });
    address
}

/// Has an operation of `route` die, with nobody told.
pub(crate) fn bury(gateway: &Gateway, route: &str, key: &str) {
    let headers = [("idempotency-key", key), ("prefer", "respond-async")];
    let answer = gateway.call("POST", &format!("/to/{route}/x"), &headers, "{}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    gateway.until_state(key, "dead");
}

/// The operations that notices are.
pub(crate) fn notices(gateway: &Gateway, receiver: &str) -> Vec<Value> {
    let route = format!("alerts/{receiver}");
    let listed = gateway.run(&["ls", "--route", &route, "--json"]).json();
    listed.as_array().unwrap().clone()
}

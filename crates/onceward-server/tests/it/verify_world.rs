//! A small API that takes orders and keeps a contract of idempotency, or breaks it in one of the
//! ways in which real ones were found to.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use onceward_proof::line::{Line, Message};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Before the shortest pause is over, and after any other case has asked again.
const FORGETS_AFTER: Duration = Duration::from_millis(1800);

/// Whose contract the API keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contract {
    Onceward,
    Ietf,
    Stripe,
    DedupeOnly,
    /// None: it knows no keys.
    Plain,
}

/// In which way it breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// It looks whether the key is there, and writes it when it is done.
    CheckThenAct,
    /// It does not compare what the key is used for.
    NoFingerprint,
    /// It does not compare the query.
    NoQuery,
    /// It knows a key by the body that came with it.
    BodyInKey,
    /// Its lock ends before its work does.
    ShortLock,
    /// It keeps successes alone.
    OnlySuccessKept,
    /// It asks who calls, and forgets it.
    AllCallersOne,
    CookieReplayed,
    DateReplayed,
    ReplayCut,
    LocationLost,
    AnswerDiffers,
    KeyIgnored,
    /// It takes no request with a key.
    KeyUnwanted,
    BadKeyPassedOver,
    KeyFolded,
    KeyCut,
    /// What a caller that is gone had done is not written down.
    DiesWithCaller,
    /// Its lock stays when a caller is gone.
    StuckWithoutCaller,
    ForgetsSoon,
    /// It tells whoever comes second that it was done, before it is.
    AnswersEarly,
}

#[derive(Debug, Default)]
struct Orders {
    refs: Vec<String>,
    keys: HashMap<String, Entry>,
    calls: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    request: (String, String, Value),
    since: Instant,
    done: Option<Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// A running API.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    contract: Contract,
    defect: Defect,
    orders: Arc<Mutex<Orders>>,
}

/// What becomes of a request whose key was looked up.
enum Admitted {
    Run,
    Answer(Answer),
    Wait,
}

impl Api {
    /// Starts one; it ends with the runtime.
    pub(crate) async fn start(contract: Contract, defect: Defect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self { address, contract, defect, orders: Arc::default() };
        let serving = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = serving.clone();
                // A connection that ends badly ends alone.
                tokio::spawn(async move { drop(api.serve(Line::new(stream)).await) });
            }
        });
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/orders", self.address)
    }

    /// How many requests came.
    pub(crate) fn calls(&self) -> usize {
        self.orders.lock().unwrap().calls
    }

    async fn serve(&self, mut line: Line) -> io::Result<()> {
        while let Some(request) = line.read().await? {
            self.orders.lock().unwrap().calls += 1;
            let answer = self.answer(&request, &line).await;
            line.write(&answer.bytes()).await?;
        }
        Ok(())
    }

    async fn answer(&self, request: &Message, line: &Line) -> Answer {
        let mut words = request.start.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        if method == "GET" {
            let of = target.split_once("ref=").map_or("", |(_, of)| of);
            let orders = self.orders.lock().unwrap();
            let found = orders.refs.iter().filter(|order| *order == of);
            let found: Vec<Value> = found.map(|order| json!({"ref": order})).collect();
            return Answer::new(200, &Value::from(found));
        }
        let body = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let key = match self.key(request) {
            Ok(Some(key)) => key,
            Ok(None) => return self.work(&body).await,
            Err(refusal) => return refusal,
        };
        let what = (method, target, body);
        loop {
            match self.admit(&key, &what) {
                Admitted::Run => break,
                Admitted::Answer(answer) => return self.told(answer, request),
                Admitted::Wait => sleep(Duration::from_millis(10)).await,
            }
        }
        let answer = self.work(&what.2).await;
        self.keep(&key, &what, &answer, is_gone(line));
        self.told(answer, request)
    }

    /// The key in its scope, or none, or a refusal.
    fn key(&self, request: &Message) -> Result<Option<String>, Answer> {
        let lines: Vec<&str> = request
            .headers
            .iter()
            .filter(|(name, _)| name == "idempotency-key")
            .map(|(_, value)| value.as_str())
            .collect();
        if self.contract == Contract::Plain || self.defect == Defect::KeyIgnored || lines.is_empty()
        {
            return Ok(None);
        }
        let bare = |line: &str| match line.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').map(str::to_owned),
            None if self.contract == Contract::Ietf => None,
            None => Some(line.to_owned()),
        };
        let key = bare(lines[0])
            .filter(|key| (1..=255).contains(&key.len()) && key.is_ascii() && lines.len() == 1);
        let Some(mut key) = key.filter(|_| self.defect != Defect::KeyUnwanted) else {
            if self.defect == Defect::BadKeyPassedOver {
                return Ok(None);
            }
            return Err(Answer::new(400, &json!({"error": "the key cannot be read"})));
        };
        match self.defect {
            Defect::KeyFolded => key.make_ascii_lowercase(),
            Defect::KeyCut => key.truncate(40),
            Defect::BodyInKey => key.push_str(&String::from_utf8_lossy(&request.body)),
            _ => {}
        }
        let caller = request.header("authorization").unwrap_or_default();
        let caller = if self.defect == Defect::AllCallersOne { "" } else { caller };
        Ok(Some(format!("{caller} {key}")))
    }

    fn admit(&self, key: &str, what: &(String, String, Value)) -> Admitted {
        let mut orders = self.orders.lock().unwrap();
        let known = orders.keys.get(key).cloned().filter(|entry| {
            self.defect != Defect::ForgetsSoon || entry.since.elapsed() < FORGETS_AFTER
        });
        let Some(entry) = known else {
            if self.defect != Defect::CheckThenAct {
                let entry = Entry { request: what.clone(), since: Instant::now(), done: None };
                orders.keys.insert(key.to_owned(), entry);
            }
            return Admitted::Run;
        };
        if !self.is_same(&entry.request, what) {
            let status = match self.contract {
                Contract::Ietf => 422,
                Contract::Stripe => 400,
                _ => 409,
            };
            return Admitted::Answer(Answer::new(status, &json!({"error": "the key was used"})));
        }
        match entry.done {
            Some(answer) => Admitted::Answer(self.replayed(answer)),
            None if self.defect == Defect::AnswersEarly => {
                Admitted::Answer(Answer::new(200, &json!({"id": null, "accepted": true})))
            }
            None if self.defect == Defect::ShortLock => {
                if entry.since.elapsed() > Duration::from_millis(60) {
                    Admitted::Run
                } else {
                    Admitted::Wait
                }
            }
            None => Admitted::Answer(Answer::new(409, &json!({"error": "under way"}))),
        }
    }

    fn is_same(&self, one: &(String, String, Value), other: &(String, String, Value)) -> bool {
        let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
        match (self.contract, self.defect) {
            (Contract::DedupeOnly, _) | (_, Defect::NoFingerprint) => true,
            (_, Defect::NoQuery) => {
                (&one.0, path(&one.1), &one.2) == (&other.0, path(&other.1), &other.2)
            }
            _ => one == other,
        }
    }

    /// Does what is asked, which takes its time.
    async fn work(&self, body: &Value) -> Answer {
        let takes = match self.defect {
            Defect::ShortLock | Defect::DiesWithCaller | Defect::StuckWithoutCaller => 250,
            _ => 40,
        };
        sleep(Duration::from_millis(takes)).await;
        let Some(order) = body["ref"].as_str() else {
            return Answer::new(400, &json!({"error": "an order has a ref"}));
        };
        let mut orders = self.orders.lock().unwrap();
        orders.refs.push(order.to_owned());
        let number = orders.refs.len();
        let mut answer = Answer::new(201, &json!({"id": number, "ref": order}));
        answer.headers.push(("location", format!("/orders/{number}")));
        answer.headers.push(("set-cookie", format!("session={number}")));
        answer
    }

    fn keep(&self, key: &str, what: &(String, String, Value), answer: &Answer, is_gone: bool) {
        let mut orders = self.orders.lock().unwrap();
        match self.defect {
            Defect::DiesWithCaller if is_gone => drop(orders.keys.remove(key)),
            Defect::StuckWithoutCaller if is_gone => {}
            Defect::OnlySuccessKept if answer.status >= 300 => drop(orders.keys.remove(key)),
            _ if self.contract == Contract::Stripe && answer.status == 400 => {
                drop(orders.keys.remove(key));
            }
            _ => {
                let (request, since) = (what.clone(), Instant::now());
                orders
                    .keys
                    .insert(key.to_owned(), Entry { request, since, done: Some(answer.clone()) });
            }
        }
    }

    fn replayed(&self, mut answer: Answer) -> Answer {
        match self.defect {
            Defect::ReplayCut => answer.body.truncate(answer.body.len() / 2),
            Defect::AnswerDiffers => answer.body = answer.body.replace("\"ref\"", "\"again\""),
            Defect::LocationLost => answer.headers.retain(|(name, _)| *name != "location"),
            _ => {}
        }
        let kept = |name: &str| match name {
            "set-cookie" => self.defect == Defect::CookieReplayed,
            "date" => self.defect == Defect::DateReplayed,
            _ => true,
        };
        answer.headers.retain(|(name, _)| kept(name));
        if matches!(self.contract, Contract::Onceward | Contract::Stripe) {
            answer.headers.push(("idempotent-replayed", "true".to_owned()));
        }
        answer
    }

    /// With the key in it, where the contract wants that.
    fn told(&self, mut answer: Answer, request: &Message) -> Answer {
        if let (Contract::Onceward | Contract::Stripe, Some(key)) =
            (self.contract, request.header("idempotency-key"))
        {
            answer.headers.push(("idempotency-key", key.to_owned()));
        }
        answer
    }
}

/// Whether the caller closed its connection.
fn is_gone(line: &Line) -> bool {
    matches!(line.stream.try_read(&mut [0]), Ok(0))
}

impl Answer {
    fn new(status: u16, body: &Value) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("date", format!("second {}", now.as_secs())),
        ];
        Self { status, headers, body: body.to_string() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} As Told\r\n", self.status);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let has_date = self.headers.iter().any(|(name, _)| *name == "date");
        let date = (!has_date).then(|| ("date", format!("second {now}")));
        let length = ("content-length", self.body.len().to_string());
        for (name, value) in self.headers.iter().chain(&date).chain([&length]) {
            // Writing into a string does not fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head.push_str(&self.body);
        head.into_bytes()
    }
}

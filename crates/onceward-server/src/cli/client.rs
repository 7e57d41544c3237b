//! The running gateway as the command line sees it: where it is, with which key it is asked, and
//! what its refusals mean for an exit code.
//!
//! The operator's key is a credential of this machine: it goes to loopback and to the
//! configuration's own listener, and to no other address.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::attempt::Ending;
use onceward::core::exchange::{Headers, Request};
use onceward::upstream::{
    ClientFiles, Dispatch, Door, DoorError, DoorOptions, Egress, Failure, Sent, Target, Timeouts,
    Upstream as _, UpstreamTls, UpstreamTlsFiles,
};
use serde::Serialize;
use serde_json::Value;
use url::{Host, Url};

use super::Global;
use super::output::{clean, text};
use crate::config::Places;
use crate::exit::Exit;
use crate::serve::OPERATOR_KEY;

/// As long as the gateway itself may take: a call that is held, or a backup.
const PATIENCE: Duration = Duration::from_hours(1);

/// An answer that is larger is none of the API's: a page of lists has at most a thousand rows.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A connection to the gateway.
#[derive(Debug)]
pub(super) struct Client {
    door: Door,
    target: Arc<Target>,
    credential: Credential,
    /// The one that is meant, where one is named.
    tenant: Option<String>,
}

/// The key that goes with each request.
enum Credential {
    /// From the flag or the variable.
    Given(String),
    /// From the data folder.
    Operator(String),
    /// None, and why.
    None(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given(…)",
            Self::Operator(_) => "Operator(…)",
            Self::None(_) => "None",
        })
    }
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) exit: Exit,
    /// Whether the gateway was not there at all, so that it may come back.
    pub(super) is_away: bool,
}

impl From<Refused> for Exit {
    fn from(refused: Refused) -> Self {
        refused.exit
    }
}

/// The code of what a ledger refuses that cannot be used.
const LEDGER_UNAVAILABLE: &str = "ledger-unavailable";

/// What a request met in the place of an answer.
#[derive(Debug)]
enum Met {
    Failed(Failure),
    /// An answer with this status, and more than is read of one.
    TooMuch(u16),
}

/// What it is that a place that is no gateway gave no answer.
fn elsewhere(url: &Url, met: &Met) -> Refused {
    let exit = match met {
        Met::Failed(failure) if failure.ending == Ending::Unsent => unreached(
            failure,
            format!(
                "nobody is reached at {url}: {}\nhelp: start what listens there",
                clean(&failure.error)
            ),
        ),
        Met::Failed(failure) => Exit::failed(format!(
            "{url} gave no whole answer: {}\nhelp: what was sent may have been done",
            clean(&failure.error)
        )),
        Met::TooMuch(status) => {
            Exit::failed(format!("{url} answered {status}, and more than {ANSWER_BYTES_MAX} bytes"))
        }
    };
    Refused { exit, is_away: false }
}

/// Nothing was sent: later it may do, but for what no time mends.
fn unreached(failure: &Failure, message: String) -> Exit {
    if failure.permanent { Exit::failed(message) } else { Exit::not_now(message) }
}

/// What came back, as it came.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(global: &Global) -> Result<Self, Exit> {
        let places = Places::load(global.config.as_deref())?;
        let base = match &global.url {
            Some(text) => parse(text)?,
            None if places.tls.is_some() => {
                parse(&format!("https://{}", reachable(places.listen)))?
            }
            None => parse(&format!("http://{}", reachable(places.listen)))?,
        };
        let tls = tls(global, &places)?;
        // A variable that is set to nothing is no key.
        let credential = match global.access_key.as_ref().filter(|key| !key.is_empty()) {
            Some(key) => Credential::Given(key.clone()),
            None if is_ours(&base, places.listen) => operator_key(&places.data().join(OPERATOR_KEY)),
            None => Credential::None(
                "the operator's key goes to this machine only: give a key with --access-key or ONCEWARD_ACCESS_KEY".to_owned(),
            ),
        };
        let options = DoorOptions { ca_file: places.ca_file, ..DoorOptions::default() };
        let door = Door::new(Egress::default(), &options)
            .map_err(|error| Exit::config(error.to_string()))?;
        let timeouts = Timeouts {
            connect: Timeouts::default().connect,
            head: PATIENCE,
            body: PATIENCE,
            total: PATIENCE,
        };
        let target = Arc::new(Target { tls, ..Target::of_operator(base, timeouts) });
        let tenant = global.tenant.clone().filter(|tenant| !tenant.is_empty());
        Ok(Self { door, target, credential, tenant })
    }

    /// The tenant that is meant, where one was said.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Refused> {
        self.ask("GET", path, None).await
    }

    /// What is no document: lines of text.
    pub(super) async fn lines(&self, path: &str) -> Result<String, Exit> {
        let mut headers = Headers::default();
        headers.set("accept", "application/jsonl, application/problem+json");
        let (method, body) = ("GET".to_owned(), Bytes::new());
        let answer = self.call(Request { method, target: path.to_owned(), headers, body }).await?;
        if answer.status == 200 {
            return String::from_utf8(answer.body).map_err(|_| self.stranger(200));
        }
        Err(self.read(&answer).err().unwrap_or_else(|| self.stranger(answer.status)))
    }

    pub(super) async fn post(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<Value, Refused> {
        self.ask("POST", path, Some(written(document))).await
    }

    pub(super) async fn delete(&self, path: &str, document: &Value) -> Result<Value, Refused> {
        self.ask("DELETE", path, Some(written(document))).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        document: Option<Bytes>,
    ) -> Result<Value, Refused> {
        let key = match &self.credential {
            Credential::Given(key) | Credential::Operator(key) => Some(key.as_str()),
            Credential::None(_) => None,
        };
        let mut answer = self.exchange(method, path, document.clone(), key).await?;
        if answer.status == 401 && matches!(self.credential, Credential::Operator(_)) {
            // The folder may be another gateway's. Nothing was done, and an open listener answers
            // without any key.
            let bare = self.exchange(method, path, document, None).await?;
            answer = if bare.status == 401 { answer } else { bare };
        }
        self.read(&answer).map_err(|exit| Refused { exit, is_away: false })
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        document: Option<Bytes>,
        key: Option<&str>,
    ) -> Result<Answer, Refused> {
        let mut headers = Headers::default();
        headers.set("accept", "application/json, application/problem+json");
        if let Some(key) = key {
            headers.set("onceward-authorization", format!("Bearer {key}"));
        }
        if document.is_some() {
            headers.set("content-type", "application/json");
        }
        let request = Request {
            method: method.to_owned(),
            target: self.meant(path),
            headers,
            body: document.unwrap_or_default(),
        };
        self.send_home(request).await
    }

    /// The path, with the tenant that is meant.
    fn meant(&self, path: &str) -> String {
        let Some(tenant) = &self.tenant else { return path.to_owned() };
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}tenant={}", part(tenant))
    }

    /// One call through the gateway, whatever its answer says.
    pub(super) async fn call(&self, request: Request) -> Result<Answer, Refused> {
        if self.tenant.is_some() {
            let why = "--tenant: a call is of its access key's tenant\nhelp: leave --tenant out, and give that tenant's key with --access-key";
            return Err(Refused { exit: Exit::usage(why), is_away: false });
        }
        let (Credential::Given(key) | Credential::Operator(key)) = &self.credential else {
            return self.send_home(request).await;
        };
        let mut with_key = request.clone();
        with_key.headers.set("onceward-authorization", format!("Bearer {key}"));
        let answer = self.send_home(with_key).await?;
        if answer.status == 401 && matches!(self.credential, Credential::Operator(_)) {
            // As in `ask`: another gateway's key, and nothing was done.
            return self.send_home(request).await;
        }
        Ok(answer)
    }

    /// Reads from somewhere else, without our credential.
    pub(super) async fn read_from(&self, url: &Url) -> Result<Answer, Refused> {
        let request = Request {
            method: "GET".to_owned(),
            target: path_of(url),
            headers: Headers::default(),
            body: Bytes::new(),
        };
        self.send_to(url, request).await
    }

    /// Sends something to a place anywhere, without our credential.
    pub(super) async fn send_to(&self, url: &Url, request: Request) -> Result<Answer, Refused> {
        let mut base = url.clone();
        base.set_path("/");
        base.set_query(None);
        let is_gateway = url.origin() == self.target.base.origin();
        let tls = self.target.tls.clone().filter(|_| is_gateway);
        let target = Arc::new(Target { base, tls, ..(*self.target).clone() });
        let sent = self.send(&target, request).await;
        sent.map_err(|met| if is_gateway { self.missed(met) } else { elsewhere(url, &met) })
    }

    /// Whether the gateway is on this machine, out of others' reach.
    pub(super) fn is_loopback(&self) -> bool {
        match self.target.base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }

    /// Where the gateway is.
    pub(super) fn base(&self) -> &Url {
        &self.target.base
    }

    async fn send_home(&self, request: Request) -> Result<Answer, Refused> {
        self.send(&self.target, request).await.map_err(|met| self.missed(met))
    }

    async fn send(&self, target: &Arc<Target>, request: Request) -> Result<Answer, Met> {
        let dispatch = Dispatch {
            target: Arc::clone(target),
            request: Arc::new(request),
            headers: Headers::default(),
            doom: None,
        };
        let mut answer = match self.door.send(dispatch).await {
            Sent::Answered(answer) => answer,
            Sent::Failed(failure) => return Err(Met::Failed(failure)),
        };
        let mut body = Vec::new();
        while let Some(piece) = answer.body.chunk().await.map_err(Met::Failed)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Met::TooMuch(answer.status));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: answer.status, headers: answer.headers, body })
    }

    /// What it is that the gateway gave no answer.
    fn missed(&self, met: Met) -> Refused {
        match met {
            Met::Failed(failure) => self.away(&failure),
            Met::TooMuch(status) => Refused { exit: self.stranger(status), is_away: false },
        }
    }

    fn away(&self, failure: &Failure) -> Refused {
        let (url, error) = (&self.target.base, clean(&failure.error));
        let exit = if failure.ending == Ending::Unsent {
            unreached(
                failure,
                format!(
                    "no gateway is reached at {url}: {error}\nhelp: start it with `onceward serve`, or say where it is with --url or ONCEWARD_URL"
                ),
            )
        } else {
            Exit::failed(format!(
                "the gateway at {url} gave no whole answer: {error}\nhelp: what was asked may have been done; look with `onceward ls` before you ask again, or ask again with the same key"
            ))
        };
        Refused { exit, is_away: true }
    }

    fn stranger(&self, status: u16) -> Exit {
        Exit::failed(format!(
            "{} answered {status}, but not as a gateway does\nhelp: say where the gateway is with --url or ONCEWARD_URL",
            self.target.base
        ))
    }

    fn read(&self, answer: &Answer) -> Result<Value, Exit> {
        let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match document {
            Some(document) if answer.status < 300 => Ok(document),
            Some(problem) if problem["title"].is_string() => {
                Err(self.refusal(answer.status, &problem))
            }
            _ => Err(self.stranger(answer.status)),
        }
    }

    fn refusal(&self, status: u16, problem: &Value) -> Exit {
        let mut message = format!("{}: {}", text(problem, "/title"), text(problem, "/detail"));
        if let Some(help) = self.help(status, problem) {
            message.push_str("\nhelp: ");
            message.push_str(&help);
        }
        match status {
            404 => Exit::not_found(message),
            401 | 403 => Exit::access(message),
            429 | 503 if is_not_now(problem) => Exit::not_now(message),
            _ => Exit::failed(message),
        }
    }

    /// What is left to do, by the refusal's advice.
    fn help(&self, status: u16, problem: &Value) -> Option<String> {
        if status == 401 {
            return Some(match &self.credential {
                Credential::None(why) => why.clone(),
                Credential::Given(_) => {
                    "`onceward access ls` shows which keys there are".to_owned()
                }
                Credential::Operator(_) => format!(
                    "{OPERATOR_KEY} is another gateway's: run this where its data folder is, or give a key with --access-key"
                ),
            });
        }
        if problem["code"] == LEDGER_UNAVAILABLE {
            return Some("it may have been done all the same: look with `onceward ls` before you ask again, or ask again with the same key".to_owned());
        }
        let operation = problem["operation"].as_str().map(clean);
        match (problem["advice"].as_str()?, operation) {
            ("wait", Some(id)) => Some(format!("`onceward show {id}` tells how it goes")),
            ("escalate", Some(id)) => Some(match problem["code"].as_str() {
                Some("outcome-unknown") => format!(
                    "look at the upstream whether it was done, then `onceward resolve {id} --as done|not-sent --reason …`"
                ),
                _ => format!("`onceward show {id}` tells what is known"),
            }),
            ("same-key", Some(_)) => Some("to ask again with the same key is safe".to_owned()),
            _ => None,
        }
    }
}

/// Whether a refusal means that nothing was done: a ledger that cannot be used may have kept what was asked, and an answer
/// that nobody may have yet is one of what was done.
fn is_not_now(problem: &Value) -> bool {
    ![LEDGER_UNAVAILABLE, "reauthorize-failed"].iter().any(|code| problem["code"] == *code)
}

/// TLS to the gateway, where it is not as to everybody: with certificates that were named, or, where the
/// configuration itself says where the gateway is, with its listener's certificate as the only one.
fn tls(global: &Global, places: &Places) -> Result<Option<Arc<UpstreamTls>>, Exit> {
    let unusable = |error: DoorError| {
        let why = error.source().map_or_else(String::new, |why| format!(": {why}"));
        Exit::config(format!("cannot speak TLS with the gateway: {error}{why}"))
    };
    let client = global.cert_file.clone().zip(global.key_file.clone());
    let client = client.map(|(cert_file, key_file)| ClientFiles { cert_file, key_file });
    let own = places.tls.as_ref().filter(|_| global.url.is_none() && global.ca_file.is_none());
    if let Some(own) = own {
        return UpstreamTls::pinned(&own.cert_file, client.as_ref()).map(Some).map_err(unusable);
    }
    if global.ca_file.is_none() && client.is_none() {
        return Ok(None);
    }
    let files = UpstreamTlsFiles { ca_file: global.ca_file.clone(), client, only_tls13: false };
    UpstreamTls::load(&files, places.ca_file.as_deref()).map(Some).map_err(unusable)
}

/// The path and query of a URL.
pub(super) fn path_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// A part of a path, whatever is in it; dots too, so that no part is `..`.
pub(super) fn part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(part, "%{byte:02X}");
        }
    }
    part
}

pub(super) fn parse(text: &str) -> Result<Url, Exit> {
    let wrong = |why: &str| {
        Exit::usage(format!("the gateway's URL {why}\nhelp: write --url http://127.0.0.1:7077"))
    };
    let url =
        Url::parse(text).map_err(|error| wrong(&format!("{text:?} cannot be read: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong(&format!("{text:?} is neither http nor https")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or a password in it: give a key with --access-key"));
    }
    Ok(url)
}

/// The address at which a listener is reached from its own machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn is_ours(url: &Url, listen: SocketAddr) -> bool {
    let ip = match url.host() {
        Some(Host::Domain(name)) => return name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        None => return false,
    };
    ip.is_loopback() || (ip == listen.ip() && url.port_or_known_default() == Some(listen.port()))
}

fn operator_key(path: &Path) -> Credential {
    match std::fs::read_to_string(path) {
        Ok(key) => Credential::Operator(key.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Credential::None(format!(
            "there is no {}: run this where the gateway's data folder is, or give a key with --access-key or ONCEWARD_ACCESS_KEY",
            path.display()
        )),
        Err(error) => Credential::None(format!(
            "{}: {error}; run this as the gateway's user, or give a key with --access-key or ONCEWARD_ACCESS_KEY",
            path.display()
        )),
    }
}

/// A document as it is sent; what stands in it as it was written, as in data of events, stays so.
fn written(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_key_goes_to_this_machine_and_to_no_other() {
        let listen: SocketAddr = "10.0.0.5:7077".parse().unwrap();
        for (url, ours) in [
            ("http://127.0.0.1:9", true),
            ("http://localhost:9", true),
            ("http://[::1]:9", true),
            ("http://10.0.0.5:7077", true),
            ("http://10.0.0.5:7078", false),
            ("https://gateway.example.com", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_ours(&Url::parse(url).unwrap(), listen), ours, "{url}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_to_be_asked_again_as_if_nothing_was() {
        let nothing_done = [("limit", true), ("draining", true)];
        let unknown = [("ledger-unavailable", false), ("reauthorize-failed", false)];
        for (code, wanted) in nothing_done.into_iter().chain(unknown) {
            assert_eq!(is_not_now(&serde_json::json!({"code": code})), wanted, "{code}");
        }
    }

    #[test]
    fn a_key_with_slashes_and_dots_is_one_part_of_a_path() {
        assert_eq!(part("a/b c?"), "a%2Fb%20c%3F");
        assert_eq!(part(".."), "%2E%2E");
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:7".parse().unwrap()).to_string(), "127.0.0.1:7");
        assert_eq!(reachable("[::]:7".parse().unwrap()).to_string(), "[::1]:7");
    }
}

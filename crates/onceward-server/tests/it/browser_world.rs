//! A gateway in a folder of its own, a plain HTTP client, and a real browser: Chromium, driven
//! through chromedriver as the W3C WebDriver specification says. Everything ends with its value.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a condition may take to come true: far longer than it does, so that only what never
/// comes fails.
const PATIENCE: Duration = Duration::from_mins(1);

const MEND: &str = "run `cargo xtask test`: it finds or installs Chromium and chromedriver";

/// Looks until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header (its name in lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request over a connection of its own.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        // Writing into memory does not fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: String::new() };
    let mut bytes = Vec::new();
    if answer.header("transfer-encoding") == Some("chunked") {
        while read_chunk(&mut reader, &mut bytes)? {}
    } else {
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        reader.take(length.unwrap_or(0)).read_to_end(&mut bytes)?;
    }
    answer.body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(answer)
}

/// Reads one chunk; tells whether it was not the last.
fn read_chunk(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let length = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
    reader.by_ref().take(length).read_to_end(bytes)?;
    reader.read_line(&mut line)?;
    Ok(length > 0)
}

/// A program that ends with its value, by its own process and no other.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The gateway, in a folder of its own.
pub(crate) struct Server {
    pub(crate) address: String,
    _process: Process,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut process = Process(
            Command::new(env!("CARGO_BIN_EXE_onceward"))
                .args(["serve", "--listen", "127.0.0.1:0"])
                .current_dir(folder.path())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let address = first(lines, "the gateway's address", |line| {
            let (_, rest) = line.split_once("\"address\":\"")?;
            Some(rest.split_once('"')?.0.to_owned())
        });
        Self { address, _process: process, _folder: folder }
    }

    /// The answer to a request.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        request(&self.address, method, path, headers, body).unwrap()
    }

    /// A path of the gateway's, as an address for a browser.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The operations there are.
    pub(crate) fn operations(&self) -> Vec<Value> {
        let page = self.ask("GET", "/v1/operations", &[], "").json();
        page["data"].as_array().unwrap().clone()
    }

    /// The one operation there is, once it is in this state.
    pub(crate) fn operation_in(&self, state: &str) -> Value {
        until(&format!("an operation is {state}"), || {
            self.operations().into_iter().find(|operation| operation["state"] == state)
        })
    }
}

/// The first thing that `find` finds in these lines. What comes after is read and let go, so that
/// the program does not stop at a full pipe.
fn first(
    lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static,
    what: &str,
    find: impl Fn(&str) -> Option<String>,
) -> String {
    let mut lines = lines.map_while(Result::ok);
    let mut before = Vec::new();
    let found = lines.by_ref().find_map(|line| {
        let found = find(&line);
        before.push(line);
        found
    });
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("{what} was never said:\n{}", before.join("\n")))
}

/// A browser with one window.
pub(crate) struct Browser {
    driver: String,
    session: String,
    _process: Process,
    _folder: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser that it started; after that it is ended itself.
        let _ = request(&self.driver, "DELETE", &self.session, &[], "");
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn program(variable: &str, name: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from).or_else(|| on_path(name));
    named.unwrap_or_else(|| panic!("no {name}, and {variable} is not set; {MEND}"))
}

impl Browser {
    pub(crate) fn start() -> Self {
        let chromium = program("TEST_CHROMIUM", "chromium");
        let driver = program("TEST_CHROMEDRIVER", "chromedriver");
        let folder = TempDir::new().unwrap();
        let mut process = Process(
            Command::new(&driver)
                .arg("--port=0")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}; {MEND}", driver.display())),
        );
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let port = first(lines, "chromedriver's port", |line| {
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let driver = format!("127.0.0.1:{port}");
        let profile = format!("--user-data-dir={}", folder.path().display());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", profile,
            ]},
        }}});
        let answer = request(&driver, "POST", "/session", &[], &capabilities.to_string()).unwrap();
        let started = answer.json();
        let id = started["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no browser: {started}; {MEND}"));
        Self { session: format!("/session/{id}"), driver, _process: process, _folder: folder }
    }

    /// One command, and the value it gives.
    fn command(&self, method: &str, path: &str, document: &Value) -> Result<Value, Value> {
        let body = if method == "GET" { String::new() } else { document.to_string() };
        let path = format!("{}{path}", self.session);
        let answer = request(&self.driver, method, &path, &[], &body).unwrap();
        let value = answer.json()["value"].take();
        if answer.status == 200 { Ok(value) } else { Err(value) }
    }

    fn run(&self, method: &str, path: &str, document: &Value) -> Value {
        self.command(method, path, document).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn open(&self, url: &str) {
        self.run("POST", "/url", &json!({"url": url}));
    }

    /// Where it is now.
    pub(crate) fn url(&self) -> String {
        self.run("GET", "/url", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// The path of the element that this selector picks, once it is there.
    fn element(&self, using: &str, selector: &str) -> String {
        until(&format!("{selector} is on the page"), || {
            let asked = json!({"using": using, "value": selector});
            let found = self.command("POST", "/element", &asked).ok()?;
            let id = found.as_object()?.values().next()?.as_str()?.to_owned();
            Some(format!("/element/{id}"))
        })
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.element("css selector", selector);
        self.run("POST", &format!("{element}/click"), &json!({}));
    }

    pub(crate) fn click_link(&self, text: &str) {
        let element = self.element("link text", text);
        self.run("POST", &format!("{element}/click"), &json!({}));
    }

    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.element("css selector", selector);
        self.run("POST", &format!("{element}/value"), &json!({"text": text}));
    }

    /// The text that a person reads there.
    pub(crate) fn text(&self, selector: &str) -> String {
        until(&format!("{selector} can be read"), || {
            let element = self.element("css selector", selector);
            // A page that goes away takes its elements along; the next one has them, too.
            let text = self.command("GET", &format!("{element}/text"), &Value::Null).ok()?;
            text.as_str().map(str::to_owned)
        })
    }

    /// What an expression is in the page.
    pub(crate) fn evaluate(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.run("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// How wide the window is from now on: narrower than a real one can be made.
    pub(crate) fn set_width(&self, width: u32) {
        let metrics =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": true});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.run("POST", "/goog/cdp/execute", &command);
    }

    /// What the console says since it was last asked.
    pub(crate) fn console(&self) -> Vec<String> {
        let said = self.run("POST", "/se/log", &json!({"type": "browser"}));
        let said = said.as_array().cloned().unwrap_or_default();
        said.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

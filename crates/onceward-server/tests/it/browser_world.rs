//! A gateway with its demo, and a real browser: Chromium, driven through chromedriver as the W3C
//! WebDriver specification says. Everything ends with its value.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Gateway, Response, Running, World, call, until};

const MEND: &str = "run `cargo xtask test`: it finds or installs Chromium and chromedriver";

/// The gateway with its demo, in a folder of its own.
pub(crate) struct Server {
    gateway: Gateway,
    _world: World,
}

impl Server {
    pub(crate) fn start() -> Self {
        let world = World::new();
        Self { gateway: world.serve(), _world: world }
    }

    /// With this configuration.
    pub(crate) fn with(configuration: &str) -> Self {
        let world = World::new();
        world.write("onceward.toml", configuration);
        Self::of(world)
    }

    /// As what is in this folder says.
    pub(crate) fn of(world: World) -> Self {
        Self { gateway: world.serve(), _world: world }
    }

    /// The answer to a request.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        self.gateway.call(method, path, headers, body)
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// A path of the gateway's, as an address for a browser.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
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

/// A browser with one window.
pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Running,
    _folder: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser that it started; after that it is ended itself.
        let _ = call(self.driver, "DELETE", &self.session, &[], "");
    }
}

pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn program(variable: &str, name: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from).or_else(|| on_path(name));
    named.unwrap_or_else(|| panic!("no {name}, and {variable} is not set; {MEND}"))
}

/// How often a driver is started that found its port taken: it chooses one for IPv6, and wants the same for IPv4.
const STARTS: usize = 10;

/// A driver, and its line that says where it listens.
fn started(driver: &Path) -> (Running, String) {
    for _ in 0..STARTS {
        let mut command = Command::new(driver);
        command.arg("--port=0");
        let (process, said, _) = Running::start(command);
        let line = said.until_one_of(&["successfully on port ", "port not available"]);
        if line.contains("successfully") {
            return (process, line);
        }
    }
    panic!("no port is free for {}", driver.display());
}

impl Browser {
    pub(crate) fn start() -> Self {
        let chromium = program("TEST_CHROMIUM", "chromium");
        let driver = program("TEST_CHROMEDRIVER", "chromedriver");
        let folder = TempDir::new().unwrap();
        let (process, line) = started(&driver);
        let port = line.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap();
        let driver = SocketAddr::from(([127, 0, 0, 1], port));
        let profile = format!("--user-data-dir={}", folder.path().display());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", profile,
            ]},
        }}});
        let answer = call(driver, "POST", "/session", &[], &capabilities.to_string()).unwrap();
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
        let answer = call(self.driver, method, &path, &[], &body).unwrap();
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

    /// Presses these keys, one after the other, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let active = self.run("GET", "/element/active", &Value::Null);
        let id = active.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.run("POST", &format!("/element/{id}/value"), &json!({"text": keys}));
    }

    fn tell(&self, command: &str, params: &Value) {
        self.run("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": params}));
    }

    /// Runs no script of a page from now on.
    pub(crate) fn run_no_scripts(&self) {
        self.tell("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    }

    /// Likes pages `light` or `dark` from now on.
    pub(crate) fn prefer(&self, scheme: &str) {
        let scheme = json!({"name": "prefers-color-scheme", "value": scheme});
        // Colours are there at once.
        let still = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        self.tell("Emulation.setEmulatedMedia", &json!({"features": [scheme, still]}));
    }

    /// What of the page lies where nobody comes to: a page that is wider than the screen, and forms that,
    /// folded out, lie beside it or over the ways to other pages.
    pub(crate) fn outside(&self) -> Vec<String> {
        let look = "const found = []; const wide = document.documentElement; \
            if (wide.scrollWidth > innerWidth) found.push(`it is ${wide.scrollWidth} of ${innerWidth} wide`); \
            const rail = innerWidth >= 768 && !document.body.classList.contains('alone') \
            ? document.querySelector('.rail')?.getBoundingClientRect().right ?? 0 : 0; \
            for (const fold of document.querySelectorAll('main details:has(form)')) { \
            const was = fold.open; fold.open = true; \
            for (const form of fold.querySelectorAll('form')) { \
            const {left, right} = form.getBoundingClientRect(); \
            if (left < rail - 1 || right > innerWidth + 1) found.push(`${form.action} from ${left} to ${right}`); } \
            fold.open = was; } return found;";
        let found = self.run("POST", "/execute/sync", &json!({"script": look, "args": []}));
        let found = found.as_array().unwrap().iter();
        found.map(|fault| fault.as_str().unwrap().to_owned()).collect()
    }

    /// What looks whether everybody can use a page.
    pub(crate) fn axe() -> String {
        let script = std::env::var_os("TEST_AXE").unwrap_or_else(|| {
            panic!("no axe-core, and TEST_AXE is not set; run `cargo xtask test`: it installs it")
        });
        std::fs::read_to_string(script).unwrap()
    }

    /// Lays it into the page that is shown.
    pub(crate) fn bring(&self, axe: &str) {
        self.run("POST", "/execute/sync", &json!({"script": axe, "args": []}));
    }

    /// What it finds here that is serious or worse, by all of its rules or these.
    pub(crate) fn look(&self, rules: &[&str]) -> Vec<String> {
        let look = "const [rules, done] = arguments; const options = {resultTypes: ['violations']}; \
            if (rules.length) options.runOnly = {type: 'rule', values: rules}; \
            axe.run(document, options).then(found => done(\
            found.violations.filter(it => ['serious', 'critical'].includes(it.impact)).flatMap(it => it.nodes.map(node => \
            `${it.id}: ${node.target} ${node.failureSummary}`))), error => done([String(error)]));";
        let found = self.run("POST", "/execute/async", &json!({"script": look, "args": [rules]}));
        let found = found.as_array().unwrap().iter();
        found.map(|fault| fault.as_str().unwrap().to_owned()).collect()
    }

    /// What the console says since it was last asked.
    pub(crate) fn console(&self) -> Vec<String> {
        let said = self.run("POST", "/se/log", &json!({"type": "browser"}));
        let said = said.as_array().cloned().unwrap_or_default();
        said.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

//! Whoever follows a guide: its files written and its commands typed as they stand on the page, one after the
//! other, in a folder of its own, with the real gateway.
//!
//! What is done with a fenced block stands behind its language: `file=NAME` writes it; `run` types it, and
//! waits for its end (`fails=N`: it ends with that code; `until`: it is typed again until it prints what
//! is expected); `start port=N` types it and goes on once that port listens; `output` is what the block before it
//! prints, where `…` stands for anything, alone on a line for any lines; `by-hand` is not typed: what it
//! needs is nowhere but at the reader's. `<!-- kill -->` is a kill -9 of what was started last, and
//! `<!-- start again -->` starts that once more. The ports of a page are laid on free ones.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::browser_world::on_path;
use crate::world::{BINARY, Ended, World, call, clean, until};

/// What pages call the gateway, a second one, guards, and what stands behind them.
const PORTS: [&str; 8] = ["7077", "7078", "8080", "3000", "3001", "9000", "9001", "9443"];

/// What is typed beside the gateway's own verbs.
const TOOLS: [&str; 5] = ["bash", "curl", "openssl", "python3", "sqlite3"];

/// What becomes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Write(String),
    Run {
        code: i32,
        is_repeated: bool,
    },
    Start {
        port: String,
    },
    Output,
    ByHand,
    /// A program in Python that takes SDKs as their makers ship them.
    RunWithSdks,
    Kill,
    StartAgain,
}

/// One thing that a page has its reader do.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) deed: Deed,
    pub(crate) text: String,
}

/// A page of the repository.
pub(crate) fn page(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// What a page has its reader do, in its order; a block in `sh` that says nothing of it is refused.
pub(crate) fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let line_number = n + 1;
        let said = |deed| Step { line: line_number, deed, text: String::new() };
        match line.trim() {
            "<!-- kill -->" => steps.push(said(Deed::Kill)),
            "<!-- start again -->" => steps.push(said(Deed::StartAgain)),
            _ => {}
        }
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if let Some(deed) = deed(info).map_err(|why| format!("line {line_number}: {why}"))? {
            steps.push(Step { line: line_number, deed, text: body.join("\n") + "\n" });
        }
    }
    Ok(steps)
}

fn deed(info: &str) -> Result<Option<Deed>, String> {
    let mut words = info.split(' ');
    let language = words.next().unwrap_or_default();
    let mut deed = None;
    let (mut code, mut port, mut is_repeated) = (0, None, false);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("file", name) => deed = Some(Deed::Write(name.to_owned())),
            ("run", "") => deed = Some(Deed::Run { code, is_repeated }),
            ("sdks", "") => deed = Some(Deed::RunWithSdks),
            ("start", "") => deed = Some(Deed::Start { port: String::new() }),
            ("output", "") => deed = Some(Deed::Output),
            ("by-hand", "") => deed = Some(Deed::ByHand),
            ("fails", number) => code = number.parse().map_err(|_| format!("{word} is no code"))?,
            ("until", "") => is_repeated = true,
            ("port", number) => port = Some(number.to_owned()),
            _ => return Err(format!("nobody knows what {word:?} means")),
        }
    }
    match (&deed, port) {
        (Some(Deed::Run { .. }), None) => Ok(Some(Deed::Run { code, is_repeated })),
        (Some(Deed::Start { .. }), Some(port)) => Ok(Some(Deed::Start { port })),
        (Some(Deed::Start { .. }), None) => Err("it starts something, and says no port".to_owned()),
        (None, _) if language == "sh" => {
            Err("it does not say what becomes of it: run, start or by-hand".to_owned())
        }
        _ => Ok(deed),
    }
}

/// Something that was started; it ends with the page.
struct Started {
    step: Step,
    child: Child,
}

impl Started {
    fn kill(&mut self) {
        // It and what it started are a group of their own.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A reader of one page.
struct Reader {
    name: String,
    world: World,
    /// As pages have them, and where they are.
    ports: Vec<(String, u16)>,
    started: Vec<Started>,
    /// What was typed last, and what it printed.
    last: Option<(Step, String)>,
}

/// Follows a page from its first block to its last.
pub(crate) fn follow(path: &str) {
    if let Some(missing) = TOOLS.iter().find(|tool| on_path(tool).is_none()) {
        eprintln!("SKIPPED, {path} is not followed: there is no {missing}");
        return;
    }
    let steps = steps(&page(path)).unwrap_or_else(|why| panic!("{path}, {why}"));
    // All are held until each is chosen, so that none is given twice.
    let held: Vec<_> = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports = PORTS.iter().zip(&held);
    let ports = ports.map(|(port, held)| ((*port).to_owned(), held.local_addr().unwrap().port()));
    let ports = ports.collect();
    drop(held);
    let mut reader = Reader {
        name: path.to_owned(),
        world: World::new(),
        ports,
        started: Vec::new(),
        last: None,
    };
    for step in steps {
        reader.take(&step);
    }
}

impl Reader {
    fn take(&mut self, step: &Step) {
        let text = self.laid(&step.text);
        match &step.deed {
            Deed::Write(name) => {
                let place = self.world.path(name);
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::write(place, text).unwrap();
            }
            Deed::Run { .. } => {
                let printed = self.typed(step);
                self.last = Some((step.clone(), printed));
            }
            Deed::RunWithSdks => self.run_with_sdks(step, &text),
            Deed::Start { .. } => self.start(step.clone()),
            Deed::Output => self.hold(step, &text),
            Deed::Kill => self.started.last_mut().unwrap().kill(),
            Deed::StartAgain => {
                let step = self.started.last().unwrap().step.clone();
                self.start(step);
            }
            Deed::ByHand => {}
        }
    }

    /// The text with the ports that the page has here.
    fn laid(&self, text: &str) -> String {
        let mut laid = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
            let (before, digits) = rest.split_at(at);
            let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
            let (number, after) = digits.split_at(end);
            let found = self.ports.iter().find(|(port, _)| port == number);
            laid += before;
            laid += &found.map_or_else(|| number.to_owned(), |(_, port)| port.to_string());
            rest = after;
        }
        laid + rest
    }

    fn port(&self, named: &str) -> u16 {
        self.ports
            .iter()
            .find(|(port, _)| port == named)
            .unwrap_or_else(|| panic!("{named} is none of {PORTS:?}"))
            .1
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        clean(&mut command);
        let own = Path::new(BINARY).parent().unwrap().to_owned();
        let paths = std::env::var_os("PATH").unwrap();
        let paths = [own].into_iter().chain(std::env::split_paths(&paths));
        command
            .current_dir(self.world.path(""))
            .env("PATH", std::env::join_paths(paths).unwrap())
            .env("HOME", self.world.path(""))
            .env("ONCEWARD_LISTEN", format!("127.0.0.1:{}", self.port("7077")));
        command
    }

    /// At one shell: what a block assigned, the next ones have.
    fn shell(&self, text: &str) -> Command {
        let mut command = self.command("bash");
        let state = self.state();
        let script = format!(
            "set -euo pipefail -o allexport\n[ ! -f '{state}' ] || . '{state}'\ncd '{here}'\n{text}\n{{ export -p; declare -f; }} > '{state}'\n",
            state = state.display(),
            here = self.world.path("").display(),
        );
        command.args(["-c", &script]);
        command
    }

    fn state(&self) -> PathBuf {
        self.world.path("tmp/state")
    }

    fn typed(&self, step: &Step) -> String {
        let Deed::Run { code, .. } = step.deed else { unreachable!() };
        let ended = Ended::from(self.shell(&self.laid(&step.text)).output().unwrap());
        let place = format!("{}, line {}", self.name, step.line);
        assert_eq!(ended.code, Some(code), "{place}:\n{}\n{}\n{}", step.text, ended.out, ended.err);
        ended.out
    }

    fn run_with_sdks(&mut self, step: &Step, text: &str) {
        self.last = None;
        let Some(python) = std::env::var_os("TEST_SDKS_PYTHON") else {
            eprintln!("SKIPPED, {}, line {}: there are no SDKs", self.name, step.line);
            return;
        };
        let mut command = self.command(python.to_str().unwrap());
        let ended = Ended::from(command.args(["-c", text]).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}, line {}: {ended:?}", self.name, step.line);
        self.last = Some((step.clone(), ended.out));
    }

    fn start(&mut self, step: Step) {
        let Deed::Start { port } = &step.deed else { unreachable!() };
        let port = self.port(port);
        let text = self.laid(&step.text);
        let mut command = self.shell(&format!("exec {}", text.trim()));
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        let place = format!("{}, line {}: port {port} listens", self.name, step.line);
        until(&place, || {
            assert_eq!(child.try_wait().unwrap(), None, "{place}: it has ended");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        if text.contains("onceward serve") {
            let main = SocketAddr::from(([127, 0, 0, 1], self.port("7077")));
            until(&format!("{place}, ready"), || {
                let answer = call(main, "GET", "/readyz", &[], "").ok()?;
                // A restored ledger waits for a person, and is as ready as it can be.
                (answer.status == 200 || answer.text().contains("quarantine")).then_some(())
            });
        }
        self.started.push(Started { step, child });
    }

    fn hold(&mut self, step: &Step, wanted: &str) {
        let Some((typed, printed)) = self.last.clone() else { return };
        let place = format!("{}, line {}", self.name, step.line);
        if typed.deed == (Deed::Run { code: 0, is_repeated: true }) {
            until(&place, || is_like(wanted, &self.typed(&typed)).then_some(()));
            return;
        }
        assert!(
            is_like(wanted, &printed),
            "{place}: expected\n{wanted}\nand there came\n{printed}"
        );
    }
}

/// Whether what was printed is what the page shows.
pub(crate) fn is_like(wanted: &str, printed: &str) -> bool {
    let wanted: Vec<&str> = wanted.trim().lines().map(str::trim_end).collect();
    let printed: Vec<&str> = printed.trim().lines().map(str::trim_end).collect();
    lines_are_like(&wanted, &printed)
}

fn lines_are_like(wanted: &[&str], printed: &[&str]) -> bool {
    match (wanted.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => {
            (0..=printed.len()).any(|skipped| lines_are_like(rest, &printed[skipped..]))
        }
        (Some((line, rest)), Some((other, others))) => {
            line_is_like(line, other) && lines_are_like(rest, others)
        }
        _ => false,
    }
}

fn line_is_like(wanted: &str, printed: &str) -> bool {
    let Some((start, rest)) = wanted.split_once('…') else { return wanted == printed };
    let Some(mut left) = printed.strip_prefix(start) else { return false };
    let pieces: Vec<&str> = rest.split('…').collect();
    let (end, between) = pieces.split_last().unwrap();
    for piece in between {
        let Some((_, behind)) = left.split_once(piece) else { return false };
        left = behind;
    }
    left.ends_with(end)
}

#[test]
fn what_a_page_shows_may_leave_out_what_differs_each_time() {
    assert!(is_like("a\n…\nid: op_…, done\n…", "a\nb\nc\nid: op_7, done\r\nmore\n"));
    assert!(is_like("…\n{\"n\":…,\"ok\":true}", "head\n{\"n\":17,\"ok\":true}\n"));
    assert!(is_like("\n\n", ""));
    assert!(!is_like("a\nb", "a"));
    assert!(!is_like("a", "a\nb"));
    assert!(!is_like("id: op_… done", "id: op_7, done, twice"));
}

#[test]
fn a_block_that_does_not_say_what_becomes_of_it_is_refused() {
    let bad = |page: &str| steps(page).unwrap_err();
    assert!(bad("\n```sh\nls\n```\n").starts_with("line 2: "));
    assert!(bad("```sh start\nls\n```\n").contains("port"));
    assert!(bad("```sh runs\nls\n```\n").contains("runs"));
    let steps =
        steps("```toml\na = 1\n```\n```sh fails=5 run\nfalse\n```\n<!-- kill -->\n").unwrap();
    assert_eq!(steps[0].deed, Deed::Run { code: 5, is_repeated: false });
    assert_eq!((steps.len(), steps[1].line), (2, 7));
}

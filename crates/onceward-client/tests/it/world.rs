//! What the tests are run against: a real gateway in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use onceward_client::testing::FakeGateway;
use onceward_client::{Onceward, RetryPolicy, new_key};
use tempfile::TempDir;

/// Quick enough for tests, and often enough that the gateway's own advice decides.
pub(crate) const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: 2,
    horizon: Duration::from_mins(2),
    base: Duration::from_millis(1),
    cap: Duration::from_millis(5),
    timeout: Duration::from_secs(75),
};

/// The built gateway: the one that is named, else that beside this test.
fn binary() -> PathBuf {
    let named = std::env::var_os("TEST_GATEWAY").map(PathBuf::from);
    let own = std::env::current_exe().unwrap();
    let program = named.unwrap_or_else(|| own.ancestors().nth(2).unwrap().join("onceward"));
    let mend = "cargo build -p onceward-server";
    assert!(program.exists(), "there is no gateway at {}: {mend}", program.display());
    program
}

/// A gateway with a data folder of its own, on a free port of this machine.
pub(crate) struct Gateway {
    folder: TempDir,
    address: String,
    process: Mutex<Child>,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (process, address) = serve(&folder, "127.0.0.1:0");
        Self { folder, address, process: Mutex::new(process) }
    }

    /// One for all tests that run at the same time.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Gateway>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    pub(crate) fn client(&self, retry: RetryPolicy) -> Onceward {
        Onceward::builder().url(format!("http://{}", self.address)).retry(retry).build().unwrap()
    }

    /// Starts it again where it was, with the ledger that it left.
    pub(crate) fn start_again(&self) {
        let (process, _) = serve(&self.folder, &self.address);
        *self.process.lock().unwrap() = process;
    }

    /// Ends it without a word, as a power cut does.
    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // It may be dead already.
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(folder: &TempDir, listen: &str) -> (Child, String) {
    let mut command = Command::new(binary());
    command.args(["serve", "--listen", listen]).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let address = ready(BufReader::new(process.stderr.take().unwrap()));
    (process, address)
}

/// Where it listens, once it says so.
fn ready(mut lines: BufReader<ChildStderr>) -> String {
    let mut all = String::new();
    loop {
        let begin = all.len();
        let read = lines.read_line(&mut all).unwrap();
        assert!(read > 0, "the gateway does not start:\n{all}");
        if all[begin..].contains("is ready") {
            // What it says from now on is nobody's matter, and must not fill the pipe.
            std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
            let said: serde_json::Value = serde_json::from_str(&all[begin..]).unwrap();
            return said["address"].as_str().unwrap().to_owned();
        }
    }
}

/// A key that no other test has.
pub(crate) fn fresh(name: &str) -> String {
    format!("{name}-{}", new_key())
}

/// What holds of the gateway holds of its double.
pub(crate) async fn of_both(test: impl AsyncFn(Onceward)) {
    let gateway = Gateway::shared();
    println!("of the gateway:");
    test(gateway.client(RETRY)).await;
    println!("of its double:");
    test(Onceward::builder().transport(FakeGateway::new()).retry(RETRY).build().unwrap()).await;
}

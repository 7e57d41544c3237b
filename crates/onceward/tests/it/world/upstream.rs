//! An upstream that does what a test tells it, and keeps account of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use bytes::Bytes;
use onceward::core::attempt::{Ending, Reached, Timings};
use onceward::core::exchange::Headers;
use onceward::upstream::{Answer, AnswerBody, Dispatch, Failure, Sent, Upstream};
use tokio::sync::watch;

use super::{PAY, Pulse, lock};

/// A door that holds calls back until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender is ours, so it is there.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What the upstream does with one call.
#[derive(Clone)]
pub(crate) struct Step {
    what: What,
    effect: bool,
    gate: Option<Gate>,
}

#[derive(Clone)]
enum What {
    Answer { status: u16, headers: Headers, pieces: Vec<Bytes>, trailers: Headers },
    Truncated { status: u16, part: Bytes },
    Fail { ending: Ending, reached: Reached, permanent: bool },
}

impl Step {
    /// It passes on only once `gate` is open; its effect happens before.
    pub(crate) fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// It has an effect, whatever its answer says.
    pub(crate) fn with_effect(mut self) -> Self {
        self.effect = true;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        if let What::Answer { headers, .. } = &mut self.what {
            headers.0.push((name.to_owned(), value.into()));
        }
        self
    }

    pub(crate) fn trailer(mut self, name: &str, value: &'static str) -> Self {
        if let What::Answer { trailers, .. } = &mut self.what {
            trailers.0.push((name.to_owned(), Bytes::from_static(value.as_bytes())));
        }
        self
    }

    /// One more piece of the body.
    pub(crate) fn piece(mut self, piece: impl Into<Bytes>) -> Self {
        if let What::Answer { pieces, .. } = &mut self.what {
            pieces.push(piece.into());
        }
        self
    }
}

/// An answer; a 2xx says that there was an effect.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Step {
    let pieces = vec![body.into()];
    let what =
        What::Answer { status, headers: Headers::default(), pieces, trailers: Headers::default() };
    Step { what, effect: (200..300).contains(&status), gate: None }
}

/// Provably nothing was sent.
pub(crate) fn unsent() -> Step {
    failed(Ending::Unsent, Reached::Resolved, false)
}

/// Nothing was sent, and trying again cannot help.
pub(crate) fn permanent() -> Step {
    failed(Ending::Unsent, Reached::Nothing, true)
}

/// The same once its name was resolved: the address is none that may be dialled.
pub(crate) fn refused_address() -> Step {
    failed(Ending::Unsent, Reached::Resolved, true)
}

fn failed(ending: Ending, reached: Reached, permanent: bool) -> Step {
    Step { what: What::Fail { ending, reached, permanent }, effect: false, gate: None }
}

/// It was sent, and no answer came; it had its effect.
pub(crate) fn unanswered() -> Step {
    Step { effect: true, ..failed(Ending::Unanswered, Reached::Sent, false) }
}

/// An answer that breaks off after `part`.
pub(crate) fn truncated(status: u16, part: &'static str) -> Step {
    let what = What::Truncated { status, part: Bytes::from_static(part.as_bytes()) };
    Step { what, effect: (200..300).contains(&status), gate: None }
}

/// One dispatch, as the upstream saw it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) host: String,
    pub(crate) method: String,
    /// The headers on the wire: what was remembered, and what was laid over it.
    pub(crate) headers: Headers,
    pub(crate) target: String,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.text(name).unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &str {
        self.header("idempotency-key")
    }
}

/// An upstream that does what it is told, and keeps account of it.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    /// Dispatches under way, and the most that there were.
    under_way: Mutex<(usize, usize)>,
    pulse: Pulse,
}

/// A dispatch under way, for as long as it lives.
struct UnderWay<'a>(&'a Mutex<(usize, usize)>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a Mutex<(usize, usize)>) -> Self {
        let mut now = lock(count);
        now.0 += 1;
        now.1 = now.1.max(now.0);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).0 -= 1;
    }
}

#[derive(Default)]
struct Script {
    steps: HashMap<String, VecDeque<Step>>,
    seen: Vec<Seen>,
    effects: BTreeMap<String, u32>,
    /// Whether a key that had its effect gets the first answer again, and no second effect.
    dedupes: bool,
    answered: HashMap<String, Step>,
}

impl Scripted {
    pub(super) fn new(pulse: Pulse) -> Self {
        Self { script: Mutex::default(), under_way: Mutex::default(), pulse }
    }

    /// What the route `pay` does next; after it, every call is answered 201 with a new body.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.script_for(PAY, steps);
    }

    pub(crate) fn script_for(&self, route: &str, steps: impl IntoIterator<Item = Step>) {
        lock(&self.script).steps.entry(format!("{route}.test")).or_default().extend(steps);
    }

    /// From now on a key has one effect, and gets the first 2xx again.
    pub(crate) fn dedupe(&self) {
        lock(&self.script).dedupes = true;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.script).seen.clone()
    }

    pub(crate) fn dispatched(&self) -> usize {
        lock(&self.script).seen.len()
    }

    /// The most dispatches that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        lock(&self.under_way).1
    }

    /// How many effects `key` (as the upstream saw it) had.
    pub(crate) fn effects(&self, key: &str) -> u32 {
        lock(&self.script).effects.get(key).copied().unwrap_or_default()
    }

    fn take(&self, dispatch: &Dispatch) -> Step {
        let host = dispatch.target.base.host_str().unwrap_or_default().to_owned();
        let mut headers = dispatch.request.headers.clone();
        for (name, value) in &dispatch.headers.0 {
            headers.set(name, value.clone());
        }
        let seen = Seen {
            host: host.clone(),
            method: dispatch.request.method.clone(),
            headers,
            target: dispatch.request.target.clone(),
            body: dispatch.request.body.clone(),
        };
        let key = seen.key().to_owned();
        let mut script = lock(&self.script);
        script.seen.push(seen);
        let nth = script.seen.len();
        let step = script
            .steps
            .get_mut(&host)
            .and_then(VecDeque::pop_front)
            .unwrap_or_else(|| answer(201, format!("made by dispatch {nth}")));
        if script.dedupes
            && step.effect
            && let Some(first) = script.answered.get(&key)
        {
            return first.clone();
        }
        if step.effect {
            *script.effects.entry(key.clone()).or_default() += 1;
            // What it did it knows, even where nobody heard the whole answer.
            let known = match &step.what {
                What::Answer { .. } => Step { gate: None, ..step.clone() },
                What::Truncated { .. } | What::Fail { .. } => answer(201, "made once"),
            };
            script.answered.insert(key, known);
        }
        step
    }
}

impl Upstream for Scripted {
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async move {
            let _under_way = UnderWay::begin(&self.under_way);
            let step = self.take(&dispatch);
            self.pulse.beat();
            if let Some(gate) = &step.gate {
                gate.passed().await;
            }
            // Whoever comes meanwhile is seen.
            tokio::task::yield_now().await;
            step.what.sent()
        })
    }
}

impl What {
    fn sent(self) -> Sent {
        let broken = |ending, reached| Failure {
            ending,
            reached,
            error: "as the script has it".to_owned(),
            permanent: false,
            timings: Timings::default(),
        };
        match self {
            Self::Answer { status, headers, pieces, trailers } => {
                let pieces = pieces.into_iter().map(Ok).collect();
                let body = Box::new(Pieces { pieces, trailers });
                Sent::Answered(Answer { status, headers, body, note: None })
            }
            Self::Truncated { status, part } => {
                let pieces =
                    VecDeque::from([Ok(part), Err(broken(Ending::Truncated, Reached::Head))]);
                let body = Box::new(Pieces { pieces, trailers: Headers::default() });
                Sent::Answered(Answer { status, headers: Headers::default(), body, note: None })
            }
            Self::Fail { ending, reached, permanent } => {
                Sent::Failed(Failure { permanent, ..broken(ending, reached) })
            }
        }
    }
}

struct Pieces {
    pieces: VecDeque<Result<Bytes, Failure>>,
    trailers: Headers,
}

impl AnswerBody for Pieces {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(std::future::ready(self.pieces.pop_front().transpose()))
    }

    fn trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }
}

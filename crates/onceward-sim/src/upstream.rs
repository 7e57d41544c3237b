//! The upstreams of a world: what a request does there, and what comes back of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onceward::core::attempt::{Ending, Reached, Timings};
use onceward::core::exchange::Headers;
use onceward::store::{Store as _, Which};
use onceward::upstream::{Answer, AnswerBody, Dispatch, Failure, Sent, Upstream};

use crate::audit::Arrived;
use crate::life::Life;
use crate::routes::{Kind, LATE_MAX, TIMEOUT};
use crate::world::World;

/// The longest that a request or an answer is under way where nothing is wrong.
const LATENCY: Duration = Duration::from_millis(40);

/// Door 2 of one life.
pub(crate) struct SimulatedUpstream {
    world: Arc<World>,
    life: Arc<Life>,
}

/// The longest that a slow answer takes: just in time.
const SLOW: Duration = Duration::from_secs(29);

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lands,
    Unsent,
    Lost,
    AnswerLost,
    Late,
    Cut,
    Ambiguous,
    Busy,
    Refused,
}

/// An answer's body, which may break off.
struct Body {
    pieces: Vec<Bytes>,
    cut: bool,
    life: Arc<Life>,
}

impl AnswerBody for Body {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(300)).await;
            self.life.pass().await;
            match self.pieces.pop() {
                Some(piece) => Ok(Some(piece)),
                None if self.cut => Err(failure(Ending::Truncated, Reached::Head)),
                None => Ok(None),
            }
        })
    }

    fn trailers(&mut self) -> Headers {
        Headers::default()
    }
}

fn failure(ending: Ending, reached: Reached) -> Failure {
    Failure {
        ending,
        reached,
        error: format!("simulated: {}", ending.name()),
        permanent: false,
        timings: Timings::default(),
    }
}

impl SimulatedUpstream {
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>) -> Self {
        Self { world, life }
    }

    fn fate(&self) -> Fate {
        let (world, faults) = (&self.world, &self.world.plan.faults);
        let fates = [
            ("upstream unreachable", faults.unsent, Fate::Unsent),
            ("request lost", faults.lost, Fate::Lost),
            ("answer lost", faults.answer_lost, Fate::AnswerLost),
            ("request late", faults.late, Fate::Late),
            ("answer cut off", faults.cut, Fate::Cut),
            ("ambiguous answer", faults.ambiguous, Fate::Ambiguous),
            ("busy", faults.busy, Fate::Busy),
            ("refused", faults.refusal, Fate::Refused),
        ];
        let fate = fates.into_iter().find(|(name, often, _)| world.befalls(name, *often));
        fate.map_or(Fate::Lands, |(_, _, fate)| fate)
    }

    /// Somebody looks into the books, which is harmless, and may go wrong as everything may.
    async fn show_books(&self, operation: &str) -> Sent {
        let world = &self.world;
        let fate = self.fate();
        tokio::time::sleep(world.moment(LATENCY)).await;
        let effects = world.audit().effects_of(operation);
        match fate {
            Fate::Unsent => return Sent::Failed(failure(Ending::Unsent, Reached::Resolved)),
            Fate::Lost | Fate::AnswerLost | Fate::Late => {
                tokio::time::sleep(TIMEOUT).await;
                return Sent::Failed(failure(Ending::Unanswered, Reached::Sent));
            }
            Fate::Lands | Fate::Cut | Fate::Ambiguous | Fate::Busy | Fate::Refused => {}
        }
        let status = match fate {
            Fate::Ambiguous => 503,
            Fate::Busy => 429,
            _ => 200,
        };
        let bytes = Bytes::from(format!("{{\"effects\":{effects}}}"));
        let cut = fate == Fate::Cut;
        let pieces = if cut { vec![bytes.slice(..4)] } else { vec![bytes] };
        let body = Box::new(Body { pieces, cut, life: Arc::clone(&self.life) });
        Sent::Answered(Answer { status, headers: Headers::default(), body, note: None })
    }

    /// Somebody asks whether anybody is there.
    async fn probed(&self) -> Sent {
        let fate = self.fate();
        tokio::time::sleep(self.world.moment(LATENCY)).await;
        match fate {
            Fate::Unsent | Fate::Lost | Fate::Late => {
                Sent::Failed(failure(Ending::Unsent, Reached::Resolved))
            }
            _ => {
                let body =
                    Box::new(Body { pieces: Vec::new(), cut: false, life: Arc::clone(&self.life) });
                let headers = Headers::default();
                Sent::Answered(Answer { status: 200, headers, body, note: None })
            }
        }
    }

    async fn make(&self, kind: Kind, arrived: Arrived) -> Sent {
        let world = &self.world;
        let fate = self.fate();
        tokio::time::sleep(world.moment(LATENCY)).await;
        match fate {
            Fate::Unsent => return Sent::Failed(failure(Ending::Unsent, Reached::Resolved)),
            Fate::Lost => {
                tokio::time::sleep(world.moment(TIMEOUT)).await;
                return Sent::Failed(failure(Ending::Unanswered, Reached::Sent));
            }
            Fate::Late => {
                let (later, way) = (Arc::clone(world), world.moment(LATE_MAX));
                world.audit().takes_off(&arrived.operation);
                tokio::spawn(async move {
                    tokio::time::sleep(TIMEOUT + way).await;
                    later.audit().lands(kind, &arrived, later.now());
                    later.audit().landed(&arrived.operation);
                });
                tokio::time::sleep(TIMEOUT).await;
                return Sent::Failed(failure(Ending::Unanswered, Reached::Sent));
            }
            _ => {}
        }
        let executes = match fate {
            Fate::Ambiguous => world.below(2) == 0,
            Fate::Busy | Fate::Refused => false,
            _ => true,
        };
        let answer = if executes {
            if kind == Kind::Keyed && world.befalls("request doubled", world.plan.faults.doubled) {
                world.audit().lands(kind, &arrived, world.now());
            }
            Some(world.audit().lands(kind, &arrived, world.now()))
        } else {
            world.audit().arrives(&arrived);
            if fate == Fate::Ambiguous {
                world.audit().may_have_done(&arrived);
            }
            // What dedupes answers with what it did before, whatever it would say now.
            world.audit().known(kind, &arrived, world.now())
        };
        let slow = world.befalls("slow", world.plan.faults.slow);
        let way = if slow { SLOW } else { LATENCY };
        tokio::time::sleep(world.moment(way)).await;
        let (status, body) = match (fate, answer) {
            (Fate::AnswerLost, _) => {
                return Sent::Failed(failure(Ending::Unanswered, Reached::Sent));
            }
            (Fate::Ambiguous, _) => {
                ([500, 502, 503, 504][world.below(4) as usize], "oh".to_owned())
            }
            (Fate::Busy, _) => (429, "later".to_owned()),
            (Fate::Refused, None) => (422, format!("no, {}", arrived.operation)),
            (_, answer) => (201, answer.unwrap_or_default()),
        };
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        if status == 429 {
            headers.set("retry-after", (1 + world.below(30)).to_string());
        }
        let bytes = Bytes::from(body);
        let half = bytes.len() / 2;
        let cut = fate == Fate::Cut;
        let pieces = if cut {
            vec![bytes.slice(..half)]
        } else {
            vec![bytes.slice(half..), bytes.slice(..half)]
        };
        let body = Box::new(Body { pieces, cut, life: Arc::clone(&self.life) });
        if [201, 422, 429].contains(&status) && !cut {
            world.audit().answers_clearly(&arrived);
        }
        Sent::Answered(Answer { status, headers, body, note: None })
    }
}

impl Upstream for SimulatedUpstream {
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async move {
            self.life.pass().await;
            if let Some(operation) = dispatch.request.target.strip_prefix("/books/") {
                let shown = self.show_books(operation).await;
                self.life.pass().await;
                return shown;
            }
            if dispatch.request.method == "HEAD" {
                return self.probed().await;
            }
            let kind = dispatch.target.base.host_str().unwrap_or_default();
            let kind = Kind::of(kind.trim_end_matches(".sim"));
            let arrived = Arrived::of(&dispatch);
            let known = match arrived.operation.parse() {
                Ok(id) => self.world.store.find(Which::Id(id)).await.ok().flatten(),
                Err(_) => None,
            };
            self.world.audit().leaves(&arrived, known.as_ref());
            self.world.audit().takes_off(&arrived.operation);
            let sent = self.make(kind, arrived.clone()).await;
            self.world.audit().landed(&arrived.operation);
            self.life.pass().await;
            let is_unsent =
                matches!(&sent, Sent::Failed(failure) if failure.ending == Ending::Unsent);
            self.world.audit().returned(&arrived, is_unsent);
            sent
        })
    }
}

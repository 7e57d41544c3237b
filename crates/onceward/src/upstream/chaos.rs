//! Faults on purpose, for a staging configuration: a door before the door, which refuses, loses,
//! resets, cuts off or delays as a seed says, and says each time that it did.
//!
//! Only attempts of recorded operations meet faults, so that each stands in the ledger beside its
//! attempt; what passes without a record, such as a probe that reads, is left alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::Headers;
use onceward_core::operation::Operation;

use super::{Answer, AnswerBody, Dispatch, Download, Failure, Passage, Sent, Upstream};
use crate::clock::Clock;
use crate::observe::{Fact, Observer};
use crate::secret::sha256;

/// What is done to a route's attempts, in percent of them; together at most 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chaos {
    /// The same seed treats the same key's attempts in the same way.
    pub seed: u64,
    /// Answered 503; nothing is sent.
    pub refuse: u8,
    /// Sent, and the answer is lost.
    pub drop: u8,
    /// Not sent, and seen as a connection that was reset after it was: nobody can know.
    pub reset: u8,
    /// Sent, and the answer breaks off.
    pub truncate: u8,
    /// Sent late, by `delay_for`.
    pub delay: u8,
    /// How late.
    pub delay_for: Duration,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered 503; nothing is sent.
    Refuse,
    /// Sent, and the answer is lost.
    Drop,
    /// Not sent, and seen as a connection that was reset after it was.
    Reset,
    /// Sent, and the answer breaks off.
    Truncate,
    /// Sent late.
    Delay,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Refuse, Self::Drop, Self::Reset, Self::Truncate, Self::Delay];

    /// The word for it in configuration, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Truncate => "truncate",
            Self::Delay => "delay",
        }
    }

    /// What a person reads beside the attempt.
    fn told(self) -> &'static str {
        match self {
            Self::Refuse => "chaos: refused with 503, and nothing was sent",
            Self::Drop => "chaos: sent, and its answer was dropped",
            Self::Reset => "chaos: reset as if it had been sent; nothing was",
            Self::Truncate => "chaos: its answer was cut off",
            Self::Delay => "chaos: sent late",
        }
    }
}

impl Chaos {
    /// The percentages, in the order of [`Fault::ALL`].
    pub fn percentages(&self) -> [(Fault, u8); 5] {
        let of = [self.refuse, self.drop, self.reset, self.truncate, self.delay];
        std::array::from_fn(|at| (Fault::ALL[at], of[at]))
    }

    /// What this attempt meets.
    pub fn fault(&self, key: &str, attempt: u32) -> Option<Fault> {
        let drawn = sha256(format!("{}/{attempt}/{key}", self.seed).as_bytes());
        // Two bytes of a digest are even enough for percentages.
        let mut left = u16::from_be_bytes([drawn[0], drawn[1]]) % 100;
        for (fault, percent) in self.percentages() {
            match left.checked_sub(u16::from(percent)) {
                None => return Some(fault),
                Some(rest) => left = rest,
            }
        }
        None
    }
}

/// Which attempt faults are for, and which.
#[derive(Debug, Clone)]
pub struct Doom {
    /// What its route says.
    pub chaos: Arc<Chaos>,
    /// The operation, with its attempt under way.
    pub operation: Operation,
}

/// The door with faults before it.
pub struct Faulty {
    door: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Faulty {
    /// Puts faults before `door`; each is told to `observer`.
    pub fn new(
        door: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { door, clock, observer }
    }

    async fn send_under(&self, fault: Fault, doom: &Doom, dispatch: Dispatch) -> Sent {
        let failed = |ending, reached| {
            self.observer.observe(Fact::Injected(&doom.operation, fault));
            Sent::Failed(failure(fault, ending, reached))
        };
        match fault {
            Fault::Refuse => {
                self.observer.observe(Fact::Injected(&doom.operation, fault));
                let mut headers = Headers::default();
                headers.set("content-type", "text/plain");
                let body = Box::new(Said::new(Bytes::from_static(fault.told().as_bytes())));
                Sent::Answered(Answer {
                    status: 503,
                    headers,
                    body,
                    note: Some(fault.told().to_owned()),
                })
            }
            Fault::Reset => failed(Ending::Unanswered, Reached::Sent),
            Fault::Drop => match self.door.send(dispatch).await {
                Sent::Answered(_) => failed(Ending::Unanswered, Reached::Sent),
                Sent::Failed(own) => Sent::Failed(own),
            },
            Fault::Truncate => match self.door.send(dispatch).await {
                Sent::Answered(answer) => {
                    let body = Box::new(Cut {
                        body: answer.body,
                        over: false,
                        operation: doom.operation.clone(),
                        observer: Arc::clone(&self.observer),
                    });
                    Sent::Answered(Answer { body, ..answer })
                }
                Sent::Failed(own) => Sent::Failed(own),
            },
            Fault::Delay => {
                self.observer.observe(Fact::Injected(&doom.operation, fault));
                let late = doom.chaos.delay_for.min(dispatch.target.timeouts.total);
                self.clock.sleep_until(self.clock.now().plus(late)).await;
                match self.door.send(dispatch).await {
                    Sent::Answered(answer) => {
                        Sent::Answered(Answer { note: Some(fault.told().to_owned()), ..answer })
                    }
                    Sent::Failed(own) => {
                        let error = format!("{}; {}", fault.told(), own.error);
                        Sent::Failed(Failure { error, ..own })
                    }
                }
            }
        }
    }
}

impl Upstream for Faulty {
    fn send(&self, mut dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        let doom = dispatch.doom.take().and_then(|doom| {
            let key = doom.operation.key.as_str();
            Some((doom.chaos.fault(key, doom.operation.attempts_made())?, doom))
        });
        match doom {
            None => self.door.send(dispatch),
            Some((fault, doom)) => {
                Box::pin(async move { self.send_under(fault, &doom, dispatch).await })
            }
        }
    }

    fn pass<'a>(
        &'a self,
        passage: &'a Passage,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Download>, Failure>> + Send + 'a>> {
        self.door.pass(passage)
    }
}

fn failure(fault: Fault, ending: Ending, reached: Reached) -> Failure {
    let timings = Timings::default();
    Failure { ending, reached, error: fault.told().to_owned(), permanent: false, timings }
}

/// A body in one piece.
pub(super) struct Said {
    text: Option<Bytes>,
    timings: Timings,
}

impl Said {
    /// One that nobody waited for.
    pub(super) fn new(text: Bytes) -> Self {
        Self { text: Some(text), timings: Timings::default() }
    }

    /// One that an attempt with these brought.
    pub(super) fn after(timings: Timings, text: Bytes) -> Self {
        Self { text: Some(text), timings }
    }
}

impl AnswerBody for Said {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(self.text.take())))
    }

    fn trailers(&mut self) -> Headers {
        Headers::default()
    }

    fn timings(&self) -> Timings {
        self.timings
    }
}

/// A body that breaks off within its first piece. An empty one has nothing to break off.
struct Cut {
    body: Box<dyn AnswerBody>,
    over: bool,
    operation: Operation,
    observer: Arc<dyn Observer>,
}

impl AnswerBody for Cut {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, Failure>> + Send + '_>> {
        Box::pin(async move {
            if self.over {
                return Err(failure(Fault::Truncate, Ending::Truncated, Reached::Head));
            }
            let piece = self.body.chunk().await?;
            Ok(piece.map(|piece| {
                self.over = true;
                self.observer.observe(Fact::Injected(&self.operation, Fault::Truncate));
                piece.slice(..piece.len() / 2)
            }))
        })
    }

    fn trailers(&mut self) -> Headers {
        self.body.trailers()
    }

    fn timings(&self) -> Timings {
        self.body.timings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Chaos = Chaos {
        seed: 7,
        refuse: 20,
        drop: 20,
        reset: 20,
        truncate: 20,
        delay: 20,
        delay_for: Duration::ZERO,
    };

    #[test]
    fn a_seed_gives_a_key_the_same_faults_and_another_seed_others() {
        let plan = |chaos: &Chaos| (1..50).map(|n| chaos.fault("order-1", n)).collect::<Vec<_>>();
        assert_eq!(plan(&EVERY), plan(&EVERY));
        assert_ne!(plan(&EVERY), plan(&Chaos { seed: 8, ..EVERY }));
    }

    #[test]
    fn faults_come_as_often_as_their_percentage_says() {
        let half = Chaos { refuse: 0, drop: 50, reset: 0, truncate: 0, delay: 0, ..EVERY };
        let drops = (0..10_000).filter(|n| half.fault(&format!("k{n}"), 1).is_some()).count();
        assert!((4_700..5_300).contains(&drops), "{drops}");
        let none = Chaos { drop: 0, ..half };
        assert!((0..1000).all(|n| none.fault(&format!("k{n}"), 1).is_none()));
        assert!((0..1000).all(|n| EVERY.fault(&format!("k{n}"), 1).is_some()), "100 is all");
    }
}

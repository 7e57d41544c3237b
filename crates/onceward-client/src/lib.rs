//! Calls that are safe to retry: the client of Onceward, a gateway that you run.
//!
//! A request with a key is on disk before it is sent, its outcome is stored, and whoever asks again
//! with that key gets the same answer. The client makes the key once, repeats a call only where the
//! gateway says that this helps, and turns refusals into errors that say what is left to do.
//!
//! ```
//! use onceward_client::{Call, Error, Onceward};
//! # use onceward_client::testing::FakeGateway;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let onceward = Onceward::new()?;
//! # let onceward = Onceward::builder().transport(FakeGateway::new()).build()?;
//! let order = || Call::to("demo/orders?script=503,drop,201").key("order-1").body("one");
//! let first = onceward.send(order()).await?;
//! assert_eq!((first.status().as_u16(), first.attempts(), first.replayed()), (201, Some(3), false));
//!
//! let second = onceward.send(order()).await?;
//! assert!(second.replayed() && second.body() == first.body());
//!
//! // A new intent needs a new key: what differs is refused, and nothing is sent.
//! let other = onceward.send(order().body("two")).await;
//! assert!(matches!(other, Err(Error::KeyMismatch(_))));
//! # Ok(())
//! # }
//! ```
//!
//! | | |
//! | --- | --- |
//! | [`Onceward::send`] | a call, and the upstream's answer |
//! | [`Onceward::accept`], [`Onceward::wait`] | a call that nobody waits for, and what became of it |
//! | [`Claims::once`] | an effect of one's own, run once for its key |
//! | [`Claims::layer`] | handlers that run once for a key |
//! | [`verify_webhook`] | a webhook, over the bytes as they came |
//! | [`testing::FakeGateway`] | a gateway in memory, for tests |
//!
//! What is local to a process, the crate `onceward` has: layers for handlers, and retries and a breaker
//! for clients, without a gateway.

mod answer;
mod call;
mod claims;
mod client;
mod error;
mod keys;
pub mod layer;
mod meaning;
mod retry;
pub mod shapes;
pub mod testing;
pub mod transport;
mod units;
pub mod webhook;
mod words;

pub use answer::Answer;
pub use call::{Call, InvalidCall};
pub use claims::{Begin, Claims, Held, NotDone};
pub use client::{Accepted, Builder, Onceward};
pub use error::{BoxError, Error, Refusal};
pub use keys::{KEY_BYTES_MAX, new_key};
pub use retry::RetryPolicy;
pub use shapes::{
    Advice, Answer as KeptAnswer, Claim, Effects, OperationStory, Problem, ProblemCode, State,
};
pub use transport::{ANSWER_BYTES_MAX, HttpTransport, Transport};
pub use webhook::{Scheme, Verified, VerifyOptions, WebhookError, verify_webhook};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

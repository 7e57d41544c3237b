//! Every post lands, once: a durable ledger and an engine that make HTTP side effects safe to
//! retry. The gateway `onceward` is built of it.
//!
//! In the order in which a call meets them: [`receive`](Call), remember, deliver, settle, replay;
//! [`Engine`] puts them in order. Three doors lead out of it and no more: [`store`], [`upstream`]
//! and [`clock`]. What decides is in [`core`].

pub use onceward_core as core;

pub mod clock;
pub mod observe;
pub mod route;
pub mod sabotage;
pub mod secret;
pub mod store;
pub mod upstream;
pub mod wire;

mod audit;
mod bulk;
mod call;
mod callback;
mod deliver;
mod delivered;
mod dispatch;
mod engine;
mod gates;
mod judgement;
mod pass;
mod pause;
mod people;
mod probe;
mod receive;
mod recover;
mod refusal;
mod remember;
mod replay;
mod resend;
mod settle;
mod sweep;
mod waiters;

pub use audit::{Note, NoteQuery, Notes};
pub use bulk::{Bulk, BulkDeed, BulkOrder, BulkPlan, BulkStanding};
pub use call::{Arrival, Call, CallOptions, Received};
pub use callback::Teller;
pub use engine::{Answer, Answered, Engine, Parts};
pub use gates::{Bar, Standing};
pub use pause::Pause;
pub use people::{Person, Resolution};
pub use refusal::Refusal;
pub use resend::Edit;

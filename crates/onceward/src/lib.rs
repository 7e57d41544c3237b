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

mod advise;
mod alias;
mod approval;
mod audit;
mod bulk;
mod call;
mod callback;
mod deliver;
mod delivered;
mod dispatch;
mod doubts;
mod engine;
mod gates;
mod identity;
mod judgement;
mod keys;
mod listed;
mod looking;
mod lookup;
mod order;
mod pass;
mod pause;
mod people;
mod probe;
mod receive;
mod reconcile;
mod recover;
mod refusal;
mod remember;
mod replay;
mod resend;
mod settle;
mod suspects;
mod sweep;
mod waiters;

pub use approval::Wanted;
pub use audit::{Note, NoteQuery, Notes};
pub use bulk::{Bulk, BulkDeed, BulkOrder, BulkPlan, BulkStanding};
pub use call::{Arrival, Aside, Call, CallOptions, Passing, Received};
pub use callback::Teller;
pub use engine::{Answer, Answered, Engine, Parts};
pub use gates::{Bar, Standing};
pub use keys::{Longer, Revoked};
pub use listed::{Evidence, Sifted};
pub use looking::Tally;
pub use lookup::WHO as LOOKUP;
pub use order::InLine;
pub use pause::Pause;
pub use people::{Person, Resolution};
pub use reconcile::Report;
pub use refusal::Refusal;
pub use resend::Edit;

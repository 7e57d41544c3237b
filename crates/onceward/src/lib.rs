//! **Every post lands, once.** Callers repeat themselves: a timeout, a retry, a second click. This
//! crate makes that harmless. What comes with an `Idempotency-Key` is on disk before it is done, its
//! outcome is kept, and whoever asks again with that key gets the same bytes. What nobody can know,
//! after a crash in the middle, is called *in doubt* and never done again by itself.
//!
//! It is what the gateway `onceward` is built of; here it is for a service of one's own.
//!
//! # Two minutes
//!
//! A handler of axum, or of anything that is a tower service, gets the contract by a layer:
//!
//! ```
//! use axum::{Router, body::Body, http::Request, routing::post};
//! use onceward::Onceward;
//! use tower::ServiceExt;
//! # use http_body_util::BodyExt;
//! # async fn bytes(response: axum::response::Response) -> bytes::Bytes {
//! #     response.into_body().collect().await.unwrap().to_bytes()
//! # }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("ledger.db");
//! // The ledger: a file of this process, or `postgres` for several, or `memory` to try it out.
//! let once = Onceward::sqlite(&path).await?;
//!
//! // This charges a card: a second run would be a second charge.
//! let charge = async || format!("charge {}", std::process::id());
//! let app: Router = Router::new().route("/charges", post(charge)).layer(once.layer("charges"));
//!
//! let ask = || {
//!     Request::post("/charges").header("idempotency-key", "order-1").body(Body::from("100 EUR"))
//! };
//! let first = app.clone().oneshot(ask()?).await?;
//! let again = app.clone().oneshot(ask()?).await?;
//! assert_eq!(first.headers()["idempotent-replayed"], "false");
//! assert_eq!(again.headers()["idempotent-replayed"], "true");
//! assert_eq!(bytes(first).await, bytes(again).await);
//!
//! // The same key for another charge is refused: somebody mixed up two orders.
//! let other = Request::post("/charges").header("idempotency-key", "order-1");
//! let refused = app.oneshot(other.body(Body::from("999 EUR"))?).await?;
//! assert_eq!(refused.status(), 409);
//!
//! once.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! What the layer can be told is at [`layer`]: who asks (keys of different callers are unrelated), what
//! a second run would do, whether a key is wanted.
//!
//! # Which ledger
//!
//! | | where | for |
//! | --- | --- | --- |
//! | [`Onceward::sqlite`] | a folder of this process: a journal, and SQLite as its index | one process; no database to run |
//! | [`Onceward::postgres`] | a PostgreSQL that processes share | several instances of a service behind one address |
//! | [`Onceward::memory`] | this process's memory | tests |
//! | [`Onceward::on`] | any [`Store`](store::Store), yours too | the suite `store::contract` says whether it is one |
//!
//! # The other way round
//!
//! [`client`] has the layers for calls that go *out*: retries that never risk a second effect, and a
//! breaker. What has to arrive although the process dies goes through the gateway.
//!
//! # Inside
//!
//! In the order in which a call meets them: [`receive`](Call), remember, deliver, settle, replay;
//! [`Engine`] puts them in order. Three doors lead out of it and no more: [`store`], [`upstream`]
//! and [`clock`]. What decides is in [`core`]. Whoever builds an edge of their own hands [`Call`]s to
//! [`Engine::call`]; refusals are in one table ([`problem`]).
//!
//! # Features
//!
//! - `contract`: the suite that every store must pass, `store::contract`.
//!
//! Examples, one question each, are in the crate's folder `examples`.

pub use onceward_core as core;

pub mod auth;
pub mod client;
pub mod clock;
pub mod edge;
pub mod layer;
pub mod ledger_keys;
pub mod mail;
pub mod master_key;
pub mod observe;
mod pieces;
pub mod problem;
pub mod relay;
pub mod route;
pub mod sabotage;
mod seal;
pub mod secret;
pub mod sql;
pub mod store;
pub mod tally;
pub mod upstream;
pub mod webhook;
pub mod wire;

mod advise;
mod agenda;
mod alarm;
mod alias;
mod approval;
mod audit;
mod bulk;
mod call;
mod callback;
mod claim;
mod deliver;
mod delivered;
mod detached;
mod dispatch;
mod doubt;
mod embedded;
mod engine;
mod erase;
mod event;
mod gates;
mod identity;
mod judgement;
mod keys;
mod once;
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
mod saga;
mod setting;
mod settle;
mod subscription;
mod suspects;
mod sweep;
mod tenants;
mod waiters;

pub use approval::Wanted;
pub use audit::{
    Break, Digest, Head, NotAHead, Note, NoteQuery, Notes, Place, Verified, verify as verify_audit,
    verify_lines as verify_audit_lines,
};
pub use bulk::{Bulk, BulkDeed, BulkOrder, BulkOutcomes, BulkPlan, BulkStanding};
pub use call::{Arrival, Aside, Call, CallOptions, Handler, Passing, Received};
pub use callback::Teller;
pub use claim::{Beginning, Begun, ClaimKey, Ended, GivenBack};
pub use doubt::{Evidence, Heard, LOOKUP, Named, Says, Sifted, Tally, Testimony};
pub use embedded::{Onceward, Opening, StartError};
pub use engine::{Answer, Answered, Engine, Parts};
pub use erase::{Erased, Erasure, Whose};
pub use event::{EVENT_SCOPE, Publication, Published};
pub use gates::{Bar, Probed, Standing};
pub use keys::{Longer, Revoked};
pub use once::{OnError, Once, OnceError, once};
pub use order::InLine;
pub use pause::Pause;
pub use people::{Person, Resolution};
pub use pieces::Pieces;
pub use reconcile::Report;
pub use refusal::Refusal;
pub use resend::Edit;
pub use saga::{DEFINITION_BYTES_MAX, Kept, NewSaga, OpenSagas, Saga, SagaDeed, Started};
pub use subscription::{
    Destination, EventRules, Missed, OF_TENANT_MAX, SIGNING_MAX, SUBSCRIPTIONS_MAX, SignatureNames,
    Signing, Subscription, WISH_BYTES_MAX, Wish, name_of_route,
    route_name as route_of_subscription,
};
pub use tenants::{OTHERS, TenantLimits, TenantRules};

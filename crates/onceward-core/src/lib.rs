//! The pure core of Onceward: what a key, an operation and an attempt are, and every decision
//! about them. No clock, no randomness, no I/O; time is an argument. Use the crate `onceward`,
//! which re-exports this one.
//!
//! In reading order:
//! [`key`], [`pattern`], [`key_template`], [`key_age`] and [`fingerprint`] say what "the same
//! request" is; [`exchange`] is what the ledger keeps of the wire; [`policy`] is what a route says;
//! [`upstream_key`] is where its upstream takes a key; [`operation`] has the one function from state
//! to state; [`admission`] decides on arrival; [`lease`] says who may attempt; [`claim`] decides
//! where somebody else's handler does; [`mod@line`] says whose turn it is among those about the same;
//! [`attempt`], [`hint`], [`verdict`] and [`backoff`] decide after an attempt; [`breaker`] and
//! [`rate`] say what an upstream is spared; [`lookup`] (by [`condition`] and [`path_template`]) says
//! what is learnt of a doubt, [`reconcile`] what a provider lists otherwise, and [`hours`] when
//! accepted work may be sent; [`retry`] is what a client asks whose calls no ledger remembers;
//! [`advice`] says what a route's window and retries should be; [`redact`] what people see of a body;
//! [`event`] says what is published, who wants it and how a receiver does; [`risk`] what sending again by hand could do; [`ids`] what an answer made; [`trace`] where it stands
//! among the spans of others.
//!
//! Invariants held here: an illegal transition is an error and changes nothing; a fence only
//! grows; an attempt that may have been executed is never followed by another on a
//! non-idempotent operation; a mismatch is decided before the state is looked at.

pub mod admission;
pub mod advice;
pub mod attempt;
pub mod backoff;
pub mod breaker;
pub mod claim;
pub mod condition;
pub mod event;
pub mod exchange;
pub mod fingerprint;
pub mod hex;
pub mod hint;
pub mod hours;
pub mod id;
pub mod ids;
pub mod key;
pub mod key_age;
pub mod key_template;
pub mod lease;
pub mod line;
pub mod lookup;
pub mod operation;
pub mod path_template;
pub mod pattern;
pub mod policy;
pub mod rate;
pub mod reconcile;
pub mod redact;
pub mod retry;
pub mod risk;
pub mod time;
pub mod trace;
pub mod upstream_key;
pub mod verdict;

//! A contract test of any HTTP API that claims idempotency, from outside.
//!
//! In the order of a run: what a request of a case is (`ask`), the cases as scripts of requests
//! (`case`), who sends them (`caller`), what came back (`heard`), how effects are counted
//! (`oracle`), the control without which no count means anything (`control`), and the run of all
//! cases (`run`). Judging knows no network: a case is held against checks (`judge`), whose weight
//! a profile gives (`profile`). What is printed comes last (`report`, `table`, `junit`, `curl`, and `plan`
//! before anything is sent).

pub(crate) mod ask;
pub(crate) mod caller;
pub(crate) mod case;
pub(crate) mod control;
pub(crate) mod curl;
pub(crate) mod heard;
pub(crate) mod judge;
pub(crate) mod junit;
pub(crate) mod oracle;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod table;

//! What the library promises, one file for each behaviour.

mod ledger;

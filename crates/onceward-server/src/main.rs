//! The gateway: every post lands, once. The command line is in `cli.rs`.

mod access;
mod alerts;
mod body;
mod changes;
mod classify;
mod cli;
mod config;
mod connections;
mod contract;
mod cors;
mod demo;
mod event_loops;
mod exit;
mod front;
mod gateway;
#[cfg(test)]
mod generated;
mod given_key;
mod guard;
mod head;
mod lately;
mod ledger;
mod listeners;
mod listening;
mod mail;
mod node;
mod oidc;
mod openapi;
mod operator;
mod outbox;
mod page;
mod passed;
mod problem;
mod rekey;
mod saved;
mod serve;
mod shape;
mod shell;
mod source;
mod supervisor;
mod telemetry;
mod tls;
mod traffic;
mod units;
mod verify;
mod view;
mod waiting;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}

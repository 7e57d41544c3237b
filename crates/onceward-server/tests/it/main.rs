//! What the binary promises, one file for each behaviour.

mod access;
mod cli;
mod config;
mod restore;
mod signals;
mod world;

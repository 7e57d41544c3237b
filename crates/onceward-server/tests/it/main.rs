//! The binary, as those who use it meet it: one file for each behaviour.

mod access;
mod browser_world;
mod cli;
mod config;
mod page;
mod restore;
mod signals;
mod world;

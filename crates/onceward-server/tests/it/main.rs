//! The binary, as those who use it meet it: one file for each behaviour.

mod access;
mod backlog;
mod browser_world;
mod cli;
mod config;
mod crash_kill;
mod crash_points;
mod crash_world;
mod fault_disk;
mod fault_wire;
mod migrate_store;
mod page;
mod postgres;
mod restore;
mod signals;
mod world;

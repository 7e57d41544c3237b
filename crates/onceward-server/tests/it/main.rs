//! The binary, as those who use it meet it: one file for each behaviour.

mod access;
mod backlog;
mod browser_world;
mod chaos;
mod chaos_route;
mod cli;
mod config;
mod crash_kill;
mod crash_points;
mod crash_world;
mod fault_disk;
mod fault_wire;
mod limits;
mod model;
mod page;
mod restore;
mod signals;
mod verify;
mod verify_world;
mod wire_bomb;
mod wire_head;
mod wire_http2;
mod wire_strict;
mod wire_table;
mod world;

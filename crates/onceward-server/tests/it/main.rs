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
mod nodes_failover;
mod nodes_kill;
mod nodes_load;
mod nodes_lost_reply;
mod nodes_server;
mod nodes_server_away;
mod nodes_together;
mod nodes_world;
mod page;
mod restore;
mod signals;
mod world;

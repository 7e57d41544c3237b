//! The binary, as those who use it meet it: one file for each behaviour.

mod access;
mod backlog;
mod browser_world;
mod check_ledger;
mod cli;
mod config;
mod crash_backup;
mod crash_golden;
mod crash_kill;
mod crash_load;
mod crash_points;
mod crash_power;
mod crash_world;
mod fault_clock;
mod fault_cut;
mod fault_disk;
mod fault_files;
mod fault_flap;
mod fault_points;
mod fault_stop;
mod fault_wire;
mod ledger_fixture;
mod page;
mod restore;
mod signals;
mod world;

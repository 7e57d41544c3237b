//! What the binary promises, one file for each behaviour.

mod auditor;
mod backlog;
mod caller;
mod crash_check;
mod crash_kill;
mod crash_points;
mod crash_world;
mod fault_disk;
mod fault_wire;

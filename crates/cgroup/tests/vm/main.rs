//! What the kernel makes of the cgroups: on Linux with cgroup v2 at `/sys/fs/cgroup`, as root, with BusyBox' tools.
//!
//! `just test-vm` runs these in a virtual machine. Elsewhere they are ignored: they change the machine's cgroups.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can not go on has failed")]

mod cpu;
mod memory;
mod node;
mod processes;
mod tree;

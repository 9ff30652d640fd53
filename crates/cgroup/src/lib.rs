//! The pods' control groups: the kubelet's `kubepods` tree on cgroup v2, which limits, measures and kills.
//!
//! ```text
//! <mount>/<root>/kubepods/pod<uid>/<container>              Guaranteed
//! <mount>/<root>/kubepods/burstable/pod<uid>/<container>    Burstable
//! <mount>/<root>/kubepods/besteffort/pod<uid>/<container>   BestEffort
//! ```
//!
//! [`Tree::open`] makes the upper part or says why this machine cannot have it, [`Tree::pod`] and [`Pod::container`] make the
//! rest; each may be called again at any time and finds what is there. What can be done with one cgroup is in [`Group`].
//!
//! Nothing here starts a task or keeps state: the kernel's tree is the state. All calls are system calls that end at once,
//! but for `remove`, which waits for the processes that it kills: call that where blocking is allowed.
//!
//! Read `tree.rs`, then `group.rs`. `limits.rs` and `stats.rs` are pure; `top.rs` is the only file that opens anything.

mod controllers;
mod error;
mod group;
mod limits;
mod pod;
mod stats;
mod top;
mod tree;

pub use error::Error;
pub use group::Group;
pub use limits::Limits;
pub use pod::{Container, Pod, Qos};
pub use stats::Stats;
pub use tree::Tree;

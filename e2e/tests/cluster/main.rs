//! The built agent on a real cluster: what an operator, a developer and the cluster's controllers see of it.
//!
//! Each test has a node and a namespace of its own. `e2e/just test-e2e` starts the cluster; `cargo test` alone starts
//! one too, which then ends with the test program.

#![expect(clippy::indexing_slicing, reason = "the tests change JSON that they made themselves")]

mod archives;
mod asked;
mod certificates;
mod claims;
mod config;
mod crash;
mod credentials;
mod drain;
mod expired;
mod faults;
mod guests;
mod harness;
mod http;
mod image;
mod image_commands;
mod last_status;
mod logind;
mod metrics;
mod mounted;
mod network;
mod node;
mod outage;
mod packagings;
mod pod;
mod pressure;
mod probe;
mod proxied;
mod proxy;
mod reasons;
mod recreated;
mod resize;
mod restart;
mod said;
mod scale;
mod shutdown;
mod statics;
mod stop;
mod storage;
mod tools;
mod trouble;
mod volume_faults;
mod workload;

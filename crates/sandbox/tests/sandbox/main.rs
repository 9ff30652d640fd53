//! The built sandbox, driven as the agent drives it, with real guests.
//!
//! `nodule-compile` is taken from the environment variable `NODULE_COMPILE`, or from beside the sandbox; the probe is
//! built from `e2e/guests`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

mod agent;
mod concurrent;
mod config;
mod dns;
mod ends;
mod files;
mod guests;
#[path = "../http/mod.rs"]
mod http;
mod logs;
mod memory;
mod names;
mod net;
mod setup;
mod start;
mod world;
mod zygote;

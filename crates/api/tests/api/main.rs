//! The server as its clients see it: real sockets, real TLS, and a small API server behind it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can not go on has failed"
)]

mod access;
mod api_server;
mod certificates;
mod client;
mod health;
mod logs;
mod metrics;
mod served;
mod tls;

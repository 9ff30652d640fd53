//! The node's HTTPS API, which the API server, `kubectl` and monitoring call: the kubelet's port 10250.
//!
//! [`Server`] answers over TLS, and only to those whom it knows and who may: [`Config`] says how that is
//! decided. [`HealthServer`] answers `/healthz` over plain HTTP on the node itself.
//!
//! Each server is one task, the one that polls `run`; it holds a task for each connection, and all of them end
//! within a second of its stop. A request is part of its connection's task: when the client goes, what is done
//! for it is dropped.
//!
//! Read `server.rs` (listening), `connection.rs` (one client), `guard.rs` (who may), then what is served:
//! `logs.rs`, `pods.rs`, `metrics.rs`, `health.rs`. `tls.rs` loads and reloads certificates; `authentication.rs` and
//! `authorization.rs` ask the API server (`review.rs`) and remember its answers for a while.

mod authentication;
mod authorization;
mod cache;
mod connection;
mod guard;
mod health;
mod listener;
mod logs;
mod metrics;
mod node;
mod pods;
mod review;
mod server;
mod tls;

pub use authorization::Authorization;
pub use health::{Health, HealthServer};
pub use metrics::Metrics;
pub use node::Node;
pub use server::{Config, Error, Server};
pub use tls::{Pem, Tls, TlsError};

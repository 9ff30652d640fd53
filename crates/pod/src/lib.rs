//! Pods: from what the API server binds to this node to processes that run, and back to the status that it is told.
//!
//! [`Pods::new`] makes a handle for those who look on and a [`Runner`] that does the work. The runner is one task: it
//! hears what its [`Sources`] want, which are the API server, static pods and orders by hand, and has one worker task for
//! each UID. A worker alone changes its pod's record, which is on disk
//! before what it says is acted on; it has a publisher task that brings the status to the API server, and for each image
//! and each sandbox a task that waits for it. Pods outlive all of these.
//!
//! It knows nothing of the Node object, of HTTP, or of what is inside an image or a sandbox.
//!
//! Read `source.rs` (where pods come from), `runner.rs` (one worker each), `worker.rs` (a pod's life), `notice.rs` (what it hears),
//! `sync.rs` (what it takes to run: `fetch.rs` with `pulls.rs` and `pull.rs`, `configure.rs`, `launch.rs`), `attend.rs` (its containers' processes), `sandbox.rs`
//! (one process), `find.rs` (one that an earlier agent began), `zygote.rs` (who forks it), `ending.rs`, in this order; beside
//! them `tell.rs`, `publish.rs` and `mirror.rs` (what the API server is told), `recall.rs` (what an earlier agent left),
//! `statics.rs` (pods of the node's own), `admit.rs` (whether the node takes a pod on), `failure.rs` (why it ends one), `rerun.rs` (all containers anew), `ephemeral.rs`,
//! `epilogue.rs` (a container's last words), `storage.rs` (what a pod may use of the disk), `groups.rs` (its cgroups) and
//! `links.rs` (its logs, for collectors), `probe/` and `hook/` a container's health. `evict/` ends pods when the node runs short, `shutdown.rs` when it is shut down. What decides is pure and apart: `admission/`, `order.rs`, `restart.rs`, `env.rs`,
//! `network.rs`, `settings.rs`, `user.rs`, `resources.rs`, `status.rs`, `phase.rs`, `container_status.rs`, `condition.rs`.

mod admission;
mod admit;
mod attend;
mod clean;
mod clock;
mod cluster;
mod condition;
mod configure;
mod container_status;
mod conversation;
mod correlate;
mod crash;
mod credentials;
mod ending;
mod env;
mod envfile;
mod ephemeral;
mod epilogue;
mod epitaph;
mod etc;
mod events;
mod evict;
mod failure;
mod fetch;
mod field;
mod find;
mod groups;
mod hook;
mod host;
mod image_metrics;
mod in_use;
mod launch;
mod layers;
mod left;
mod links;
mod lost;
mod metrics;
mod mirror;
mod needs;
mod network;
mod notice;
mod objects;
mod order;
mod orphans;
mod phase;
mod pods;
mod probe;
mod progress;
mod publish;
mod pull;
mod pulls;
mod quantity;
mod recall;
mod record;
mod renew;
mod rerun;
mod resize;
mod resolv;
mod resources;
mod restart;
mod run;
mod runner;
mod sandbox;
#[cfg(test)]
mod sequences;
mod service;
mod serving;
mod settings;
mod shutdown;
mod sink;
mod source;
mod statics;
mod status;
mod storage;
mod sync;
mod tasks;
mod tell;
mod teller;
mod user;
mod view;
mod views;
mod volumes;
mod want;
mod words;
mod worker;
mod zygote;

pub use evict::{Resource, Starved};
pub use host::{Cgroups, Config};
pub use in_use::{InUseError, images_in_use};
pub use metrics::Metrics;
pub use network::Network;
pub use nodule_sandbox_proto::{Block, NoBlock};
pub use pods::{Error, Inputs, Pods};
pub use runner::Runner;
pub use shutdown::ShutdownGroup;
pub use source::{Clients, Order, Sources, Static};
pub use view::{Instance, Log, LogError};
pub use zygote::Start;

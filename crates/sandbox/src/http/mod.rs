//! HTTP, in both directions.
//!
//! A program that exports `wasi:http/incoming-handler` of WASI 0.2, or `wasi:http/handler` of 0.3, is served: requests come
//! over [`connection`]s, wait at the [`gate`] for their turn, and are answered by an instance of the program
//! ([`instance`]), a new one for each unless more is allowed. All of it is one thread; a guest that does not yield is
//! interrupted by the [`ticker`] so that the others go on, and its request is ended when its [`pace`] says so.
//!
//! Any component may ask other servers: [`client`].
//!
//! Nothing here wakes the process while there is no request, but for connections that are closed for their idleness.

mod body;
pub(crate) mod client;
mod connection;
mod engine;
mod gate;
mod instance;
mod lease;
mod listener;
mod pace;
mod serve;
mod service;
mod site;
mod tell;
mod ticker;

pub(crate) use serve::{Stop, serve};
pub(crate) use service::Service;
pub(crate) use ticker::Interest;

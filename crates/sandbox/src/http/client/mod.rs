//! Outgoing requests: `wasi:http/outgoing-handler` of WASI 0.2 and `wasi:http/client` of 0.3.
//!
//! One [`Client`] is shared by all instances of a container. Connections are HTTP/1.1, made by [`dial`] and [`tls`], and
//! used again ([`pool`]) by whichever instance asks the same server next: nothing of a request stays on one.

mod answer;
mod dial;
mod hooks;
mod pool;
mod send;
mod tls;

pub(crate) use hooks::Hooks;
pub(crate) use send::Client;
pub(crate) use tls::roots;

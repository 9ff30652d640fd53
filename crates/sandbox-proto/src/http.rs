//! How a program that answers HTTP requests is served.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where and how a [`Kind::Proxy`](crate::Kind::Proxy) is served. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where it listens. Port 0 is any that is free, for tests.
    pub address: SocketAddr,
    /// How many requests an instance answers before it is thrown away: 1 makes every request's instance a new one, so
    /// that no request sees anything of another.
    #[serde(default = "defaults::instance_reuse")]
    pub instance_reuse: u32,
    /// How many requests are with guests at once.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: u32,
    /// How many more wait for their turn; one more than that is answered with 503.
    #[serde(default = "defaults::queue")]
    pub queue: u32,
    /// From the end of a request's head to the head of its answer, the wait in the queue included, and then between any
    /// two pieces of either body.
    #[serde(default = "defaults::request_timeout")]
    pub request_timeout: u64,
    /// From the end of a request's head to the last byte of its answer.
    #[serde(default = "defaults::stream_timeout")]
    pub stream_timeout: u64,
    /// How long a connection is kept without a request, and how long a request's head may take.
    #[serde(default = "defaults::keep_alive")]
    pub keep_alive: u64,
    /// Whether every request is told in the container's log.
    #[serde(default)]
    pub access_log: bool,
}

impl Http {
    /// Served at `address`, and otherwise as is usual.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            instance_reuse: defaults::instance_reuse(),
            concurrency: defaults::concurrency(),
            queue: defaults::queue(),
            request_timeout: defaults::request_timeout(),
            stream_timeout: defaults::stream_timeout(),
            keep_alive: defaults::keep_alive(),
            access_log: false,
        }
    }
}

/// A certificate authority, or several, that outgoing HTTPS believes beside the usual ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Roots {
    /// Certificates in PEM (RFC 7468).
    Pem(String),
    /// A file of such, read before the process leaves the host's files.
    File(PathBuf),
}

mod defaults {
    pub(super) fn instance_reuse() -> u32 {
        1
    }

    /// One core runs them all, so more at once help only while they wait for others; each is an instance with memory of
    /// its own, so more cost. A hundred that wait 100 ms each are a thousand requests a second.
    pub(super) fn concurrency() -> u32 {
        100
    }

    /// As many again: what waits longer than that is better told to come back.
    pub(super) fn queue() -> u32 {
        100
    }

    pub(super) fn request_timeout() -> u64 {
        30_000
    }

    /// Long enough for a large file over a slow line, short enough that nobody holds an instance for ever.
    pub(super) fn stream_timeout() -> u64 {
        600_000
    }

    /// What common servers have; shorter than what load balancers keep their side open would break requests.
    pub(super) fn keep_alive() -> u64 {
        75_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual() {
        let http: Http = serde_json::from_str(r#"{"address":"127.0.0.1:80"}"#).unwrap();
        assert_eq!(http, Http::new(([127, 0, 0, 1], 80).into()));
        assert!(serde_json::from_str::<Http>(r#"{"address":"127.0.0.1:80","x":1}"#).is_err());
    }
}

//! Probes: whether a container has started, is alive, may be sent requests; asked of it from outside, as the kubelet does.
//!
//! `action.rs` turns a probe of the spec into what is asked; `http.rs`, `tcp.rs` and `grpc.rs` ask it, once; `tally.rs`
//! counts the answers, `metrics.rs` for those who look on; `prober.rs` is the task that asks again and again, one for each container and kind of probe;
//! `health.rs` is what is known by that, and kept; `watch.rs` is where the pod's worker starts such tasks and hears them.

pub(crate) mod action;
mod exec;
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod http;
mod metrics;
mod prober;
pub(crate) mod tally;
pub(crate) mod tcp;
mod tls;
mod watch;

use k8s_openapi::api::core::v1::{Container, Probe};

pub(crate) use exec::exec;
pub(crate) use metrics::{Metrics, Series};
pub(crate) use prober::Prober;
pub(crate) use tls::PLAIN;
pub(crate) use watch::Probes;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Whether the container has started: until then the other two are not asked.
    Startup,
    /// Whether it is alive: if not, it is stopped and runs again.
    Liveness,
    /// Whether it may be sent requests.
    Readiness,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As it begins a message.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// As it stands in a sentence.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// The container's probe of this kind.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What one try of a probe came to; an error instead is the prober's own, which says nothing of the container.
pub(crate) type Attempt = Result<Outcome, String>;

/// What a container is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// A success about which something is to be said.
    Warning(String),
    Failure(String),
}

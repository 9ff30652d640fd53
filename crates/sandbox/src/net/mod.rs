//! The guest's sockets and names: the one place that says which addresses a guest may use, and what a name means.
//!
//! A guest has no packets, only the sockets and names that it asks the host for; the process's own network is what it
//! sees. WASI 0.1 has no way to ask, so this is for components.
//!
//! Read next: [`policy`] for addresses, [`resolver`] for names with its [`client`] and [`message`]s, [`lookup`] for how
//! WASI asks for them.

mod client;
pub(crate) mod lookup;
mod message;
mod order;
pub(crate) mod policy;
pub(crate) mod resolver;

use std::sync::Arc;

use nodule_sandbox_proto::Net;
use wasmtime_wasi::WasiCtxBuilder;

use policy::Policy;
use resolver::Resolver;

/// What all instances of a guest share. Made before the process is confined; nothing is asked before there is a runtime.
pub(crate) struct Network {
    pub(crate) policy: Policy,
    pub(crate) resolver: Resolver,
}

impl Network {
    /// As the agent says.
    pub(crate) fn new(net: &Net) -> Arc<Self> {
        let (policy, resolver) = (Policy::new(&net.deny), Resolver::new(&net.names));
        Arc::new(Self { policy, resolver })
    }

    /// Gives an instance TCP, UDP and the look-up of names, which is [`lookup`]'s.
    pub(crate) fn give(self: &Arc<Self>, wasi: &mut WasiCtxBuilder) {
        let network = Arc::clone(self);
        wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true).socket_addr_check(
            move |address, purpose| {
                Box::pin(std::future::ready(network.policy.allows(address, purpose)))
            },
        );
    }
}

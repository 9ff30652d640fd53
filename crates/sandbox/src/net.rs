//! The guest's sockets: the one place that says which addresses a guest may use.
//!
//! A guest has no packets, only the sockets and names that it asks the host for; the process's own network is what it
//! sees. WASI 0.1 has no way to ask, so this is for components.

use std::net::SocketAddr;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

/// Gives the guest TCP, UDP and name lookups.
pub(crate) fn give(wasi: &mut WasiCtxBuilder) {
    wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true).socket_addr_check(
        |address, purpose| Box::pin(std::future::ready(allows(address, purpose))),
    );
}

/// Whether the guest may use `address` so. The pod is in the node's network, as with Kubernetes' `hostNetwork`, and
/// what is allowed there is for the node's own packet filter to say.
fn allows(_address: SocketAddr, purpose: SocketAddrUse) -> bool {
    match purpose {
        SocketAddrUse::TcpBind
        | SocketAddrUse::TcpListen
        | SocketAddrUse::TcpAccept
        | SocketAddrUse::TcpConnect
        | SocketAddrUse::UdpBind
        | SocketAddrUse::UdpSend
        | SocketAddrUse::UdpReceive => true,
    }
}

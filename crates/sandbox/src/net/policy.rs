//! Which addresses a guest may use.
//!
//! The pod is in the node's network, as with Kubernetes' `hostNetwork`. What is denied here is what the agent names; all
//! else is for the node's own packet filter to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nodule_sandbox_proto::Block;
use wasmtime_wasi::sockets::SocketAddrUse;

/// What is denied. Names are no way around it: a guest connects to an address, wherever it has it from.
pub(crate) struct Policy {
    deny: Vec<Block>,
}

impl Policy {
    /// All but what is in `deny`.
    pub(crate) fn new(deny: &[Block]) -> Self {
        Self { deny: deny.to_vec() }
    }

    /// Whether the guest may use `address` so. Whoever connects for the guest asks this, with
    /// [`TcpConnect`](SocketAddrUse::TcpConnect), of every address that it connects to.
    pub(crate) fn allows(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        let (local, wildcard) = (reached(address), address.ip().to_canonical().is_unspecified());
        match purpose {
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => !self.denies(local),
            // A port that the kernel chooses is nobody else's.
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => {
                address.port() == 0
                    || !if wildcard { self.denies_port(local) } else { self.denies(local) }
            }
            // Who comes to the guest is not denied: a port of its own is what it offers.
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
        }
    }

    fn denies(&self, address: SocketAddr) -> bool {
        self.deny.iter().any(|block| block.holds(address))
    }

    /// Whether this very port is denied. To bind a port of all addresses takes it of each; that some address is denied as
    /// a whole must not keep a guest from serving on the others.
    fn denies_port(&self, address: SocketAddr) -> bool {
        self.deny.iter().any(|block| block.ports().is_some() && block.holds(address))
    }
}

/// Where `address` leads: for Linux the unspecified address is the machine itself.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = address.ip().to_canonical();
    let local = match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(if ip.is_unspecified() { local } else { ip }, address.port())
}

#[cfg(test)]
mod tests {
    use SocketAddrUse::{TcpAccept, TcpBind, TcpConnect, TcpListen, UdpBind, UdpReceive, UdpSend};

    use super::*;

    fn allows(deny: &[&str], address: &str, purpose: SocketAddrUse) -> bool {
        let deny: Vec<Block> = deny.iter().map(|block| block.parse().unwrap()).collect();
        Policy::new(&deny).allows(address.parse().unwrap(), purpose)
    }

    #[test]
    fn what_is_denied_is_neither_connected_nor_sent_to() {
        let deny =
            ["169.254.169.254/32", "fd00:ec2::254/128", "127.0.0.0/8:10248", "::1/128:10248"];
        for address in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:a9fe:a9fe]:443",
            "[fd00:ec2::254]:80",
            "127.9.9.9:10248",
            "0.0.0.0:10248",
            "[::]:10248",
            "[::ffff:0.0.0.0]:10248",
        ] {
            for purpose in [TcpConnect, UdpSend] {
                assert!(!allows(&deny, address, purpose), "{address} {purpose:?}");
                assert!(allows(&[], address, purpose), "{address} {purpose:?}");
            }
        }
        for address in ["169.254.169.253:53", "127.0.0.1:10247", "[::1]:80", "[fd00:ec2::253]:53"] {
            for purpose in [TcpConnect, UdpSend] {
                assert!(allows(&deny, address, purpose), "{address} {purpose:?}");
            }
        }
    }

    #[test]
    fn what_is_denied_is_not_bound() {
        let deny = ["127.0.0.0/8:10248-10259", "10.0.0.0/8"];
        for (address, allowed) in [
            ("127.0.0.1:10250", false),
            ("0.0.0.0:10250", false),
            ("[::ffff:127.0.0.1]:10250", false),
            ("10.0.0.1:8080", false),
            ("10.0.0.1:0", true),
            ("127.0.0.1:8080", true),
            ("0.0.0.0:8080", true),
            ("0.0.0.0:0", true),
            ("[::]:10250", true),
        ] {
            for purpose in [TcpBind, TcpListen, UdpBind] {
                assert_eq!(allows(&deny, address, purpose), allowed, "{address} {purpose:?}");
            }
        }
        assert!(allows(&["127.0.0.0/8"], "0.0.0.0:8080", TcpBind));
    }

    #[test]
    fn who_comes_is_let_in() {
        for purpose in [TcpAccept, UdpReceive] {
            assert!(allows(&["0.0.0.0/0"], "10.0.0.1:1", purpose));
        }
    }
}

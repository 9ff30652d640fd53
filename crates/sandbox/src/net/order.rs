//! In which order a name's addresses are tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Any port would do, as nothing is sent to it.
const PORT: u16 = 9;

/// Puts those first that the node has a route to, and of these IPv6 first: the rules of RFC 6724 that matter to one who
/// has no say in where its packets leave from. Doubles are left out.
pub(super) fn order(addresses: &mut Vec<IpAddr>) {
    let mut seen = Vec::with_capacity(addresses.len());
    addresses.retain(|address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    });
    addresses.sort_by_cached_key(|address| (!has_route(*address), address.is_ipv4()));
}

/// Whether the kernel finds a way: to connect a UDP socket sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect((address, PORT)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_route_comes_first_and_nothing_twice() {
        // Multicast of a scope that is none has no route; loopback always has.
        let mut addresses: Vec<IpAddr> = ["ff00::1", "127.0.0.2", "127.0.0.1", "127.0.0.2"]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let routed = has_route(addresses[0]);
        order(&mut addresses);
        let four = ["127.0.0.2", "127.0.0.1"];
        let expected = if routed {
            [&["ff00::1"][..], &four].concat()
        } else {
            [&four[..], &["ff00::1"]].concat()
        };
        let found: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(found, expected);
    }
}

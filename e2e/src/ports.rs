//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};
use rand::RngExt as _;

/// Below the range from which Linux takes the ports of outgoing connections (`ip_local_port_range`, 32768 and up):
/// a server that is stopped and started again finds its port free.
const RANGE: std::ops::Range<u16> = 20_000..32_768;

/// A port that nobody listens on now.
pub fn free() -> Result<u16> {
    let mut random = rand::rng();
    for _ in 0..1000 {
        let port = random.random_range(RANGE);
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end)
}

/// This port if nobody listens on it, else another.
pub fn preferably(port: u16) -> Result<u16> {
    if is_free(port) { Ok(port) } else { free() }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

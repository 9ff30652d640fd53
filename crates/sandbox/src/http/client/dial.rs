//! From a name and a port to a TCP connection: the one place where outgoing HTTP meets the network.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi_http::Error;

use crate::net::Network;
use crate::net::resolver::LookupError;

/// Connects to the first address of `host` that answers, of those that the guest may reach by wasi:sockets.
pub(super) async fn dial(network: &Network, host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = network.resolver.lookup(host).await.map_err(|error| unknown(&error))?;
    let mut problem = None;
    for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
        if !network.policy.allows(address, SocketAddrUse::TcpConnect) {
            problem.get_or_insert(Error::DestinationIpProhibited);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Requests are written whole: waiting for more only delays them.
                _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => problem = Some(refused(&error)),
        }
    }
    Err(problem.unwrap_or(Error::DestinationNotFound))
}

fn unknown(error: &LookupError) -> Error {
    Error::DnsError { rcode: Some(error.to_string()), info_code: None }
}

fn refused(error: &io::Error) -> Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no word of its own")]
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Error::DestinationIpUnroutable
        }
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        _ => Error::DestinationUnavailable,
    }
}

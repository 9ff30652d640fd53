//! A TCP connection: that it can be made is all that is asked.

use std::io::ErrorKind;

use tokio::net::TcpStream;

use super::{Attempt, Outcome};

/// Why there is no connection, in the kubelet's words.
const WORDS: [(ErrorKind, &str); 4] = [
    (ErrorKind::ConnectionRefused, "connect: connection refused"),
    (ErrorKind::HostUnreachable, "connect: no route to host"),
    (ErrorKind::NetworkUnreachable, "connect: network is unreachable"),
    (ErrorKind::TimedOut, "i/o timeout"),
];

/// Connects, and closes the connection at once. The caller bounds the time.
pub(crate) async fn probe(host: &str, port: u16) -> Attempt {
    Ok(match dial(host, port).await {
        Ok(_) => Outcome::Success,
        Err(said) => Outcome::Failure(said),
    })
}

/// A connection to a name or an address; or why there is none, in the kubelet's words.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let error = match TcpStream::connect((plain, port)).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let cause = WORDS.iter().find(|(kind, _)| *kind == error.kind());
    let cause = cause.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned());
    Err(format!("dial tcp {}: {cause}", authority(plain, port)))
}

/// What a connection that took too long is said to have failed with.
pub(crate) fn timed_out(host: &str, port: u16) -> String {
    format!("dial tcp {}: i/o timeout", authority(host, port))
}

/// A host and a port as one word.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whoever_accepts_is_there_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody accepts, and the kernel does: as for the kubelet, that is enough.
        assert_eq!(probe("127.0.0.1", port).await, Ok(Outcome::Success));
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(probe("127.0.0.1", port).await, Ok(Outcome::Failure(refused)));
    }

    #[test]
    fn an_address_and_its_port_are_one_word() {
        assert_eq!(timed_out("::1", 80), "dial tcp [::1]:80: i/o timeout");
        assert_eq!(authority("app", 80), "app:80");
    }
}

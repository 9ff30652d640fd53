//! Where requests come in: bound while the process may still bind any port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::error::StartError;

/// A bound socket.
pub(super) struct Listener(TcpListener);

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        bind().map(Self).map_err(|source| StartError::Listen { address, source })
    }

    /// The same, in the runtime.
    pub(super) fn open(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.0)
    }
}

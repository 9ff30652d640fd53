use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{future, io};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long to wait when a connection can not be taken, mostly because no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// A peer that has been silent for so long is asked whether it is there: one that follows a silent log may
/// have gone without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A socket that takes so many connections and no more; those that come then wait until another ends.
pub(crate) struct Listener {
    tcp: TcpListener,
    free: Arc<Semaphore>,
}

/// A connection's place among those that are allowed. Dropped with it.
pub(crate) type Place = OwnedSemaphorePermit;

impl Listener {
    pub(crate) async fn bind(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Listener { tcp, free: Arc::new(Semaphore::new(connections)) })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves each connection in a task of its own until `stop`, and returns when all have ended. `serve` ends
    /// soon after `stop` by itself.
    pub(crate) async fn run<F>(
        self,
        stop: CancellationToken,
        mut serve: impl FnMut(TcpStream, Place) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                (stream, place) = self.accept() => {
                    connections.spawn(serve(stream, place));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self);
        connections.join_all().await;
    }

    /// Cancel-safe: a connection is taken in the last await.
    async fn accept(&self) -> (TcpStream, Place) {
        let Ok(place) = Arc::clone(&self.free).acquire_owned().await else {
            return future::pending().await;
        };
        loop {
            match self.tcp.accept().await {
                Ok((stream, _)) => {
                    prepare(&stream);
                    return (stream, place);
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "connection not taken");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Without these the connection works too.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_comes_when_it_is_full_waits_until_another_goes() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1).await.unwrap();
        let address = listener.address().unwrap();
        let (taken, mut seen) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let serve = |mut stream: TcpStream, place| {
            taken.send(stream.peer_addr().unwrap()).unwrap();
            async move {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                drop(place);
            }
        };
        let clients = async {
            let first = TcpStream::connect(address).await.unwrap();
            assert_eq!(seen.recv().await, first.local_addr().ok());
            let second = TcpStream::connect(address).await.unwrap();
            tokio::task::yield_now().await;
            assert!(seen.try_recv().is_err());
            drop(first);
            assert_eq!(seen.recv().await, second.local_addr().ok());
            stop.cancel();
        };
        tokio::join!(listener.run(stop.clone(), serve), clients);
    }
}

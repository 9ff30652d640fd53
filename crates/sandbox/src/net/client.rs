//! Asks name servers: by UDP, and by TCP what does not fit into a datagram.
//!
//! Each question has a socket of its own, whose port the kernel chooses and which is connected to the server, so that
//! answers of anybody else never arrive.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nodule_sandbox_proto::Names;
use simple_dns::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Answer, Family, Query};

/// What a datagram can hold that nobody has agreed to make larger is 512 bytes; some servers send more.
const DATAGRAM: usize = 4096;

/// Who is asked, and how often.
pub(super) struct Client {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    attempts: u8,
    rotate: bool,
    asked: AtomicUsize,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// A server answered that it cannot say.
    Server,
    /// No server answered.
    Silence,
    /// There is no server.
    Nobody,
}

impl Client {
    pub(super) fn new(names: &Names) -> Self {
        Self {
            servers: names.servers.clone(),
            timeout: Duration::from_secs(names.timeout.max(1).into()),
            attempts: names.attempts.max(1),
            rotate: names.rotate,
            asked: AtomicUsize::new(0),
        }
    }

    /// The addresses of exactly this name, which are none if there is no such name. One family's are enough.
    pub(super) async fn addresses(&self, name: &Name<'_>) -> Result<Vec<IpAddr>, Failure> {
        let turn = if self.rotate { self.asked.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let (six, four) =
            tokio::join!(self.ask(name, Family::V6, turn), self.ask(name, Family::V4, turn));
        match (six, four) {
            (Ok(six), Ok(four)) => Ok([six, four].concat()),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }

    /// Asks one server after the other, beginning with the one whose `turn` it is.
    async fn ask(
        &self,
        name: &Name<'_>,
        family: Family,
        turn: usize,
    ) -> Result<Vec<IpAddr>, Failure> {
        let mut failure = if self.servers.is_empty() { Failure::Nobody } else { Failure::Silence };
        let count = self.servers.len();
        let rounds = usize::from(self.attempts) * count;
        for server in self.servers.iter().cycle().skip(turn % count.max(1)).take(rounds) {
            let answer = timeout(self.timeout, Box::pin(exchange(*server, name, family))).await;
            match answer {
                Ok(Ok(Answer::Addresses(addresses))) => return Ok(addresses),
                Ok(Ok(Answer::Failed | Answer::Truncated)) => failure = Failure::Server,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(failure)
    }
}

async fn exchange(server: SocketAddr, name: &Name<'_>, family: Family) -> io::Result<Answer> {
    let query = Query::new(name.clone(), family).map_err(io::Error::other)?;
    let bytes = query.bytes().ok_or(io::ErrorKind::InvalidInput)?;
    match by_udp(server, &query, &bytes).await? {
        Answer::Truncated => by_tcp(server, &query, &bytes).await,
        answer @ (Answer::Addresses(_) | Answer::Failed) => Ok(answer),
    }
}

async fn by_udp(server: SocketAddr, query: &Query<'_>, bytes: &[u8]) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this question is somebody's guess: the right one may still come.
        if let Some(answer) = buffer.get(..length).and_then(|bytes| query.answer(bytes)) {
            return Ok(answer);
        }
    }
}

/// RFC 7766: a length of two bytes, and as much.
async fn by_tcp(server: SocketAddr, query: &Query<'_>, bytes: &[u8]) -> io::Result<Answer> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    query.answer(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

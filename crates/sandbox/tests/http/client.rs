//! A client that does what it is told, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing that is waited for takes so long; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that speaks HTTP/1.1.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// False if the server does not listen any more.
    pub(super) fn try_send(&mut self, text: &str) -> bool {
        self.stream.get_mut().write_all(text.as_bytes()).is_ok()
    }

    pub(super) fn try_chunk(&mut self, text: &str) -> bool {
        self.try_send(&format!("{:x}\r\n{text}\r\n", text.len()))
    }

    pub(super) fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// A request without a body.
    pub(super) fn get(&mut self, target: &str) {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }

    /// The head of a request whose body follows in [`chunk`](Self::chunk)s.
    pub(super) fn post(&mut self, target: &str) {
        self.send(&format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
    }

    /// A piece of a body; an empty one ends it.
    pub(super) fn chunk(&mut self, text: &str) {
        self.send(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// A whole answer.
    pub(super) fn answer(&mut self) -> Answer {
        let (status, fields) = self.head();
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let body = match length {
            Some((_, length)) => {
                let mut body = vec![0; length.parse().unwrap()];
                self.stream.read_exact(&mut body).unwrap();
                String::from_utf8(body).unwrap()
            }
            None => {
                let pieces = std::iter::from_fn(|| self.piece());
                pieces.take_while(|piece| !piece.is_empty()).collect()
            }
        };
        Answer { status, fields, body }
    }

    /// The head of an answer.
    pub(super) fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let first = self.line().expect("an answer");
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let fields = std::iter::from_fn(|| self.line().filter(|line| !line.is_empty()));
        let fields = fields.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        (status, fields.collect())
    }

    /// The next piece of a body in chunks; an empty one ends it. None if it breaks off.
    pub(super) fn piece(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut piece = vec![0; length + 2];
        self.stream.read_exact(&mut piece).ok()?;
        piece.truncate(length);
        Some(String::from_utf8(piece).unwrap())
    }

    /// Whether the server ends the connection without another word.
    pub(super) fn is_ended(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// All that comes until the server ends the connection.
    pub(super) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end, too.
        _ = self.stream.read_to_end(&mut rest);
        String::from_utf8(rest).unwrap()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

//! Clients that ask one server as fast as it answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;

/// Connections, each of which has one request under way.
pub(super) const CLIENTS: usize = 16;
/// What is asked.
const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n";
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients saw together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) requests: f64,
    pub(super) seconds: f64,
}

/// Asks for this long. Blocks.
pub(super) fn ask(server: SocketAddr, time: Duration) -> Result<Load> {
    let begin = Timestamp::now();
    let until = begin.saturating_add(time)?;
    let answered = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(move || client(server, until))).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .sum::<Result<u32>>()
    })?;
    let seconds = Timestamp::now().duration_since(begin).as_secs_f64();
    Ok(Load { requests: f64::from(answered), seconds })
}

/// How many answers one client had.
fn client(server: SocketAddr, until: Timestamp) -> Result<u32> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    let mut answered = 0;
    while Timestamp::now() < until {
        stream.get_mut().write_all(REQUEST)?;
        answer(&mut stream)?;
        answered += 1;
    }
    Ok(answered)
}

/// Reads an answer to its end.
fn answer(stream: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    let mut length = None;
    stream.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200 "), "the server answers {line:?}");
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the server hangs up");
        line.make_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = Some(value.trim().parse().context("its length")?);
        }
    }
    match length {
        Some(length) => skip(stream, length),
        None => chunks(stream),
    }
}

fn chunks(stream: &mut impl BufRead) -> Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).context("a chunk's length")?;
        skip(stream, length + 2)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn skip(stream: &mut impl BufRead, length: u64) -> Result<()> {
    let skipped = std::io::copy(&mut stream.take(length), &mut std::io::sink())?;
    ensure!(skipped == length, "the server hangs up");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let head = "HTTP/1.1 200 OK\r\n";
        let two = format!(
            "{head}Content-Length: 5\r\n\r\nhello{head}transfer-encoding: chunked\r\n\r\n\
             2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nrest"
        );
        let mut stream = two.as_bytes();
        answer(&mut stream).unwrap();
        answer(&mut stream).unwrap();
        assert_eq!(stream, b"rest");
        assert!(answer(&mut &b"HTTP/1.1 503 Busy\r\n\r\n"[..]).is_err());
        assert!(answer(&mut &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"[..]).is_err());
    }
}

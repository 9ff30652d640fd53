//! Sockets. In the WASI 0.1 build each of these fails: there are none.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use crate::Failure;

/// Answers `line` with `probe: line`, to one peer after the other.
pub fn listen(port: u16) -> Result<(), Failure> {
    let failure = |error| format!("listen {port}: {error}");
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(failure)?;
    println!("listening on {}", listener.local_addr().map_err(failure)?);
    loop {
        let (stream, peer) = listener.accept().map_err(failure)?;
        if let Err(error) = answer(&stream) {
            eprintln!("probe: {peer}: {error}");
        }
    }
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = format!("probe: {}\n", line?);
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

pub fn connect(address: &str, text: &str) -> Result<(), Failure> {
    let failure = |error| format!("connect {address}: {error}");
    let mut stream = TcpStream::connect(address).map_err(failure)?;
    stream.write_all(format!("{text}\n").as_bytes()).map_err(failure)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failure)?;
    print!("{answer}");
    Ok(())
}

/// One datagram.
pub fn send(address: &str, text: &str) -> Result<(), Failure> {
    let failure = |error| format!("send {address}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failure)?;
    socket.send_to(text.as_bytes(), address).map(|_| ()).map_err(failure)
}

/// Addresses, one a line, of one name after the other.
pub fn resolve(names: &[&str]) -> Result<(), Failure> {
    for name in names {
        let failure = |error| format!("resolve {name}: {error}");
        for address in (*name, 0).to_socket_addrs().map_err(failure)? {
            println!("{}", address.ip());
        }
    }
    Ok(())
}

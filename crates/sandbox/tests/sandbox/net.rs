//! Sockets.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::TryRecvError;

use crate::guests::{component, module};
use crate::setup::{Ended, Setup};

#[test]
fn a_component_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sandbox = Setup::new(component(), &["connect", &address, "good day"]).start();
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "good day\n");
    (&stream).write_all(b"to you too\n").unwrap();
    assert_eq!(sandbox.wait().text(), ["to you too"]);
}

#[test]
fn a_component_listens() {
    let sandbox = Setup::new(component(), &["listen", "0"]).start();
    let port = loop {
        if let Some(line) = sandbox.log().first() {
            break line.text.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        }
        std::thread::yield_now();
    };
    for round in 0..2 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        writeln!(stream, "round {round}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("probe: round {round}\n"));
    }
}

fn denied(deny: &str, arguments: &[&str]) -> Ended {
    let mut setup = Setup::new(component(), arguments);
    setup.container.net.deny = vec![deny.parse().unwrap()];
    setup.run()
}

#[test]
fn what_is_denied_is_not_connected_by_address_or_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, coming) = std::sync::mpsc::channel();
    // Whoever comes is hung up on, so that its guest ends too.
    std::thread::spawn(move || listener.incoming().try_for_each(|_| came.send(())));
    let deny = format!("127.0.0.0/8:{port}");
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0", "127.1"] {
        let ended = denied(&deny, &["connect", &format!("{host}:{port}"), "x"]);
        assert_eq!(ended.exit().code, 1, "{host}");
        assert_eq!(coming.try_recv(), Err(TryRecvError::Empty), "{host}");
    }
}

#[test]
fn what_is_denied_is_not_bound() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ended = denied(&format!("127.0.0.0/8:{port}"), &["listen", &port.to_string()]);
    assert_eq!(ended.exit().code, 1);
    assert!(ended.text().concat().contains("Permission denied"), "{:?}", ended.log);
}

#[test]
fn what_is_denied_is_not_sent_to() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let ended = denied("127.0.0.1/32", &["send", &address, "x"]);
    assert_eq!(ended.exit().code, 1);
    assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let ended = denied("127.0.0.2/32", &["send", &address, "good day"]);
    assert_eq!(ended.exit().code, 0, "{:?}", ended.log);
    let mut text = [0; 8];
    socket.recv(&mut text).unwrap();
    assert_eq!(&text, b"good day");
}

#[test]
fn a_module_has_no_sockets_and_is_told_so() {
    for arguments in
        [&["listen", "0"][..], &["connect", "127.0.0.1:9", "x"], &["resolve", "localhost"]]
    {
        let ended = Setup::new(module(), arguments).run();
        assert_eq!(ended.exit().code, 1);
        assert_eq!(ended.log[0].stream, "stderr");
    }
}

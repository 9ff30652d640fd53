//! Sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::guests::{component, module};
use crate::setup::Setup;

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

#[test]
fn a_component_resolves_names() {
    let ended = Setup::new(component(), &["resolve", "localhost"]).run();
    assert!(ended.text().contains(&"127.0.0.1"), "{:?}", ended.log);
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

//! What names mean to a guest, with real name servers.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use nodule_sandbox_proto::{Host, Names};

use crate::dns::{Asked, By, Server};
use crate::guests::component;
use crate::setup::{Ended, PATIENCE, Sandbox, Setup, until};

fn names(servers: &[&Server]) -> Names {
    Names { servers: servers.iter().map(|server| server.address).collect(), ..Names::default() }
}

fn start(names: Names, wanted: &[&str]) -> Sandbox {
    let mut setup = Setup::new(component(), &[&["resolve"], wanted].concat());
    setup.container.net.names = names;
    setup.start()
}

fn resolve(names: Names, wanted: &str) -> Ended {
    start(names, &[wanted]).wait()
}

/// One name's addresses, and that no other is known.
fn only(known: &'static str, addresses: &'static [&'static str]) -> Server {
    Server::start(move |asked| {
        vec![if asked.name == known { asked.addresses(addresses) } else { asked.unknown() }]
    })
}

#[test]
fn the_hosts_file_comes_first_whatever_the_case() {
    let server = only("db.example.com", &["192.0.2.9"]);
    let host = |address: &str, name: &str| Host {
        address: address.parse::<IpAddr>().unwrap(),
        names: vec!["other".into(), name.into()],
    };
    let hosts = vec![host("192.0.2.1", "DB.example.com"), host("192.0.2.2", "db.example.com")];
    let ended = resolve(Names { hosts, ..names(&[&server]) }, "db.Example.COM.");
    assert_eq!(ended.text(), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(server.asked(), []);
}

#[test]
fn addresses_and_localhost_need_no_server() {
    for (name, addresses) in [
        ("192.0.2.7", &["192.0.2.7"][..]),
        ("2001:db8::7", &["2001:db8::7"]),
        ("localhost", &["::1", "127.0.0.1"]),
        ("db.localhost.", &["::1", "127.0.0.1"]),
    ] {
        let ended = resolve(Names::default(), name);
        let mut text = ended.text();
        text.sort_unstable();
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        assert_eq!(text, addresses, "{name}");
    }
}

#[test]
fn both_families_are_asked_for_at_once() {
    // Neither is answered before the other is asked for.
    let (gate, both) =
        (Arc::new((Mutex::new([false; 2]), Condvar::new())), ["2001:db8::1", "192.0.2.1"]);
    let server = Server::start(move |asked| {
        let (seen, changed) = &*gate;
        let mut seen = seen.lock().unwrap();
        seen[usize::from(asked.six)] = true;
        changed.notify_all();
        drop(changed.wait_while(seen, |seen| *seen != [true; 2]).unwrap());
        vec![asked.addresses(&both)]
    });
    let ended = resolve(Names { timeout: 60, ..names(&[&server]) }, "both.example.com");
    let mut found = ended.text();
    found.sort_unstable();
    assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].bytes[..2], asked[1].bytes[..2], "two questions with one number");
}

#[test]
fn what_does_not_fit_is_asked_for_by_tcp() {
    let many: Vec<_> = (1..=60).map(|last| format!("192.0.2.{last}")).collect();
    let expected = many.clone();
    let server = Server::start(move |asked| {
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        vec![match asked.by {
            By::Udp => asked.truncated(),
            By::Tcp => asked.addresses(&many),
        }]
    });
    let ended = resolve(names(&[&server]), "many.example.com");
    assert_eq!(ended.text(), expected);
    assert!(server.asked().iter().any(|asked| asked.by == By::Tcp));
}

#[test]
fn short_names_are_completed_and_what_is_unknown_is_asked_further() {
    let server = only("db.shop.svc.cluster.local", &["10.96.0.7"]);
    let search = ["ns.svc.cluster.local", "shop.svc.cluster.local", "never"].map(Into::into).into();
    let ended = resolve(Names { search, ndots: 5, ..names(&[&server]) }, "db");
    assert_eq!(ended.text(), ["10.96.0.7"]);
    assert_eq!(server.names(), ["db.ns.svc.cluster.local", "db.shop.svc.cluster.local"]);
}

#[test]
fn a_name_that_nobody_knows_is_an_error() {
    let server = only("db.example.com", &[]);
    for (name, search) in [("nobody.example.com", vec![]), ("nobody", vec!["lan".to_owned()])] {
        let ended = resolve(Names { search, ..names(&[&server]) }, name);
        assert_eq!(ended.exit().code, 1);
        assert!(ended.text().concat().contains(name), "{:?}", ended.log);
    }
    assert_eq!(server.names(), ["nobody.example.com", "nobody.lan", "nobody"]);
}

#[test]
fn answers_to_other_questions_are_not_believed() {
    let server = Server::start(|asked| {
        let mut other_id = asked.addresses(&["203.0.113.1"]);
        other_id[1] ^= 1;
        let other_name = asked.records(&[], |packet| {
            packet.questions[0].qname = "evil.example.com".try_into().unwrap();
        });
        let no_answer = asked.bytes.clone();
        let mut broken = asked.addresses(&["203.0.113.2"]);
        broken.truncate(broken.len() - 1);
        vec![
            other_id,
            other_name,
            no_answer,
            broken,
            b"no message".to_vec(),
            Vec::new(),
            asked.addresses(&["192.0.2.1"]),
        ]
    });
    let ended = resolve(names(&[&server]), "db.example.com");
    assert_eq!(ended.text(), ["192.0.2.1"]);
}

#[test]
fn answers_of_others_never_arrive() {
    // A stranger answers faster than the server, with all that it could have learnt: the question and its socket.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (at, sent) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(0)));
    let (server_at, count) = (Arc::clone(&at), Arc::clone(&sent));
    let server = Server::start(move |asked| {
        for port in connected_to(*server_at.wait()) {
            let forged = asked.addresses(&["203.0.113.1"]);
            stranger.send_to(&forged, SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
            *count.lock().unwrap() += 1;
        }
        vec![asked.addresses(&["192.0.2.1"])]
    });
    at.set(server.address.port()).unwrap();
    assert_eq!(resolve(names(&[&server]), "db.example.com").text(), ["192.0.2.1"]);
    assert_ne!(*sent.lock().unwrap(), 0);
}

/// The ports of the UDP sockets that are connected to a port (proc_net_udp(5)).
fn connected_to(port: u16) -> Vec<u16> {
    let table = fs::read_to_string("/proc/self/net/udp").unwrap();
    let port_of = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        Some((port_of(fields.get(1)?)?, port_of(fields.get(2)?)?))
    });
    sockets.filter(|(_, peer)| *peer == port).map(|(own, _)| own).collect()
}

#[test]
fn a_server_that_is_silent_fails_or_is_not_there_is_followed_by_the_next() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = Server::start(|_| Vec::new());
    let failing = Server::start(|asked| vec![asked.failed()]);
    let good = only("db.example.com", &["192.0.2.1"]);
    let mut names = names(&[&silent, &failing, &good]);
    names.servers.insert(0, gone);
    (names.timeout, names.attempts) = (2, 5);
    assert_eq!(resolve(names, "db.example.com").text(), ["192.0.2.1"]);
    for server in [&silent, &failing, &good] {
        assert_eq!(server.names(), ["db.example.com"]);
    }
}

#[test]
fn silent_servers_are_asked_as_often_as_configured() {
    let silent = Server::start(|_| Vec::new());
    let names = Names { timeout: 1, attempts: 3, search: vec!["lan".into()], ..names(&[&silent]) };
    let ended = resolve(names, "db");
    assert_eq!(ended.exit().code, 1);
    until("three questions of each family", || (silent.asked().len() >= 6).then_some(()));
    assert_eq!(silent.asked().len(), 6);
    assert_eq!(silent.names(), ["db.lan"], "who is silent is asked for nothing else");
}

#[test]
fn with_rotate_each_name_begins_with_another_server() {
    let answer = |asked: &Asked| vec![asked.addresses(&["192.0.2.1"])];
    let (one, two) = (Server::start(answer), Server::start(answer));
    let rotate = Names { rotate: true, ..names(&[&one, &two]) };
    start(rotate, &["a.lan", "b.lan", "c.lan"]).wait();
    assert_eq!(
        (one.names(), two.names()),
        (vec!["a.lan".into(), "c.lan".into()], vec!["b.lan".into()])
    );
}

#[test]
fn aliases_are_followed_and_what_else_is_said_is_not_believed() {
    let server = Server::start(|asked| {
        let record = |owner: &str, value: &str| (owner.to_owned(), value.to_owned());
        let records = [
            record("www.example.com", "web.example.net"),
            record("WEB.example.net", "edge.example.org"),
            record("edge.example.org", "192.0.2.1"),
            record("bank.example.com", "203.0.113.1"),
            record("loop.example.com", "loop.example.com"),
        ];
        vec![asked.records(&records, |_| {})]
    });
    assert_eq!(resolve(names(&[&server]), "www.example.com").text(), ["192.0.2.1"]);
    assert_eq!(resolve(names(&[&server]), "loop.example.com").exit().code, 1);
}

#[test]
fn one_family_is_enough() {
    let server = Server::start(|asked| {
        vec![if asked.six { asked.failed() } else { asked.addresses(&["192.0.2.1"]) }]
    });
    assert_eq!(resolve(names(&[&server]), "db.example.com").text(), ["192.0.2.1"]);
}

#[test]
fn a_look_up_takes_no_thread() {
    let (ask, asked) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (ask, wait) = (Mutex::new(ask), Mutex::new(wait));
    let server = Server::start(move |question| {
        if !question.six {
            ask.lock().unwrap().send(()).unwrap();
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        vec![question.addresses(&["192.0.2.1"])]
    });
    let sandbox = start(Names { timeout: 60, ..names(&[&server]) }, &["db.example.com"]);
    asked.recv_timeout(PATIENCE).unwrap();
    let threads = fs::read_dir(format!("/proc/{}/task", sandbox.child.id())).unwrap().count();
    go.send(()).unwrap();
    assert_eq!(threads, 2, "the guest's and the control thread");
    assert_eq!(sandbox.wait().text(), ["192.0.2.1"]);
}

#[test]
fn without_a_server_names_are_unknown() {
    let ended = resolve(Names::default(), "db.example.com");
    assert_eq!(ended.exit().code, 1);
    assert!(ended.text().concat().contains("db.example.com"), "{:?}", ended.log);
}

//! Commands of WASI 0.3.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use nodule_sandbox_proto::{Access, Cause, Names, Request, Stdin};

use crate::dns::Server;
use crate::guests::component_p3;
use crate::setup::{Ended, Setup};

fn run(arguments: &[&str]) -> Ended {
    Setup::new(component_p3(), arguments).run()
}

fn assert_end(ended: &Ended, cause: Cause, code: u8) {
    let exit = ended.exit();
    assert_eq!((exit.cause, exit.code), (cause, code), "{} {:?}", exit.message, ended.log);
}

#[test]
fn it_sees_what_it_is_given() {
    let host = tempfile::tempdir().unwrap();
    let mut setup =
        Setup::new(component_p3(), &["show"]).mount(host.path(), "/data", Access::ReadOnly);
    setup.container.env = vec![("A".into(), "1".into())];
    assert_eq!(setup.run().text(), ["arg probe", "arg show", "env A=1", "preopen /data"]);
}

#[test]
fn its_end_is_told() {
    let ended = run(&["fail"]);
    assert_end(&ended, Cause::Exited, 1);
    assert_eq!((ended.log[0].stream.as_str(), ended.text()), ("stderr", vec!["probe3: as told"]));
    assert_end(&run(&["sleep", "0"]), Cause::Exited, 0);
    for code in [0, 3, 255] {
        assert_end(&run(&["exit", &code.to_string()]), Cause::Exited, code);
    }
    let ended = run(&["trap"]);
    assert_end(&ended, Cause::Trapped, 134);
    assert!(ended.exit().message.contains("\n  0: "), "{}", ended.exit().message);
}

#[test]
fn its_memory_is_limited() {
    assert_end(&Setup::new(component_p3(), &["alloc", "8"]).memory(64).run(), Cause::Exited, 0);
    let ended = Setup::new(component_p3(), &["alloc", "100"]).memory(64).run();
    assert_end(&ended, Cause::OutOfMemory, 137);
}

#[test]
fn it_reads_and_writes_files() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("in"), "one\ntwo\n".repeat(20_000)).unwrap();
    let setup = |arguments: &[&str], access| {
        Setup::new(component_p3(), arguments).mount(host.path(), "/data", access)
    };
    let ended = setup(&["read", "in"], Access::ReadOnly).run();
    assert_eq!(ended.text(), ["one", "two"].repeat(20_000));
    assert_end(&setup(&["write", "out", "text"], Access::ReadWrite).run(), Cause::Exited, 0);
    assert_eq!(fs::read_to_string(host.path().join("out")).unwrap(), "text");
    assert_end(&setup(&["write", "out", "x"], Access::ReadOnly).run(), Cause::Exited, 1);
    assert_end(&setup(&["read", "../etc/passwd"], Access::ReadOnly).run(), Cause::Exited, 1);
}

#[test]
fn its_standard_input_ends_when_the_container_is_to_stop() {
    let sandbox = Setup::new(component_p3(), &["cat"]).stdin(Stdin::Held).start();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.started();
    agent.say(&Request::Stop);
    assert_end(&sandbox.wait(), Cause::Exited, 0);
    assert_end(&run(&["cat"]), Cause::Exited, 0);
}

#[test]
fn its_clocks_and_random_numbers_are_the_nodes() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let before = now();
    let ended = run(&["clock"]);
    let text = ended.text();
    let seen = text[0].strip_prefix("now ").unwrap().parse().unwrap();
    assert!((before..=now()).contains(&seen));
    assert_eq!(text[1], "the monotonic clock runs");
    let draw = || run(&["random", "64"]).text().concat();
    let (one, two) = (draw(), draw());
    assert_eq!(one.len(), 128);
    assert_ne!(one, two);
}

#[test]
fn it_connects_but_not_to_what_is_denied() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sandbox =
        Setup::new(component_p3(), &["connect", &address.to_string(), "good day"]).start();
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "good day\n");
    (&stream).write_all(b"to you too\n").unwrap();
    drop(stream);
    assert_eq!(sandbox.wait().text(), ["to you too"]);

    let mut setup = Setup::new(component_p3(), &["connect", &address.to_string(), "x"]);
    setup.container.net.deny = vec![format!("127.0.0.0/8:{}", address.port()).parse().unwrap()];
    let ended = setup.run();
    assert_end(&ended, Cause::Exited, 1);
    assert!(ended.text().concat().contains("AccessDenied"), "{:?}", ended.log);
}

#[test]
fn it_looks_names_up_at_the_name_server() {
    let server = Server::start(|asked| {
        vec![match asked.name.as_str() {
            "db.lan" => asked.addresses(&["192.0.2.1"]),
            "broken.lan" => asked.failed(),
            _ => asked.unknown(),
        }]
    });
    let resolve = |name: &str| {
        let mut setup = Setup::new(component_p3(), &["resolve", name]);
        setup.container.net.names =
            Names { servers: vec![server.address], attempts: 1, ..Names::default() };
        setup.run()
    };
    assert_eq!(resolve("db.lan").text(), ["192.0.2.1"]);
    for (name, error) in [
        ("nobody.lan", "NameUnresolvable"),
        ("broken.lan", "TemporaryResolverFailure"),
        ("no name", "InvalidArgument"),
    ] {
        let ended = resolve(name);
        assert!(ended.text().concat().contains(error), "{name}: {:?}", ended.log);
    }
    let ended = run(&["resolve", "db.lan"]);
    assert!(ended.text().concat().contains("PermanentResolverFailure"), "{:?}", ended.log);
}

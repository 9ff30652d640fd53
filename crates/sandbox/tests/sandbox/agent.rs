//! The agent comes, goes, and comes again.

use std::io::Write;
use std::process::{Command, Stdio};

use nodule_sandbox_proto::{Cause, Report, Request, Stdin, VERSION};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::guests::{both, module};
use crate::setup::{Agent, Sandbox, Setup, until};

/// A guest that waits for its standard input to end.
fn held() -> Sandbox {
    Setup::new(module(), &["cat"]).stdin(Stdin::Held).start()
}

#[test]
fn hello_is_answered_while_the_guest_spins() {
    for program in both() {
        let sandbox = Setup::new(program, &["spin"]).start();
        let mut first = sandbox.connect();
        assert_eq!(first.greet(), sandbox.setup.container.id);
        let started = first.started();
        assert_eq!(sandbox.setup.process().pid, sandbox.child.id());
        assert!(sandbox.setup.process().is_alive().unwrap());
        // From here on the guest never calls the host again.
        while sandbox.log().is_empty() {
            std::thread::yield_now();
        }
        let mut second = sandbox.connect();
        second.greet();
        assert_eq!(second.started(), started);
        assert_eq!(sandbox.setup.state().started().unwrap(), Some(started));
    }
}

#[test]
fn the_stop_notice_ends_a_held_standard_input() {
    for program in both() {
        let sandbox = Setup::new(program, &["cat"]).stdin(Stdin::Held).start();
        let mut agent = sandbox.connect();
        agent.greet();
        agent.started();
        agent.say(&Request::Stop);
        let exit = agent.ended();
        assert_eq!((exit.cause, exit.code), (Cause::Exited, 0));
        assert_eq!(agent.hear(), None);
        assert_eq!(sandbox.wait().exit(), &exit);
    }
}

#[test]
fn an_empty_standard_input_is_at_its_end() {
    for program in both() {
        assert_eq!(Setup::new(program, &["cat"]).run().exit().code, 0);
    }
}

#[test]
fn stopping_twice_is_stopping_once() {
    let sandbox = held();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.say(&Request::Stop);
    // The second may come when all is over already.
    _ = agent.stream.write_all(&nodule_sandbox_proto::frame::encode(&Request::Stop).unwrap());
    assert_eq!(agent.ended().code, 0);
}

#[test]
fn every_agent_hears_the_end() {
    let sandbox = held();
    let mut agents: Vec<_> = (0..3).map(|_| sandbox.connect()).collect();
    agents.iter_mut().for_each(|agent| _ = agent.greet());
    agents[1].say(&Request::Stop);
    let exits: Vec<_> = agents.iter_mut().map(Agent::ended).collect();
    assert_eq!(exits, vec![exits[0].clone(); 3]);
}

#[test]
fn the_exit_is_on_disk_before_it_is_told() {
    let sandbox = held();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.say(&Request::Stop);
    let exit = agent.ended();
    assert_eq!(sandbox.setup.state().exit().unwrap(), Some(exit));
}

#[test]
fn a_sandbox_outlives_its_agent() {
    let setup = Setup::new(module(), &["cat"]).stdin(Stdin::Held);
    setup.write();
    // An agent that starts a sandbox and is killed. A shell gives its background processes another standard input.
    let mut agent = Command::new("sh")
        .args([
            "-c",
            r#"exec 3<&0; "$0" run --state "$1" <&3 & wait"#,
            env!("CARGO_BIN_EXE_nodule-sandbox"),
        ])
        .arg(setup.folder.path())
        .stdin(setup.bind())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = Agent::connect(&setup);
    first.greet();
    let started = first.started();
    drop(first);
    agent.kill().unwrap();
    agent.wait().unwrap();

    let mut second = Agent::connect(&setup);
    second.greet();
    assert_eq!(second.started(), started);
    assert!(setup.process().is_alive().unwrap());
    second.say(&Request::Stop);
    assert_eq!(second.ended().code, 0);
}

#[test]
fn signals_that_stop_an_agent_do_not_stop_a_sandbox() {
    let sandbox = held();
    let mut agent = sandbox.connect();
    agent.greet();
    agent.started();
    let pid = sandbox.setup.process().pid.to_string();
    for signal in ["-HUP", "-INT", "-TERM", "-PIPE"] {
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
    agent.say(&Request::Stop);
    assert_eq!((agent.ended().cause, sandbox.wait().exit().code), (Cause::Exited, 0));
}

#[test]
fn an_agent_of_any_version_is_answered() {
    let sandbox = held();
    let mut agent = sandbox.connect();
    agent.say(&Request::Hello { version: 99 });
    assert!(matches!(agent.hear(), Some(Report::Hello { version: VERSION, .. })));
}

#[test]
fn a_peer_that_talks_nonsense_is_hung_up_on_and_no_other() {
    let sandbox = held();
    let mut good = sandbox.connect();
    good.greet();
    good.started();
    let mut bad = sandbox.connect();
    bad.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(bad.hear(), None);
    good.say(&Request::Stop);
    assert_eq!(good.ended().code, 0);
    let diagnostics = sandbox.wait().diagnostics;
    assert!(diagnostics.contains("over the limit"), "{diagnostics}");
}

#[test]
fn a_sandbox_without_free_descriptors_answers_when_there_are_some_again() {
    let sandbox = held();
    let mut first = sandbox.connect();
    first.greet();
    first.started();
    let pid = Pid::from_raw(sandbox.setup.process().pid.try_into().unwrap());
    let descriptors = |limit| Rlimit { current: Some(limit), maximum: Some(1024) };
    // Fewer than are open, and as many as the control thread polls for: poll(2) knows this limit too.
    prlimit(pid, Resource::Nofile, descriptors(4)).unwrap();
    let mut second = sandbox.connect();
    second.say(&Request::Hello { version: VERSION });
    let diagnostics = sandbox.setup.folder.path().join("sandbox.log");
    while !std::fs::read_to_string(&diagnostics).unwrap().contains("waits") {
        std::thread::yield_now();
    }
    prlimit(pid, Resource::Nofile, descriptors(1024)).unwrap();
    assert!(matches!(second.hear(), Some(Report::Hello { .. })));
}

#[test]
fn a_sandbox_that_is_made_to_complain_does_not_fill_the_disk() {
    let sandbox = held();
    let diagnostics = sandbox.setup.folder.path().join("sandbox.log");
    let mut longest = 0;
    let told = until("the beginning to be dropped", || {
        let mut agent = sandbox.connect();
        agent.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(agent.hear(), None);
        let text = std::fs::read_to_string(&diagnostics).unwrap();
        longest = longest.max(text.len());
        text.contains("is not kept").then_some(text)
    });
    assert!((64 << 10..80 << 10).contains(&longest), "{longest}");
    assert!(told.len() < 1 << 10, "{told}");
    let mut agent = sandbox.connect();
    agent.greet();
    agent.say(&Request::Stop);
    assert_eq!(agent.ended().code, 0);
}

//! Requests and their answers.

use nodule_sandbox_proto::Cause;

use super::site::{Plan, eventually, plan, plans};
use crate::guests::web;
use crate::setup::Setup;

#[test]
fn a_request_is_answered() {
    for plan in plans() {
        let mut site = plan.start();
        let answer = site.get("/hello");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    }
}

#[test]
fn bodies_stream_both_ways_at_once() {
    for plan in plans() {
        let mut site = plan.start();
        let mut client = site.connect();
        client.post("/echo");
        client.chunk("one");
        assert_eq!(client.head().0, 200);
        assert_eq!(client.piece().unwrap(), "one");
        client.chunk("two");
        assert_eq!(client.piece().unwrap(), "two");
        client.chunk("");
        assert_eq!(client.piece().unwrap(), "");
    }
}

#[test]
fn a_large_body_comes_whole() {
    let answer = plan().start().get("/big?3000");
    assert_eq!((answer.status, answer.body.len()), (200, 3000 << 10));
}

#[test]
fn a_connection_carries_many_requests() {
    for plan in plans() {
        let mut site = plan.start();
        let mut client = site.connect();
        for _ in 0..5 {
            client.get("/hello");
            assert_eq!(client.answer().body, "hello");
        }
    }
}

#[test]
fn every_request_gets_a_new_instance() {
    for plan in plans() {
        let mut site = plan.start();
        let counts: Vec<_> = (0..3).map(|_| site.get("/count").body).collect();
        assert_eq!(counts, ["1", "1", "1"]);
    }
}

#[test]
fn an_instance_answers_as_many_requests_as_it_may() {
    for plan in plans() {
        let mut site = plan.with(|http| http.instance_reuse = 3).start();
        let mut client = site.connect();
        let counts = (0..7).map(|_| {
            client.get("/count");
            client.answer().body
        });
        assert_eq!(counts.collect::<Vec<_>>(), ["1", "2", "3", "1", "2", "3", "1"]);
    }
}

#[test]
fn the_guest_sees_who_is_asked_and_the_fields_but_not_those_of_the_connection() {
    let mut site = plan().start();
    let mut client = site.connect();
    client.send("GET /head HTTP/1.1\r\nHost: shop:81\r\nX-A: 1\r\nKeep-Alive: 5\r\n\r\n");
    assert_eq!(client.answer().body, "Some(\"shop:81\")\nx-a: 1");
}

#[test]
fn a_guest_that_fails_is_answered_for_and_the_server_goes_on() {
    let mut site = plan().start();
    for (target, word) in
        [("/trap", "unreachable"), ("/exit", "exited with code 1"), ("/nothing", "never invoked")]
    {
        let answer = site.get(target);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (500, "Internal Server Error\n"),
            "{target}"
        );
        site.told(&[target]);
        site.told(&[word]);
    }
    assert_eq!(site.get("/hello").body, "hello");
}

#[test]
fn a_guest_of_0_3_that_fails_is_answered_for_too() {
    let [_, plan] = plans();
    let mut site = plan.start();
    assert_eq!(site.get("/trap").status, 500);
    site.told(&["/trap"]);
    site.told(&["unreachable"]);
    assert_eq!(site.get("/other").status, 500);
    site.told(&["/other", "HttpRequestUriInvalid"]);
    assert_eq!(site.get("/hello").body, "hello");
}

#[test]
fn a_trap_after_the_beginning_breaks_the_answer_off() {
    let mut site = plan().start();
    let mut client = site.connect();
    client.get("/begin-trap");
    // Much or little of it has come; the end of a body in chunks has not.
    let text = client.rest();
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    site.told(&["unreachable"]);
    assert_eq!(site.get("/hello").body, "hello");
}

#[test]
fn what_the_guest_writes_is_in_the_log_and_requests_are_if_that_is_asked_for() {
    let mut site = plan().with(|http| http.access_log = true).start();
    site.get("/say?good-day");
    assert_eq!(site.told(&["good-day"]), "good-day");
    site.told(&["nodule: GET /say?good-day HTTP/1.1 200 "]);
}

#[test]
fn a_request_without_a_host_is_none() {
    let mut site = plan().start();
    let mut client = site.connect();
    client.send("GET /hello HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().status, 400);
}

#[test]
fn a_program_needs_to_be_told_where_it_is_served() {
    let ended = Setup::new(web(), &[]).run();
    assert_eq!(ended.exit().cause, Cause::StartFailed);
    assert!(ended.exit().message.contains("no address is given"), "{}", ended.exit().message);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let mut first = plan().start();
    let address = first.address();
    let second = plan().with(|http| http.address = address);
    let Plan { mut setup, http } = second;
    setup.container.http = Some(http);
    let message = setup.run().exit().message.clone();
    assert!(message.contains(&format!("listen on {address}: Address already in use")), "{message}");
}

#[test]
fn an_idle_server_is_never_woken() {
    let mut site = plan().start();
    let mut client = site.connect();
    client.get("/hello");
    client.answer();
    let process = site.sandbox.setup.process().pid;
    // Once the instance is gone nothing stirs, though a connection is open.
    eventually(|| {
        let before = switches(process);
        for _ in 0..20_000 {
            std::thread::yield_now();
        }
        // The ticker's period passes many times meanwhile.
        let mut pause = std::process::Command::new("sleep");
        assert!(pause.arg("0.5").status().unwrap().success());
        (switches(process) == before).then_some(())
    });
}

/// How often the threads of a process went to sleep of their own.
fn switches(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let statuses = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")));
    statuses
        .map(|status| {
            let status = status.unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            line.unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

//! Requests that are too many, too long or too large.

use super::client::Client;
use super::site::{Site, eventually, plan, plans};

/// A request that is with a guest for as long as the client likes.
fn held(site: &mut Site) -> Client {
    let mut client = site.connect();
    client.post("/echo");
    client.chunk("held");
    assert_eq!((client.head().0, client.piece().unwrap().as_str()), (200, "held"));
    client
}

/// Ends it.
fn release(mut client: Client) {
    client.chunk("");
    assert_eq!(client.piece().unwrap(), "");
}

#[test]
fn more_requests_than_may_run_wait_and_more_than_may_wait_are_refused() {
    let mut site = plan().with(|http| (http.concurrency, http.queue) = (2, 1)).start();
    let running = [held(&mut site), held(&mut site)];
    let mut waiting = site.connect();
    waiting.get("/hello");
    // When the queue is full is seen only by what comes after.
    let refused = eventually(|| {
        let mut client = site.connect();
        client.send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = client.answer();
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.field("retry-after"), Some("1"));
    site.told(&["too many requests"]);
    running.into_iter().for_each(release);
    assert_eq!(waiting.answer().body, "hello");
}

#[test]
fn a_request_that_waits_too_long_is_refused() {
    let mut site = plan().with(|http| (http.concurrency, http.request_timeout) = (1, 2000)).start();
    let mut running = held(&mut site);
    let mut waiting = site.connect();
    waiting.get("/hello");
    // The running one is kept alive by what it says.
    let refused = std::thread::spawn(move || waiting.answer().status);
    while !refused.is_finished() {
        running.chunk("x");
        assert_eq!(running.piece().unwrap(), "x");
    }
    assert_eq!(refused.join().unwrap(), 503);
}

#[test]
fn a_request_that_loops_ends_at_its_time_and_the_others_are_answered_meanwhile() {
    for plan in plans() {
        let mut site = plan.with(|http| http.request_timeout = 3000).start();
        let mut looping = site.connect();
        looping.get("/spin");
        let looping = std::thread::spawn(move || looping.answer());
        let mut others = 0;
        while !looping.is_finished() {
            assert_eq!(site.get("/hello").body, "hello");
            others += 1;
        }
        let answer = looping.join().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (504, "Gateway Timeout\n"));
        assert!(others > 1, "nothing else was answered");
        site.told(&["/spin", "no answer within"]);
        assert_eq!(site.get("/hello").body, "hello");
    }
}

#[test]
fn a_loop_after_the_beginning_breaks_the_answer_off() {
    let mut site = plan().with(|http| (http.concurrency, http.request_timeout) = (1, 2000)).start();
    let mut client = site.connect();
    client.get("/begin-spin");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.piece().unwrap(), "begun");
    assert_eq!(client.piece(), None);
    site.serves();
}

#[test]
fn an_answer_may_take_long_but_not_for_ever() {
    let mut site =
        plan().with(|http| (http.request_timeout, http.stream_timeout) = (60_000, 2000)).start();
    let mut client = held(&mut site);
    let mut pieces = 0;
    // Every piece is a sign of life, and still it ends.
    while client.try_chunk("x") && client.piece().is_some() {
        pieces += 1;
    }
    assert!(pieces > 0);
}

#[test]
fn all_instances_share_the_memory_of_the_container() {
    let mut plan = plan();
    plan.setup = plan.setup.memory(64);
    let mut site = plan.start();
    assert_eq!(site.get("/alloc?40").body, "40 MiB");
    assert_eq!(site.get("/alloc?100").status, 500);
    site.told(&["/alloc?100"]);
    // What an instance had is given back with it.
    for _ in 0..3 {
        assert_eq!(site.get("/alloc?40").body, "40 MiB");
    }
}

#[test]
fn without_memory_for_an_instance_a_request_is_refused() {
    let mut plan = plan();
    plan.setup = plan.setup.memory(2);
    let mut site = plan.start();
    let running = held(&mut site);
    let answer = site.get("/hello");
    assert_eq!(answer.status, 503);
    site.told(&["no instance", "over the limit"]);
    release(running);
    assert_eq!(site.get("/hello").body, "hello");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let mut site = plan().start();
    let mut client = site.connect();
    let long = "x".repeat(100 << 10);
    _ = client.try_send(&format!("GET /hello HTTP/1.1\r\nHost: test\r\nX-A: {long}\r\n\r\n"));
    assert_eq!(client.head().0, 431);
    assert_eq!(site.get("/hello").body, "hello");
}

#[test]
fn a_program_is_served_where_there_is_no_room_for_a_pool() {
    for plan in plans() {
        // More than a 47-bit space holds.
        let mut site = plan.with(|http| http.concurrency = 60_000).start();
        assert_eq!(site.get("/hello").body, "hello");
        let diagnostics = site.sandbox.setup.folder.path().join("sandbox.log");
        let diagnostics = std::fs::read_to_string(diagnostics).unwrap();
        assert!(diagnostics.contains("without a pool"), "{diagnostics}");
    }
}

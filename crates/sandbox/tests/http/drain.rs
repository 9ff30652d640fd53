//! The stop notice.

use std::net::TcpStream;

use nodule_sandbox_proto::Cause;

use super::site::{eventually, plan, plans};

#[test]
fn what_runs_is_answered_and_then_the_program_ends_with_0() {
    for plan in plans() {
        let mut site = plan.start();
        let mut running = site.connect();
        running.post("/echo");
        running.chunk("before");
        assert_eq!((running.head().0, running.piece().unwrap().as_str()), (200, "before"));
        let mut idle = site.connect();
        idle.get("/hello");
        assert_eq!(idle.answer().body, "hello");
        let address = site.address();
        site.stop();
        assert!(idle.is_ended(), "a connection without a request is ended");
        eventually(|| TcpStream::connect(address).is_err().then_some(()));
        running.chunk("after");
        assert_eq!(running.piece().unwrap(), "after");
        running.chunk("");
        assert_eq!(running.piece().unwrap(), "");
        assert!(running.is_ended());
        let ended = site.wait();
        assert_eq!((ended.exit().cause, ended.exit().code), (Cause::Exited, 0));
    }
}

#[test]
fn who_is_answered_while_it_stops_is_told_to_come_back_elsewhere() {
    let mut site = plan().start();
    let mut client = site.connect();
    client.get("/late?1000");
    // The head of the answer is on its way; the next request's says that there is no other.
    assert_eq!(client.head().0, 200);
    site.stop();
    let rest: String =
        std::iter::from_fn(|| client.piece()).take_while(|piece| !piece.is_empty()).collect();
    assert_eq!(rest, "begun ended");
    assert!(client.is_ended());
    assert_eq!(site.wait().exit().code, 0);
}

#[test]
fn an_idle_server_stops_at_once() {
    let mut site = plan().start();
    let mut silent = site.connect();
    site.stop();
    assert!(silent.is_ended());
    site.agent.say(&nodule_sandbox_proto::Request::Stop);
    assert_eq!(site.wait().exit().code, 0);
}

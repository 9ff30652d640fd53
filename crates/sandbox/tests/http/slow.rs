//! Clients that do not send, or do not read.

use super::site::plan;

#[test]
fn who_never_sends_is_hung_up_on() {
    let mut site = plan().with(|http| http.keep_alive = 500).start();
    assert!(site.connect().is_ended());
}

#[test]
fn who_never_ends_a_head_is_hung_up_on() {
    let mut site = plan().with(|http| http.keep_alive = 500).start();
    let mut client = site.connect();
    client.send("GET /hello HTTP/1.1\r\nHo");
    assert!(client.is_ended());
}

#[test]
fn a_connection_without_requests_is_ended() {
    let mut site = plan().with(|http| http.keep_alive = 500).start();
    let mut client = site.connect();
    client.get("/hello");
    assert_eq!(client.answer().body, "hello");
    assert!(client.is_ended());
}

#[test]
fn a_request_is_never_cut_for_idleness() {
    let mut site = plan().with(|http| http.keep_alive = 100).start();
    let mut client = site.connect();
    client.get("/late?1500");
    assert_eq!(client.answer().body, "begun ended");
}

#[test]
fn who_never_sends_a_body_does_not_keep_the_guest() {
    let mut site = plan().with(|http| (http.concurrency, http.request_timeout) = (1, 2000)).start();
    let mut client = site.connect();
    client.post("/echo");
    client.chunk("a beginning");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.piece().unwrap(), "a beginning");
    assert_eq!(client.piece(), None);
    site.serves();
}

#[test]
fn who_never_reads_does_not_keep_the_guest() {
    let mut site = plan().with(|http| (http.concurrency, http.request_timeout) = (1, 2000)).start();
    let mut client = site.connect();
    client.get("/big?100000");
    assert_eq!(client.head().0, 200);
    site.serves();
}

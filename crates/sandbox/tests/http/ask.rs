//! Outgoing requests.

use nodule_sandbox_proto::{Cause, Roots};

use super::peers::{Manner, Peer};
use super::site::{plan, plans};
use crate::guests::component;
use crate::setup::Setup;

#[test]
fn a_guest_asks_a_server() {
    let peer = Peer::plain(Manner::Keep);
    let mut site = plan().start();
    let answer = site.get(&format!("/get?http://{}/a?b=c", peer.address));
    assert_eq!(answer.body, "200 GET /a?b=c");
    let answer = site.get(&format!("/gets?http://{}/", peer.address));
    assert_eq!(answer.body, "200 POST / one,two");
}

#[test]
fn a_guest_of_0_3_asks_a_server() {
    let peer = Peer::plain(Manner::Keep);
    let [_, plan] = plans();
    let answer = plan.start().get(&format!("/get?http://{}/a", peer.address));
    assert_eq!((answer.status, answer.body.as_str()), (200, "GET /a"));
}

#[test]
fn a_command_asks_a_server() {
    let peer = Peer::plain(Manner::Keep);
    let ended = Setup::new(component(), &["get", &format!("http://{}/a", peer.address)]).run();
    assert_eq!(ended.text(), ["200 GET /a"]);
}

#[test]
fn instances_share_connections() {
    let peer = Peer::plain(Manner::Keep);
    let mut site = plan().start();
    for _ in 0..5 {
        assert_eq!(site.get(&format!("/get?http://{}/", peer.address)).body, "200 GET /");
    }
    assert_eq!(peer.connections(), 1);
}

#[test]
fn a_connection_that_the_server_ended_is_made_anew() {
    let peer = Peer::plain(Manner::Drop);
    let mut site = plan().start();
    for _ in 0..5 {
        assert_eq!(site.get(&format!("/get?http://{}/", peer.address)).body, "200 GET /");
    }
    assert_eq!(peer.connections(), 5);
}

#[test]
fn a_server_that_a_given_authority_vouches_for_is_believed() {
    let (peer, root) = Peer::tls();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &root).unwrap();
    for roots in [Roots::Pem(root), Roots::File(file)] {
        let mut plan = plan();
        plan.setup.container.roots.push(roots);
        let answer = plan.start().get(&format!("/get?https://{}/a", peer.address));
        assert_eq!(answer.body, "200 GET /a");
    }
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused_and_why_is_told() {
    let (peer, _) = Peer::tls();
    let mut site = plan().start();
    let url = format!("https://{}", peer.address);
    assert_eq!(site.get(&format!("/get?{url}/")).body, "ErrorCode::TlsCertificateError");
    site.told(&[&url, "invalid peer certificate: UnknownIssuer"]);
}

#[test]
fn a_server_that_is_not_there_is_told_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut site = plan().start();
    assert_eq!(site.get(&format!("/get?http://{nobody}/")).body, "ErrorCode::ConnectionRefused");
    assert_eq!(site.get("/get?http://me@test/").body, "ErrorCode::HttpRequestUriInvalid");
}

#[test]
fn roots_that_are_none_are_refused_before_the_guest_runs() {
    for (pem, word) in [
        ("nothing", "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1: "),
    ] {
        let mut setup = Setup::new(component(), &["show"]);
        setup.container.roots.push(Roots::Pem(pem.into()));
        let ended = setup.run();
        assert_eq!(ended.exit().cause, Cause::StartFailed);
        assert!(ended.exit().message.contains(word), "{}", ended.exit().message);
    }
}

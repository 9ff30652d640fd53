//! `GET /containerLogs`.

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use nodule_logs::Stream;

use crate::served::Served;

const PATH: &str = "/containerLogs/ns/pod/runs";

async fn piece(response: &mut Response<Incoming>) -> Option<String> {
    let frame = response.body_mut().frame().await?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn what_was_written_is_read_as_asked() {
    let served = Served::open().await;
    let mut writer = served.shown.writer();
    writer.write(Stream::Stdout, b"one\ntwo\n").unwrap();
    writer.write(Stream::Stderr, b"three\n").unwrap();

    let mut client = served.admin().await;
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=2", "two\nthree\n"),
        ("?tail=1", "three\n"),
        ("?limitBytes=5", "one\nt"),
        ("?stream=Stderr", "three\n"),
        ("?sinceSeconds=3600", "one\ntwo\nthree\n"),
        ("?sinceTime=2999-01-01T00:00:00Z", ""),
    ] {
        let answer = client.get(&format!("{PATH}{query}")).await;
        assert_eq!(answer, (StatusCode::OK, expected.to_owned()), "{query}");
    }
    let (_, text) = client.get(&format!("{PATH}?timestamps=true&tailLines=1")).await;
    assert_eq!(text.split_once("Z ").map(|(time, line)| (time.len(), line)), Some((29, "three\n")));
}

#[tokio::test]
async fn what_can_not_be_served_is_told_in_the_kubelets_words() {
    let served = Served::open().await;
    let mut client = served.admin().await;
    for (path, status, text) in [
        ("ns/other/runs", 404, "pod \"other\" does not exist\n"),
        ("other/pod/runs", 404, "pod \"pod\" does not exist\n"),
        ("ns/pod/other", 404, "container \"other\" not found in pod \"pod\"\n"),
        (
            "ns/pod/waits",
            400,
            "container \"waits\" in pod \"pod\" is waiting to start: ContainerCreating\n",
        ),
        (
            "ns/pod/runs?previous=true",
            400,
            "previous terminated container \"runs\" in pod \"pod\" not found\n",
        ),
        ("ns/pod/runs?tailLines=many", 400, r#"{"message": "Unable to decode query."}"#),
        ("ns/pod/runs?tailLines=-1", 422, r#"{"message": "Invalid request."}"#),
        (
            "ns/pod/runs?sinceSeconds=5&sinceTime=2026-08-01T10:00:00Z",
            422,
            r#"{"message": "Invalid request."}"#,
        ),
    ] {
        let (code, body) = client.get(&format!("/containerLogs/{path}")).await;
        assert_eq!((code.as_u16(), body.as_str()), (status, text), "{path}");
    }
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error() {
    let served = Served::open().await;
    let (status, text) = served.admin().await.get(PATH).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.starts_with("open the log "), "{text}");
}

#[tokio::test]
async fn follow_answers_at_once_and_ends_with_the_container() {
    let served = Served::open().await;
    let mut client = served.admin().await;
    // Nothing is written, yet there is an answer.
    let mut response = client.open(&format!("{PATH}?follow=true")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");

    let mut writer = served.shown.writer();
    writer.write(Stream::Stdout, b"one\n").unwrap();
    assert_eq!(piece(&mut response).await.as_deref(), Some("one\n"));
    writer.write(Stream::Stdout, b"two").unwrap();
    writer.finish().unwrap();
    served.shown.ended.send_replace(true);
    assert_eq!(piece(&mut response).await.as_deref(), Some("two\n"));
    assert_eq!(piece(&mut response).await, None);

    // The connection is good for more.
    assert_eq!(client.get(PATH).await.1, "one\ntwo\n");
}

#[tokio::test]
async fn when_the_client_goes_nothing_of_its_request_is_left() {
    let served = Served::open().await;
    served.shown.writer().write(Stream::Stdout, b"one\n").unwrap();
    let mut client = served.admin().await;
    let mut response = client.open(&format!("{PATH}?follow=true")).await;
    assert_eq!(piece(&mut response).await.as_deref(), Some("one\n"));
    assert_eq!(served.shown.ended.receiver_count(), 1);

    drop((response, client));
    served.shown.ended.closed().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let served = Served::open().await;
    let mut writer = served.shown.writer();
    for _ in 0..100 {
        writer.write(Stream::Stdout, "0123456789abcde\n".repeat(4096).as_bytes()).unwrap();
    }
    let mut slow = served.admin().await;
    let mut unread = slow.open(&format!("{PATH}?follow=true")).await;
    for _ in 0..10 {
        assert_eq!(
            served.admin().await.get(&format!("{PATH}?tailLines=1")).await.1,
            "0123456789abcde\n"
        );
    }
    // What it was sent waits for it.
    assert!(piece(&mut unread).await.unwrap().starts_with("0123456789abcde\n"));
}

#[tokio::test]
async fn a_stop_ends_followers_too() {
    let mut served = Served::open().await;
    let mut client = served.admin().await;
    let response = client.open(&format!("{PATH}?follow=true")).await;
    let mut idle = served.admin().await;
    idle.get("/healthz").await;
    served.stop.cancel();
    served.tasks.join_next().await.unwrap().unwrap();
    served.shown.ended.closed().await;
    // The text has no proper end: the reader must not take it for the whole log.
    Body::new(response.into_body()).collect().await.unwrap_err();
}

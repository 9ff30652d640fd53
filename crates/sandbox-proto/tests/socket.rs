//! Messages through the codec, blocking and bytewise.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

use std::io::Write;
use std::os::unix::net::UnixStream;

use nodule_sandbox_proto::frame::{Decoder, FrameError, LIMIT, encode};
use nodule_sandbox_proto::{Cause, Exit, Message, Report, Request, Started, VERSION};
use proptest::prelude::*;

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

fn reports() -> Vec<Report> {
    vec![
        Report::Hello { version: VERSION, id: "ab".repeat(32) },
        Report::Started(Started { at: -1, missing: vec!["landlock".into()], served: None }),
        Report::Limited { used: 1 << 40, memory: None },
        Report::Ended(Exit::new(Cause::OutOfMemory, "ünïcode\n", None, i64::MAX)),
    ]
}

fn requests() -> Vec<Request> {
    let limit = Request::Limit { memory: Some(1 << 40) };
    vec![Request::Hello { version: VERSION }, Request::Stop, limit]
}

#[test]
fn every_message_comes_back_over_a_real_socket() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    for report in reports() {
        far.write_all(&encode(&report).unwrap()).unwrap();
    }
    drop(far);
    let mut decoder = Decoder::<Report>::new();
    for report in reports() {
        assert_eq!(decoder.read(&mut near).unwrap(), Some(report));
    }
    assert_eq!(decoder.read(&mut near).unwrap(), None);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn every_message_comes_back_on_the_agents_side() {
    let bytes: Vec<u8> = reports().iter().flat_map(|report| encode(report).unwrap()).collect();
    let mut stream = bytes.as_slice();
    let mut decoder = Decoder::<Report>::new();
    for report in reports() {
        assert_eq!(decoder.read_async(&mut stream).await.unwrap(), Some(report));
    }
    assert_eq!(decoder.read_async(&mut stream).await.unwrap(), None);
}

#[test]
fn the_known_kinds_are_those_of_the_messages() {
    fn kinds<T: Message>(messages: &[T]) -> Vec<String> {
        let kind =
            |message| serde_json::to_value(message).unwrap()["kind"].as_str().unwrap().to_owned();
        messages.iter().map(kind).collect()
    }
    assert_eq!(kinds(&reports()), Report::KINDS);
    assert_eq!(kinds(&requests()), Request::KINDS);
}

#[test]
fn a_kind_from_a_newer_peer_names_both_versions() {
    let mut decoder = Decoder::<Request>::new();
    decoder.push(&frame(br#"{"kind":"hello","version":7,"colour":"blue"}"#));
    decoder.push(&frame(br#"{"kind":"dance"}"#));
    assert_eq!(decoder.next().unwrap(), Some(Request::Hello { version: 7 }));
    let error = decoder.next().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "unknown message `dance` from a peer of version 7, this program knows version {VERSION}"
        )
    );
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
    let mut decoder = Decoder::<Request>::new();
    decoder.push(&u32::MAX.to_le_bytes());
    assert!(matches!(decoder.next(), Err(FrameError::TooLong { .. })));
    let long = Report::Hello { version: 1, id: "x".repeat(LIMIT) };
    assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
}

#[test]
fn an_end_within_a_message_is_an_error() {
    let whole = encode(&Request::Stop).unwrap();
    let mut part = &whole[..whole.len() - 1];
    assert!(matches!(Decoder::<Request>::new().read(&mut part), Err(FrameError::Truncated { .. })));
}

#[test]
fn a_known_kind_with_wrong_fields_is_malformed() {
    let mut decoder = Decoder::<Request>::new();
    decoder.push(&frame(br#"{"kind":"hello"}"#));
    assert!(matches!(decoder.next(), Err(FrameError::Malformed { .. })));
}

proptest! {
    #[test]
    fn messages_do_not_depend_on_how_the_stream_is_cut(cuts in proptest::collection::vec(1_usize..40, 1..60)) {
        let bytes: Vec<u8> = reports().iter().flat_map(|report| encode(report).unwrap()).collect();
        let (mut rest, mut decoder, mut seen) = (bytes.as_slice(), Decoder::<Report>::new(), Vec::new());
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            decoder.push(now);
            while let Some(report) = decoder.next().unwrap() {
                seen.push(report);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, reports());
        decoder.end().unwrap();
    }

    #[test]
    fn noise_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::<Request>::new();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }
}

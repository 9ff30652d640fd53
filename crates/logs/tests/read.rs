//! The reader against a real writer.
#![cfg(feature = "reader")]
#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use nodule_logs::{Error, Query, Rotation, Stream, Streams, Writer, read};
use proptest::collection::vec;
use proptest::prelude::{Just, any};
use proptest::test_runner::Config;
use proptest::{prop_assert_eq, prop_oneof, proptest};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::watch;

const LARGE: Rotation = Rotation { max_size: u64::MAX, max_files: 2 };

struct Log {
    _folder: TempDir,
    path: PathBuf,
    ended: watch::Sender<bool>,
}

fn writer(path: &Path, rotation: Rotation) -> Writer {
    Writer::open(nodule_logs::folder(path).unwrap(), path.file_name().unwrap(), rotation).unwrap()
}

type Reading = Pin<Box<dyn futures::Stream<Item = Result<Bytes, Error>> + Send>>;

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        Log { _folder: folder, path, ended: watch::Sender::new(false) }
    }

    fn holding(lines: &[&str]) -> Self {
        let log = Self::new();
        fs::write(&log.path, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        log
    }

    fn writer(&self, rotation: Rotation) -> Writer {
        writer(&self.path, rotation)
    }

    fn read(&self, query: Query) -> Reading {
        Box::pin(read(self.path.clone(), query, self.ended.subscribe()))
    }

    async fn text(&self, query: Query) -> String {
        text(self.read(query)).await
    }
}

async fn text(reading: Reading) -> String {
    let pieces: Vec<Bytes> = reading.try_collect().await.unwrap();
    String::from_utf8(pieces.concat()).unwrap()
}

/// Reads until the text ends so.
async fn until(reading: &mut Reading, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let piece = reading.next().await.expect("the log goes on").unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    text
}

/// Returns when the reader has looked and waits: a paused clock goes on only then.
async fn waits(reading: &mut Reading) {
    tokio::time::timeout(Duration::from_secs(5), reading.next())
        .await
        .expect_err("nothing to read");
}

fn follow() -> Query {
    Query { follow: true, ..Query::default() }
}

#[tokio::test]
async fn tail_is_found_first_and_since_drops_of_it() {
    let log = Log::holding(&[
        "2026-08-01T10:00:01Z stdout F one",
        "2026-08-01T10:00:02Z stderr F two",
        "2026-08-01T10:00:03Z stdout F three",
    ]);
    let since = |time: &str| Some(time.parse().unwrap());
    for (query, expected) in [
        (Query::default(), "one\ntwo\nthree\n"),
        (Query { tail_lines: Some(0), ..Query::default() }, ""),
        (Query { tail_lines: Some(2), ..Query::default() }, "two\nthree\n"),
        (Query { tail_lines: Some(9), ..Query::default() }, "one\ntwo\nthree\n"),
        (
            Query { tail_lines: Some(2), since: since("2026-08-01T10:00:03Z"), ..Query::default() },
            "three\n",
        ),
        (
            Query { tail_lines: Some(1), since: since("2026-08-01T10:00:01Z"), ..Query::default() },
            "three\n",
        ),
        (Query { tail_lines: Some(2), limit_bytes: Some(5), ..Query::default() }, "two\nt"),
        (Query { streams: Streams::Stdout, ..Query::default() }, "one\nthree\n"),
        (Query { follow: true, limit_bytes: Some(5), ..Query::default() }, "one\nt"),
    ] {
        assert_eq!(log.text(query.clone()).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn without_follow_a_missing_log_is_an_error() {
    let log = Log::new();
    let error = log.read(Query::default()).next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
}

#[tokio::test]
async fn without_follow_the_newest_file_is_read() {
    let log = Log::new();
    let mut writer = log.writer(Rotation { max_size: 100, max_files: 9 });
    writer.write(Stream::Stdout, b"one\ntwo\nthree\n").unwrap();
    assert_eq!(log.text(Query::default()).await, "three\n");

    // In the moment between renaming the full file and making the next.
    fs::remove_file(&log.path).unwrap();
    assert_eq!(log.text(Query::default()).await, "one\ntwo\n");
}

#[tokio::test]
async fn torn_lines_do_not_end_the_stream() {
    let log = Log::holding(&[
        "2026-08-01T10:00:01Z stdout F one",
        "2026-08-01T1",
        "",
        "2026-08-01T10:00:02Z stdout F two",
    ]);
    assert_eq!(log.text(Query::default()).await, "one\ntwo\n");
}

#[tokio::test]
async fn follow_shows_what_is_written_and_ends_with_the_container() {
    let log = Log::new();
    let mut writer = log.writer(LARGE);
    writer.write(Stream::Stdout, b"one\n").unwrap();
    let mut reading = log.read(follow());
    assert_eq!(until(&mut reading, "one\n").await, "one\n");

    writer.write(Stream::Stderr, b"two\n").unwrap();
    assert_eq!(until(&mut reading, "two\n").await, "two\n");

    writer.write(Stream::Stdout, b"last").unwrap();
    writer.finish().unwrap();
    log.ended.send_replace(true);
    assert_eq!(text(reading).await, "last\n");
}

#[tokio::test]
async fn follow_ends_when_nobody_is_left_who_could_end_it() {
    let log = Log::holding(&["2026-08-01T10:00:01Z stdout F one"]);
    let reading = log.read(follow());
    drop(log.ended);
    assert_eq!(text(reading).await, "one\n");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_there_yet_is_waited_for() {
    let log = Log::new();
    let mut reading = log.read(Query { tail_lines: Some(1), ..follow() });
    waits(&mut reading).await;
    log.writer(LARGE).write(Stream::Stdout, b"one\ntwo\n").unwrap();
    assert_eq!(until(&mut reading, "two\n").await, "one\ntwo\n");
}

#[tokio::test]
async fn a_log_that_never_comes_ends_with_the_container() {
    let log = Log::new();
    log.ended.send_replace(true);
    assert_eq!(log.text(follow()).await, "");
}

#[tokio::test]
async fn a_folder_that_is_removed_ends_with_the_container() {
    let log = Log::new();
    log.writer(LARGE).write(Stream::Stdout, b"one\n").unwrap();
    let mut reading = log.read(follow());
    assert_eq!(until(&mut reading, "one\n").await, "one\n");
    fs::remove_dir_all(log.path.parent().unwrap()).unwrap();
    log.ended.send_replace(true);
    assert_eq!(text(reading).await, "");
}

/// Writes lines `0..count` while a reader follows; files are renamed all the time.
async fn write_and_follow(count: u32, rotation: Rotation) -> String {
    let log = Log::new();
    let mut reading = log.read(follow());
    waits(&mut reading).await;
    let mut writer = log.writer(rotation);
    let ended = log.ended.clone();
    let writing = std::thread::spawn(move || {
        for line in 0..count {
            writer.write(Stream::Stdout, format!("{line}\n").as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        ended.send_replace(true);
    });
    let text = text(reading).await;
    writing.join().unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn rotation_while_following_loses_and_repeats_nothing() {
    let text = write_and_follow(20_000, Rotation { max_size: 4096, max_files: u32::MAX }).await;
    let wrong = text.lines().zip(0..).find(|(line, number)| *line != number.to_string());
    assert_eq!((text.lines().count(), wrong), (20_000, None));
}

#[tokio::test(start_paused = true)]
async fn when_files_are_removed_unread_what_is_left_comes_in_order_and_once() {
    let text = write_and_follow(20_000, Rotation { max_size: 500, max_files: 2 }).await;
    let lines: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.is_sorted_by(|one, next| one < next), "out of order or twice");
    assert_eq!(lines.last(), Some(&19_999));
}

#[tokio::test]
async fn follow_goes_on_through_several_files_that_were_made_meanwhile() {
    let log = Log::new();
    let mut writer = log.writer(Rotation { max_size: 100, max_files: 9 });
    writer.write(Stream::Stdout, b"1\n").unwrap();
    let mut reading = log.read(follow());
    assert_eq!(until(&mut reading, "1\n").await, "1\n");
    writer.write(Stream::Stdout, b"2\n3\n4\n5\n6\n7\n8\n").unwrap();
    assert!(files(&log.path) > 3);
    assert_eq!(until(&mut reading, "8\n").await, "2\n3\n4\n5\n6\n7\n8\n");
}

fn files(path: &Path) -> usize {
    fs::read_dir(path.parent().unwrap()).unwrap().count()
}

/// What a reader must show of one stream: all bytes, and a newline after an unfinished last line.
fn expected(chunks: &[(bool, Vec<u8>)], stderr: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        chunks.iter().filter(|chunk| chunk.0 == stderr).flat_map(|chunk| chunk.1.clone()).collect();
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

/// Readers that were there from the start, one for each stream, see all of this.
async fn write_and_read(
    chunks: &[(bool, Vec<u8>)],
    rotation: Rotation,
    flush_every: usize,
) -> [Vec<u8>; 2] {
    let log = Log::new();
    let mut readings =
        [Streams::Stdout, Streams::Stderr].map(|streams| log.read(Query { streams, ..follow() }));
    for reading in &mut readings {
        waits(reading).await;
    }
    let mut writer = log.writer(rotation);
    for (count, (stderr, bytes)) in chunks.iter().enumerate() {
        writer.write(if *stderr { Stream::Stderr } else { Stream::Stdout }, bytes).unwrap();
        if count % flush_every == 0 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap();
    log.ended.send_replace(true);
    let [stdout, stderr] = readings.map(|reading| reading.try_collect::<Vec<Bytes>>());
    [stdout.await.unwrap().concat(), stderr.await.unwrap().concat()]
}

proptest! {
    #![proptest_config(Config::with_cases(48))]
    #[test]
    fn what_is_written_is_read(
        chunks in vec((any::<bool>(), vec(prop_oneof![3 => Just(b'\n'), 9 => any::<u8>()], 0..600)), 0..40),
        max_size in 500_u64..50_000,
        flush_every in 1_usize..20,
    ) {
        let rotation = Rotation { max_size, max_files: u32::MAX };
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let read = runtime.block_on(write_and_read(&chunks, rotation, flush_every));
        prop_assert_eq!(read, [expected(&chunks, false), expected(&chunks, true)]);
    }
}

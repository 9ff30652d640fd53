//! The writer against real files.
#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use nodule_logs::{Rotation, Stream, Writer};
use tempfile::TempDir;

const LARGE: Rotation = Rotation { max_size: u64::MAX, max_files: 2 };

fn log() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/0.log");
    (folder, path)
}

fn open(path: &Path, rotation: Rotation) -> Writer {
    Writer::open(nodule_logs::folder(path).unwrap(), path.file_name().unwrap(), rotation).unwrap()
}

/// The records of a file without their times: `stdout F text`.
fn records(path: &Path) -> Vec<String> {
    let content = fs::read_to_string(path).unwrap();
    assert!(content.is_empty() || content.ends_with('\n'), "torn: {content:?}");
    content.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// The files of a log, oldest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.rotate_left(1);
    files
}

#[test]
fn lines_are_in_the_file_when_write_returns() {
    let (_folder, path) = log();
    let mut writer = open(&path, LARGE);

    writer.write(Stream::Stdout, b"one\ntwo\n\n").unwrap();
    assert_eq!(records(&path), ["stdout F one", "stdout F two", "stdout F "]);
    writer.write(Stream::Stderr, b"three\n").unwrap();
    assert_eq!(records(&path).last().unwrap(), "stderr F three");
}

#[test]
fn an_unfinished_line_is_held_and_the_other_stream_does_not_land_in_it() {
    let (_folder, path) = log();
    let mut writer = open(&path, LARGE);

    writer.write(Stream::Stdout, b"al").unwrap();
    writer.write(Stream::Stderr, b"other\n").unwrap();
    writer.write(Stream::Stdout, b"pha\nbe").unwrap();
    assert_eq!(records(&path), ["stderr F other", "stdout F alpha"]);

    writer.finish().unwrap();
    assert_eq!(records(&path), ["stderr F other", "stdout F alpha", "stdout F be"]);
}

#[test]
fn flush_shows_what_is_held_as_a_part() {
    let (_folder, path) = log();
    let mut writer = open(&path, LARGE);

    writer.write(Stream::Stdout, b"name? ").unwrap();
    writer.flush().unwrap();
    writer.flush().unwrap();
    assert_eq!(records(&path), ["stdout P name? "]);

    writer.finish().unwrap();
    assert_eq!(records(&path), ["stdout P name? ", "stdout F "]);
}

#[test]
fn a_long_line_is_cut_at_16_kib_however_it_arrives() {
    const LIMIT: usize = 16 << 10;
    for (length, parts) in
        [(LIMIT - 1, 0), (LIMIT, 0), (LIMIT + 1, 1), (2 * LIMIT, 1), (2 * LIMIT + 1, 2)]
    {
        for chunk in [7, LIMIT, 3 * LIMIT] {
            let (_folder, path) = log();
            let mut writer = open(&path, LARGE);
            let line = [vec![b'x'; length], b"\n".to_vec()].concat();
            line.chunks(chunk).for_each(|chunk| writer.write(Stream::Stdout, chunk).unwrap());

            let records = records(&path);
            assert_eq!(
                records.iter().filter(|record| record.starts_with("stdout P")).count(),
                parts
            );
            let texts: Vec<_> =
                records.iter().map(|record| record.len() - "stdout F ".len()).collect();
            assert_eq!(texts.len(), parts + 1, "{length} bytes in chunks of {chunk}");
            assert_eq!(texts.iter().sum::<usize>(), length);
            assert!(texts.iter().all(|length| *length <= LIMIT));
        }
    }
}

#[test]
fn full_files_are_renamed_and_the_oldest_removed() {
    let (_folder, path) = log();
    let mut writer = open(&path, Rotation { max_size: 1000, max_files: 3 });
    let output: String = (0..100).map(|line| format!("{line}\n")).collect();
    writer.write(Stream::Stdout, output.as_bytes()).unwrap();

    let files = files(&path);
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(files.last(), Some(&path));
    assert!(
        files
            .iter()
            .all(|file| (500..=1000).contains(&fs::metadata(file).unwrap().len()) || *file == path)
    );
    let kept: Vec<_> = files.iter().flat_map(|file| records(file)).collect();
    let expected: Vec<_> = (100 - kept.len()..100).map(|line| format!("stdout F {line}")).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_line_longer_than_a_file_has_a_file_of_its_own() {
    let (_folder, path) = log();
    let mut writer = open(&path, Rotation { max_size: 10, max_files: 9 });
    writer.write(Stream::Stdout, b"one\ntwo\nthree\n").unwrap();

    let kept: Vec<_> = files(&path).iter().map(|file| records(file)).collect();
    assert_eq!(kept, [["stdout F one"], ["stdout F two"], ["stdout F three"]]);
}

#[test]
fn a_log_is_gone_on_with_and_a_torn_line_closed() {
    let (_folder, path) = log();
    open(&path, LARGE).write(Stream::Stdout, b"one\n").unwrap();
    let torn = [fs::read(&path).unwrap(), b"2026-08-01T10:00:00Z stdo".to_vec()].concat();
    fs::write(&path, torn).unwrap();

    open(&path, LARGE).write(Stream::Stdout, b"two\n").unwrap();
    assert_eq!(records(&path), ["stdout F one", "stdo", "stdout F two"]);
}

#[test]
fn size_counts_what_was_there_before() {
    let (_folder, path) = log();
    let rotation = Rotation { max_size: 100, max_files: 5 };
    for _ in 0..3 {
        open(&path, rotation).write(Stream::Stdout, b"one\n").unwrap();
    }
    assert_eq!(files(&path).len(), 2);
}

#[test]
fn a_link_in_the_logs_place_is_refused() {
    let (folder, path) = log();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let other = folder.path().join("other");
    fs::write(&other, "").unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    let opened = Writer::open(nodule_logs::folder(&path).unwrap(), OsStr::new("0.log"), LARGE);
    assert_eq!(opened.err().unwrap().to_string(), "open the log 0.log");
    assert_eq!(fs::read(other).unwrap(), b"");
}

#[test]
fn the_log_stays_in_its_folder_wherever_that_is_moved() {
    let (folder, path) = log();
    let mut writer = open(&path, Rotation { max_size: 100, max_files: 3 });
    let moved = folder.path().join("moved");
    fs::rename(path.parent().unwrap(), &moved).unwrap();
    writer.write(Stream::Stdout, "line\n".repeat(100).as_bytes()).unwrap();
    assert_eq!(files(&moved.join("0.log")).len(), 3);
    assert!(!path.exists());
}

#[test]
fn without_its_folder_the_log_goes_on_in_the_file_it_has() {
    let (_folder, path) = log();
    let mut writer = open(&path, Rotation { max_size: 100, max_files: 2 });
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    writer.write(Stream::Stdout, "line\n".repeat(100).as_bytes()).unwrap();
    writer.finish().unwrap();
    assert!(!path.exists());
}

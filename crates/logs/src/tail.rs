use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::Error;
use crate::files::Files;
use crate::record::{Record, TEXT_LIMIT, Tag};

/// How much is read at a time while looking for the start of a line.
const BLOCK: usize = 64 << 10;

/// How far back lines are looked for: a hole in a file is endless.
#[cfg(feature = "reader")]
const SCAN: u64 = 1 << 30;

/// The most that is read into memory for [`tail`].
const TAIL: u64 = 16 << 20;

/// What comes before the text of a record is shorter than this.
const PREFIX_LIMIT: usize = 64;

/// The last `lines` records of a log as plain text, and of this the last `bytes`: what the kubelet shows of a
/// container that failed without a termination message (`FallbackToLogsOnError`: 80 lines, 2048 bytes).
/// Both streams, bytes that are not UTF-8 replaced. Blocking, and reads little: about 16 KiB a line at most.
pub fn tail(path: &Path, bytes: usize, lines: u64) -> Result<String, Error> {
    let opened = Files::of(path).and_then(|files| files.open(files.name()));
    let file = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let records = last_records(&file, lines)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(last_bytes(&text_of(&records), bytes).to_owned())
}

/// Where the last `lines` records of a file begin, as far as they lie in its last GiB. An unfinished last one is none.
#[cfg(feature = "reader")]
pub(crate) fn start(file: &File, lines: u64) -> io::Result<u64> {
    start_within(file, lines, SCAN)
}

/// Where the last `lines` records begin, as far as they lie in the last `most` bytes.
fn start_within(file: &File, lines: u64, most: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(size);
    }
    // The newline before the first wanted line: the one that ends the last line comes before the others.
    let mut wanted = lines.saturating_add(1);
    let (mut end, first) = (size, size.saturating_sub(most));
    while end > first {
        let begin = end.saturating_sub(BLOCK as u64).max(first);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or(BLOCK)];
        file.read_exact_at(&mut block, begin)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                return Ok(begin + at as u64 + 1);
            }
        }
        end = begin;
    }
    Ok(first)
}

fn last_records(file: &File, lines: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let most = lines.saturating_mul((TEXT_LIMIT + PREFIX_LIMIT) as u64).min(TAIL);
    let begin = start_within(file, lines, most)?;
    let mut records = vec![0; usize::try_from(size.saturating_sub(begin)).unwrap_or(0)];
    file.read_exact_at(&mut records, begin)?;
    Ok(records)
}

fn text_of(records: &[u8]) -> String {
    let mut text = Vec::new();
    for record in records.split(|byte| *byte == b'\n').filter_map(Record::parse) {
        text.extend_from_slice(record.text);
        if record.tag == Tag::Full {
            text.push(b'\n');
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn last_bytes(text: &str, bytes: usize) -> &str {
    let mut begin = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(begin) {
        begin += 1;
    }
    text.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log(lines: &[&str]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines.concat()).unwrap();
        file
    }

    #[test]
    fn the_last_lines_begin_after_the_newline_before_them() {
        let long = "x".repeat(BLOCK);
        for (content, lines, expected) in [
            ("", 5, 0),
            ("a\n", 0, 2),
            ("a\n", 1, 0),
            ("a\nb\n", 1, 2),
            ("a\nb\n", 2, 0),
            ("a\nb\n", u64::MAX, 0),
            ("a\nb\nunfinished", 1, 2),
            ("unfinished", 1, 0),
            (&format!("a\n{long}\nb\n"), 1, BLOCK as u64 + 3),
            (&format!("a\n{long}\nb\n"), 2, 2),
            (&format!("{long}\n"), 1, 0),
        ] {
            let file = log(&[content]);
            assert_eq!(
                start(file.as_file(), lines).unwrap(),
                expected,
                "{lines} of {} bytes",
                content.len()
            );
        }
    }

    #[test]
    fn a_hole_is_not_searched_to_its_beginning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert_eq!(start_within(file.as_file(), 5, 1 << 20).unwrap(), (1 << 40) - (1 << 20));
        assert_eq!(tail(file.path(), 2048, u64::MAX).unwrap(), "");
    }

    #[test]
    fn the_end_is_plain_text_of_both_streams() {
        let file = log(&[
            "2026-08-01T10:00:00Z stdout F first\n",
            "torn line\n",
            "2026-08-01T10:00:00Z stdout P sec\n",
            "2026-08-01T10:00:00Z stdout F ond\n",
            "2026-08-01T10:00:00Z stderr F h\u{e4}\n",
        ]);
        for (bytes, lines, expected) in [
            (2048, 80, "first\nsecond\nh\u{e4}\n"),
            (2048, 2, "ond\nh\u{e4}\n"),
            (2048, 0, ""),
            (0, 80, ""),
            (3, 80, "\u{e4}\n"),
            (2, 80, "\n"),
        ] {
            assert_eq!(
                tail(file.path(), bytes, lines).unwrap(),
                expected,
                "{bytes} bytes of {lines} lines"
            );
        }
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error() {
        let error = tail(Path::new("/nowhere/0.log"), 1, 1).unwrap_err();
        assert_eq!(error.to_string(), "open the log /nowhere/0.log");
    }
}

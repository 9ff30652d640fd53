use jiff::Timestamp;

/// The longest text of one record, in bytes; a longer line is split. It is containerd's default
/// (`max_container_log_line_size`), so that collectors' buffers fit.
pub(crate) const TEXT_LIMIT: usize = 16 << 10;

/// Where a container wrote its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whether a record ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The line goes on in the next record of the same stream.
    Partial,
    /// The line ends here.
    Full,
}

/// One line of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) at: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) tag: Tag,
    pub(crate) text: &'a [u8],
}

/// What the records of one batch begin with: the time and the stream.
pub(crate) struct Prefix(String);

impl Prefix {
    pub(crate) fn new(at: Timestamp, stream: Stream) -> Self {
        Prefix(match stream {
            Stream::Stdout => format!("{at:.9} stdout "),
            Stream::Stderr => format!("{at:.9} stderr "),
        })
    }

    /// Appends one record whose text is `head` and then `tail`, neither with a newline.
    pub(crate) fn append(&self, tag: Tag, head: &[u8], tail: &[u8], to: &mut Vec<u8>) {
        to.extend_from_slice(self.0.as_bytes());
        to.extend_from_slice(match tag {
            Tag::Partial => b"P ",
            Tag::Full => b"F ",
        });
        to.extend_from_slice(head);
        to.extend_from_slice(tail);
        to.push(b'\n');
    }

    /// How many bytes a record with this much text takes.
    pub(crate) fn length(&self, text: usize) -> usize {
        self.0.len() + b"F ".len() + text + b"\n".len()
    }
}

impl<'a> Record<'a> {
    /// Reads a line without its newline. `None` if it is not a record: a crash or a full disk tore it.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let (at, rest) = word(line)?;
        let (stream, rest) = word(rest)?;
        let (tags, text) = word(rest)?;
        Some(Record {
            at: std::str::from_utf8(at).ok()?.parse().ok()?,
            stream: stream_of(stream)?,
            tag: tag_of(tags)?,
            text,
        })
    }
}

fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    let (word, rest) = bytes.split_at_checked(end)?;
    Some((word, rest.get(1..)?))
}

fn stream_of(word: &[u8]) -> Option<Stream> {
    match word {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

/// The field may hold more tags after a colon; only the first has a meaning.
fn tag_of(word: &[u8]) -> Option<Tag> {
    match word.split(|byte| *byte == b':').next() {
        Some(b"P") => Some(Tag::Partial),
        Some(b"F") => Some(Tag::Full),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_with_nine_digits_and_read_back() {
        let at: Timestamp = "2026-08-01T10:00:00.5Z".parse().unwrap();
        let mut line = Vec::new();
        let prefix = Prefix::new(at, Stream::Stderr);
        prefix.append(Tag::Partial, b"two ", b" words", &mut line);

        assert_eq!(line, b"2026-08-01T10:00:00.500000000Z stderr P two  words\n");
        assert_eq!(line.len(), prefix.length(10));
        let record = Record { at, stream: Stream::Stderr, tag: Tag::Partial, text: b"two  words" };
        assert_eq!(Record::parse(line.strip_suffix(b"\n").unwrap()), Some(record));
    }

    #[test]
    fn records_of_other_runtimes_are_read() {
        let text = |line: &'static str| Record::parse(line.as_bytes()).map(|record| record.text);
        assert_eq!(text("2026-08-01T10:00:00+02:00 stdout F x"), Some(b"x".as_slice()));
        assert_eq!(text("2026-08-01T10:00:00.123Z stdout F:more "), Some(b"".as_slice()));
    }

    #[test]
    fn what_is_not_a_record_is_none() {
        for line in [
            "",
            " ",
            "text",
            "2026-08-01T10:00:00Z",
            "2026-08-01T10:00:00Z stdout",
            "2026-08-01T10:00:00Z stdout F",
            "2026-08-01T10:00:00Z stdin F x",
            "2026-08-01T10:00:00Z stdout X x",
            "2026-13-01T10:00:00Z stdout F x",
            "00:00Z stdout F x",
        ] {
            assert_eq!(Record::parse(line.as_bytes()), None, "{line:?}");
        }
    }
}

use crate::read::{Query, Streams};
use crate::record::{Record, Stream, Tag};

/// Turns records into what the user asked to see. The rules are the kubelet's.
pub(crate) struct Printer {
    query: Query,
    /// Bytes that may still be printed.
    room: u64,
    /// The next text begins a line, and so gets a time where times are wanted.
    begins_line: bool,
}

impl Printer {
    pub(crate) fn new(query: Query) -> Self {
        let room = query.limit_bytes.unwrap_or(u64::MAX);
        Printer { query, room, begins_line: true }
    }

    /// Nothing more will be printed: the limit is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.room == 0
    }

    /// Appends what is to be seen of one line of a log file. Lines that are no records are left out.
    pub(crate) fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) =
            Record::parse(line).filter(|record| self.query.streams.hold(record.stream))
        else {
            return;
        };
        let begins_line = std::mem::replace(&mut self.begins_line, record.tag == Tag::Full);
        if self.query.since.is_none_or(|since| record.at >= since) {
            self.append(&record, begins_line, out);
        }
    }

    fn append(&mut self, record: &Record<'_>, begins_line: bool, out: &mut Vec<u8>) {
        let before = out.len();
        if self.query.timestamps && begins_line {
            out.extend_from_slice(format!("{:.9} ", record.at).as_bytes());
        }
        out.extend_from_slice(record.text);
        if record.tag == Tag::Full {
            out.push(b'\n');
        }
        let printed = out.len() - before;
        let fits = usize::try_from(self.room).map_or(printed, |room| printed.min(room));
        out.truncate(before + fits);
        self.room -= fits as u64;
    }
}

impl Streams {
    fn hold(self, stream: Stream) -> bool {
        match self {
            Streams::Both => true,
            Streams::Stdout => stream == Stream::Stdout,
            Streams::Stderr => stream == Stream::Stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [&str; 7] = [
        "2026-08-01T10:00:00.1Z stdout F one",
        "2026-08-01T10:00:01Z stderr F two",
        "",
        "2026-08-01T10:00:02Z stdout P thr",
        "no record",
        "2026-08-01T10:00:03Z stdout F ee",
        "2026-08-01T10:00:04Z stdout F ",
    ];

    fn print(query: Query) -> String {
        let mut printer = Printer::new(query);
        let mut out = Vec::new();
        for line in LOG {
            printer.print(line.as_bytes(), &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_are_joined_and_torn_lines_left_out() {
        assert_eq!(print(Query::default()), "one\ntwo\nthree\n\n");
    }

    #[test]
    fn a_time_has_nine_digits_and_stands_once_a_line() {
        let shown = print(Query { timestamps: true, streams: Streams::Stdout, ..Query::default() });
        assert_eq!(
            shown,
            "2026-08-01T10:00:00.100000000Z one\n2026-08-01T10:00:02.000000000Z three\n2026-08-01T10:00:04.000000000Z \n"
        );
    }

    #[test]
    fn streams_can_be_chosen() {
        assert_eq!(print(Query { streams: Streams::Stdout, ..Query::default() }), "one\nthree\n\n");
        assert_eq!(print(Query { streams: Streams::Stderr, ..Query::default() }), "two\n");
    }

    #[test]
    fn records_before_since_are_left_out() {
        for (since, expected) in [
            ("2026-08-01T09:00:00Z", "one\ntwo\nthree\n\n"),
            ("2026-08-01T10:00:00.1Z", "one\ntwo\nthree\n\n"),
            ("2026-08-01T10:00:00.100000001Z", "two\nthree\n\n"),
            ("2026-08-01T10:00:03Z", "ee\n\n"),
            ("2026-08-01T11:00:00Z", ""),
        ] {
            let query = Query { since: Some(since.parse().unwrap()), ..Query::default() };
            assert_eq!(print(query), expected, "since {since}");
        }
    }

    #[test]
    fn the_limit_counts_what_is_printed_and_may_cut_a_line() {
        for (limit, timestamps, expected) in [
            (0, false, ""),
            (1, false, "o"),
            (4, false, "one\n"),
            (6, false, "one\ntw"),
            (32, true, "2026-08-01T10:00:00.100000000Z o"),
        ] {
            let query = Query { limit_bytes: Some(limit), timestamps, ..Query::default() };
            assert_eq!(print(query), expected, "limit {limit}");
        }
    }
}

//! What commands print, and how numbers and lists are shown there.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use jiff::SignedDuration;

/// Prints to standard output.
pub(crate) fn say(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("print")
}

/// Prints a line to standard error.
pub(crate) fn warn(text: &str) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "nodule: {}", plain(text));
}

/// Text that came from elsewhere, as one line that does nothing to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long something has been there, as kubectl shows it but shorter.
pub(crate) fn age(since: SignedDuration) -> String {
    match since.as_secs().max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// A size as people read it, in powers of 1000 as `docker images` shows it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut rest, mut whole, mut unit) = (0, bytes, UNITS.iter());
    let mut name = unit.next().copied().unwrap_or_default();
    for next in unit {
        if whole < 1000 {
            break;
        }
        (rest, whole, name) = (whole % 1000, whole / 1000, next);
    }
    match name {
        "B" => format!("{whole}B"),
        name if whole < 100 => format!("{whole}.{}{name}", rest / 100),
        name => format!("{whole}{name}"),
    }
}

/// Rows in columns that are as wide as they need be.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
    }

    #[test]
    fn a_size_has_two_or_three_digits_and_a_unit() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (123_456, "123kB"),
            (2_950_000, "2.9MB"),
            (u64::MAX, "18446744TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}

//! What a terminal shows of logs: each line with the container that it is of, in the container's colour.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// ANSI's colours but black, white, and red, which means trouble.
const COLOURS: [&str; 8] = [
    "\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[92m",
];
const END: &str = "\x1b[0m";
/// A line that does not end is cut here, so that it need not be kept.
const LONGEST: usize = 64 << 10;

/// Whether the lines' beginnings are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    On,
    Off,
}

impl Colours {
    /// For standard output: a terminal, and nobody has asked for none (no-color.org).
    pub(crate) fn look() -> Self {
        let asked = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !asked && !dumb { Self::On } else { Self::Off }
    }
}

/// Standard output, which several containers share line by line.
pub(crate) struct Screen {
    out: Mutex<Box<dyn Write + Send>>,
    colours: Colours,
    /// Of the longest name.
    width: usize,
}

impl Screen {
    pub(crate) fn new(names: &[String]) -> Self {
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        Self { out: Mutex::new(Box::new(io::stdout())), colours: Colours::look(), width }
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(text)?;
        out.flush()
    }
}

/// The lines of one container.
pub(crate) struct Lines {
    start: String,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Lines {
    /// Of the container that is shown as `name`, the `number`th.
    pub(crate) fn new(screen: &Screen, name: &str, number: usize) -> Self {
        let width = screen.width;
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or_default();
        let start = match screen.colours {
            Colours::On => format!("{colour}{name:width$} |{END} "),
            Colours::Off => format!("{name:width$} | "),
        };
        Self { start, rest: Vec::new() }
    }

    /// Shows what has come, as far as lines are whole.
    pub(crate) fn add(&mut self, screen: &Screen, text: &[u8]) -> io::Result<()> {
        let mut shown = Vec::new();
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") || self.rest.len() > LONGEST {
                self.take(&mut shown);
            }
        }
        if shown.is_empty() { Ok(()) } else { screen.write(&shown) }
    }

    /// Shows a line that was never ended.
    pub(crate) fn end(&mut self, screen: &Screen) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut shown = Vec::new();
        self.take(&mut shown);
        screen.write(&shown)
    }

    fn take(&mut self, shown: &mut Vec<u8>) {
        shown.extend_from_slice(self.start.as_bytes());
        shown.append(&mut self.rest);
        if !shown.ends_with(b"\n") {
            shown.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(colours: Colours) -> (Screen, Shown) {
        let shown = Shown::default();
        let out = Mutex::new(Box::new(shown.clone()) as Box<dyn Write + Send>);
        (Screen { out, colours, width: 5 }, shown)
    }

    #[test]
    fn lines_are_whole_and_say_whose_they_are() {
        let (screen, shown) = shown(Colours::Off);
        let (mut one, mut two) = (Lines::new(&screen, "a/b", 0), Lines::new(&screen, "a/bcd", 1));
        one.add(&screen, b"first\nsec").unwrap();
        two.add(&screen, b"other\n").unwrap();
        one.add(&screen, b"ond\n\nlast").unwrap();
        one.end(&screen).unwrap();
        let text = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "a/b   | first\na/bcd | other\na/b   | second\na/b   | \na/b   | last\n");
    }

    #[test]
    fn each_container_has_a_colour() {
        let (screen, shown) = shown(Colours::On);
        for number in 0..2 {
            Lines::new(&screen, "a", number).add(&screen, b"x\n").unwrap();
        }
        let text = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "\x1b[36ma     |\x1b[0m x\n\x1b[33ma     |\x1b[0m x\n");
    }
}

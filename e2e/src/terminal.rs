//! What a person at the terminal reads while things are set up.

use std::io::Write;

/// One line on standard error. A closed standard error is nobody's problem.
pub fn say(line: impl AsRef<str>) {
    let mut out = std::io::stderr().lock();
    let _closed = writeln!(out, "{}", line.as_ref());
}

/// One line on standard output: for what another program may read.
pub fn answer(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _closed = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
}

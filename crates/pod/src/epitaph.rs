//! The end of a sandbox that could not say it itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use jiff::Timestamp;
use nodule_sandbox_proto::{Cause, Exit, Fate, State};

use crate::sandbox::DIAGNOSTICS;

/// How much of what a sandbox said is told, in bytes: its end.
const LAST_WORDS: u64 = 1 << 10;

/// The end of a sandbox that did not say it itself, from now on on the disk.
pub(crate) fn keep(state: &State, fate: Option<Fate>) -> Exit {
    let started = state.started().ok().flatten().map(|started| started.at);
    let exit = epitaph(fate, started, &last_words(state));
    if let Err(error) = state.write_exit(&exit) {
        tracing::warn!(error = &error as &dyn std::error::Error, "container's end not kept");
    }
    exit
}

/// How a sandbox ended that could not say so itself: pure.
fn epitaph(fate: Option<Fate>, started: Option<i64>, said: &str) -> Exit {
    let now = Timestamp::now().as_millisecond();
    match (fate, started) {
        (Some(Fate::Signal(signal)), _) => {
            let mut exit =
                Exit::new(Cause::Killed, &format!("killed by signal {signal}"), started, now);
            exit.code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
            exit
        }
        // Its own exit code is the guest's: only the file is missing.
        (Some(Fate::Code(code)), Some(started)) => {
            Exit::exited(u8::try_from(code).unwrap_or(u8::MAX), started, now)
        }
        (Some(Fate::Code(code)), None) => {
            let message = format!("the sandbox ended with {code} without a word: {said}");
            Exit::new(Cause::StartFailed, &message, None, now)
        }
        (None, _) => {
            let message = "ended, and nobody was there to learn how";
            Exit::new(Cause::Killed, message, started, now)
        }
    }
}

/// The end of what the sandbox said for those who look after the node.
fn last_words(state: &State) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(state.folder().join(DIAGNOSTICS))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut words = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut words)?;
        Ok(words)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_wrote_is_told_by_what_the_kernel_said() {
        let told = |fate, started| {
            let exit = epitaph(fate, started, "no engine");
            (exit.cause, exit.code, exit.message)
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told(Some(Fate::Signal(9)), Some(1)),
            (Cause::Killed, 137, text("killed by signal 9"))
        );
        assert_eq!(told(Some(Fate::Code(3)), Some(1)), (Cause::Exited, 3, text("")));
        assert_eq!(
            told(Some(Fate::Code(1)), None),
            (Cause::StartFailed, 128, text("the sandbox ended with 1 without a word: no engine"))
        );
        assert_eq!(
            told(None, Some(1)),
            (Cause::Killed, 137, text("ended, and nobody was there to learn how"))
        );
    }
}

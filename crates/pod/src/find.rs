//! Finding again what an earlier agent started.

use std::io;

use nodule_sandbox_proto::{Exit, Fate, Process, State, StateError};

use crate::conversation::Conversation;
use crate::epitaph::keep;
use crate::sandbox::{self, Error, Place, Sandbox, pidfd, told_fate};

/// What was found of a run that an earlier agent began.
#[derive(Debug)]
pub(crate) enum Found {
    /// It runs.
    Alive(Sandbox),
    /// It has ended, and said how.
    Ended(Exit),
    /// Its guest began, and it is gone without a word.
    Vanished,
    /// No instruction of its guest was ever run.
    Never,
}

/// Looks for the sandbox of a run that an earlier agent began, whose process it may not have had time to note.
pub(crate) async fn find(place: &Place, noted: Option<Process>) -> Result<Found, Error> {
    let state = State::new(&place.state);
    let wrap = |source| Error::State { source };
    let named = state.process().map_err(wrap)?.or(noted);
    let mut waited = None;
    if let Some(process) = named {
        match reopen(process, place)? {
            Held::Alive(sandbox) => return Ok(Found::Alive(sandbox)),
            Held::Ended(fate) => waited = fate,
            Held::Gone => {}
        }
    }
    // What a guest may have left there is not worth more than an exit that is missing.
    if let Ok(Some(exit)) = state.exit() {
        return Ok(Found::Ended(exit));
    }
    let told = match waited {
        Some(fate) => Some(fate),
        None => told(&state, named).await.map_err(wrap)?,
    };
    if let Some(fate) = told {
        return Ok(Found::Ended(keep(&state, Some(fate))));
    }
    if matches!(state.started(), Ok(Some(_)) | Err(_)) {
        return Ok(Found::Vanished);
    }
    if named.is_some() {
        return Ok(Found::Never);
    }
    // Its agent may have died between starting it and noting it, and it before it could say who it is: then it holds
    // the socket, and will say so.
    match Conversation::open(&place.socket).await {
        Ok(mut conversation) => _ = conversation.first().await?,
        // It has answered, and has said before who it is.
        Err(Error::Version { .. }) => {}
        Err(Error::Connect { .. }) => return Ok(Found::Never),
        Err(error) => return Err(error),
    }
    let process = state.process().map_err(wrap)?;
    Ok(match process.map(|process| reopen(process, place)).transpose()? {
        Some(Held::Alive(sandbox)) => Found::Alive(sandbox),
        Some(Held::Ended(_) | Held::Gone) | None => Found::Never,
    })
}

/// What a zygote has said of the end of `named`. That of an earlier agent waits for its children to the last one, and may
/// be about to say it.
async fn told(state: &State, named: Option<Process>) -> Result<Option<Fate>, StateError> {
    match named {
        Some(process) if !process.is_of_another_boot() => Ok(told_fate(state, || None).await),
        Some(_) | None => state.fate(),
    }
}

/// What a process's number leads to.
enum Held {
    /// The process.
    Alive(Sandbox),
    /// One that has ended, and how, if it was this agent's to wait for: its zygote has died before it.
    Ended(Option<Fate>),
    /// Nothing.
    Gone,
}

/// A handle to `process` if it still is that one: the pidfd is opened first, then the tick compared. What cannot be looked
/// at, for want of descriptors say, is an error and no end.
fn reopen(process: Process, place: &Place) -> Result<Held, Error> {
    if process.is_of_another_boot() {
        return Ok(Held::Gone);
    }
    let held = match pidfd(process) {
        Ok(held) => held,
        Err(Error::Pidfd { source, .. }) if is_gone(&source) => return Ok(Held::Gone),
        Err(error) => return Err(error),
    };
    let sandbox = sandbox::open(process, held, place)?;
    let alive = process.is_alive();
    let alive = alive.map_err(|source| Error::Pidfd { pid: process.pid, source })?;
    Ok(if alive { Held::Alive(sandbox) } else { Held::Ended(sandbox.reap()) })
}

/// No process of that number; or it is a thread's by now (pidfd_open(2)).
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::SRCH, Errno::INVAL, Errno::NOENT];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command};
    use std::time::Duration;

    use nodule_sandbox_proto::{Cause, EXIT, Out, STARTED, Started};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid};
    use tempfile::TempDir;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A run whose guest began.
    fn begun() -> (TempDir, State, Place) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        state.create(None).unwrap();
        let started = Started { at: 1, missing: Vec::new(), served: None };
        Out::open(&state).unwrap().write_started(&started).unwrap();
        let place =
            Place { state: folder.path().to_owned(), socket: folder.path().join("none.sock") };
        (folder, state, place)
    }

    /// A process that has ended and was waited for.
    fn gone() -> Process {
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        child.wait().unwrap();
        process
    }

    fn of_another_boot() -> Process {
        let boot = "00000000-0000-4000-8000-000000000000".parse().unwrap();
        Process { boot: Some(boot), ..Process::of(std::process::id()).unwrap() }
    }

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("1000000").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        (child, process)
    }

    fn code(found: Result<Found, Error>) -> u8 {
        let Ok(Found::Ended(exit)) = found else { panic!("{found:?}") };
        assert_eq!(exit.cause, Cause::Killed);
        exit.code
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_zygote_says_a_moment_later_is_waited_for() {
        let (_folder, state, place) = begun();
        let late = async {
            sleep(Duration::from_secs(1)).await;
            state.write_fate(Fate::Signal(15)).unwrap();
        };
        let (found, ()) = tokio::join!(find(&place, Some(gone())), late);
        assert_eq!(code(found), 128 + 15);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_was_there_before_the_machine_was_started() {
        let (_folder, _state, place) = begun();
        let before = Instant::now();
        let found = find(&place, Some(of_another_boot())).await;
        assert!(matches!(found, Ok(Found::Vanished)), "{found:?}");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_nobody_has_waited_for_says_how_it_ended_and_is_no_zombie() {
        let (_folder, _state, place) = begun();
        let (mut child, process) = sleeper();
        child.kill().unwrap();
        while process.is_alive().unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(code(find(&place, Some(process)).await), 137);
        let pid = Pid::from_child(&child);
        assert_eq!(waitpid(Some(pid), WaitOptions::NOHANG).unwrap_err(), rustix::io::Errno::CHILD);
    }

    /// A guest that escaped may have put anything there.
    #[tokio::test(start_paused = true)]
    async fn hostile_words_of_a_sandbox_are_no_words() {
        type Put = fn(&std::path::Path);
        let put: [Put; 5] = [
            |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
            |path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
            |path| fs::write(path, "[[[[").unwrap(),
            |path| fs::create_dir(path).unwrap(),
        ];
        for put in put {
            let (_folder, state, place) = begun();
            fs::remove_file(state.out().join(STARTED)).unwrap();
            put(&state.out().join(STARTED));
            put(&state.out().join(EXIT));
            let found = find(&place, Some(of_another_boot())).await;
            assert!(matches!(found, Ok(Found::Vanished)), "{found:?}");
            state.write_fate(Fate::Signal(9)).unwrap();
            assert_eq!(code(find(&place, Some(gone())).await), 137);
        }
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_has_not_ended() {
        let probe = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "find::tests::without_descriptors", "--ignored"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&probe.stdout).into_owned();
        assert!(probe.status.success() && told.contains("1 passed"), "{told}");
    }

    /// Its limit is the whole process's.
    #[test]
    #[ignore = "a probe: the test above runs it in a process of its own"]
    fn without_descriptors() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_folder, _state, place) = begun();
        let (mut child, process) = sleeper();
        let limits = getrlimit(Resource::Nofile);
        let look = || runtime.block_on(find(&place, Some(process)));
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limits }).unwrap();
        let found = look();
        setrlimit(Resource::Nofile, limits).unwrap();
        assert!(found.is_err(), "{found:?}");
        assert!(matches!(look(), Ok(Found::Alive(_))));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! The built compiler's worker, while it waits for its input: what it may do, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should panic"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// A compiler whose worker waits for a program that nobody sends.
struct Waiting {
    folder: TempDir,
    /// Both ends of the input.
    input: File,
    compiler: Child,
    worker: Pid,
}

impl Waiting {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.wasm");
        mknodat(CWD, &input, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let held = File::options().read(true).write(true).open(&input).unwrap();
        let compiler = Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
            .args(["compile", "in.wasm", "out.cwasm", "--max-memory-mib", "512"])
            .args(["--max-seconds", "60", "--parent", &std::process::id().to_string()])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let compiler_id = compiler.id();
        let children = format!("/proc/{compiler_id}/task/{compiler_id}/children");
        let worker = until(|| fs::read_to_string(&children).ok()?.trim().parse().ok());
        let worker = Pid::from_raw(worker).unwrap();
        let waiting = Self { folder, input: held, compiler, worker };
        until(|| (waiting.status("Seccomp")? == "2").then_some(()));
        waiting
    }

    /// A line of the worker's `/proc/PID/status`.
    fn status(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.worker)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?;
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// What the compiler says when it has ended, and its exit code.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.compiler.wait().unwrap();
        let mut words = String::new();
        self.compiler.stdout.take().unwrap().read_to_string(&mut words).unwrap();
        self.compiler.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        let is_there = self.folder.path().join("out.cwasm").exists();
        assert_eq!(is_there, status.success(), "{words}");
        (status.code(), words)
    }
}

/// Waits for what must come, and fails if it does not.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_types, reason = "there is no tokio here, and it bounds a failure")]
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::yield_now();
    }
    panic!("it did not come");
}

/// Whether nothing is left of a process but, at most, its exit code.
fn has_ended(process: Pid) -> Option<()> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    matches!(state, None | Some('Z' | 'X')).then_some(())
}

#[test]
fn the_worker_is_nobody_with_nothing_and_then_compiles() {
    let mut waiting = Waiting::start();
    assert_eq!(waiting.status("NoNewPrivs").unwrap(), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(waiting.status(set).unwrap(), "0000000000000000", "{set}");
    }
    if geteuid().is_root() {
        let [user, group] = ["Uid", "Gid"].map(|name| waiting.status(name).unwrap());
        assert_eq!(user, ["1999999999"; 4].join(" "));
        assert_eq!(group, user);
        assert_eq!(waiting.status("Groups").unwrap(), "");
        let open = fs::read_dir(format!("/proc/{}/fd", waiting.worker)).unwrap();
        assert_eq!(open.count(), 3);
    }
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", waiting.worker)).unwrap();
    assert_eq!(score.trim(), "1000");
    let limits = fs::read_to_string(format!("/proc/{}/limits", waiting.worker)).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max open files"), "3 3");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max data size"), format!("{0} {0}", 512 << 20));
    assert_eq!(limit("Max file size"), format!("{0} {0}", 1 << 30));
    assert_eq!(limit("Max cpu time"), "60 61");

    waiting
        .input
        .write_all(&wat::parse_str(r#"(module (func (export "_start")))"#).unwrap())
        .unwrap();
    // The end of the file: nobody else can write.
    waiting.input = File::open("/dev/null").unwrap();
    let (code, words) = waiting.end();
    assert_eq!(code, Some(0), "{words}");
}

#[test]
fn a_worker_ends_with_the_compiler_that_started_it() {
    let waiting = Waiting::start();
    let compiler = Pid::from_child(&waiting.compiler);
    kill_process(compiler, Signal::KILL).unwrap();
    until(|| has_ended(waiting.worker));
}

#[test]
fn a_compiler_ends_with_its_parent_and_its_worker_too() {
    // A parent that can be killed: a shell that starts the compiler and waits.
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.wasm");
    mknodat(CWD, &input, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _held = File::options().read(true).write(true).open(&input).unwrap();
    let script = r#""$1" compile in.wasm out.cwasm --max-memory-mib 512 --max-seconds 60 --parent $$ & wait"#;
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_nodule-compile")])
        .current_dir(folder.path())
        .spawn()
        .unwrap();
    let compiler = until(|| child_of(shell.id()));
    let worker = until(|| child_of(compiler.as_raw_pid().unsigned_abs()));
    until(|| is_sealed(worker));

    shell.kill().unwrap();
    shell.wait().unwrap();

    until(|| has_ended(compiler));
    until(|| has_ended(worker));
}

fn child_of(process: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

fn is_sealed(process: Pid) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.contains("Seccomp:\t2").then_some(())
}

#[test]
fn a_compiler_of_another_parent_does_not_begin() {
    let output = compile(Path::new("/dev/null"), &["--parent", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("watch the parent process: it has ended"), "{words}");
}

#[test]
fn a_worker_that_is_killed_or_crashes_is_told_so() {
    let killed = Waiting::start();
    kill_process(killed.worker, Signal::KILL).unwrap();
    let (code, words) = killed.end();
    assert_eq!(code, Some(1));
    assert!(words.contains("this node had no memory left"), "{words}");

    for signal in [Signal::ABORT, Signal::TRAP] {
        let crashed = Waiting::start();
        kill_process(crashed.worker, signal).unwrap();
        let (code, words) = crashed.end();
        assert_eq!(code, Some(2));
        assert!(words.contains("the compiler crashes on the program"), "{words}");
    }
}

#[test]
fn a_user_that_cannot_be_had_ends_the_worker() {
    if !geteuid().is_root() {
        return eprintln!("only root can become another: not tested");
    }
    // Root without the right to become another, as in a container that drops all capabilities.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-setuid", "--inh-caps=-setuid"])
        .arg(env!("CARGO_BIN_EXE_nodule-compile"))
        .args(["compile", "/dev/null", "/tmp/never-written.cwasm"])
        .args(["--max-memory-mib", "64", "--max-seconds", "9"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("become user and group 1999999999: "), "{words}");
    assert!(words.contains("capabilities SETUID and SETGID"), "{words}");
}

fn compile(input: &Path, more: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_nodule-compile"))
        .arg("compile")
        .args([input, &folder.path().join("out.cwasm")])
        .args(["--max-memory-mib", "64", "--max-seconds", "9"])
        .args(more)
        .output()
        .unwrap()
}

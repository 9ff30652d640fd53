//! The layers of the jail, each from inside: what a guest that has escaped from Wasm would find.
//!
//! A probe runs in a process of its own, which is this test program again: there the one "test" that is ignored
//! otherwise confines itself and tries what must fail. Root is needed to become another user; without it there is less to
//! see, and that is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "a test that fails should panic, and tries what only system calls can try"
)]

mod inside;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use inside::{SEPARATOR, STAGE};

fn run(stage: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside::inside", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STAGE, stage)
        .output()
        .unwrap()
}

/// What the probes of a stage found, by name: "ok", or the number of an error.
fn probe(stage: &str) -> BTreeMap<String, String> {
    let output = run(stage);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let found = text.lines().filter_map(|line| line.split_once(SEPARATOR));
    found.map(|(name, result)| (name.to_owned(), result.to_owned())).collect()
}

fn assert_found(found: &BTreeMap<String, String>, expected: &[(&str, String)]) {
    assert!(!found.is_empty(), "nothing was tried");
    for (name, result) in expected {
        assert_eq!(found.get(*name), Some(result), "{name}: {found:#?}");
    }
}

fn error(number: i32) -> String {
    number.to_string()
}

fn ok() -> String {
    "ok".to_owned()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: the layers that only root can set are not seen");
    }
    root
}

#[test]
fn before_it_is_confined_all_of_it_is_possible() {
    if is_root() {
        let names = [
            "open",
            "open-below-a-leak",
            "look-above-own",
            "write-to-read-only",
            "setuid",
            "mount",
        ];
        assert_found(&probe("free"), &names.map(|name| (name, ok())));
    }
}

#[test]
fn what_is_confined_finds_no_files_but_its_own_and_is_nobody_else() {
    if !is_root() {
        return;
    }
    let found = probe("confined");
    assert_found(
        &found,
        &[
            // The host's root is left ...
            ("open", error(libc::ENOENT)),
            // ... and what leads out of the new one is landlock's to refuse.
            ("open-below-a-leak", error(libc::EACCES)),
            ("write-to-held", ok()),
            ("write-to-own", ok()),
            // Its own folders lead to nothing beside them.
            ("look-above-own", error(libc::ENOENT)),
            // Who collects logs shall not meet a link.
            ("link-in-own", error(libc::EACCES)),
            ("write-to-read-only", error(libc::EROFS)),
            ("setuid", error(libc::EPERM)),
            ("mount", error(libc::EPERM)),
            ("kill-parent", error(libc::EPERM)),
            ("ptrace-parent", error(libc::EPERM)),
            ("user", "4242 4243 [4244]".to_owned()),
            ("capabilities", "0".to_owned()),
            ("no-new-privileges", "1".to_owned()),
            ("dumpable", "0".to_owned()),
            ("core", "0".to_owned()),
            ("missing", "[]".to_owned()),
        ],
    );
}

#[test]
fn a_sealed_process_has_the_system_calls_of_a_guest_and_no_others() {
    let found = probe("sealed");
    let refused = [
        "fork",
        "exec",
        "mmap-code",
        "mprotect-code",
        "mmap-shared",
        "socket-unix",
        "socket-internet",
        "connect",
        "ptrace-parent",
        "kill-parent",
        "signal-by-descriptor",
        "setuid",
        "mount",
        "unshare",
        "io-uring",
        "bpf",
        "memfd",
        "open-by-handle",
        "ioctl-tty",
    ];
    assert_found(&found, &refused.map(|name| (name, error(libc::ENOSYS))));
    assert_found(&found, &["thread", "mmap", "write-to-held"].map(|name| (name, ok())));
    assert_found(&found, &[("ioctl-pagemap", error(libc::ENOTTY))]);
}

#[test]
fn who_may_have_sockets_has_those_of_the_internet_and_no_others() {
    let found = probe("sealed-with-sockets");
    assert_found(
        &found,
        &[
            ("socket-internet", ok()),
            ("socket-sctp", error(libc::ENOSYS)),
            ("socket-unix", error(libc::ENOSYS)),
            ("socket-netlink", error(libc::ENOSYS)),
            ("exec", error(libc::ENOSYS)),
        ],
    );
}

#[test]
fn a_sealed_process_that_aborts_as_musl_does_ends() {
    let output = run("abort");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
}

#[test]
fn a_user_who_cannot_finish_a_namespace_stays_where_it_is() {
    if is_root() {
        let found = probe("half-a-namespace");
        let yes = || "true".to_owned();
        assert_found(
            &found,
            &[("own", yes()), ("user", "4242".to_owned()), ("write-to-own", yes())],
        );
    }
}

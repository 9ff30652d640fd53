//! Each layer from inside: a test's process cannot give up what the next test needs, so the probe has one of its own.

#![allow(unsafe_code, reason = "the probe does what an intruder would do")]

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::*;

const LAYER: &str = "NODULE_TEST_LAYER";

/// What the probe could and could not do behind one layer, a line each: `name errno`, 0 for what went well.
fn behind(layer: &str) -> Vec<(String, i32)> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jail::tests::probe", "--ignored", "--nocapture", "--test-threads=1"])
        .env(LAYER, layer)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once("probe: ")).map(|(_, line)| line);
    let pair = |line: &str| {
        line.split_once(' ').map(|(name, code)| (name.to_owned(), code.parse().unwrap()))
    };
    let found: Vec<_> = lines.filter_map(pair).collect();
    assert!(!found.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    found
}

fn code(found: &[(String, i32)], name: &str) -> i32 {
    found.iter().find(|(found, _)| found == name).unwrap().1
}

#[test]
#[ignore = "run by the others in a process of its own"]
fn probe() {
    let Ok(layer) = std::env::var(LAYER) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    match layer.as_str() {
        "nothing" => {}
        "user" => {
            user::become_user(1_999_999_999).unwrap();
            user::give_up().unwrap();
        }
        "landlock" => {
            user::give_up().unwrap();
            if !landlock::restrict().unwrap() {
                println!("probe: missing 0");
                return;
            }
        }
        "descriptors" => limits::open_nothing().unwrap(),
        "seccomp" => {
            user::give_up().unwrap();
            seccomp::seal().unwrap();
        }
        other => panic!("{other}"),
    }
    let parent = libc::c_long::from(std::os::unix::process::parent_id().cast_signed());
    // Told at the end: what is shown needs calls too.
    let tries: Vec<(&str, i32)> = vec![
        ("open", errno(File::open("/etc/passwd").map(drop))),
        (
            "create",
            errno(File::create(format!("/tmp/nodule-probe-{}", std::process::id())).map(drop)),
        ),
        ("connect", errno(TcpStream::connect(address).map(drop))),
        ("exec", errno(exec())),
        ("thread", errno(std::thread::Builder::new().spawn(|| ()).map(drop))),
        ("map-code", map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE)),
        ("map-shared", map(libc::PROT_READ, libc::MAP_SHARED)),
        ("map-growing", map(libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_GROWSDOWN)),
        ("map", map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)),
        ("protect-code", protect()),
        ("setuid", raw(libc::SYS_setuid, 0, 0)),
        // Without an attachment, with a null path or wrong flags these fail in any case, by other errors.
        ("ptrace", raw(libc::SYS_ptrace, libc::PTRACE_PEEKDATA.into(), parent)),
        ("kill", raw(libc::SYS_kill, parent, 0)),
        ("execve", raw(libc::SYS_execve, 0, 0)),
        ("clone", raw(libc::SYS_clone, libc::CLONE_THREAD.into(), 0)),
        ("socket", raw(libc::SYS_socket, libc::AF_UNIX.into(), -1)),
        ("chroot", raw(libc::SYS_chroot, c"/".as_ptr().addr().try_into().unwrap(), 0)),
    ];
    _ = std::fs::remove_file(format!("/tmp/nodule-probe-{}", std::process::id()));
    for (name, code) in tries {
        println!("probe: {name} {code}");
    }
}

fn errno(result: io::Result<()>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)
}

/// Runs a program without a shell or a path to look at, so that what is refused is the start.
fn exec() -> io::Result<()> {
    Command::new("/proc/self/exe").arg("--list").output().map(drop)
}

fn raw(number: libc::c_long, first: libc::c_long, second: libc::c_long) -> i32 {
    // SAFETY: none of those that are tried writes to this process' memory.
    call(unsafe { libc::syscall(number, first, second, 0, 0, 0) })
}

fn call(result: i64) -> i32 {
    if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn map(protection: i32, flags: i32) -> i32 {
    // SAFETY: a new mapping touches none that there is.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, protection, flags | libc::MAP_ANONYMOUS, -1, 0)
    };
    if map == libc::MAP_FAILED { call(-1) } else { 0 }
}

fn protect() -> i32 {
    // SAFETY: the mapping is new and nobody else's.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let map = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0);
        call(i64::from(libc::mprotect(map, 4096, libc::PROT_READ | libc::PROT_EXEC)))
    }
}

#[test]
fn without_a_jail_the_probe_can_do_all_that_it_tries() {
    let found = behind("nothing");
    for name in ["open", "create", "connect", "exec", "thread", "map-code", "protect-code", "kill"]
    {
        assert_eq!(code(&found, name), 0, "{name}");
    }
}

#[test]
fn another_user_has_no_rights_of_root() {
    let found = behind("user");
    assert_eq!(code(&found, "setuid"), libc::EPERM);
    assert_eq!(code(&found, "chroot"), libc::EPERM);
    if rustix::process::geteuid().is_root() {
        assert_eq!(code(&found, "kill"), libc::EPERM);
    }
}

#[test]
fn landlock_lets_nothing_be_opened_run_or_reached() {
    let found = behind("landlock");
    if found.iter().any(|(name, _)| name == "missing") {
        return eprintln!("this kernel has no landlock: not tested");
    }
    for name in ["open", "create", "exec", "connect"] {
        assert_eq!(code(&found, name), libc::EACCES, "{name}");
    }
    assert_eq!(code(&found, "map"), 0);
}

#[test]
fn there_is_no_descriptor_more() {
    let found = behind("descriptors");
    for name in ["open", "create", "connect"] {
        assert_eq!(code(&found, name), libc::EMFILE, "{name}");
    }
}

#[test]
fn seccomp_leaves_what_computes() {
    let found = behind("seccomp");
    for (name, code) in found {
        let expected = if name == "map" { 0 } else { libc::EPERM };
        assert_eq!(code, expected, "{name}");
    }
}

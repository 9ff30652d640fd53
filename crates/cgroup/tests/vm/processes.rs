use std::mem::size_of;
use std::os::fd::AsRawFd;

use nodule_cgroup::{Group, Limits, Qos};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::node::{MIB, NONE, Node, SPIN, hold, is_empty, read, start, until};

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn more_processes_than_the_limit_are_refused() {
    let node = Node::new("pids");
    let pod = node.pod(Qos::BestEffort, "a", &Limits { pids: Some(4), ..NONE }).unwrap();
    assert_eq!(read(&pod, "pids.max"), "4");
    let app = pod.container("app", &NONE).unwrap();

    let mut shell = start(&app, "for i in 1 2 3 4 5 6; do sleep 100000 2>/dev/null & done");

    // EAGAIN.
    let said = shell.errors();
    assert!(said.contains("can't fork: Resource temporarily unavailable"), "{said:?}");
    assert!(!shell.has_succeeded());
    assert_eq!(app.stats().unwrap().pids, 3);
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_container_is_killed_with_all_its_processes_and_no_other() {
    let node = Node::new("kill");
    let pod = node.pod(Qos::BestEffort, "a", &NONE).unwrap();
    let (app, other) =
        (pod.container("app", &NONE).unwrap(), pod.container("other", &NONE).unwrap());
    let first = start(&app, "sleep 100000 & setsid sleep 100000 & sleep 100000 & wait");
    let _other = start(&other, "sleep 100000");
    until("all processes run", || app.stats().unwrap().pids >= 4 && !is_empty(&other));

    app.kill().unwrap();

    assert!(first.was_killed());
    until("the container is empty", || is_empty(&app));
    assert!(!is_empty(&other));
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_process_is_born_in_the_container() {
    let node = Node::new("born");
    let pod = node.pod(Qos::BestEffort, "a", &NONE).unwrap();
    let app = pod.container("app", &NONE).unwrap();

    let child = birth(&app);

    assert_eq!(read(&app, "cgroup.procs"), child.as_raw_nonzero().to_string());
    kill_process(child, Signal::KILL).unwrap();
    waitpid(Some(child), WaitOptions::empty()).unwrap();
    assert!(is_empty(&app));
}

/// Of `linux/sched.h`; libc's is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child that is in the group from its first instruction on, and does nothing.
#[expect(unsafe_code, reason = "no library has clone3 with a cgroup")]
fn birth(group: &Group) -> Pid {
    let cgroup = group.open().unwrap();
    // SAFETY: zeros are valid for this struct of numbers.
    let mut order: libc::clone_args = unsafe { std::mem::zeroed() };
    order.flags = CLONE_INTO_CGROUP;
    order.exit_signal = libc::SIGCHLD as u64;
    order.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: as fork; the child calls nothing but pause.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const order, size_of::<libc::clone_args>()) };
    if pid == 0 {
        loop {
            // SAFETY: takes nothing, touches nothing.
            unsafe { libc::pause() };
        }
    }
    Pid::from_raw(i32::try_from(pid).unwrap()).expect("clone3 gave a child")
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn what_is_used_is_measured() {
    let node = Node::new("stats");
    let pod = node.pod(Qos::BestEffort, "a", &NONE).unwrap();
    let (idle, busy) =
        (pod.container("idle", &NONE).unwrap(), pod.container("busy", &NONE).unwrap());
    assert_eq!((idle.stats().unwrap().pids, idle.stats().unwrap().oom_kills), (0, 0));

    let _holding = start(&idle, &hold(32));
    let _spinning = start(&busy, SPIN);
    until("memory is held", || idle.stats().unwrap().rss >= 32 * MIB);
    until("time is used", || busy.stats().unwrap().cpu.as_millis() >= 500);

    let (idle, busy, both) = (idle.stats().unwrap(), busy.stats().unwrap(), pod.stats().unwrap());
    assert!(idle.memory >= 32 * MIB && idle.memory < 48 * MIB, "{idle:?}");
    assert!(idle.working_set >= idle.rss && idle.working_set <= idle.memory, "{idle:?}");
    assert!(idle.peak >= idle.rss, "{idle:?}");
    assert!(idle.page_faults > 0, "{idle:?}");
    assert_eq!((idle.pids, busy.pids, both.pids), (3, 1, 4));
    assert!(busy.rss < 8 * MIB, "{busy:?}");
    assert!(both.rss >= 32 * MIB && both.cpu >= busy.cpu, "{both:?}");
    assert!(node.stats().unwrap().rss >= 32 * MIB);
}

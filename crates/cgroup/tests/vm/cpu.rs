//! The machine has one processor. What the cgroups used of it is compared, never how long that took.

use std::time::Duration;

use nodule_cgroup::{Container, Limits, Qos};

use crate::node::{NONE, Node, SPIN, read, start, until};

/// So much work that a period of the quota, or a turn of the scheduler, is of no weight.
const WORK: Duration = Duration::from_secs(5);

fn used(container: &Container) -> Duration {
    container.stats().unwrap().cpu
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_limit_throttles_and_no_limit_does_not() {
    let node = Node::new("cpu-limit");
    let pod = node.pod(Qos::Burstable, "a", &NONE).unwrap();
    let limited = pod.container("limited", &Limits { cpu_limit: Some(100), ..NONE }).unwrap();
    let free = pod.container("free", &NONE).unwrap();

    let _spinning = (start(&limited, SPIN), start(&free, SPIN));
    until("the free one did its work", || used(&free) >= WORK);

    // Of ten parts one and nine.
    let (slow, fast) = (used(&limited), used(&free));
    assert!(slow * 3 < fast, "limited {slow:?}, free {fast:?}");
    let (slow, fast) = (limited.stats().unwrap(), free.stats().unwrap());
    assert!(slow.throttled_periods > 0 && slow.throttled > Duration::ZERO, "{slow:?}");
    assert!(slow.periods >= slow.throttled_periods, "{slow:?}");
    assert_eq!((fast.throttled_periods, fast.throttled), (0, Duration::ZERO));
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_pods_limit_holds_for_its_containers_together() {
    let node = Node::new("cpu-pod");
    let pod = node.pod(Qos::Burstable, "a", &Limits { cpu_limit: Some(100), ..NONE }).unwrap();
    let free = node.pod(Qos::Burstable, "b", &NONE).unwrap().container("free", &NONE).unwrap();
    let both = [pod.container("one", &NONE).unwrap(), pod.container("two", &NONE).unwrap()];

    let _spinning = (both.each_ref().map(|one| start(one, SPIN)), start(&free, SPIN));
    until("the free one did its work", || used(&free) >= WORK);

    let (slow, fast) = (pod.stats().unwrap(), used(&free));
    assert!(slow.cpu * 3 < fast, "limited {slow:?}, free {fast:?}");
    assert!(slow.throttled_periods > 0, "{slow:?}");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn requests_share_a_busy_processor() {
    let node = Node::new("cpu-request");
    let pod = node.pod(Qos::Burstable, "a", &NONE).unwrap();
    let [small, large] = [("small", 100), ("large", 1000)].map(|(id, request)| {
        pod.container(id, &Limits { cpu_request: Some(request), ..NONE }).unwrap()
    });

    let _spinning = (start(&small, SPIN), start(&large, SPIN));
    until("both ran", || !used(&small).is_zero() && !used(&large).is_zero());
    let before = (used(&small), used(&large));
    until("the large one did its work", || used(&large) >= before.1 + WORK);

    // Their weights are 17 and 100: of seven parts one and six.
    let (little, much) = (used(&small) - before.0, used(&large) - before.1);
    assert!(little * 2 < much, "small {little:?}, large {much:?}");
    assert!(!little.is_zero(), "small got nothing");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn processor_settings_are_written_and_can_be_changed() {
    let node = Node::new("cpu-settings");
    let limits = Limits { cpu_request: Some(1000), cpu_limit: Some(1500), ..NONE };
    let pod = node.pod(Qos::Burstable, "a", &limits).unwrap();
    let app = pod.container("app", &limits).unwrap();
    for group in [&*pod, &*app] {
        assert_eq!(read(group, "cpu.max"), "150000 100000");
        assert_eq!(read(group, "cpu.weight"), "100");
    }
    app.limit(&Limits { cpu_limit: Some(1), ..NONE }).unwrap();
    assert_eq!(read(&app, "cpu.max"), "1000 100000");
    app.limit(&NONE).unwrap();
    assert_eq!(
        (read(&app, "cpu.max"), read(&app, "cpu.weight")),
        ("max 100000".to_owned(), "1".to_owned())
    );
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn classes_have_the_weights_of_the_kubelet() {
    let node = Node::new("cpu-classes");
    let weight = |class| {
        std::fs::read_to_string(format!("/sys/fs/cgroup/cpu-classes/kubepods/{class}/cpu.weight"))
            .unwrap()
    };
    assert_eq!(weight("besteffort"), "1\n");
    node.weigh_burstable(1000).unwrap();
    assert_eq!(weight("burstable"), "100\n");
    node.weigh_burstable(0).unwrap();
    assert_eq!(weight("burstable"), "1\n");
}

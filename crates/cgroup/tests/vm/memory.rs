use nodule_cgroup::{Limits, Qos};

use crate::node::{MIB, NONE, Node, hold, is_empty, read, start, until};

const SMALL: Limits = Limits { memory: Some(32 * MIB), ..NONE };

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_container_over_its_limit_is_killed_whole_and_its_neighbour_lives() {
    let node = Node::new("memory-container");
    let pod = node.pod(Qos::Burstable, "a", &NONE).unwrap();
    let (app, other) =
        (pod.container("app", &SMALL).unwrap(), pod.container("other", &SMALL).unwrap());
    let _neighbour = start(&other, &hold(8));
    until("the neighbour holds its memory", || other.stats().unwrap().rss >= 8 * MIB);

    let first = start(&app, &format!("sleep 100000 & {}", hold(64)));

    // The shell, its sleeps and dd: only dd took too much.
    assert!(first.was_killed());
    until("the container is empty", || is_empty(&app));
    assert_eq!(app.stats().unwrap().oom_kills, 1);
    assert_eq!(pod.stats().unwrap().oom_kills, 1);
    assert_eq!(other.stats().unwrap().oom_kills, 0);
    assert!(other.stats().unwrap().rss >= 8 * MIB, "the neighbour lost its memory");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_pod_over_its_limit_loses_the_container_that_uses_most() {
    let node = Node::new("memory-pod");
    let pod = node.pod(Qos::Burstable, "a", &Limits { memory: Some(48 * MIB), ..NONE }).unwrap();
    let (small, large) =
        (pod.container("small", &NONE).unwrap(), pod.container("large", &NONE).unwrap());
    let _small = start(&small, &hold(8));
    until("the small one holds its memory", || small.stats().unwrap().rss >= 8 * MIB);

    let first = start(&large, &format!("sleep 100000 & {}", hold(128)));

    assert!(first.was_killed());
    until("the large one is empty", || is_empty(&large));
    assert_eq!(large.stats().unwrap().oom_kills, 1);
    assert_eq!(pod.stats().unwrap().oom_kills, 1);
    assert_eq!(small.stats().unwrap().oom_kills, 0);
    assert!(small.stats().unwrap().rss >= 8 * MIB, "the small one lost its memory");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_container_within_its_limit_is_not_killed() {
    let node = Node::new("memory-within");
    let pod = node.pod(Qos::Guaranteed, "a", &SMALL).unwrap();
    let app = pod.container("app", &SMALL).unwrap();
    let first = start(&app, "dd if=/dev/zero of=/dev/null bs=16M count=4");
    assert!(first.has_succeeded());
    let stats = app.stats().unwrap();
    assert_eq!(stats.oom_kills, 0);
    assert!((16 * MIB..=32 * MIB).contains(&stats.peak), "{stats:?}");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn memory_settings_are_written_and_can_be_changed() {
    let node = Node::new("memory-settings");
    let pod = node.pod(Qos::Guaranteed, "a", &SMALL).unwrap();
    let app = pod.container("app", &SMALL).unwrap();
    for (group, file, wanted) in [
        (&*pod, "memory.max", "33554432"),
        (&*pod, "memory.oom.group", "0"),
        (&*pod, "memory.swap.max", "max"),
        (&*app, "memory.max", "33554432"),
        (&*app, "memory.oom.group", "1"),
        (&*app, "memory.swap.max", "0"),
    ] {
        assert_eq!(read(group, file), wanted, "{file} of {}", group.path().display());
    }
    app.limit(&Limits { memory: Some(64 * MIB), ..NONE }).unwrap();
    assert_eq!(read(&app, "memory.max"), "67108864");
    app.limit(&NONE).unwrap();
    assert_eq!(read(&app, "memory.max"), "max");
    // Found again, as by the next agent.
    pod.container("app", &SMALL).unwrap();
    assert_eq!(read(&app, "memory.max"), "33554432");
}

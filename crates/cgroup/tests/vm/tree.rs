use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nodule_cgroup::{Error, Limits, Qos, Tree};

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use crate::node::{MOUNT, NONE, Node, is_empty, read, start, until};

const CLASSES: [(Qos, &str); 3] = [
    (Qos::Guaranteed, "kubepods"),
    (Qos::Burstable, "kubepods/burstable"),
    (Qos::BestEffort, "kubepods/besteffort"),
];

fn open(root: &str) -> Result<Tree, Error> {
    Tree::open(Path::new(MOUNT), Path::new(root))
}

/// A process of somebody else, in a cgroup that need not be there.
fn stranger(cgroup: &str) -> Child {
    let path = Path::new(MOUNT).join(cgroup);
    fs::create_dir_all(&path).unwrap();
    let child = Command::new("sleep").arg("100000").spawn().unwrap();
    fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn pods_are_where_the_kubelet_puts_them() {
    let node = Node::new("/tree/deep");
    for (qos, folder) in CLASSES {
        let pod = node.pod(qos, "7f-1", &NONE).unwrap();
        let wanted = PathBuf::from(format!("{MOUNT}/tree/deep/{folder}/pod7f-1"));
        assert_eq!(pod.path(), wanted);
        assert!(wanted.join("memory.max").exists());
        let app = pod.container("app", &NONE).unwrap();
        assert_eq!(app.path(), wanted.join("app"));
        assert!(wanted.join("app/memory.max").exists());
    }
    for name in ["", "..", "a/b", "cgroup.procs"] {
        let error = node.pod(Qos::Burstable, name, &NONE).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{error:?}");
    }
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn the_whole_file_system_can_be_the_root() {
    let node = Node::new("");
    let pod = node.pod(Qos::Guaranteed, "a", &NONE).unwrap();
    assert_eq!(pod.path(), Path::new(MOUNT).join("kubepods/poda"));
    assert!(pod.path().join("memory.max").exists());
    node.limit(&Limits { pids: Some(1000), ..NONE }).unwrap();
    assert_eq!(fs::read_to_string("/sys/fs/cgroup/kubepods/pids.max").unwrap(), "1000\n");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn what_is_left_in_a_pod_ends_with_it() {
    let node = Node::new("remove");
    let pod = node.pod(Qos::Burstable, "a", &NONE).unwrap();
    let app = pod.container("app", &NONE).unwrap();
    let child = start(&app, "trap '' TERM; while :; do sleep 100000; done");
    until("it runs", || app.stats().unwrap().pids >= 2);
    fs::create_dir(app.path().join("nested")).unwrap();

    pod.remove().unwrap();

    assert!(!pod.path().exists());
    assert!(child.was_killed());
    pod.remove().unwrap();
    assert!(app.stats().is_err() && app.join().is_err() && app.limit(&NONE).is_err());
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_container_is_removed_and_its_pod_stays() {
    let node = Node::new("remove-container");
    let pod = node.pod(Qos::Burstable, "a", &NONE).unwrap();
    let (app, other) =
        (pod.container("app", &NONE).unwrap(), pod.container("other", &NONE).unwrap());
    let (child, _other) = (start(&app, "sleep 100000"), start(&other, "sleep 100000"));
    until("both run", || !is_empty(&app) && !is_empty(&other));

    app.remove().unwrap();

    assert!(child.was_killed());
    assert!(!app.path().exists() && !is_empty(&other));
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn orphans_are_found_and_nothing_else() {
    let node = Node::new("orphans");
    for (qos, _) in CLASSES {
        node.pod(qos, &format!("{qos:?}"), &NONE).unwrap().container("app", &NONE).unwrap();
    }
    // A kubelet's pod, and what is no pod at all.
    let foreign = ["podkubelet", "burstable/podkubelet", "pod", "pod.x", "system"];
    let foreign = foreign.map(|name| Path::new(MOUNT).join("orphans/kubepods").join(name));
    for path in &foreign {
        fs::create_dir(path).unwrap();
    }

    // As the next agent finds them.
    let again = open("orphans").unwrap();
    let mut found = again.pods().unwrap();
    found.sort_by_key(|pod| pod.uid().to_owned());
    let uids: Vec<_> = found.iter().map(|pod| pod.uid()).collect();
    assert_eq!(uids, ["BestEffort", "Burstable", "Guaranteed"]);

    for pod in found {
        pod.remove().unwrap();
    }
    assert!(again.pods().unwrap().is_empty());
    for path in foreign {
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn running_pods_survive_a_second_opening() {
    let node = Node::new("again");
    let limits = Limits { cpu_limit: Some(500), ..NONE };
    let pod = node.pod(Qos::Burstable, "a", &limits).unwrap();
    let app = pod.container("app", &limits).unwrap();
    let child = start(&app, "sleep 100000");
    until("it runs", || !is_empty(&app));

    let again = open("again").unwrap();

    assert_eq!(read(&app, "cpu.max"), "50000 100000");
    let same = again.pod(Qos::Burstable, "a", &limits).unwrap().container("app", &limits).unwrap();
    assert_eq!(read(&same, "cgroup.procs"), child.id().to_string());
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn an_agent_in_a_delegated_cgroup_makes_way_for_its_pods() {
    let (agent, other) = (stranger("delegated/nodule"), stranger("delegated/nodule"));

    let tree = open("delegated/nodule").unwrap();

    let moved =
        fs::read_to_string("/sys/fs/cgroup/delegated/nodule/supervisor/cgroup.procs").unwrap();
    let mut moved: Vec<_> = moved.lines().collect();
    moved.sort_unstable();
    let mut wanted = [agent.id().to_string(), other.id().to_string()];
    wanted.sort_unstable();
    assert_eq!(moved, wanted);
    let pod = tree.pod(Qos::Burstable, "a", &NONE).unwrap();
    assert!(pod.path().join("memory.max").exists());
    pod.remove().unwrap();
    end(agent);
    end(other);
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn processes_above_the_root_are_left_alone() {
    let child = stranger("occupied");

    let error = open("occupied/nodule").unwrap_err();

    assert!(
        matches!(&error, Error::Occupied { path } if path == Path::new("/sys/fs/cgroup/occupied")),
        "{error:?}"
    );
    assert_eq!(
        fs::read_to_string("/sys/fs/cgroup/occupied/cgroup.procs").unwrap(),
        format!("{}\n", child.id())
    );
    end(child);
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn controllers_that_are_not_delegated_are_named() {
    // As in a container whose cgroup got none: what is above cannot be seen.
    let bare = Path::new(MOUNT).join("bare/container");
    fs::create_dir_all(&bare).unwrap();
    let mount = Bind::new(&bare, "bare", "rw");

    let error = Tree::open(&mount.0, Path::new("")).unwrap_err();

    assert!(
        matches!(&error, Error::Controllers { missing, .. } if missing == "cpu, memory, pids"),
        "{error:?}"
    );
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn a_mount_that_is_read_only_is_named_with_the_remedy() {
    let mount = Bind::new(Path::new(MOUNT), "read-only", "ro");

    let error = Tree::open(&mount.0, Path::new("read-only")).unwrap_err();

    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains("a writable cgroup mount"), "{error}");
}

/// A folder that is mounted a second time.
struct Bind(PathBuf);

impl Bind {
    fn new(folder: &Path, name: &str, mode: &str) -> Self {
        let mount = Self(std::env::temp_dir().join(name));
        fs::create_dir(&mount.0).unwrap();
        run(Command::new("mount").arg("--bind").arg(folder).arg(&mount.0));
        run(Command::new("mount").arg("-o").arg(format!("remount,bind,{mode}")).arg(&mount.0));
        mount
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
        fs::remove_dir(&self.0).unwrap();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
#[ignore = "needs cgroup v2: run by `just test-vm`"]
fn another_users_cgroup_is_named_with_the_remedy() {
    open("not-mine").unwrap();
    // The kernel's user is a thread's, and this one ends with the test.
    let opened = std::thread::spawn(|| {
        let user = Uid::from_raw(1000);
        set_thread_res_uid(user, user, user).unwrap();
        open("not-mine").map(drop)
    });

    let error = opened.join().unwrap().unwrap_err();

    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains("Delegate=yes"), "{error}");
}

//! Pods in cgroups: real containers on a kernel with cgroup v2. `just test-vm` runs these in a virtual machine; elsewhere they
//! are ignored: they change the machine's cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use nodule_cgroup::{Limits, Qos, Tree};
use nodule_pod::Cgroups;
use serde_json::{Value, json};

use crate::api::Api;
use crate::guests::WAITS;
use crate::registry::Registry;
use crate::root::Root;
use crate::{Agent, gone, on_disk};

const MOUNT: &str = "/sys/fs/cgroup";

/// Takes and touches 64 MiB, then ends.
const HOG: &str = r#"(module (memory (export "memory") 1)
    (func (export "_start")
        (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable))
        (memory.fill (i32.const 0) (i32.const 97) (i32.const 67108864))))"#;

struct Machine {
    api: Api,
    registry: Registry,
    root: Root,
}

impl Machine {
    async fn new() -> Self {
        let registry = Registry::start(&[("hog", HOG), ("waits", WAITS)]).await;
        Self { api: Api::start().await, registry, root: Root::new() }
    }

    async fn agent(&self) -> Agent {
        let cgroups =
            Cgroups { mount: MOUNT.into(), root: PathBuf::new(), cpus: 1000, pids: Some(64) };
        let registries = [self.registry.host.as_str()];
        Agent::made(&self.api, self.root.path(), &registries, Some(cgroups)).await
    }

    fn container(&self, name: &str, image: &str, resources: &Value) -> Value {
        json!({
            "name": name, "image": self.registry.image(image), "imagePullPolicy": "IfNotPresent",
            "stdin": true, "resources": resources,
        })
    }
}

fn pod(uid: &str, class: &str, containers: &Value) -> Value {
    let mut pod = crate::pod(uid, uid);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"] = containers.clone();
    pod["status"]["qosClass"] = json!(class);
    pod
}

fn group(class: &str, uid: &str) -> PathBuf {
    Path::new(MOUNT).join("kubepods").join(class).join(format!("pod{uid}"))
}

/// The cgroup of a pod's one container, once there is a process in it.
async fn populated(pod: &Path) -> PathBuf {
    let inner = || {
        let entries = fs::read_dir(pod).into_iter().flatten().flatten();
        let mut folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        folders.find(|path| {
            !fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().is_empty()
        })
    };
    on_disk("a process in the container's cgroup", || inner().is_some()).await;
    inner().unwrap()
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap().trim_end().to_owned()
}

#[tokio::test]
#[ignore = "run by just test-vm: it changes the machine's cgroups"]
async fn a_container_over_the_memory_of_its_pod_is_oom_killed_and_its_neighbour_lives() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    let containers = json!([
        machine.container("hog", "hog", &json!({})),
        machine.container("waits", "waits", &json!({})),
    ]);
    let mut both = pod("u1", "Burstable", &containers);
    both["spec"]["resources"] = json!({"limits": {"memory": "32Mi"}});
    machine.api.apply(both);
    let told =
        machine.api.status("u1", "/containerStatuses/0/state/terminated/reason", "OOMKilled").await;
    let statuses = &told["status"]["containerStatuses"];
    assert_eq!(statuses[0]["state"]["terminated"]["exitCode"], 137);
    assert!(statuses[1]["state"]["terminated"].is_null(), "{statuses}");
    populated(&group("burstable", "u1")).await;
}

#[tokio::test]
#[ignore = "run by just test-vm: it changes the machine's cgroups"]
async fn a_container_is_in_a_cgroup_with_its_limits_which_goes_with_it() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    let resources = json!({
        "limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "200m", "memory": "64Mi"},
    });
    let containers = json!([machine.container("app", "waits", &resources)]);
    machine.api.apply(pod("u2", "Guaranteed", &containers));
    machine.api.status("u2", "/phase", "Running").await;
    let outer = group("", "u2");
    let inner = populated(&outer).await;
    for folder in [&inner, &outer] {
        assert_eq!(read(folder, "cpu.max"), "20000 100000");
        assert_eq!(read(folder, "memory.max"), (64 << 20).to_string());
    }
    assert_eq!(
        (read(&outer, "pids.max"), read(&inner, "memory.oom.group")),
        ("64".into(), "1".into())
    );
    let pid = read(&inner, "cgroup.procs");
    assert_eq!(read(Path::new("/proc").join(&pid).as_path(), "oom_score_adj"), "-997");

    machine.api.delete("u2", 1);
    gone(machine.root.path(), "u2").await;
    assert!(!outer.exists(), "its cgroup is left");
}

#[tokio::test]
#[ignore = "run by just test-vm: it changes the machine's cgroups"]
async fn what_pods_left_that_nobody_knows_is_removed_and_no_others() {
    let machine = Machine::new().await;
    let tree = Tree::open(Path::new(MOUNT), Path::new("")).unwrap();
    let orphan = tree.pod(Qos::BestEffort, "u9", &Limits::default()).unwrap();
    let _inner = orphan.container("c", &Limits::default()).unwrap();
    let first = machine.agent().await;
    on_disk("the orphan gone", || !orphan.path().exists()).await;
    let containers = json!([machine.container("app", "waits", &json!({}))]);
    machine.api.apply(pod("u3", "BestEffort", &containers));
    machine.api.status("u3", "/phase", "Running").await;
    let inner = populated(&group("besteffort", "u3")).await;
    let pid = read(&inner, "cgroup.procs");
    drop(first);
    let _second = machine.agent().await;
    machine.api.delete("u3", 1);
    assert_eq!(read(&inner, "cgroup.procs"), pid, "the next agent has not kept it");
    gone(machine.root.path(), "u3").await;
}

#[tokio::test]
#[ignore = "run by just test-vm: it changes the machine's cgroups"]
async fn a_running_container_gets_other_limits_but_none_below_what_it_uses() {
    let machine = Machine::new().await;
    let _agent = machine.agent().await;
    let resources = |cpu: &str, memory: &str| {
        let all = json!({"cpu": cpu, "memory": memory});
        json!({"limits": all, "requests": all})
    };
    let containers = json!([machine.container("app", "waits", &resources("200m", "64Mi"))]);
    machine.api.apply(pod("u4", "Guaranteed", &containers));
    machine.api.status("u4", "/phase", "Running").await;
    let outer = group("", "u4");
    let inner = populated(&outer).await;
    let resize = |resources: Value| {
        let mut pod = machine.api.pod("u4").unwrap();
        pod["spec"]["containers"][0]["resources"] = resources;
        machine.api.apply(pod);
    };
    resize(resources("500m", "96Mi"));
    let limit = (96 << 20).to_string();
    on_disk("other limits", || read(&outer, "memory.max") == limit).await;
    for folder in [&inner, &outer] {
        assert_eq!(
            (read(folder, "cpu.max"), read(folder, "memory.max")),
            ("50000 100000".into(), limit.clone())
        );
    }
    resize(resources("500m", "16Ki"));
    let event = machine.api.until("ResizeError", |api| {
        api.events().into_iter().find(|(reason, _)| reason == "ResizeError")
    });
    assert!(event.await.1.contains("memory cannot be limited to 16384 bytes"));
    assert_eq!(read(&inner, "memory.max"), limit);
    resize(resources("100m", "96Mi"));
    on_disk("fewer CPUs", || read(&inner, "cpu.max") == "10000 100000").await;
    assert!(!read(&inner, "cgroup.procs").is_empty(), "it has ended");
}

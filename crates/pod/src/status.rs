//! From what a pod should be and what was seen of it to its `PodStatus`: pure.
//!
//! What must not be told never is: a terminal phase while a container may still run, a phase after a terminal one, a
//! transition time that moves without its condition. The API server checks none of this.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP, ImageVolumeStatus,
    LinuxContainerUser, Pod, PodIP, PodSpec, PodStatus, VolumeMount, VolumeMountStatus,
    VolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use nodule_sandbox_proto::User;

use crate::condition;
use crate::epilogue;
use crate::failure::{Failure, Manner};
use crate::record::{History, Phase, Record, Run};
use crate::restart::{is_sidecar, may_restart, may_restart_init};

/// Why a container does not run, in the API's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is known of a pod at one moment.
pub(crate) struct Seen<'a> {
    pub(crate) record: &'a Record,
    /// By container name: only those that wait for something other than their turn.
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// The pod was taken on, and its volumes have been there since this agent began.
    pub(crate) prepared: bool,
    /// The pod's addresses and the node's, which are the same in `shared` mode; primary first.
    pub(crate) addresses: &'a [String],
    pub(crate) now: Timestamp,
}

/// The status to publish after `previous`.
pub(crate) fn status(seen: &Seen<'_>, previous: &PodStatus) -> PodStatus {
    let pod = &seen.record.pod;
    if let Some(failure) = seen.record.failure.as_ref()
        && failure.manner == Manner::Rejected
    {
        return rejected(seen, failure, previous);
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let mut lists = Lists::of(seen, &spec);
    let failure = seen.record.failure.as_ref();
    let computed = match failure {
        Some(_) => "Failed",
        None => phase(&spec, &lists.init, &lists.containers, seen.record.phase),
    };
    let phase = settle(computed, previous, seen.record.phase);
    let failure = failure.filter(|_| phase == "Failed");
    let conditions = condition::all(&condition::Facts {
        pod,
        phase,
        stopped: seen.record.phase >= Phase::Terminated,
        prepared: seen.prepared || seen.record.has_begun(),
        init: &lists.init,
        containers: &lists.containers,
        previous: previous.conditions.as_deref().unwrap_or_default(),
        failure,
        restarting: seen.record.restarting,
        resize: &seen.record.resize,
        now: seen.now,
    });
    lists.finish();
    let Lists { init, containers, ephemeral } = lists;
    let kept =
        |text: &Option<String>| text.clone().filter(|_| previous.phase.as_deref() == Some(phase));
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        phase: Some(phase.to_owned()),
        reason: failure.map(|failure| failure.reason.clone()).or(kept(&previous.reason)),
        message: failure.map(|failure| failure.message.clone()).or(kept(&previous.message)),
        start_time: Some(seconds(seen.record.start_time)),
        observed_generation: observed_generation(pod, previous),
        ..addresses(seen.addresses)
    }
}

/// A status that tells of the addresses alone.
fn addresses(all: &[String]) -> PodStatus {
    PodStatus {
        host_ip: all.first().cloned(),
        host_ips: Some(all.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: all.first().cloned(),
        pod_ips: Some(all.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        ..PodStatus::default()
    }
}

/// The statuses of all containers.
struct Lists {
    init: Vec<ContainerStatus>,
    containers: Vec<ContainerStatus>,
    ephemeral: Vec<ContainerStatus>,
}

impl Lists {
    /// In the order of the spec.
    fn of(seen: &Seen<'_>, spec: &PodSpec) -> Self {
        let init = container_statuses(seen, spec.init_containers.iter().flatten(), spec);
        let mut containers = container_statuses(seen, spec.containers.iter(), spec);
        if seen.record.phase >= Phase::Terminated && has_initialized(&init, &containers) {
            containers.iter_mut().for_each(give_up);
        }
        let ephemeral = crate::ephemeral::of(spec)
            .map(|container| container_status(seen, &container, false))
            .map(|status| ContainerStatus { ready: false, started: None, ..status })
            .collect();
        Self { init, containers, ephemeral }
    }

    /// As they are told: their messages within bounds, and by name but for init containers, whose order says something.
    fn finish(&mut self) {
        let all = self.init.iter_mut().chain(&mut self.containers).chain(&mut self.ephemeral);
        epilogue::bound(&mut all.collect::<Vec<_>>());
        for list in [&mut self.containers, &mut self.ephemeral] {
            list.sort_by(|one, other| one.name.cmp(&other.name));
        }
    }
}

/// Of a pod that was never taken on there is nothing else to tell.
fn rejected(seen: &Seen<'_>, failure: &Failure, previous: &PodStatus) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(failure.reason.clone()),
        message: Some(failure.message.clone()),
        start_time: Some(seconds(seen.record.start_time)),
        observed_generation: observed_generation(&seen.record.pod, previous),
        ..PodStatus::default()
    }
}

/// Never lower than what was published before.
fn observed_generation(pod: &Pod, previous: &PodStatus) -> Option<i64> {
    pod.metadata.generation.max(previous.observed_generation)
}

/// A terminal phase is final; and it is held back until nothing runs.
fn settle(computed: &'static str, previous: &PodStatus, phase: Phase) -> &'static str {
    match previous.phase.as_deref() {
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        Some("Pending") if is_terminal(computed) && phase < Phase::Terminated => "Pending",
        _ if is_terminal(computed) && phase < Phase::Terminated => "Running",
        _ => computed,
    }
}

fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether every container has ended and none may run again: the pod has ended by itself.
pub(crate) fn has_finished(record: &Record) -> bool {
    let spec = record.pod.spec.clone().unwrap_or_default();
    if failed_init(record, &spec) {
        return true;
    }
    spec.containers.iter().all(|container| {
        let history = record.containers.get(&container.name);
        let end = history.and_then(|history| Some((history, history.counted()?.end.as_ref()?)));
        end.is_some_and(|(history, end)| {
            !may_restart(&spec, container, history.verdict(end.exit_code))
        })
    })
}

/// Whether an init container has failed for good, which fails the pod.
fn failed_init(record: &Record, spec: &PodSpec) -> bool {
    spec.init_containers.iter().flatten().any(|container| {
        let end = record.run(&container.name).and_then(|run| run.end.as_ref());
        end.is_some_and(|end| {
            end.exit_code != 0 && !may_restart_init(spec, container, end.exit_code)
        })
    })
}

fn container_statuses<'a>(
    seen: &Seen<'_>,
    containers: impl Iterator<Item = &'a Container>,
    spec: &PodSpec,
) -> Vec<ContainerStatus> {
    let has_init = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
    containers.map(|container| container_status(seen, container, has_init)).collect()
}

fn container_status(seen: &Seen<'_>, container: &Container, has_init: bool) -> ContainerStatus {
    let history = seen.record.containers.get(&container.name);
    let run = history.and_then(|history| history.run.as_ref());
    let (state, last_state) = states(seen, container, history, has_init);
    let done = state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    let ready = if is_init(seen, container) && !is_sidecar(container) {
        done
    } else {
        seen.record.is_ready(container)
    };
    ContainerStatus {
        name: container.name.clone(),
        ready,
        started: Some(seen.record.is_started(container)),
        restart_count: run.map_or(0, |run| i32::try_from(run.attempt).unwrap_or(i32::MAX)),
        image: run
            .map_or_else(|| container.image.clone().unwrap_or_default(), |run| run.image.clone()),
        image_id: run.map_or_else(String::new, |run| run.image_id.clone()),
        container_id: run.filter(|run| !run.id.is_empty()).map(|run| container_id(&run.id)),
        state: Some(state),
        last_state: Some(last_state),
        user: run.and_then(|run| run.user.as_ref()).map(container_user),
        allocated_resources: container.resources.as_ref().and_then(|own| own.requests.clone()),
        resources: run.and_then(|run| run.resources.clone()),
        stop_signal: run.and_then(|_| stop_signal(container).cloned()),
        volume_mounts: run
            .filter(|run| !run.id.is_empty())
            .map(|_| mounts(seen.record, container))
            .filter(|mounts| !mounts.is_empty()),
        ..ContainerStatus::default()
    }
}

/// What a container has mounted, and of an image which one that is (KEP-3857, KEP-5365).
fn mounts(record: &Record, container: &Container) -> Vec<VolumeMountStatus> {
    let of_image = |name: &str| {
        let image_ref = record.images.get(name)?.clone();
        Some(VolumeStatus { image: Some(ImageVolumeStatus { image_ref }) })
    };
    let mount = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        // This node says of itself that it has nothing of the kind.
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        volume_status: of_image(&mount.name),
    };
    container.volume_mounts.iter().flatten().map(mount).collect()
}

/// The signal that a container asks to be stopped by (KEP-4960), where the API server lets it.
pub(crate) fn stop_signal(container: &Container) -> Option<&String> {
    container.lifecycle.as_ref()?.stop_signal.as_ref()
}

/// Whom the container's process is (KEP-3619).
fn container_user(user: &User) -> ContainerUser {
    let groups =
        std::iter::once(user.gid).chain(user.groups.iter().copied().filter(|id| *id != user.gid));
    let linux = LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: Some(groups.map(i64::from).collect()),
    };
    ContainerUser { linux: Some(linux) }
}

fn is_init(seen: &Seen<'_>, container: &Container) -> bool {
    let spec = seen.record.pod.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.init_containers.iter().flatten().any(|init| init.name == container.name)
    })
}

/// The state and the last state: an end moves to the last state as soon as the container waits to run again.
fn states(
    seen: &Seen<'_>,
    container: &Container,
    history: Option<&History>,
    has_init: bool,
) -> (ContainerState, ContainerState) {
    let last = history.and_then(|history| history.last.clone());
    let waiting = || {
        let default = match () {
            () if seen.record.restarting => "RestartingAllContainers",
            () if has_init => "PodInitializing",
            () => "ContainerCreating",
        };
        let known = seen.waiting.get(&container.name);
        let reason = known.map_or(default, |waiting| waiting.reason).to_owned();
        let message =
            known.map(|waiting| waiting.message.clone()).filter(|message| !message.is_empty());
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason), message }),
            ..Default::default()
        }
    };
    let ended = |terminated| ContainerState { terminated, ..ContainerState::default() };
    match history.and_then(|history| history.run.as_ref()) {
        None => (waiting(), ended(last)),
        Some(Run { end: Some(end), .. }) if is_to_wait(seen, container, history) => {
            (waiting(), ended(Some(end.clone())))
        }
        Some(Run { end: Some(end), .. }) => (ended(Some(end.clone())), ended(last)),
        Some(Run { started: Some(started), .. }) => {
            let running = ContainerStateRunning { started_at: Some(seconds(*started)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, ended(last))
        }
        Some(_) => (waiting(), ended(last)),
    }
}

/// Whether a container that has ended waits to run again.
fn is_to_wait(seen: &Seen<'_>, container: &Container, history: Option<&History>) -> bool {
    let waits = seen.record.restarting
        || seen.waiting.contains_key(&container.name)
        || history.is_some_and(|history| history.again);
    waits && seen.record.phase == Phase::Syncing
}

/// Whether the pod came as far as its regular containers (the kubelet's `hasPodInitialized`).
fn has_initialized(init: &[ContainerStatus], containers: &[ContainerStatus]) -> bool {
    let ran = |status: &ContainerStatus| is_running(status) || exit_code(status).is_some();
    let done = |last: &ContainerStatus| last.started == Some(true) || exit_code(last) == Some(0);
    init.last().is_none_or(done) || containers.iter().any(ran)
}

/// A container that still waits when nothing of its pod runs any more never will: those who judge a pod by its containers find
/// an end of each (the kubelet's `TerminatePod`).
fn give_up(status: &mut ContainerStatus) {
    let Some(state) = status.state.as_mut().filter(|state| state.waiting.is_some()) else { return };
    state.waiting = None;
    state.terminated = Some(ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    });
}

/// How many of the pod's containers stand where (the kubelet's `getPhase`).
#[derive(Default)]
struct Count {
    /// Ordinary init containers that have yet to end.
    init: usize,
    /// Ordinary init containers that failed for good.
    init_failed: usize,
    /// Sidecars that have yet to start.
    sidecars: usize,
    waiting: usize,
    running: usize,
    stopped: usize,
    /// Of those stopped.
    succeeded: usize,
    /// Of those stopped: they do not run again.
    settled: usize,
}

impl Count {
    fn of(spec: &PodSpec, init: &[ContainerStatus], containers: &[ContainerStatus]) -> Self {
        let mut count = Self::default();
        for (container, status) in spec.init_containers.iter().flatten().zip(init) {
            if is_sidecar(container) {
                count.sidecar(status);
            } else {
                count.init(spec, container, status);
            }
        }
        for (container, status) in spec.containers.iter().zip(containers) {
            count.regular(spec, container, status);
        }
        count
    }

    fn init(&mut self, spec: &PodSpec, container: &Container, status: &ContainerStatus) {
        match exit_code(status) {
            Some(0) => {}
            Some(code) if may_restart_init(spec, container, code) => {}
            Some(_) => self.init_failed += 1,
            None => self.init += 1,
        }
    }

    /// Those that have ended do not matter: they come back, or the pod ends without them.
    fn sidecar(&mut self, status: &ContainerStatus) {
        if is_running(status) {
            self.running += 1;
            self.sidecars += usize::from(status.started != Some(true));
        } else if exit_code(status).is_none() {
            self.sidecars += 1;
            self.waiting += 1;
        }
    }

    fn regular(&mut self, spec: &PodSpec, container: &Container, status: &ContainerStatus) {
        match exit_code(status) {
            _ if is_running(status) => self.running += 1,
            None => self.waiting += 1,
            Some(code) => {
                self.stopped += 1;
                self.succeeded += usize::from(code == 0);
                self.settled += usize::from(!may_restart(spec, container, code));
            }
        }
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// How a container ended that does not run: now, or before it began to wait.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let end = |state: &Option<ContainerState>| {
        state.as_ref()?.terminated.as_ref().map(|end| end.exit_code)
    };
    end(&status.state).or_else(|| end(&status.last_state).filter(|_| !is_running(status)))
}

/// The phase by the containers alone (Kubernetes docs, "Pod Lifecycle: Pod phase").
fn phase(
    spec: &PodSpec,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    phase: Phase,
) -> &'static str {
    let count = Count::of(spec, init, containers);
    let by_exits = || if count.succeeded == containers.len() { "Succeeded" } else { "Failed" };
    let initialized = count.stopped > 0 || containers.iter().any(is_running);
    match () {
        () if count.init_failed > 0 => "Failed",
        () if phase >= Phase::Terminated => by_exits(),
        () if count.init > 0 || count.waiting > 0 || (count.sidecars > 0 && !initialized) => {
            "Pending"
        }
        () if count.running > 0 || count.settled < count.stopped => "Running",
        () => by_exits(),
    }
}

/// Kubernetes' times are whole seconds.
pub(crate) fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// A container's ID as the API shows it: `<runtime>://<id>`.
pub(crate) fn container_id(id: &str) -> String {
    format!("nodule://{id}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Lifecycle, PodCondition, PodReadinessGate, Probe};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// How a container stands in a test: the names are the table's.
    #[derive(Clone, Copy)]
    enum Is {
        New,
        Created,
        Running,
        Exited(i32),
        /// Exited, and waits to run again.
        Looping(i32),
    }

    const NOW: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(name: &str) -> Container {
        Container { name: name.to_owned(), image: Some("app:1".to_owned()), ..Container::default() }
    }

    struct Table {
        record: Record,
        waiting: BTreeMap<String, Waiting>,
        prepared: bool,
    }

    impl Table {
        fn new(policy: &str, init: &[Is], regular: &[Is]) -> Self {
            let list = |kind: &str, count: usize| {
                (0..count).map(|n| container(&format!("{kind}{n}"))).collect()
            };
            let spec = PodSpec {
                restart_policy: Some(policy.to_owned()),
                init_containers: (!init.is_empty()).then(|| list("init", init.len())),
                containers: list("c", regular.len()),
                ..PodSpec::default()
            };
            let metadata = ObjectMeta { generation: Some(3), ..ObjectMeta::default() };
            let pod = Pod { metadata, spec: Some(spec), status: None };
            let record = Record::new(pod.into(), at(NOW - 60));
            let mut table = Self { record, waiting: BTreeMap::new(), prepared: true };
            for (kind, list) in [("init", init), ("c", regular)] {
                list.iter().enumerate().for_each(|(n, is)| table.set(&format!("{kind}{n}"), *is));
            }
            table
        }

        fn set(&mut self, name: &str, is: Is) {
            let end = |exit_code| ContainerStateTerminated {
                exit_code,
                reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
                started_at: Some(Time(at(NOW - 9))),
                finished_at: Some(Time(at(NOW - 1))),
                ..ContainerStateTerminated::default()
            };
            let run = |started: Option<i64>, end| Run {
                attempt: 0,
                id: "ab".repeat(32),
                image: "app:1".to_owned(),
                image_id: "docker.io/library/app@sha256:1".to_owned(),
                process: None,
                user: None,
                resources: None,
                started: started.map(at),
                end,
                set: jiff::SignedDuration::ZERO,
            };
            let run = match is {
                Is::New => return,
                Is::Created => run(None, None),
                Is::Running => run(Some(NOW - 9), None),
                Is::Exited(code) => run(Some(NOW - 9), Some(end(code))),
                Is::Looping(code) => {
                    let waiting =
                        Waiting { reason: "CrashLoopBackOff", message: "back-off 10s".to_owned() };
                    self.waiting.insert(name.to_owned(), waiting);
                    run(Some(NOW - 9), Some(end(code)))
                }
            };
            self.record
                .containers
                .insert(name.to_owned(), History { run: Some(run), ..History::default() });
        }

        fn status(&self, previous: &PodStatus) -> PodStatus {
            let addresses = ["10.0.0.7".to_owned()];
            let seen = Seen {
                record: &self.record,
                waiting: &self.waiting,
                prepared: self.prepared,
                addresses: &addresses,
                now: at(NOW),
            };
            status(&seen, previous)
        }
    }

    fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
        status
            .conditions
            .as_ref()
            .unwrap()
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap()
    }

    #[test]
    fn a_pod_is_ready_to_start_containers_from_its_volumes_on_until_nothing_runs() {
        let told = |table: &Table, previous: &PodStatus| {
            let status = table.status(previous);
            let condition = condition(&status, "PodReadyToStartContainers").clone();
            (condition.status == "True", status)
        };
        let mut table = Table::new("Always", &[], &[Is::New]);
        table.prepared = false;
        let (ready, waits) = told(&table, &PodStatus::default());
        assert!(!ready, "its volumes are not there");
        table.prepared = true;
        let (ready, prepared) = told(&table, &waits);
        assert!(ready);
        // The next agent has yet to see to the volumes.
        table.prepared = false;
        assert!(told(&table, &prepared).0);
        table.set("c0", Is::Running);
        assert!(told(&table, &PodStatus::default()).0, "nobody was told");
        table.record.phase = Phase::Terminating;
        assert!(told(&table, &prepared).0);
        table.set("c0", Is::Exited(0));
        table.record.phase = Phase::Terminated;
        assert!(!told(&table, &prepared).0);
    }

    #[test]
    fn every_container_of_a_pod_that_has_ended_has_an_end_if_it_could_have_had_one() {
        let told = |init: &[Is], regular: &[Is], phase| {
            let mut table = Table::new("Always", init, regular);
            table.record.phase = phase;
            let status = table.status(&PodStatus::default());
            let ends = status.container_statuses.unwrap().into_iter().map(|status| {
                let end = status.state.unwrap().terminated?;
                Some((end.exit_code, end.reason.unwrap()))
            });
            ends.collect::<Vec<_>>()
        };
        let unknown = || Some((137, "ContainerStatusUnknown".to_owned()));
        let own = |code: i32| Some((code, "Error".to_owned()));
        for (init, regular, phase, ends) in [
            (&[][..], &[Is::New, Is::Exited(1)][..], Phase::Terminated, [unknown(), own(1)]),
            (&[], &[Is::New, Is::Exited(1)], Phase::Terminating, [None, own(1)]),
            // It does not wait to run again any more.
            (&[], &[Is::Created, Is::Looping(3)], Phase::Terminating, [None, own(3)]),
            (&[], &[Is::Created, Is::Looping(3)], Phase::Terminated, [unknown(), own(3)]),
            // It was not their turn.
            (&[Is::Exited(1)], &[Is::New, Is::New], Phase::Terminated, [None, None]),
            (&[Is::Exited(0)], &[Is::New, Is::New], Phase::Terminated, [unknown(), unknown()]),
        ] {
            assert_eq!(told(init, regular, phase), ends, "{phase:?}");
        }
    }

    #[test]
    fn who_may_have_all_containers_run_again_says_whether_they_do() {
        let rule = serde_json::json!([{"action": "RestartAllContainers"}]);
        let mut table = Table::new("Always", &[], &[Is::Running]);
        let told = |table: &Table| {
            let conditions = table.status(&PodStatus::default()).conditions.unwrap();
            conditions.into_iter().find(|one| one.type_ == "AllContainersRestarting")
        };
        assert_eq!(told(&table), None);
        let mut pod = (*table.record.pod).clone();
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.restart_policy = Some("Never".to_owned());
        container.restart_policy_rules = serde_json::from_value(rule).unwrap();
        table.record.pod = pod.into();
        assert_eq!(told(&table).unwrap().status, "False");
        table.record.restarting = true;
        let told_now = told(&table).unwrap();
        let words = [told_now.reason, told_now.message].map(Option::unwrap);
        assert_eq!(told_now.status, "True");
        assert_eq!(
            words,
            ["RestartAllContainersStarted", "container exited with restart policy rule"]
        );
        table.set("c0", Is::Exited(1));
        table.record.phase = Phase::Terminated;
        let told_last = told(&table).unwrap();
        assert_eq!(
            (told_last.status.as_str(), told_last.reason.unwrap().as_str()),
            ("False", "PodFailed")
        );
    }

    #[test]
    fn a_stop_signal_is_told_of_who_asks_for_one_and_has_run() {
        let told = |signal: Option<&str>, is| {
            let mut table = Table::new("Always", &[], &[is]);
            let mut pod = (*table.record.pod).clone();
            let lifecycle =
                Lifecycle { stop_signal: signal.map(str::to_owned), ..Lifecycle::default() };
            pod.spec.as_mut().unwrap().containers[0].lifecycle = Some(lifecycle);
            table.record.pod = pod.into();
            table.status(&PodStatus::default()).container_statuses.unwrap()[0].stop_signal.clone()
        };
        assert_eq!(told(Some("SIGUSR1"), Is::Running).as_deref(), Some("SIGUSR1"));
        assert_eq!(told(Some("SIGUSR1"), Is::New), None);
        assert_eq!(told(None, Is::Running), None);
    }

    #[test]
    fn mounts_are_told_of_a_container_that_has_run_and_of_an_image_which_it_is() {
        let mut table = Table::new("Always", &[], &[Is::New]);
        let mut pod = (*table.record.pod).clone();
        let mounts = |name: &str, read_only| VolumeMount {
            name: name.to_owned(),
            mount_path: format!("/{name}"),
            read_only,
            ..VolumeMount::default()
        };
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.volume_mounts = Some(vec![mounts("model", Some(true)), mounts("data", None)]);
        table.record.pod = pod.into();
        table.record.images.insert("model".to_owned(), "r/m@sha256:1".to_owned());
        let told = |table: &Table| {
            table.status(&PodStatus::default()).container_statuses.unwrap()[0].volume_mounts.clone()
        };
        assert_eq!(told(&table), None);
        table.set("c0", Is::Running);
        let told = serde_json::to_value(told(&table)).unwrap();
        let expected = serde_json::json!([
            {"name": "model", "mountPath": "/model", "readOnly": true, "recursiveReadOnly": "Disabled",
             "volumeStatus": {"image": {"imageRef": "r/m@sha256:1"}}},
            {"name": "data", "mountPath": "/data"}]);
        assert_eq!(told, expected);
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        use Is::{Created, Exited, Looping, New, Running};
        for (policy, init, regular, wanted) in [
            ("Always", &[][..], &[New][..], "Pending"),
            ("Always", &[], &[Created], "Pending"),
            ("Always", &[], &[Running, New], "Pending"),
            ("Always", &[], &[Running], "Running"),
            ("Always", &[], &[Running, Exited(1)], "Running"),
            ("Always", &[], &[Exited(0)], "Running"),
            ("Always", &[], &[Looping(1)], "Running"),
            ("OnFailure", &[], &[Exited(1), Exited(0)], "Running"),
            ("OnFailure", &[], &[Running, Exited(0)], "Running"),
            ("Never", &[], &[Running, Exited(1)], "Running"),
            ("Always", &[Running], &[New], "Pending"),
            ("Always", &[Exited(1)], &[New], "Pending"),
            ("Always", &[Exited(0)], &[Running], "Running"),
        ] {
            let table = Table::new(policy, init, regular);
            assert_eq!(
                table.status(&PodStatus::default()).phase.as_deref(),
                Some(wanted),
                "{policy}"
            );
            assert!(!has_finished(&table.record), "{policy} {wanted}");
        }
    }

    #[test]
    fn a_sidecar_counts_until_it_has_started_and_not_for_the_end() {
        use Is::{Created, Exited, Looping, New, Running};
        for (policy, side, has_started, regular, phase, wanted) in [
            ("Always", New, true, New, Phase::Syncing, "Pending"),
            ("Always", Created, true, New, Phase::Syncing, "Pending"),
            ("Always", Running, false, New, Phase::Syncing, "Pending"),
            ("Always", Running, true, New, Phase::Syncing, "Pending"),
            ("Always", Running, true, Running, Phase::Syncing, "Running"),
            // Once the others have run, it holds nobody back any more.
            ("Always", Running, false, Running, Phase::Syncing, "Running"),
            ("Always", Looping(1), true, Running, Phase::Syncing, "Running"),
            ("Never", Running, true, Exited(0), Phase::Syncing, "Running"),
            ("Never", Exited(1), true, Exited(0), Phase::Terminated, "Succeeded"),
            ("Never", Exited(0), true, Exited(1), Phase::Terminated, "Failed"),
        ] {
            let mut table = Table::new(policy, &[side], &[regular]);
            let mut pod = (*table.record.pod).clone();
            let init = pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap();
            init[0].restart_policy = Some("Always".to_owned());
            init[0].startup_probe = (!has_started).then(Probe::default);
            table.record.pod = pod.into();
            table.record.phase = phase;
            let told = table.status(&PodStatus::default()).phase;
            assert_eq!(told.as_deref(), Some(wanted), "{policy} {has_started} {phase:?}");
        }
    }

    #[test]
    fn a_terminal_phase_is_told_only_when_nothing_runs_any_more_and_then_for_good() {
        use Is::{Exited, New, Running};
        for (policy, init, regular, wanted) in [
            ("Never", &[][..], &[Exited(0), Exited(0)][..], "Succeeded"),
            ("OnFailure", &[], &[Exited(0)], "Succeeded"),
            ("Never", &[], &[Exited(0), Exited(3)], "Failed"),
            ("Never", &[Exited(1)], &[New], "Failed"),
        ] {
            let mut table = Table::new(policy, init, regular);
            assert!(has_finished(&table.record));
            let running = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
            assert_eq!(table.status(&running).phase.as_deref(), Some("Running"), "held back");
            table.record.phase = Phase::Terminated;
            let last = table.status(&running);
            assert_eq!(last.phase.as_deref(), Some(wanted));
            assert_eq!(condition(&last, "Ready").status, "False");
            table.set("c0", Running);
            assert_eq!(table.status(&last).phase.as_deref(), Some(wanted), "final");
        }
    }

    #[test]
    fn a_pod_that_is_ended_from_outside_is_judged_by_its_exits_whatever_its_policy() {
        for (code, wanted) in [(0, "Succeeded"), (137, "Failed")] {
            let mut table = Table::new("Always", &[], &[Is::Exited(code)]);
            table.record.phase = Phase::Terminated;
            assert_eq!(table.status(&PodStatus::default()).phase.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_container_shows_its_end_until_it_waits_to_run_again() {
        let ended = Table::new("Always", &[], &[Is::Exited(3)]).status(&PodStatus::default());
        let status = &ended.container_statuses.as_ref().unwrap()[0];
        assert_eq!(status.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
        assert!(status.last_state.as_ref().unwrap().terminated.is_none());

        let looping = Table::new("Always", &[], &[Is::Looping(3)]).status(&PodStatus::default());
        let status = &looping.container_statuses.as_ref().unwrap()[0];
        let waiting = status.state.as_ref().unwrap().waiting.as_ref().unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
        assert!(!status.ready);
    }

    #[test]
    fn what_waits_has_a_reason_and_what_runs_has_an_id() {
        let status = Table::new("Always", &[Is::New], &[Is::New]).status(&PodStatus::default());
        let reason = |status: &ContainerStatus| {
            status.state.clone().unwrap().waiting.unwrap().reason.unwrap_or_default()
        };
        assert_eq!(reason(&status.container_statuses.unwrap()[0]), "PodInitializing");
        let status =
            Table::new("Always", &[], &[Is::New, Is::Running]).status(&PodStatus::default());
        let containers = status.container_statuses.unwrap();
        assert_eq!(reason(&containers[0]), "ContainerCreating");
        assert_eq!(
            containers[1].container_id.as_deref(),
            Some(&*format!("nodule://{}", "ab".repeat(32)))
        );
        assert_eq!(containers[1].image_id, "docker.io/library/app@sha256:1");
        assert!(containers[1].ready);
    }

    #[test]
    fn conditions_say_why_and_their_time_moves_only_with_them() {
        let table = Table::new("Always", &[], &[Is::Running, Is::New]);
        let first = table.status(&PodStatus::default());
        let ready = condition(&first, "Ready");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref()),
            ("False", Some("ContainersNotReady"))
        );
        assert_eq!(ready.message.as_deref(), Some("containers with unready status: [c1]"));
        assert_eq!(ready.observed_generation, Some(3));
        assert_eq!(condition(&first, "Initialized").status, "True");
        assert_eq!(condition(&first, "PodReadyToStartContainers").status, "True");

        let mut old = first.clone();
        for condition in old.conditions.as_mut().unwrap() {
            condition.last_transition_time = Some(Time(at(NOW - 500)));
        }
        let next = Table::new("Always", &[], &[Is::Running, Is::Running]).status(&old);
        assert_eq!(condition(&next, "Ready").last_transition_time, Some(Time(at(NOW))));
        assert_eq!(
            condition(&next, "PodScheduled").last_transition_time,
            Some(Time(at(NOW - 500)))
        );
    }

    #[test]
    fn a_pod_that_its_node_ends_has_failed_once_nothing_runs_whatever_its_containers_say() {
        let running = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        let failure = Failure::evicted("Too much. ".to_owned());
        for (is, phase, told, reason) in [
            (Is::Running, Phase::Syncing, "Running", None),
            (Is::Running, Phase::Terminating, "Running", None),
            (Is::Exited(0), Phase::Terminated, "Failed", Some("Evicted")),
            (Is::Exited(137), Phase::Terminated, "Failed", Some("Evicted")),
        ] {
            let mut table = Table::new("Always", &[], &[is]);
            table.record.failure = Some(failure.clone());
            table.record.phase = phase;
            let status = table.status(&running);
            assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some(told), reason));
            assert_eq!(status.message, reason.map(|_| failure.message.clone()));
            let conditions = status.conditions.unwrap();
            assert!(conditions.iter().all(|condition| condition.type_ != "DisruptionTarget"));
        }
    }

    #[test]
    fn readiness_gates_wait_for_others_conditions_which_are_never_written() {
        let mut table = Table::new("Always", &[], &[Is::Running]);
        let mut pod = (*table.record.pod).clone();
        let gate = PodReadinessGate { condition_type: "lb.example/attached".to_owned() };
        pod.spec.as_mut().unwrap().readiness_gates = Some(vec![gate]);
        table.record.pod = pod.into();
        let closed = table.status(&PodStatus::default());
        let why = |status: &PodStatus| {
            let ready = condition(status, "Ready");
            (ready.reason.clone().unwrap(), ready.message.clone().unwrap())
        };
        let absent =
            "corresponding condition of pod readiness gate \"lb.example/attached\" does not exist.";
        assert_eq!(why(&closed), ("ReadinessGatesNotReady".to_owned(), absent.to_owned()));
        let theirs = PodCondition {
            type_: "lb.example/attached".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        let mut show = |status: &str| {
            let theirs = PodCondition { status: status.to_owned(), ..theirs.clone() };
            let mut pod = (*table.record.pod).clone();
            pod.status = Some(PodStatus { conditions: Some(vec![theirs]), ..PodStatus::default() });
            table.record.pod = pod.into();
            table.status(&closed)
        };
        let other =
            "the status of pod readiness gate \"lb.example/attached\" is not \"True\", but Unknown";
        assert_eq!(why(&show("Unknown")), ("ReadinessGatesNotReady".to_owned(), other.to_owned()));
        let open = show("True");
        assert_eq!(condition(&open, "Ready").status, "True");
        let ours = open.conditions.unwrap();
        assert!(ours.iter().all(|condition| condition.type_ != "lb.example/attached"));
    }

    #[test]
    fn the_observed_generation_never_falls() {
        let table = Table::new("Always", &[], &[Is::Running]);
        let later = PodStatus { observed_generation: Some(5), ..PodStatus::default() };
        assert_eq!(table.status(&later).observed_generation, Some(5));
        assert_eq!(table.status(&PodStatus::default()).observed_generation, Some(3));
    }
}

//! A pod's phase, by what became of its containers: pure.

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, PodSpec, PodStatus};

use crate::record::{Phase, Record};
use crate::restart::{is_sidecar, may_restart, may_restart_init};

/// The phase by the containers alone (Kubernetes docs, "Pod Lifecycle: Pod phase").
pub(crate) fn phase(
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

/// A terminal phase is final; and it is held back until nothing runs.
pub(crate) fn settle(computed: &'static str, previous: &PodStatus, phase: Phase) -> &'static str {
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

pub(crate) fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// How a container ended that does not run: now, or before it began to wait.
pub(crate) fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let end = |state: &Option<ContainerState>| {
        state.as_ref()?.terminated.as_ref().map(|end| end.exit_code)
    };
    end(&status.state).or_else(|| end(&status.last_state).filter(|_| !is_running(status)))
}

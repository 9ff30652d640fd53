use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, Lifecycle, PodCondition, PodReadinessGate, Probe,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::phase::has_finished;
use crate::record::{History, Run};

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
    status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == kind).unwrap()
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
    assert_eq!(words, ["RestartAllContainersStarted", "container exited with restart policy rule"]);
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
        assert_eq!(table.status(&PodStatus::default()).phase.as_deref(), Some(wanted), "{policy}");
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
    let status = Table::new("Always", &[], &[Is::New, Is::Running]).status(&PodStatus::default());
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
    assert_eq!(condition(&next, "PodScheduled").last_transition_time, Some(Time(at(NOW - 500))));
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

//! Whose turn it is: pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::ephemeral;
use crate::record::Record;
use crate::restart::is_sidecar;

/// Where a container stands in its pod's spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of `spec.initContainers`.
    Init,
    /// One of `spec.containers`.
    Regular,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

impl Role {
    /// The role of a container in its pod.
    pub(crate) fn of(pod: &Pod, container: &str) -> Self {
        let init = |spec: &PodSpec| {
            spec.init_containers.iter().flatten().any(|init| init.name == container)
        };
        match () {
            () if pod.spec.as_ref().is_some_and(init) => Self::Init,
            () if ephemeral::is_one(pod, container) => Self::Ephemeral,
            () => Self::Regular,
        }
    }

    /// The path of a container in its pod, for Events.
    pub(crate) fn field(self, container: &str) -> String {
        match self {
            Self::Init => format!("spec.initContainers{{{container}}}"),
            Self::Regular => format!("spec.containers{{{container}}}"),
            Self::Ephemeral => format!("spec.ephemeralContainers{{{container}}}"),
        }
    }
}

/// All containers of a pod: init containers, regular ones, ephemeral ones.
pub(crate) fn all(spec: &PodSpec) -> impl Iterator<Item = (Role, Container)> {
    let init = spec.init_containers.iter().flatten().cloned().map(|one| (Role::Init, one));
    let regular = spec.containers.iter().cloned().map(|one| (Role::Regular, one));
    init.chain(regular).chain(ephemeral::of(spec).map(|one| (Role::Ephemeral, one)))
}

/// One container of a pod, by its name.
pub(crate) fn find(pod: &Pod, name: &str) -> Option<(Role, Container)> {
    all(pod.spec.as_ref()?).find(|(_, container)| container.name == name)
}

/// The containers that should run or be about to: ephemeral ones at any time; init containers one after the other, each when the
/// one before has done its work or, as a sidecar, has started; then all others (KEP-753).
pub(crate) fn turn(record: &Record) -> Vec<(Role, Container)> {
    let Some(spec) = &record.pod.spec else { return Vec::new() };
    let mut turn: Vec<_> = ephemeral::of(spec).map(|one| (Role::Ephemeral, one)).collect();
    for container in spec.init_containers.iter().flatten() {
        let run = record.counted(&container.name);
        let succeeded = run.and_then(|run| run.end.as_ref()).is_some_and(|end| end.exit_code == 0);
        let sidecar = is_sidecar(container);
        if succeeded && !sidecar {
            continue;
        }
        turn.push((Role::Init, container.clone()));
        let passes = (sidecar && record.is_started(container)) || others_ran(record);
        if !passes {
            return turn;
        }
    }
    turn.extend(spec.containers.iter().map(|container| (Role::Regular, container.clone())));
    turn
}

/// Of a pod that ends, the containers of `live` that are to stop now: all others before the sidecars, and of those the last
/// before the one that it may stand on (KEP-753).
pub(crate) fn last_turn<'a>(pod: &Pod, live: impl Iterator<Item = &'a String>) -> Vec<String> {
    let init = || pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let place = |name: &str| init().position(|one| one.name == name && is_sidecar(one));
    let (others, sidecars): (Vec<_>, Vec<_>) =
        live.map(|name| (place(name), name)).partition(|(place, _)| place.is_none());
    if !others.is_empty() {
        return others.into_iter().map(|(_, name)| name.clone()).collect();
    }
    sidecars.into_iter().max().map(|(_, name)| name.clone()).into_iter().collect()
}

/// The containers of `live` in the order in which they are to stop.
pub(crate) fn all_turns<'a>(pod: &Pod, live: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut left: Vec<String> = live.cloned().collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let turn = last_turn(pod, left.iter());
        left.retain(|name| !turn.contains(name));
        order.extend(turn);
    }
    order
}

/// Whether a regular container ever ran: then the pod is initialised for good, and a sidecar that ends holds nobody back.
fn others_ran(record: &Record) -> bool {
    record
        .pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .any(|container| record.counted(&container.name).is_some())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ContainerStateTerminated;

    use super::*;
    use crate::record::{History, Run};

    fn container(name: &str, sidecar: bool) -> Container {
        let restart_policy = sidecar.then(|| "Always".to_owned());
        Container { name: name.to_owned(), restart_policy, ..Container::default() }
    }

    fn run(started: bool, exit: Option<i32>) -> History {
        let now = Timestamp::UNIX_EPOCH;
        let end =
            exit.map(|exit_code| ContainerStateTerminated { exit_code, ..Default::default() });
        let run = Run {
            attempt: 0,
            id: String::new(),
            image: String::new(),
            image_id: String::new(),
            process: None,
            user: None,
            resources: None,
            started: started.then_some(now),
            end,
            set: jiff::SignedDuration::ZERO,
        };
        History { run: Some(run), ..History::default() }
    }

    #[test]
    fn init_containers_take_turns_and_hold_the_others_back() {
        let spec = PodSpec {
            init_containers: Some(vec![
                container("one", false),
                container("side", true),
                container("two", false),
            ]),
            containers: vec![container("a", false), container("b", false)],
            ..PodSpec::default()
        };
        let mut record =
            Record::new(Pod { spec: Some(spec), ..Pod::default() }.into(), Timestamp::UNIX_EPOCH);
        let names = |record: &Record| -> Vec<String> {
            turn(record).into_iter().map(|(_, container)| container.name).collect()
        };
        assert_eq!(names(&record), ["one"]);
        record.containers.insert("one".to_owned(), run(true, Some(1)));
        assert_eq!(names(&record), ["one"]);
        record.containers.insert("one".to_owned(), run(true, Some(0)));
        assert_eq!(names(&record), ["side"]);
        record.containers.insert("side".to_owned(), run(false, None));
        assert_eq!(names(&record), ["side"]);
        record.containers.insert("side".to_owned(), run(true, None));
        assert_eq!(names(&record), ["side", "two"]);
        record.containers.insert("two".to_owned(), run(true, Some(0)));
        assert_eq!(names(&record), ["side", "a", "b"]);
        record.containers.insert("a".to_owned(), run(true, None));
        record.containers.insert("side".to_owned(), run(true, Some(1)));
        assert_eq!(names(&record), ["side", "a", "b"]);
    }
    #[test]
    fn sidecars_stop_last_and_in_the_reverse_of_their_order() {
        let spec = PodSpec {
            init_containers: Some(vec![
                container("first", true),
                container("plain", false),
                container("second", true),
            ]),
            containers: vec![container("a", false), container("b", false)],
            ..PodSpec::default()
        };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let turn = |live: &[&str]| {
            let live: Vec<String> = live.iter().map(|name| (*name).to_owned()).collect();
            last_turn(&pod, live.iter())
        };
        assert_eq!(turn(&["a", "b", "first", "second"]), ["a", "b"]);
        assert_eq!(turn(&["b", "first", "second"]), ["b"]);
        assert_eq!(turn(&["first", "plain"]), ["plain"]);
        assert_eq!(turn(&["first", "second"]), ["second"]);
        assert_eq!(turn(&["first"]), ["first"]);
        assert!(turn(&[]).is_empty());
    }
}

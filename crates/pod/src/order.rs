//! Whose turn it is: pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::record::Record;
use crate::restart::is_sidecar;

/// Where a container stands in its pod's spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of `spec.initContainers`.
    Init,
    /// One of `spec.containers`.
    Regular,
}

impl Role {
    /// The role of a container in its pod.
    pub(crate) fn of(pod: &Pod, container: &str) -> Self {
        let init = |spec: &PodSpec| {
            spec.init_containers.iter().flatten().any(|init| init.name == container)
        };
        if pod.spec.as_ref().is_some_and(init) { Self::Init } else { Self::Regular }
    }

    /// The path of a container in its pod, for Events.
    pub(crate) fn field(self, container: &str) -> String {
        match self {
            Self::Init => format!("spec.initContainers{{{container}}}"),
            Self::Regular => format!("spec.containers{{{container}}}"),
        }
    }
}

/// The containers that should run or be about to: init containers one after the other, each when the one before has done
/// its work or, as a sidecar, has started; then all others (KEP-753).
pub(crate) fn turn(record: &Record) -> Vec<(Role, Container)> {
    let Some(spec) = &record.pod.spec else { return Vec::new() };
    let mut turn = Vec::new();
    for container in spec.init_containers.iter().flatten() {
        let run = record.run(&container.name);
        let succeeded = run.and_then(|run| run.end.as_ref()).is_some_and(|end| end.exit_code == 0);
        let sidecar = is_sidecar(container);
        if succeeded && !sidecar {
            continue;
        }
        turn.push((Role::Init, container.clone()));
        let running = run.is_some_and(|run| run.started.is_some() && run.end.is_none());
        let passes = (sidecar && running) || others_ran(record);
        if !passes {
            return turn;
        }
    }
    turn.extend(spec.containers.iter().map(|container| (Role::Regular, container.clone())));
    turn
}

/// Whether a regular container ever ran: then the pod is initialised for good, and a sidecar that ends holds nobody back.
fn others_ran(record: &Record) -> bool {
    record
        .pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .any(|container| record.run(&container.name).is_some())
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
            started: started.then_some(now),
            end,
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
}

//! What commands read of a pod.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether nothing of it runs, nor will.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The images of its containers.
pub(crate) fn images(pod: &Pod) -> impl Iterator<Item = &str> {
    let all = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    all.filter_map(|container| container.image.as_deref())
}

/// The pod of this name, or NAMESPACE/NAME; without one, of the only namespace that has it.
pub(crate) fn find<'p>(pods: &'p [Pod], asked: &str) -> Result<&'p Pod> {
    let (wanted, plain) = match asked.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, asked),
    };
    let meant =
        |pod: &&Pod| name(pod) == plain && wanted.is_none_or(|wanted| namespace(pod) == wanted);
    let mut found = pods.iter().filter(meant);
    let pod = found
        .next()
        .with_context(|| format!("there is no pod \"{asked}\": nodule ps lists them"))?;
    if let Some(other) = found.next() {
        bail!(
            "there are pods \"{asked}\" in namespaces {} and {}: use NAMESPACE/NAME",
            namespace(pod),
            namespace(other)
        );
    }
    Ok(pod)
}

/// The status of each container: init containers first, each kind in the order of the spec.
pub(crate) fn statuses(pod: &Pod) -> Vec<&ContainerStatus> {
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else {
        return Vec::new();
    };
    let init = status.init_container_statuses.iter().flatten();
    let own = spec.containers.iter().filter_map(|container| {
        let mut all = status.container_statuses.iter().flatten();
        all.find(|status| status.name == container.name)
    });
    init.chain(own).collect()
}

/// The newest run of a container, counted from 0; none before its first.
pub(crate) fn newest_run(status: &ContainerStatus) -> Option<u32> {
    let ran = |state: &Option<ContainerState>| {
        state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let has_run = ran(&status.state) || ran(&status.last_state);
    has_run.then(|| u32::try_from(status.restart_count).unwrap_or_default())
}

/// Whether its newest run goes on.
pub(crate) fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// How a pod that has ended did: 0, or the exit code of its first container that failed.
pub(crate) fn exit_code(pod: &Pod) -> u8 {
    let codes = statuses(pod).into_iter().filter_map(|status| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some(u8::try_from(code).unwrap_or(1))
    });
    let failed = codes.into_iter().find(|code| *code != 0);
    failed.unwrap_or(u8::from(phase(pod) != "Succeeded"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(namespace: &str, name: &str, phase: &str, codes: &[i32]) -> Pod {
        let containers: Vec<Value> =
            (0..codes.len()).map(|number| json!({"name": format!("c{number}")})).collect();
        let statuses: Vec<Value> = codes
            .iter()
            .enumerate()
            .map(|(number, code)| {
                json!({"name": format!("c{number}"), "state": {"terminated": {"exitCode": code}},
                    "image": "", "imageID": "", "ready": false, "restartCount": 0})
            })
            .collect();
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
            "spec": {"containers": containers}, "status": {"phase": phase, "containerStatuses": statuses}}))
        .unwrap()
    }

    #[test]
    fn a_pod_is_found_by_its_name_if_that_is_clear() {
        let pods = [pod("a", "x", "", &[]), pod("b", "x", "", &[]), pod("b", "y", "", &[])];
        assert_eq!(namespace(find(&pods, "y").unwrap()), "b");
        assert_eq!(namespace(find(&pods, "a/x").unwrap()), "a");
        assert!(find(&pods, "x").unwrap_err().to_string().contains("NAMESPACE/NAME"));
        assert!(find(&pods, "a/y").unwrap_err().to_string().contains("nodule ps"));
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_container_that_failed() {
        for (phase, codes, expected) in [
            ("Succeeded", &[0, 0][..], 0),
            ("Failed", &[0, 3, 4], 3),
            ("Failed", &[], 1),
            ("Failed", &[300], 1),
        ] {
            assert_eq!(exit_code(&pod("a", "x", phase, codes)), expected, "{codes:?}");
        }
    }
}

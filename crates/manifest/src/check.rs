//! What an API server would refuse, of what a node relies on (`k8s.io/kubernetes/pkg/apis/core/validation`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Refuses a pod that makes no sense. Names and UIDs become paths on disk: none leaves this without being a name.
///
/// # Errors
/// The field at fault, and what is wrong with it.
pub fn check(pod: &Pod) -> Result<(), (String, String)> {
    meta(&pod.metadata)?;
    let Some(spec) = &pod.spec else { return Err(at("spec", "must be set")) };
    if spec.containers.is_empty() {
        return Err(at("spec.containers", "must have one container or more"));
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        return Err(at(
            "spec.restartPolicy",
            format!("\"{policy}\" is not known: use Always, OnFailure or Never"),
        ));
    }
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(at("spec.terminationGracePeriodSeconds", "must not be negative"));
    }
    let volumes = volumes(spec)?;
    let mut names = BTreeSet::new();
    let lists = [
        ("spec.initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("spec.containers", &spec.containers),
    ];
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            self::container(&format!("{list}[{index}]"), container, &volumes)?;
            if !names.insert(container.name.clone()) {
                let cause = format!("\"{}\" is the name of two containers", container.name);
                return Err(at(format!("{list}[{index}].name"), cause));
            }
        }
    }
    Ok(())
}

fn at(field: impl Into<String>, cause: impl Into<String>) -> (String, String) {
    (field.into(), cause.into())
}

/// Name and namespace of an object.
pub(crate) fn meta(meta: &ObjectMeta) -> Result<(), (String, String)> {
    let name = meta.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        return Err(at("metadata.name", name_is_bad(name)));
    }
    match meta.namespace.as_deref() {
        Some(namespace) if !is_label(namespace) => {
            Err(at("metadata.namespace", name_is_bad(namespace)))
        }
        _ => Ok(()),
    }
}

fn name_is_bad(name: &str) -> String {
    if name.is_empty() {
        return "must be set".to_owned();
    }
    format!("{name:?} is no name: use lower-case letters, digits and '-'")
}

fn volumes(spec: &PodSpec) -> Result<BTreeSet<&str>, (String, String)> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let field = || format!("spec.volumes[{index}].name");
        if !is_label(&volume.name) {
            return Err(at(field(), name_is_bad(&volume.name)));
        }
        if !names.insert(volume.name.as_str()) {
            return Err(at(field(), format!("\"{}\" is the name of two volumes", volume.name)));
        }
    }
    Ok(names)
}

fn container(
    path: &str,
    container: &Container,
    volumes: &BTreeSet<&str>,
) -> Result<(), (String, String)> {
    if !is_label(&container.name) {
        return Err(at(format!("{path}.name"), name_is_bad(&container.name)));
    }
    if container.image.as_deref().unwrap_or_default().trim().is_empty() {
        return Err(at(format!("{path}.image"), "must be set"));
    }
    let policy = container.image_pull_policy.as_deref().unwrap_or("Always");
    if !["Always", "IfNotPresent", "Never"].contains(&policy) {
        let cause = format!("\"{policy}\" is not known: use Always, IfNotPresent or Never");
        return Err(at(format!("{path}.imagePullPolicy"), cause));
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = |name: &str| format!("{path}.volumeMounts[{index}].{name}");
        if !volumes.contains(mount.name.as_str()) {
            return Err(at(field("name"), format!("there is no volume \"{}\"", mount.name)));
        }
        if mount.mount_path.is_empty() {
            return Err(at(field("mountPath"), "must be set"));
        }
    }
    Ok(())
}

/// RFC 1123's label.
fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_part(name)
}

/// RFC 1123's subdomain, whose parts Kubernetes lets be of any length.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_part)
}

fn is_part(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(ends) && name.ends_with(ends) && name.chars().all(|c| ends(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(change: impl FnOnce(&mut Value)) -> Result<(), (String, String)> {
        let mut pod = json!({"metadata": {"name": "a.b-c"}, "spec": {
            "volumes": [{"name": "v"}], "initContainers": [{"name": "i", "image": "i"}],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}});
        change(&mut pod);
        check(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_that_makes_sense_is_let_through() {
        checked(|_| {}).unwrap();
    }

    #[test]
    fn what_makes_none_is_refused_at_its_field() {
        for (pointer, value, field) in [
            ("/metadata/name", json!("../x"), "metadata.name"),
            ("/metadata/name", json!(""), "metadata.name"),
            ("/metadata/name", json!("A"), "metadata.name"),
            ("/metadata/namespace", json!("a/b"), "metadata.namespace"),
            ("/spec/containers", json!([]), "spec.containers"),
            ("/spec/restartPolicy", json!("Sometimes"), "spec.restartPolicy"),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(-1),
                "spec.terminationGracePeriodSeconds",
            ),
            ("/spec/containers/0/name", json!("a_b"), "spec.containers[0].name"),
            ("/spec/containers/0/name", json!("i"), "spec.containers[0].name"),
            ("/spec/containers/0/image", json!(" "), "spec.containers[0].image"),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("No"),
                "spec.containers[0].imagePullPolicy",
            ),
            ("/spec/initContainers/0/image", json!(null), "spec.initContainers[0].image"),
            (
                "/spec/containers/0/volumeMounts/0/name",
                json!("w"),
                "spec.containers[0].volumeMounts[0].name",
            ),
            ("/spec/volumes/0/name", json!("V"), "spec.volumes[0].name"),
        ] {
            let (above, name) = pointer.rsplit_once('/').unwrap();
            let error = checked(|pod| {
                let parent = pod.pointer_mut(above).unwrap();
                match name.parse::<usize>() {
                    Ok(index) => parent[index] = value.clone(),
                    Err(_) => parent[name] = value.clone(),
                }
            });
            assert_eq!(error.unwrap_err().0, field, "{pointer} {value}");
        }
    }
}

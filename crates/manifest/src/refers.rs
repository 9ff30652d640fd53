//! What a static pod may not have: it must run where no API server answers, so it cannot need one.

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use serde_json::Value;

/// Kinds of volumes whose content is an object of the API.
const VOLUMES: [&str; 4] = ["configMap", "secret", "persistentVolumeClaim", "ephemeral"];
/// Parts of a projected volume that are one.
const SOURCES: [&str; 5] =
    ["configMap", "secret", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
/// Parts of a variable's source that are one.
const VARIABLES: [&str; 4] = ["configMapRef", "secretRef", "configMapKeyRef", "secretKeyRef"];

/// The first field that refers to an object of the API (NodeRestriction refuses mirror pods with such, and the kubelet the
/// pods themselves since 1.34).
pub(crate) fn refers(spec: &PodSpec) -> Option<String> {
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    let own = [
        ("spec.serviceAccountName", named(&spec.service_account_name)),
        ("spec.serviceAccount", named(&spec.service_account)),
        (
            "spec.imagePullSecrets",
            spec.image_pull_secrets.as_ref().is_some_and(|all| !all.is_empty()),
        ),
        ("spec.resourceClaims", spec.resource_claims.as_ref().is_some_and(|all| !all.is_empty())),
    ];
    let field = own.into_iter().find(|(_, is_set)| *is_set).map(|(field, _)| field.to_owned());
    field
        .or_else(|| volumes(spec.volumes.as_deref().unwrap_or_default()))
        .or_else(|| variables(spec))
}

fn volumes(volumes: &[Volume]) -> Option<String> {
    volumes.iter().enumerate().find_map(|(index, volume)| {
        let value = serde_json::to_value(volume).ok()?;
        let path = format!("spec.volumes[{index}]");
        if let Some(kind) = VOLUMES.iter().find(|kind| value.get(*kind).is_some()) {
            return Some(format!("{path}.{kind}"));
        }
        let sources = value.pointer("/projected/sources").and_then(Value::as_array)?;
        sources.iter().enumerate().find_map(|(at, source)| {
            let kind = SOURCES.iter().find(|kind| source.get(*kind).is_some())?;
            Some(format!("{path}.projected.sources[{at}].{kind}"))
        })
    })
}

fn variables(spec: &PodSpec) -> Option<String> {
    let lists = [
        ("spec.initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("spec.containers", &spec.containers),
    ];
    lists.into_iter().find_map(|(list, containers)| {
        containers.iter().enumerate().find_map(|(index, container)| {
            let path = format!("{list}[{index}]");
            let env = serde_json::to_value(&container.env).ok()?;
            let from = serde_json::to_value(&container.env_from).ok()?;
            key(&env, &format!("{path}.env")).or_else(|| key(&from, &format!("{path}.envFrom")))
        })
    })
}

/// The first of a list of variables that has its value from an object.
fn key(list: &Value, path: &str) -> Option<String> {
    list.as_array()?.iter().enumerate().find_map(|(index, variable)| {
        let source = variable.get("valueFrom").unwrap_or(variable);
        let kind = VARIABLES.iter().find(|kind| source.get(*kind).is_some())?;
        let from = if variable.get("valueFrom").is_some() { ".valueFrom" } else { "" };
        Some(format!("{path}[{index}]{from}.{kind}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_reference_is_found_at_its_field() {
        for (field, spec) in [
            (
                None,
                json!({"volumes": [{"name": "a", "emptyDir": {}}], "containers": [{"env": [{"name": "A", "value": "b"}]}]}),
            ),
            (Some("spec.serviceAccountName"), json!({"serviceAccountName": "a"})),
            (Some("spec.imagePullSecrets"), json!({"imagePullSecrets": [{"name": "a"}]})),
            (
                Some("spec.volumes[0].secret"),
                json!({"volumes": [{"name": "a", "secret": {"secretName": "a"}}]}),
            ),
            (
                Some("spec.volumes[0].projected.sources[1].serviceAccountToken"),
                json!({"volumes": [{"name": "a", "projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {"path": "t"}}]}}]}),
            ),
            (
                Some("spec.containers[0].env[0].valueFrom.secretKeyRef"),
                json!({"containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "k"}}}]}]}),
            ),
            (
                Some("spec.initContainers[0].envFrom[0].configMapRef"),
                json!({"initContainers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}),
            ),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(refers(&spec).as_deref(), field);
        }
    }
}

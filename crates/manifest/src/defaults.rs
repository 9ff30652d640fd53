//! The API server's defaults, of the fields that a node acts on (`k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, ResourceRequirements};

/// The grace period of a pod that names none, in seconds.
const GRACE: i64 = 30;

/// Fills in what an API server would have before a node sees the pod. What is set stays.
pub fn fill(spec: &mut PodSpec) {
    let set = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    for image in spec.volumes.iter_mut().flatten().filter_map(|volume| volume.image.as_mut()) {
        let policy = policy(image.reference.as_deref().unwrap_or_default());
        set(&mut image.pull_policy, policy);
    }
    let init = spec.init_containers.iter_mut().flatten();
    init.chain(&mut spec.containers).for_each(container);
}

fn container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    container.image_pull_policy.get_or_insert_with(|| policy(image).to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    container.resources.iter_mut().for_each(requests);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
}

/// The pull policy of an image that has none.
fn policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Whether an image name means whatever is newest: no tag, or `latest`, and no digest.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// A request that is not set is the limit.
fn requests(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    for get in probe.http_get.iter_mut() {
        get.scheme.get_or_insert_with(|| "HTTP".to_owned());
        get.path.get_or_insert_with(|| "/".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_an_image_is_by_its_tag() {
        for (image, latest) in [
            ("app", true),
            ("app:latest", true),
            ("host:5000/app", true),
            ("host:5000/app:1", false),
            ("app@sha256:0", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn what_is_set_stays() {
        let mut spec: PodSpec = serde_json::from_value(serde_json::json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [{"name": "a",
            "image": "a", "imagePullPolicy": "Never", "resources": {"limits": {"cpu": "2", "memory": "1Gi"},
            "requests": {"cpu": "1"}}}]}))
        .unwrap();
        fill(&mut spec);
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
        assert_eq!(spec.termination_grace_period_seconds, Some(1));
        let container = &spec.containers[0];
        assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
        let requests = container.resources.clone().unwrap().requests.unwrap();
        assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("1", "1Gi"));
    }
}

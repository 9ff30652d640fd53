//! The part of a pod that may be changed while it runs: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::quantity;

/// What a pod and its containers ask for and are limited to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// The pod's own (KEP-2837).
    pod: Option<ResourceRequirements>,
    /// By name; init containers are among them.
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Resources {
    /// Those of this pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let named = spec.init_containers.iter().flatten().chain(&spec.containers);
        let own = |container: &Container| (container.name.clone(), resources(container));
        Self { pod: spec.resources.clone(), containers: named.map(own).collect() }
    }

    /// The pod with these in place of its own.
    pub(crate) fn given_to(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(spec) = &mut pod.spec else { return pod };
        spec.resources.clone_from(&self.pod);
        for container in containers_mut(spec) {
            if let Some(own) = self.containers.get(&container.name) {
                container.resources = Some(own.clone());
            }
        }
        pod
    }
}

/// What is said of a pod's resources in the Events of a resize; its fields, and their order, are the kubelet's (`events/resize.go`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Share<'a>>,
    containers: Vec<Share<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Share<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

fn share(container: &Container) -> Share<'_> {
    Share { name: &container.name, resources: resources(container) }
}

/// The resources of a pod's containers as JSON, with the generation of the pod that asked for them.
pub(super) fn told(pod: &Pod, error: Option<&str>) -> String {
    let spec = pod.spec.as_ref();
    let init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let told = Told {
        init_containers: init.map(share).collect(),
        containers: spec.iter().flat_map(|spec| &spec.containers).map(share).collect(),
        generation: pod.metadata.generation.unwrap_or_default(),
        error,
    };
    // What is made of texts and numbers alone is always JSON.
    serde_json::to_string(&told).unwrap_or_default()
}

/// What a container asks for and is limited to; one that says nothing has nothing.
pub(crate) fn resources(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)
}

/// Whether a container must run anew to get these resources (KEP-1287, `resizePolicy`).
pub(crate) fn asks_for_restart(container: &Container, has: &ResourceRequirements) -> bool {
    let wanted = resources(container);
    let policies = container.resize_policy.iter().flatten();
    policies.filter(|policy| policy.restart_policy == "RestartContainer").any(|policy| {
        let differ = |one: &Option<BTreeMap<String, _>>, other: &Option<BTreeMap<String, _>>| {
            let of = |map: &Option<BTreeMap<String, _>>| {
                map.as_ref()?.get(&policy.resource_name).cloned()
            };
            of(one) != of(other)
        };
        differ(&wanted.requests, &has.requests) || differ(&wanted.limits, &has.limits)
    })
}

/// The limit of memory in bytes, if there is one.
pub(crate) fn memory(resources: &ResourceRequirements) -> Option<u64> {
    let limit = resources.limits.as_ref()?.get("memory")?;
    quantity::bytes(limit).filter(|limit| *limit > 0)
}

/// Whether another limit of CPUs is wanted, of a container or of the pod; or another limit of the pod's own memory.
pub(crate) fn needs_groups(has: &Resources, wanted: &Resources) -> bool {
    let limit = |own: &ResourceRequirements, name: &str| own.limits.as_ref()?.get(name).cloned();
    let of_pod = |all: &Resources| {
        let own = all.pod.clone().unwrap_or_default();
        (limit(&own, "cpu"), limit(&own, "memory"))
    };
    of_pod(has) != of_pod(wanted)
        || wanted.containers.iter().any(|(name, own)| {
            let had = has.containers.get(name).and_then(|had| limit(had, "cpu"));
            had != limit(own, "cpu")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_tells_of_a_resize_in_the_kubelets_form() {
        let mut pod = pod(&json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}));
        pod.metadata.generation = Some(3);
        let app = r#"{"name":"a","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"1"}}}"#;
        let init = r#"{"name":"i","resources":{"limits":{"cpu":"1"}}}"#;
        let all = format!(r#"{{"initContainers":[{init}],"containers":[{app}],"generation":3"#);
        assert_eq!(told(&pod, None), format!("{all}}}"));
        assert_eq!(told(&pod, Some("no")), format!(r#"{all},"error":"no"}}"#));
    }

    fn pod(resources: &Value) -> Pod {
        let init = json!([{"name": "i", "image": "old", "resources": {"limits": {"cpu": "1"}}}]);
        let containers = json!([{"name": "a", "image": "new", "resources": resources}]);
        let spec = json!({"initContainers": init, "containers": containers});
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn resources_are_taken_from_one_pod_and_given_to_another() {
        let (small, large) = (
            pod(&json!({"limits": {"memory": "1Mi"}})),
            pod(&json!({"limits": {"memory": "2Mi"}})),
        );
        let given = Resources::of(&small);
        assert_ne!(given, Resources::of(&large));
        assert_eq!(given.given_to(&large), small);
        assert_eq!(Resources::of(&given.given_to(&large)), given);
    }

    #[test]
    fn a_container_runs_anew_only_for_a_resource_that_asks_for_it() {
        let has = |cpu: &str, memory: &str| {
            let all = json!({"limits": {"cpu": cpu, "memory": memory}});
            serde_json::from_value::<ResourceRequirements>(all).unwrap()
        };
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        let container = json!({"name": "a", "resizePolicy": policy, "resources": has("1", "1Mi")});
        let container: Container = serde_json::from_value(container).unwrap();
        for (had, wanted) in
            [(has("1", "1Mi"), false), (has("2", "1Mi"), false), (has("1", "2Mi"), true)]
        {
            assert_eq!(asks_for_restart(&container, &had), wanted, "{had:?}");
        }
        let plain = Container { resize_policy: None, ..container };
        assert!(!asks_for_restart(&plain, &has("2", "2Mi")));
    }

    #[test]
    fn without_groups_a_guests_memory_and_what_is_asked_for_can_be_changed() {
        let base = Resources::of(&pod(&json!({})));
        for (resources, wanted) in [
            (json!({"limits": {"memory": "1Mi"}}), false),
            (json!({"requests": {"cpu": "1", "memory": "1Mi"}}), false),
            (json!({"limits": {"cpu": "1"}}), true),
        ] {
            assert_eq!(
                needs_groups(&base, &Resources::of(&pod(&resources))),
                wanted,
                "{resources}"
            );
        }
        let own = ResourceRequirements {
            limits: Some([("memory".to_owned(), Default::default())].into()),
            ..Default::default()
        };
        assert!(needs_groups(&base, &Resources { pod: Some(own), ..base.clone() }));
    }
}

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
        NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
        NodeSwapStatus, NodeSystemInfo,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::{Value, json};

use crate::{
    KUBELET_VERSION,
    conditions::{READY, conditions},
    config::Config,
    machine::{Machine, Measure},
    pressure::Shortage,
    resources::{allocatable, capacity, missing},
};

/// Says that the attach/detach controller attaches volumes here, as it does for every kubelet.
const ATTACH_DETACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// The kubelet's `nodeStatusMaxImages`, and the most names that an image is published with.
const MAX_IMAGES: usize = 50;
const MAX_NAMES: usize = 5;
/// What the scheduler asks of a node for pods that need it (KEP-5328), sorted as the API server wants it: pods whose
/// containers restart all of the others (KEP-5532).
const FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];
/// A label's value is no longer.
const MAX_LABEL: usize = 63;

/// The part of the Node that is kept as it is here, whoever else writes to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) status: NodeStatus,
}

/// What is known of the machine and the agent when a status is computed.
pub(crate) struct Facts<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) measure: &'a Measure,
    pub(crate) shortage: Shortage,
    pub(crate) problems: &'a [String],
    pub(crate) unconfined: &'a BTreeSet<String>,
    pub(crate) images: &'a [ContainerImage],
}

impl Wanted {
    /// What the Node is to be now. `previous`: its conditions as the API server has them.
    pub(crate) fn new(
        config: &Config,
        facts: &Facts<'_>,
        previous: &[NodeCondition],
        now: &Time,
    ) -> Self {
        let capacity = capacity(config, facts.measure);
        let mut problems = facts.problems.to_vec();
        let missing = missing(&capacity);
        if !missing.is_empty() {
            problems.push(format!("missing node capacity for resources: {}", missing.join(", ")));
        }
        let status = NodeStatus {
            addresses: Some(addresses(config)),
            allocatable: Some(allocatable(config, facts.measure)),
            capacity: Some(capacity),
            conditions: Some(conditions(
                &problems,
                facts.unconfined,
                facts.shortage,
                previous,
                now,
            )),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
            }),
            declared_features: Some(FEATURES.map(str::to_owned).into()),
            features: Some(NodeFeatures { supplemental_groups_policy: Some(config.strict_groups) }),
            images: Some(published(facts.images)),
            node_info: Some(info(config, facts)),
            runtime_handlers: Some(handlers()),
            ..NodeStatus::default()
        };
        Self { labels: labels(config), status }
    }

    /// The same part of a Node that the API server has, so that the two can be compared.
    pub(crate) fn seen(&self, node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let ours = NodeStatus {
            addresses: status.addresses,
            allocatable: of_ours(status.allocatable, self.status.allocatable.as_ref()),
            capacity: of_ours(status.capacity, self.status.capacity.as_ref()),
            conditions: status.conditions.map(|conditions| self.of_our_types(conditions)),
            daemon_endpoints: status.daemon_endpoints,
            declared_features: status.declared_features,
            features: status.features,
            images: status.images,
            node_info: status.node_info,
            runtime_handlers: status.runtime_handlers,
            ..NodeStatus::default()
        };
        let labels = of_ours(node.metadata.labels.clone(), Some(&self.labels)).unwrap_or_default();
        Self { labels, status: ours }.timeless()
    }

    /// Without the conditions' times, which do not count as a change.
    pub(crate) fn timeless(mut self) -> Self {
        for condition in self.status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        self
    }

    /// Whether pods may come.
    pub(crate) fn ready(&self) -> bool {
        self.status.conditions.iter().flatten().any(|c| c.type_ == READY && c.status == "True")
    }

    /// The object that registers the node.
    pub(crate) fn node(&self, config: &Config) -> Node {
        let mut labels = config.labels.clone();
        labels.extend(self.labels.clone());
        Node {
            metadata: ObjectMeta {
                name: Some(config.name.clone()),
                labels: Some(labels),
                annotations: Some(BTreeMap::from([(ATTACH_DETACH.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: config.provider_id.clone(),
                taints: Some(config.taints.clone()).filter(|taints| !taints.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(self.status.clone()),
        }
    }

    /// The strategic merge patch of `nodes/status` that makes a Node so. Resources, conditions and labels of others
    /// stay; the list of addresses, which would be merged by type and lose the second one of a type, is replaced.
    pub(crate) fn patch(&self) -> Value {
        let mut status = json!(self.status);
        if let Some(Value::Array(addresses)) = status.get_mut("addresses") {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
        json!({"metadata": {"labels": self.labels, "annotations": {ATTACH_DETACH: "true"}}, "status": status})
    }

    fn of_our_types(&self, mut conditions: Vec<NodeCondition>) -> Vec<NodeCondition> {
        conditions.retain(|seen| {
            self.status.conditions.iter().flatten().any(|ours| ours.type_ == seen.type_)
        });
        conditions
    }
}

fn of_ours<V>(
    seen: Option<BTreeMap<String, V>>,
    ours: Option<&BTreeMap<String, V>>,
) -> Option<BTreeMap<String, V>> {
    let mut seen = seen?;
    seen.retain(|name, _| ours.is_some_and(|ours| ours.contains_key(name)));
    Some(seen)
}

/// The labels that are kept on the Node: what the scheduler and others choose nodes by.
fn labels(config: &Config) -> BTreeMap<String, String> {
    let instance = config.labels.get(INSTANCE_TYPE).map_or("nodule", String::as_str);
    let labels = [
        ("kubernetes.io/arch", config.arch.as_str()),
        ("kubernetes.io/os", config.os.as_str()),
        ("kubernetes.io/hostname", label(&config.hostname)),
        ("beta.kubernetes.io/arch", config.arch.as_str()),
        ("beta.kubernetes.io/os", config.os.as_str()),
        (INSTANCE_TYPE, instance),
        ("beta.kubernetes.io/instance-type", instance),
        ("nodule.dev/host-arch", std::env::consts::ARCH),
        ("nodule.dev/wasi", config.wasi.as_str()),
    ];
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// As much of a host name as fits into a label.
fn label(name: &str) -> &str {
    name.get(..MAX_LABEL).unwrap_or(name).trim_end_matches(['-', '.'])
}

fn addresses(config: &Config) -> Vec<NodeAddress> {
    let internal = config.addresses.iter().map(|ip| ("InternalIP", ip.to_string()));
    let all = internal.chain([("Hostname", config.hostname.clone())]);
    all.map(|(type_, address)| NodeAddress { type_: type_.to_owned(), address }).collect()
}

fn info(config: &Config, facts: &Facts<'_>) -> NodeSystemInfo {
    let machine = facts.machine;
    NodeSystemInfo {
        architecture: config.arch.clone(),
        operating_system: config.os.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: format!("nodule://{}", config.version),
        kernel_version: machine.kernel.clone(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        // Where there is none, nothing is said: the API server takes no zero.
        swap: facts
            .measure
            .swap
            .and_then(|n| i64::try_from(n).ok())
            .filter(|capacity| *capacity > 0)
            .map(|n| NodeSwapStatus { capacity: Some(n) }),
        ..NodeSystemInfo::default()
    }
}

/// The default handler and the one that RuntimeClass `nodule` names.
fn handlers() -> Vec<NodeRuntimeHandler> {
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(false),
        user_namespaces: Some(false),
    };
    let handler = |name: &str| NodeRuntimeHandler {
        name: Some(name.to_owned()),
        features: Some(features.clone()),
    };
    ["", "nodule"].map(handler).to_vec()
}

/// The largest images with a few of their names.
fn published(images: &[ContainerImage]) -> Vec<ContainerImage> {
    let mut images = images.to_vec();
    images.sort_by_key(|image| Reverse(image.size_bytes));
    images.truncate(MAX_IMAGES);
    for image in &mut images {
        image.names.iter_mut().for_each(|names| names.truncate(MAX_NAMES));
    }
    images
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::api::resource::Quantity};

    use super::*;
    use crate::{Periods, Reserved, Thresholds, machine::Level};

    pub(crate) fn config() -> Config {
        Config {
            name: "n1".to_owned(),
            hostname: "n1.example".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            port: 10250,
            root: "/".into(),
            os: "wasi".to_owned(),
            arch: "wasm32-wasi".to_owned(),
            wasi: "p1_p2".to_owned(),
            labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
            taints: Vec::new(),
            provider_id: None,
            max_pods: 110,
            reserved: Reserved::default(),
            eviction: Thresholds::default(),
            strict_groups: true,
            version: "1.2.3".to_owned(),
            periods: Periods::default(),
        }
    }

    pub(crate) fn measure() -> Measure {
        Measure {
            cpus: Some(2),
            memory: Some(Level { capacity: 1 << 30, available: 1 << 29 }),
            storage: Some(Level { capacity: 102_400, available: 51_200 }),
            ..Measure::default()
        }
    }

    fn wanted(config: &Config, problems: &[String], images: &[ContainerImage]) -> Wanted {
        let facts = Facts {
            machine: &Machine::default(),
            measure: &measure(),
            shortage: Shortage::default(),
            problems,
            unconfined: &BTreeSet::new(),
            images,
        };
        Wanted::new(config, &facts, &[], &Time(jiff::Timestamp::from_second(1).unwrap()))
    }

    #[test]
    fn the_registration_has_labels_taints_and_addresses() {
        let mut config = config();
        config.taints = vec![Taint {
            key: "k".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        }];
        let node = wanted(&config, &[], &[]).node(&config);
        let labels = node.metadata.labels.unwrap();
        for (key, value) in
            [("kubernetes.io/arch", "wasm32-wasi"), ("kubernetes.io/os", "wasi"), ("team", "blue")]
        {
            assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(node.spec.unwrap().taints, Some(config.taints));
        let addresses: Vec<_> = node
            .status
            .unwrap()
            .addresses
            .unwrap()
            .into_iter()
            .map(|a| (a.type_, a.address))
            .collect();
        let expected =
            [("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("Hostname", "n1.example")];
        assert_eq!(addresses, expected.map(|(t, a)| (t.to_owned(), a.to_owned())));
    }

    #[test]
    fn system_and_architecture_are_the_labels() {
        let config = config();
        let wanted = wanted(&config, &[], &[]);
        let info = wanted.status.node_info.unwrap();
        assert_eq!(wanted.labels.get("kubernetes.io/arch"), Some(&info.architecture));
        assert_eq!(wanted.labels.get("kubernetes.io/os"), Some(&info.operating_system));
        assert_eq!(info.container_runtime_version, "nodule://1.2.3");
    }

    #[test]
    fn no_swap_is_not_a_swap_of_zero() {
        for (swap, published) in [(None, None), (Some(0), None), (Some(4096), Some(4096))] {
            let measure = Measure { swap, ..measure() };
            let facts = Facts {
                machine: &Machine::default(),
                measure: &measure,
                shortage: Shortage::default(),
                problems: &[],
                unconfined: &BTreeSet::new(),
                images: &[],
            };
            assert_eq!(info(&config(), &facts).swap.and_then(|swap| swap.capacity), published);
        }
    }

    #[test]
    fn an_operator_may_name_the_instance_type() {
        let mut config = config();
        config.labels.insert(INSTANCE_TYPE.to_owned(), "big".to_owned());
        assert_eq!(labels(&config).get(INSTANCE_TYPE).map(String::as_str), Some("big"));
    }

    #[test]
    fn a_patch_replaces_the_addresses_and_touches_no_taint() {
        let config = config();
        let patch = wanted(&config, &[], &[]).patch();
        assert_eq!(patch["status"]["addresses"][0], json!({"$patch": "replace"}));
        assert_eq!(patch["status"]["images"], json!([]));
        assert_eq!(patch.get("spec"), None);
        assert_eq!(patch["metadata"]["labels"].get("team"), None);
    }

    #[test]
    fn features_that_the_scheduler_asks_for_are_declared_in_order() {
        let status = wanted(&config(), &[], &[]).status;
        let declared = status.declared_features.unwrap();
        assert!(declared.contains(&"RestartAllContainersOnContainerExits".to_owned()));
        assert!(declared.is_sorted(), "the API server refuses others");
    }

    #[test]
    fn a_node_says_whether_containers_have_the_groups_of_their_pod_alone() {
        for strict in [true, false] {
            let config = Config { strict_groups: strict, ..config() };
            let features = wanted(&config, &[], &[]).status.features.unwrap();
            assert_eq!(features.supplemental_groups_policy, Some(strict));
        }
    }

    #[test]
    fn what_others_put_on_the_node_is_no_change() {
        let config = config();
        let wanted = wanted(&config, &[], &[]);
        let mut node = wanted.node(&config);
        node.metadata.labels.as_mut().unwrap().insert("other".to_owned(), "x".to_owned());
        let status = node.status.as_mut().unwrap();
        status
            .capacity
            .as_mut()
            .unwrap()
            .insert("example.com/gpu".to_owned(), Quantity("1".to_owned()));
        let conditions = status.conditions.as_mut().unwrap();
        conditions.push(NodeCondition {
            type_: "NetworkUnavailable".to_owned(),
            ..NodeCondition::default()
        });
        conditions[0].last_heartbeat_time = Some(Time(jiff::Timestamp::from_second(99).unwrap()));
        assert_eq!(wanted.seen(&node), wanted.clone().timeless());
    }

    #[test]
    fn what_others_change_of_ours_is_a_change() {
        let config = config();
        let wanted = wanted(&config, &[], &[]);
        let mut node = wanted.node(&config);
        node.status.as_mut().unwrap().conditions.as_mut().unwrap()[3].status = "Unknown".to_owned();
        assert_ne!(wanted.seen(&node), wanted.clone().timeless());
        let mut node = wanted.node(&config);
        node.metadata.labels.as_mut().unwrap().remove("kubernetes.io/os");
        assert_ne!(wanted.seen(&node), wanted.timeless());
    }

    #[test]
    fn a_node_without_capacity_is_not_ready() {
        let facts = Facts {
            machine: &Machine::default(),
            measure: &Measure::default(),
            shortage: Shortage::default(),
            problems: &[],
            unconfined: &BTreeSet::new(),
            images: &[],
        };
        let wanted = Wanted::new(&config(), &facts, &[], &Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(!wanted.ready());
        let message = wanted.status.conditions.unwrap().pop().unwrap().message;
        assert_eq!(
            message.as_deref(),
            Some("missing node capacity for resources: cpu, ephemeral-storage, memory")
        );
    }

    #[test]
    fn images_are_the_largest_fifty_with_five_names() {
        let image = |size: i64| ContainerImage {
            names: Some((0..9).map(|n| format!("i{size}:{n}")).collect()),
            size_bytes: Some(size),
        };
        let images: Vec<_> = (0..60).map(image).collect();
        let published = published(&images);
        assert_eq!(
            (published.len(), published[0].size_bytes, published[49].size_bytes),
            (50, Some(59), Some(10))
        );
        assert_eq!(published[0].names.as_ref().unwrap().len(), 5);
    }

    #[test]
    fn a_long_host_name_is_cut_to_a_label() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(label(&long), "a".repeat(62));
        assert_eq!(label("short"), "short");
    }
}

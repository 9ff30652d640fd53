//! The downward API: what a pod's spec says of itself to its guests. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What the node knows of a pod beside its object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Downward<'a> {
    pub(crate) pod: &'a Pod,
    /// The node's name.
    pub(crate) node: &'a str,
    /// The pod's and the node's addresses, primary first.
    pub(crate) addresses: &'a [String],
    /// What the node gives to pods: a limit that is not set.
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
}

impl Downward<'_> {
    /// The value of a `fieldPath`; none if there is no such field.
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let (labels, annotations) = (meta.labels.as_ref(), meta.annotations.as_ref());
        if let Some(key) = subscript(path, "metadata.labels") {
            return Some(labels.and_then(|all| all.get(key)).cloned().unwrap_or_default());
        }
        if let Some(key) = subscript(path, "metadata.annotations") {
            return Some(annotations.and_then(|all| all.get(key)).cloned().unwrap_or_default());
        }
        match path {
            "metadata.name" => meta.name.clone(),
            "metadata.namespace" => meta.namespace.clone(),
            "metadata.uid" => meta.uid.clone(),
            "spec.nodeName" => Some(self.node.to_owned()),
            "spec.serviceAccountName" => {
                Some(spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default())
            }
            "status.hostIP" | "status.podIP" => self.addresses.first().cloned(),
            "status.hostIPs" | "status.podIPs" => Some(self.addresses.join(",")),
            _ => None,
        }
    }

    /// The same for a file, which may hold all labels or annotations.
    pub(crate) fn file(&self, path: &str) -> Option<String> {
        let meta = &self.pod.metadata;
        match path {
            "metadata.labels" => Some(lines(meta.labels.as_ref())),
            "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
            _ => self.field(path),
        }
    }

    /// The value of a `resourceFieldRef`, in units of its divisor, rounded up. `own` is meant where no container is named.
    pub(crate) fn resource(
        &self,
        selector: &ResourceFieldSelector,
        own: Option<&Container>,
    ) -> Result<String, String> {
        let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => self.container(name).ok_or(format!("container {name} not found"))?,
            None => own.ok_or("resourceFieldRef: containerName is missing")?,
        };
        let resource = &selector.resource;
        let unsupported = || format!("unsupported container resource : {resource}");
        let (kind, name) = resource.split_once('.').ok_or_else(unsupported)?;
        let known = matches!(name, "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        let resources = container.resources.as_ref();
        let amount = match kind {
            "limits" if known => {
                let limit = resources.and_then(|all| all.limits.as_ref()?.get(name));
                let some = |limit: &&Quantity| count(name, limit) != Some(0);
                let given = matches!(name, "cpu" | "memory" | "ephemeral-storage");
                limit
                    .filter(some)
                    .or_else(|| self.of_pod(name).filter(some))
                    .or_else(|| self.allocatable.get(name).filter(|_| given))
            }
            "requests" if known => resources.and_then(|all| all.requests.as_ref()?.get(name)),
            _ => return Err(unsupported()),
        };
        let amount = amount.map_or(Some(0), |amount| count(name, amount));
        let divisor = selector.divisor.as_ref().and_then(|divisor| count(name, divisor));
        let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(unit(name));
        Ok(amount.ok_or_else(unsupported)?.div_ceil(divisor).to_string())
    }

    /// The pod's own limit, which its containers share (KEP-2837).
    fn of_pod(&self, resource: &str) -> Option<&Quantity> {
        let spec = self.pod.spec.as_ref()?;
        spec.resources.as_ref()?.limits.as_ref()?.get(resource)
    }

    fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.find(|container| container.name == name)
    }
}

/// CPUs are counted in thousandths, all else in whole units.
fn count(resource: &str, quantity: &Quantity) -> Option<u64> {
    if resource == "cpu" { quantity::thousandths(quantity) } else { quantity::bytes(quantity) }
}

/// One.
fn unit(resource: &str) -> u64 {
    if resource == "cpu" { 1000 } else { 1 }
}

/// `key` of `prefix['key']`.
fn subscript<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")
}

/// `key="value"`, a line each, sorted, without a newline at the end (`k8s.io/kubernetes/pkg/fieldpath`, `FormatMap`).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As Go quotes a string (`strconv.Quote`).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            _ if letter.is_ascii_control() => out.push_str(&format!("\\x{:02x}", letter as u32)),
            _ if letter.is_control() => out.push_str(&format!("\\u{:04x}", letter as u32)),
            _ => out.push(letter),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        let resources =
            json!({"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}});
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1",
                "labels": {"app": "web", "b": "two \"words\""}, "annotations": {"note": "a\nb\u{1}é"}},
            "spec": {"serviceAccountName": "robot", "containers": [
                {"name": "main", "resources": resources}, {"name": "bare"}]}});
        serde_json::from_value(pod).unwrap()
    }

    fn downward<T>(ask: impl FnOnce(&Downward<'_>) -> T) -> T {
        let quantity = |text: &str| Quantity(text.to_owned());
        let allocatable = BTreeMap::from([
            ("cpu".to_owned(), quantity("2")),
            ("memory".to_owned(), quantity("1Gi")),
            ("hugepages-2Mi".to_owned(), quantity("4Mi")),
        ]);
        let addresses = ["10.0.0.7".to_owned(), "fd00::7".to_owned()];
        let pod = pod();
        ask(&Downward { pod: &pod, node: "n1", addresses: &addresses, allocatable: &allocatable })
    }

    #[test]
    fn every_field_path_of_the_contract_is_read_and_no_other() {
        for (path, wanted) in [
            ("metadata.name", Some("web-0")),
            ("metadata.namespace", Some("shop")),
            ("metadata.uid", Some("u-1")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            ("metadata.annotations['note']", Some("a\nb\u{1}é")),
            ("spec.nodeName", Some("n1")),
            ("spec.serviceAccountName", Some("robot")),
            ("status.hostIP", Some("10.0.0.7")),
            ("status.hostIPs", Some("10.0.0.7,fd00::7")),
            ("status.podIP", Some("10.0.0.7")),
            ("status.podIPs", Some("10.0.0.7,fd00::7")),
            ("metadata.colour", None),
            ("metadata.labels", None),
        ] {
            assert_eq!(downward(|of| of.field(path)).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn whole_maps_are_lines_in_order_with_values_as_go_quotes_them() {
        let file = |path| downward(|of| of.file(path)).unwrap();
        assert_eq!(file("metadata.labels"), "app=\"web\"\nb=\"two \\\"words\\\"\"");
        assert_eq!(file("metadata.annotations"), "note=\"a\\nb\\x01é\"");
        assert_eq!(file("metadata.labels['app']"), "web");
    }

    #[test]
    fn resources_are_rounded_up_to_their_divisor_and_a_missing_limit_is_the_nodes() {
        for (container, resource, divisor, wanted) in [
            ("main", "limits.cpu", None, "1"),
            ("main", "limits.cpu", Some("1m"), "250"),
            ("main", "limits.cpu", Some("100m"), "3"),
            ("main", "requests.cpu", Some("1m"), "100"),
            ("main", "limits.memory", None, "67108864"),
            ("main", "limits.memory", Some("1Mi"), "64"),
            ("main", "limits.memory", Some("60Mi"), "2"),
            ("main", "limits.memory", Some("0"), "67108864"),
            ("main", "requests.memory", Some("1Mi"), "0"),
            ("bare", "limits.cpu", None, "2"),
            ("bare", "limits.memory", Some("1Mi"), "1024"),
            ("bare", "limits.ephemeral-storage", None, "0"),
            ("bare", "limits.hugepages-2Mi", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                container_name: Some(container.to_owned()),
                resource: resource.to_owned(),
                divisor: divisor.map(|text| Quantity(text.to_owned())),
            };
            let value = downward(|of| of.resource(&selector, None));
            assert_eq!(value.as_deref(), Ok(wanted), "{container} {resource} {divisor:?}");
        }
    }

    #[test]
    fn a_missing_limit_is_the_pods_before_it_is_the_nodes() {
        let mut pod = pod();
        let limits = json!({"limits": {"memory": "128Mi", "cpu": "0"}});
        pod.spec.as_mut().unwrap().resources = serde_json::from_value(limits).unwrap();
        downward(|of| {
            let of = Downward { pod: &pod, ..*of };
            for (container, resource, wanted) in [
                ("main", "limits.memory", "67108864"),
                ("bare", "limits.memory", "134217728"),
                ("bare", "limits.cpu", "2"),
            ] {
                let selector = ResourceFieldSelector {
                    container_name: Some(container.to_owned()),
                    resource: resource.to_owned(),
                    divisor: None,
                };
                assert_eq!(of.resource(&selector, None).as_deref(), Ok(wanted), "{container}");
            }
        });
    }

    #[test]
    fn a_resource_that_there_is_not_is_named() {
        let ask = |container: Option<&str>, resource: &str| {
            let container_name = container.map(ToOwned::to_owned);
            let selector = ResourceFieldSelector {
                container_name,
                resource: resource.to_owned(),
                divisor: None,
            };
            downward(|of| of.resource(&selector, None)).unwrap_err()
        };
        assert_eq!(ask(Some("other"), "limits.cpu"), "container other not found");
        assert_eq!(ask(Some("main"), "limits.gpu"), "unsupported container resource : limits.gpu");
        assert_eq!(ask(Some("main"), "cpu"), "unsupported container resource : cpu");
        assert!(ask(None, "limits.cpu").contains("containerName"));
    }
}

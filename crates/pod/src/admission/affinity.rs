//! Whether a node is one that a pod asks for: `nodeSelector` and the required node affinity (Kubernetes docs, "Assigning Pods to
//! Nodes"): pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

pub(super) fn matches(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| holds(term, node))
        })
}

/// All of a term's requirements; a term without any matches nothing.
fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| node.metadata.name.as_deref().filter(|_| key == "metadata.name");
    let empty = labels.clone().next().is_none() && fields.clone().next().is_none();
    !empty
        && labels.into_iter().all(|one| meets(one, label(&one.key)))
        && fields.into_iter().all(|one| meets(one, field(&one.key)))
}

fn meets(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let named = || found.is_some_and(|found| values.iter().any(|value| value == found));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = || number(found).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => named(),
        "NotIn" => !named(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(|(found, value)| found > value),
        "Lt" => compared().is_some_and(|(found, value)| found < value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn required(terms: &Value) -> Value {
        json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"key": key, "operator": operator, "values": values})
    }

    #[test]
    fn selectors_and_terms_are_asked_of_labels_and_of_the_name() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"disk": "fast", "cores": "8"}}}))
        .unwrap();
        let term = |one: Value| required(&json!([{"matchExpressions": [one]}]));
        for (spec, wanted) in [
            (json!({"containers": []}), true),
            (json!({"containers": [], "nodeSelector": {"disk": "fast"}}), true),
            (json!({"containers": [], "nodeSelector": {"disk": "slow"}}), false),
            (term(expression("disk", "In", &["slow", "fast"])), true),
            (term(expression("disk", "NotIn", &["fast"])), false),
            (term(expression("zone", "NotIn", &["a"])), true),
            (term(expression("zone", "Exists", &[])), false),
            (term(expression("zone", "DoesNotExist", &[])), true),
            (term(expression("cores", "Gt", &["7"])), true),
            (term(expression("cores", "Lt", &["8"])), false),
            (term(expression("disk", "Gt", &["7"])), false),
            (
                required(&json!([{"matchFields": [expression("metadata.name", "In", &["n1"])]}])),
                true,
            ),
            (required(&json!([{}])), false),
            (
                required(&json!([{}, {"matchExpressions": [expression("disk", "Exists", &[])]}])),
                true,
            ),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(matches(&spec, &node), wanted, "{spec:?}");
        }
    }
}

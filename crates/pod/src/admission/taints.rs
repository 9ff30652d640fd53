//! Taints and tolerations (Kubernetes docs, "Taints and Tolerations"): pure.

use k8s_openapi::api::core::v1::{Node, Pod, Toleration};

/// Whether the node has a taint of the effect `NoExecute` that the pod does not tolerate. Other effects are the scheduler's.
/// Static pods tolerate all.
pub(super) fn is_repelled(pod: &Pod, node: &Node) -> bool {
    let tolerations = || pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut repelling = taints.filter(|taint| taint.effect == "NoExecute");
    repelling.any(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        !tolerations().any(|one| tolerates(one, &taint.key, value, &taint.effect))
    })
}

/// Whether a toleration is one of this taint.
pub(super) fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (own_effect, own_key) = (text(&toleration.effect), text(&toleration.key));
    if !own_effect.is_empty() && own_effect != effect || !own_key.is_empty() && own_key != key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !own_key.is_empty() && text(&toleration.value) == value,
        // Lt and Gt compare whole numbers (KEP-5471).
        operator => compare(operator, value, &text(&toleration.value)),
    }
}

fn compare(operator: &str, taint: &str, toleration: &str) -> bool {
    let (Ok(taint), Ok(toleration)) = (taint.parse::<i64>(), toleration.parse::<i64>()) else {
        return false;
    };
    match operator {
        "Lt" => taint < toleration,
        "Gt" => taint > toleration,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_toleration_matches_by_key_value_and_effect() {
        for (toleration, wanted) in [
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "value": "5"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "6", "effect": "NoExecute"}), false),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), false),
            (json!({"key": "k", "operator": "Near", "value": "5"}), false),
            (json!({"value": ""}), false),
        ] {
            let toleration: Toleration = serde_json::from_value(toleration).unwrap();
            assert_eq!(tolerates(&toleration, "k", "5", "NoExecute"), wanted, "{toleration:?}");
        }
    }
}

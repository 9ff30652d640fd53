use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{
    config::{Amount, Config},
    machine::Measure,
    quantity,
};

/// Resources by name, as in `status.capacity`.
pub(crate) type Resources = BTreeMap<String, Quantity>;

const CPU: &str = "cpu";
const MEMORY: &str = "memory";
const STORAGE: &str = "ephemeral-storage";
const PODS: &str = "pods";

/// All that the machine has, of the resources that are ours to publish.
pub(crate) fn capacity(config: &Config, measure: &Measure) -> Resources {
    named([
        (CPU, measure.cpus.map(|n| quantity::cpus(n * 1000))),
        (MEMORY, measure.memory.map(|level| quantity::kibibytes(level.capacity))),
        (STORAGE, measure.storage.map(|level| quantity::kibibytes(level.capacity))),
        (PODS, Some(quantity::count(u64::from(config.max_pods)))),
    ])
}

/// What pods may have of it: less what is reserved and what hard eviction keeps free, never below nothing.
pub(crate) fn allocatable(config: &Config, measure: &Measure) -> Resources {
    let (reserved, eviction) = (config.reserved, &config.eviction);
    let left = |capacity: u64, reserved: u64, kept: Option<Amount>| {
        capacity
            .saturating_sub(reserved)
            .saturating_sub(kept.map_or(0, |amount| amount.of(capacity)))
    };
    named([
        (CPU, measure.cpus.map(|n| quantity::cpus((n * 1000).saturating_sub(reserved.cpu_millis)))),
        (
            MEMORY,
            measure
                .memory
                .map(|m| quantity::kibibytes(left(m.capacity, reserved.memory, eviction.memory))),
        ),
        (
            STORAGE,
            measure.storage.map(|s| {
                quantity::count(left(s.capacity, reserved.storage, eviction.storage_kept))
            }),
        ),
        (PODS, Some(quantity::count(u64::from(config.max_pods)))),
    ])
}

/// Without these a node is not Ready.
pub(crate) fn missing(capacity: &Resources) -> Vec<&'static str> {
    [CPU, STORAGE, MEMORY, PODS].into_iter().filter(|name| !capacity.contains_key(*name)).collect()
}

fn named<const N: usize>(resources: [(&str, Option<Quantity>); N]) -> Resources {
    resources
        .into_iter()
        .filter_map(|(name, quantity)| Some((name.to_owned(), quantity?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Reserved, Thresholds,
        machine::Level,
        object::tests::{config, measure},
    };

    fn text(resources: &Resources) -> Vec<(&str, &str)> {
        resources.iter().map(|(name, quantity)| (name.as_str(), quantity.0.as_str())).collect()
    }

    #[test]
    fn capacity_is_what_the_machine_has() {
        let expected = [
            ("cpu", "2"),
            ("ephemeral-storage", "100Ki"),
            ("memory", "1048576Ki"),
            ("pods", "110"),
        ];
        assert_eq!(text(&capacity(&config(), &measure())), expected);
    }

    #[test]
    fn allocatable_is_less_what_is_reserved_and_kept_free() {
        let mut config = config();
        config.reserved = Reserved { cpu_millis: 100, memory: 24 << 20, storage: 1024 };
        let expected = [
            ("cpu", "1900m"),
            ("ephemeral-storage", "91136"),
            ("memory", "921600Ki"),
            ("pods", "110"),
        ];
        assert_eq!(text(&allocatable(&config, &measure())), expected);
    }

    #[test]
    fn allocatable_does_not_fall_below_nothing() {
        let mut config = config();
        config.reserved = Reserved { cpu_millis: 9000, memory: u64::MAX, storage: u64::MAX };
        config.eviction = Thresholds { memory: Some(Amount::Share(1.0)), ..Thresholds::default() };
        let expected =
            [("cpu", "0"), ("ephemeral-storage", "0"), ("memory", "0Ki"), ("pods", "110")];
        assert_eq!(text(&allocatable(&config, &measure())), expected);
    }

    #[test]
    fn what_cannot_be_measured_is_missing() {
        let measure =
            Measure { memory: Some(Level { capacity: 1, available: 1 }), ..Measure::default() };
        assert_eq!(missing(&capacity(&config(), &measure)), ["cpu", "ephemeral-storage"]);
    }
}

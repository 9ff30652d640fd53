//! The forms that values have in flags and configuration files.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Taint;
use nodule_node::{Reserved, quantity};
use serde::{Deserialize, Deserializer, de::Error};

/// A duration as Go writes it (`1m30s`). Zero means that the default is wanted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoDuration(Duration);

impl GoDuration {
    pub(crate) fn or(self, default: Duration) -> Duration {
        if self.0.is_zero() { default } else { self.0 }
    }

    pub(crate) fn is_set(self) -> bool {
        !self.0.is_zero()
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is not a duration: use one such as 10s, 1m30s or 500ms"
            ))
        })
    }
}

/// Go's form is one of those that jiff knows; ISO 8601's, which it knows too, is not Go's.
fn duration(text: &str) -> Option<Duration> {
    let go = text == "0" || text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let parsed: SignedDuration =
        if text == "0" { SignedDuration::ZERO } else { text.parse().ok()? };
    parsed.try_into().ok().filter(|_| go && !text.contains(char::is_whitespace))
}

/// `kubeReserved` or `systemReserved`.
pub(crate) fn reserved(map: &BTreeMap<String, String>) -> Result<Reserved> {
    let mut reserved = Reserved::default();
    for (name, text) in map {
        match name.as_str() {
            "cpu" => reserved.cpu_millis = quantity::millis(text).context("cpu")?,
            "memory" => reserved.memory = quantity::units(text).context("memory")?,
            "ephemeral-storage" => {
                reserved.storage = quantity::units(text).context("ephemeral-storage")?;
            }
            "pid" => _ = quantity::units(text).context("pid")?,
            _ => bail!("\"{name}\" cannot be reserved: use cpu, memory, ephemeral-storage or pid"),
        }
    }
    Ok(reserved)
}

/// `--node-labels`.
pub(crate) fn labels(text: &str) -> Result<BTreeMap<String, String>> {
    let label = |pair: &str| {
        let (key, value) = pair.trim().split_once('=').unwrap_or((pair.trim(), ""));
        ensure!(is_key(key), "\"{key}\" is no label key");
        ensure!(value.is_empty() || is_name(value), "\"{value}\" is no value of label {key}");
        ensure!(
            may_label(key),
            "a node may not set label {key} on itself: set it with kubectl label"
        );
        Ok((key.to_owned(), value.to_owned()))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(label).collect()
}

/// The NodeRestriction admission plugin refuses all other keys under Kubernetes' own domains.
fn may_label(key: &str) -> bool {
    const ALLOWED: &[&str] = &[
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    let own = within("kubernetes.io") || within("k8s.io");
    !own || ALLOWED.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
}

/// `--register-with-taints`.
pub(crate) fn taints(text: &str) -> Result<Vec<Taint>> {
    text.split(',').map(str::trim).filter(|taint| !taint.is_empty()).map(taint).collect()
}

fn taint(text: &str) -> Result<Taint> {
    let (pair, effect) = text
        .rsplit_once(':')
        .with_context(|| format!("\"{text}\" is no taint: use KEY=VALUE:EFFECT"))?;
    let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
    let taint = Taint {
        key: key.to_owned(),
        value: value.filter(|value| !value.is_empty()).map(str::to_owned),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    check(&taint)?;
    Ok(taint)
}

/// What the API server would refuse, said before it does.
pub(crate) fn check(taint: &Taint) -> Result<()> {
    let Taint { key, value, effect, .. } = taint;
    ensure!(is_key(key), "\"{key}\" is no taint key");
    ensure!(
        value.as_ref().is_none_or(|value| is_name(value)),
        "taint {key} has a value that is no label value"
    );
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect.as_str());
    ensure!(
        known,
        "taint {key} has effect \"{effect}\": use NoSchedule, PreferNoSchedule or NoExecute"
    );
    Ok(())
}

/// RFC 1123's subdomain, as Kubernetes wants it for names.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(ends)
            && label.ends_with(ends)
            && label.chars().all(|c| ends(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_name(name),
        None => is_name(key),
    }
}

/// The syntax of label values and of names in keys.
fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let within = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && text.starts_with(ends) && text.ends_with(ends) && text.chars().all(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn durations_are_gos() {
        let table = [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1h0m0s", Some(3_600_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("-1s", None),
            ("PT1S", None),
            ("10", None),
            ("", None),
            ("1 s", None),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn reserved_resources_are_read() {
        let expected = Reserved { cpu_millis: 500, memory: 1 << 30, storage: 0 };
        assert_eq!(
            reserved(&map(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "100")])).unwrap(),
            expected
        );
        for pairs in [[("gpu", "1")], [("cpu", "half")]] {
            assert!(reserved(&map(&pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn labels_are_those_that_a_node_may_set() {
        let expected = map(&[("a", "b"), ("example.com/c", ""), ("node.kubernetes.io/x", "y")]);
        assert_eq!(labels("a=b, example.com/c=,node.kubernetes.io/x=y,").unwrap(), expected);
        let refused = [
            "node-role.kubernetes.io/worker=",
            "node-restriction.kubernetes.io/a=b",
            "x.k8s.io/a=b",
            "=b",
            "a=b c",
            "A_/b=c",
        ];
        for text in refused {
            assert!(labels(text).is_err(), "{text}");
        }
    }

    #[test]
    fn taints_are_read() {
        let found = taints("a=b:NoSchedule,c:NoExecute,d=:PreferNoSchedule").unwrap();
        let seen: Vec<_> =
            found.iter().map(|t| (t.key.as_str(), t.value.as_deref(), t.effect.as_str())).collect();
        let expected = [
            ("a", Some("b"), "NoSchedule"),
            ("c", None, "NoExecute"),
            ("d", None, "PreferNoSchedule"),
        ];
        assert_eq!(seen, expected);
        for text in ["a=b", "a=b:Never", ":NoSchedule", "a=b c:NoSchedule"] {
            assert!(taints(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_subdomains() {
        for (name, valid) in [
            ("n1", true),
            ("a.b-c", true),
            ("A", false),
            ("-a", false),
            ("a..b", false),
            ("", false),
        ] {
            assert_eq!(is_subdomain(name), valid, "{name}");
        }
    }
}

//! What the Node says of itself: its name, addresses, labels, taints and periods.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Taint;
use nodule_node::{Config, Periods, Reserved};

use super::kubelet::Kubelet;
use super::{File, Host, eviction, pods::users, values};
use crate::cli::Arguments;

/// The kubelet's `maxPods`.
const MAX_PODS: u32 = 110;
/// One request takes no longer, and none of the Lease's longer than the time between two renewals.
const REQUEST: Duration = Duration::from_secs(10);
/// What the node says that it is. Programs may import WASI preview 1 and preview 2.
const ARCH: &str = "wasm32-wasi";
const OS: &str = "wasi";
const WASI: &str = "p1_p2_p3";

pub(super) fn name(arguments: &Arguments, host: &Host) -> Result<String> {
    let name = arguments.hostname_override.clone().unwrap_or_else(|| host.name.clone());
    let name = name.trim().to_lowercase();
    ensure!(
        values::is_subdomain(&name),
        "\"{name}\" is no node name: use --hostname-override with lower-case letters, digits, '-' and '.'"
    );
    Ok(name)
}

/// An unspecified address asks for one of its family.
pub(super) fn addresses(arguments: &Arguments, host: &Host) -> Result<Vec<IpAddr>> {
    let asked = &arguments.node_ip;
    let families: Vec<_> = asked.iter().map(IpAddr::is_ipv4).collect();
    ensure!(
        matches!(families.as_slice(), [] | [_] | [true, false] | [false, true]),
        "--node-ip: use one address, or one of each family"
    );
    if asked.is_empty() {
        return Ok(host.addresses.first().copied().into_iter().collect());
    }
    asked.iter().map(|asked| specific(*asked, host)).collect()
}

fn specific(asked: IpAddr, host: &Host) -> Result<IpAddr> {
    if !asked.is_unspecified() {
        return Ok(asked);
    }
    let found = host.addresses.iter().find(|found| found.is_ipv4() == asked.is_ipv4());
    found
        .copied()
        .with_context(|| format!("--node-ip={asked}: this machine has no address of that family"))
}

pub(super) fn node(
    arguments: &Arguments,
    file: &File,
    host: &Host,
    name: String,
    addresses: Vec<IpAddr>,
) -> Result<Config> {
    let (kubelet, labels) = (&file.kubelet, &file.nodule.labels);
    let arch = labels.arch.clone().unwrap_or_else(|| ARCH.to_owned());
    Ok(Config {
        hostname: name.clone(),
        name,
        addresses,
        port: 0,
        root: arguments.root_dir.clone(),
        os: labels.os.clone().unwrap_or_else(|| OS.to_owned()),
        taints: taints(arguments, kubelet, &arch)?,
        arch,
        wasi: WASI.to_owned(),
        labels: values::labels(arguments.node_labels.as_deref().unwrap_or_default())
            .context("--node-labels")?,
        provider_id: kubelet.provider_id.clone().filter(|id| !id.is_empty()),
        max_pods: arguments.max_pods.or(kubelet.max_pods).unwrap_or(MAX_PODS),
        reserved: reserved(kubelet)?,
        eviction: eviction::thresholds(kubelet)?,
        // A process that becomes another user has that one's groups alone; one that does not, the agent's.
        strict_groups: users(&file.nodule.pod_users, host)?.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        periods: periods(kubelet)?,
    })
}

/// Without others, those that keep ordinary pods away.
fn taints(arguments: &Arguments, kubelet: &Kubelet, arch: &str) -> Result<Vec<Taint>> {
    if let Some(text) = &arguments.register_with_taints {
        return values::taints(text).context("--register-with-taints");
    }
    if let Some(taints) = &kubelet.register_with_taints {
        taints.iter().try_for_each(values::check).context("field \"registerWithTaints\"")?;
        return Ok(taints.clone());
    }
    let taint = |effect: &str| Taint {
        key: "kubernetes.io/arch".to_owned(),
        value: Some(arch.to_owned()),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    Ok(["NoSchedule", "NoExecute"].map(taint).to_vec())
}

pub(super) fn reserved(kubelet: &Kubelet) -> Result<Reserved> {
    let kube = values::reserved(&kubelet.kube_reserved).context("field \"kubeReserved\"")?;
    let system = values::reserved(&kubelet.system_reserved).context("field \"systemReserved\"")?;
    Ok(Reserved {
        cpu_millis: kube.cpu_millis.saturating_add(system.cpu_millis),
        memory: kube.memory.saturating_add(system.memory),
        storage: kube.storage.saturating_add(system.storage),
    })
}

/// As for the kubelet, a status that is computed at a rate of its own is also sent at that rate.
fn periods(kubelet: &Kubelet) -> Result<Periods> {
    let default = Periods::default();
    let update = kubelet.node_status_update_frequency;
    let report = if update.is_set() { update.or(default.update) } else { default.report };
    let lease = match kubelet.node_lease_duration_seconds {
        None | Some(0) => default.lease,
        Some(seconds) => Duration::from_secs(seconds.into()),
    };
    ensure!(lease >= Duration::from_secs(4), "field \"nodeLeaseDurationSeconds\": use 4 or more");
    Ok(Periods {
        update: update.or(default.update),
        report: kubelet.node_status_report_frequency.or(report),
        lease,
        request: REQUEST.min(lease / 4),
        pressure: kubelet.eviction_pressure_transition_period.or(default.pressure),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KUBELET, NODULE, settings};
    use super::*;

    #[test]
    fn an_architecture_of_ones_own_is_the_taints_too() {
        let settings =
            settings(&[], &format!("{NODULE}labels:\n  arch: wasm32\n  os: wasip2\n")).unwrap();
        let value = settings.node.taints[0].value.clone();
        assert_eq!((settings.node.arch, value), ("wasm32".to_owned(), Some("wasm32".to_owned())));
    }

    #[test]
    fn no_taints_are_no_taints() {
        let file = format!("{KUBELET}registerWithTaints: []\n");
        assert!(settings(&[], &file).unwrap().node.taints.is_empty());
        assert!(settings(&["--register-with-taints="], "").unwrap().node.taints.is_empty());
    }

    #[test]
    fn reservations_are_summed() {
        let file = format!(
            "{KUBELET}kubeReserved:\n  cpu: 100m\nsystemReserved:\n  cpu: 200m\n  memory: 1Gi\n"
        );
        let expected = Reserved { cpu_millis: 300, memory: 1 << 30, storage: 0 };
        assert_eq!(settings(&[], &file).unwrap().node.reserved, expected);
    }

    #[test]
    fn a_status_frequency_is_also_the_reports() {
        for (fields, update, report) in [
            ("nodeStatusUpdateFrequency: 20s\n", 20, 20),
            ("nodeStatusReportFrequency: 1m\n", 10, 60),
            ("nodeStatusUpdateFrequency: 0s\nnodeStatusReportFrequency: 0s\n", 10, 300),
        ] {
            let periods = settings(&[], &format!("{KUBELET}{fields}")).unwrap().node.periods;
            assert_eq!(
                (periods.update.as_secs(), periods.report.as_secs()),
                (update, report),
                "{fields}"
            );
        }
    }

    #[test]
    fn an_unspecified_address_is_any_of_its_family() {
        let addresses = settings(&["--node-ip=::,0.0.0.0"], "").unwrap().node.addresses;
        assert_eq!(
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            ["fd00::9", "10.0.0.9"]
        );
    }
}

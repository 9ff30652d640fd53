//! How pods run: where, as whom, and within what.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nodule_node::quantity;
use nodule_pod::{Cgroups, Config};

use super::kubelet::Kubelet;
use super::nodule::{PodUsers, SandboxStart};
use super::{File, Host, first, network, node::reserved, program, shutdown};
use crate::cli::Arguments;

/// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
const LOG_SIZE: &str = "10Mi";
const LOG_FILES: u32 = 5;
/// The kubelet's `syncFrequency` and the longest back-off between two runs of a container.
const SYNC: Duration = Duration::from_secs(60);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Most pulls are over before.
const SLOW_PULL: Duration = Duration::from_secs(30);
/// The users that pods become: above those that systems give to people, services and containers (systemd's "Users, Groups,
/// UIDs and GIDs on systemd systems"), and within what the API can say.
pub(super) const FIRST_USER: u32 = 2_000_000_000;
pub(super) const USERS: u32 = 1_000_000;
const LAST_USER: u32 = i32::MAX as u32;

pub(super) fn pods(
    arguments: &Arguments,
    file: &File,
    host: &Host,
    name: &str,
    addresses: &[IpAddr],
) -> Result<Config> {
    let (kubelet, nodule) = (&file.kubelet, &file.nodule);
    let size = kubelet
        .container_log_max_size
        .as_deref()
        .filter(|size| !size.is_empty())
        .unwrap_or(LOG_SIZE);
    let files = kubelet.container_log_max_files.unwrap_or(LOG_FILES);
    ensure!(files > 1, "field \"containerLogMaxFiles\": use 2 or more");
    let or = |path: Option<PathBuf>, default: &str| {
        path.unwrap_or_else(|| Path::new(default).to_owned())
    };
    let logs = or(first(&arguments.pod_logs_dir, &kubelet.pod_logs_dir), "/var/log/pods");
    let links = first(&arguments.container_logs_dir, &nodule.container_logs_dir);
    Ok(Config {
        node: name.to_owned(),
        version: nodule_node::KUBELET_VERSION.to_owned(),
        addresses: addresses.iter().map(IpAddr::to_string).collect(),
        root: arguments.root_dir.clone(),
        run: or(first(&arguments.run_dir, &nodule.run_dir), "/run/nodule"),
        log_links: links.unwrap_or_else(|| logs.with_file_name("containers")),
        logs,
        sandbox: program(&nodule.sandbox_path, host, "nodule-sandbox"),
        start: match nodule.sandbox_start {
            SandboxStart::Fork => nodule_pod::Start::Fork,
            SandboxStart::Exec => nodule_pod::Start::Exec,
        },
        users: users(&nodule.pod_users, host)?,
        cgroups: cgroups(kubelet, host)?,
        memory: host.memory,
        privileged: host.is_root,
        may_mount: host.is_root,
        network: network::network(arguments, file)?,
        log_max_size: quantity::units(size).context("field \"containerLogMaxSize\"")?,
        log_max_files: files,
        shutdown: shutdown::groups(kubelet)?,
        sync: kubelet.sync_frequency.or(SYNC),
        slow_pull: SLOW_PULL,
        longest_backoff: kubelet
            .crash_loop_back_off
            .max_container_restart_period
            .or(LONGEST_BACKOFF),
    })
}

/// The kubelet's `kubepods`, in the one place where cgroup v2 is mounted (file-hierarchy(7)).
fn cgroups(kubelet: &Kubelet, host: &Host) -> Result<Option<Cgroups>> {
    if kubelet.cgroups_per_qos == Some(false) {
        return Ok(None);
    }
    let root = kubelet.cgroup_root.clone().unwrap_or_default();
    let root = root.strip_prefix("/").map(Path::to_owned).unwrap_or(root);
    Ok(Some(Cgroups {
        mount: PathBuf::from("/sys/fs/cgroup"),
        root,
        cpus: host.cpus.saturating_mul(1000).saturating_sub(reserved(kubelet)?.cpu_millis),
        // As for the kubelet, less than 0 is no limit.
        pids: kubelet.pod_pids_limit.and_then(|limit| u64::try_from(limit).ok()),
    }))
}

/// Only root can make a process another user's.
pub(super) fn users(pods: &PodUsers, host: &Host) -> Result<Option<RangeInclusive<u32>>> {
    let (first, count) = (pods.first.unwrap_or(FIRST_USER), pods.count.unwrap_or(USERS));
    let last = first.checked_add(count.saturating_sub(1)).filter(|last| *last <= LAST_USER);
    let last = last.filter(|_| count > 0 && first > 0).with_context(|| {
        format!("field \"podUsers\": use 1 or more users from 1 to {LAST_USER}")
    })?;
    Ok(host.is_root.then_some(first..=last))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KUBELET, NODULE, settings};
    use super::*;

    #[test]
    fn links_to_logs_lie_beside_the_logs_unless_they_are_placed() {
        let links = |flags: &[&str], file: &str| settings(flags, file).unwrap().pods.log_links;
        assert_eq!(links(&["--pod-logs-dir=/t/pod-logs"], ""), Path::new("/t/containers"));
        let file =
            format!("{KUBELET}podLogsDir: /f/pods\n---\n{NODULE}containerLogsDir: /f/links\n");
        assert_eq!(links(&[], &file), Path::new("/f/links"));
        assert_eq!(links(&["--container-logs-dir=/t/links"], &file), Path::new("/t/links"));
    }

    #[test]
    fn pods_have_cgroups_as_with_the_kubelet() {
        let cgroups =
            |fields: &str| settings(&[], &format!("{KUBELET}{fields}")).unwrap().pods.cgroups;
        let default = cgroups("kubeReserved: {cpu: 500m}\n").unwrap();
        assert_eq!((default.root, default.cpus, default.pids), (PathBuf::new(), 3500, None));
        let other = cgroups("cgroupRoot: /nodule.slice\npodPidsLimit: 100\n").unwrap();
        assert_eq!((other.root, other.pids), (PathBuf::from("nodule.slice"), Some(100)));
        assert_eq!(cgroups("podPidsLimit: -1\n").unwrap().pids, None);
        assert!(cgroups("cgroupsPerQOS: false\n").is_none());
    }

    #[test]
    fn pods_have_users_that_nobody_else_has() {
        let users =
            |fields: &str| settings(&[], &format!("{NODULE}{fields}")).map(|s| s.pods.users);
        assert_eq!(users("").unwrap(), Some(2_000_000_000..=2_000_999_999));
        assert!(settings(&[], "").unwrap().node.strict_groups);
        assert_eq!(users("podUsers: {first: 5, count: 1}\n").unwrap(), Some(5..=5));
        for wrong in ["{first: 0}", "{count: 0}", "{first: 2147483647, count: 2}", "{first: -1}"] {
            let error = users(&format!("podUsers: {wrong}\n")).unwrap_err();
            assert!(format!("{error:#}").contains("podUsers"), "{error:#}");
        }
    }
}

//! An agent without a cluster, and commands that have only a root directory.

use std::path::Path;

use anyhow::Result;
use clap::Parser;

use super::kubelet::Verification;
use super::node::{addresses, name};
use super::pods::{FIRST_USER, USERS, pods};
use super::{File, Host, Log, images::images, log};
use crate::cli::Arguments;

/// The users of pods without a cluster: after those of a node's.
const FIRST_LOCAL_USER: u32 = FIRST_USER + USERS;
/// Their cgroup, which the agent makes.
const LOCAL_GROUP: &str = "nodule";

/// What an agent without a cluster is to do.
pub(crate) struct Alone {
    pub(crate) images: nodule_image::Config,
    pub(crate) pods: nodule_pod::Config,
    pub(crate) log: Log,
}

impl Alone {
    /// For an agent without a cluster, which keeps everything below these folders. Beside the agent of a node on the same
    /// machine it is another: it has users and cgroups of its own.
    pub(crate) fn new(
        root: &Path,
        run: &Path,
        logs: &Path,
        mut file: File,
        host: &Host,
    ) -> Result<Self> {
        file.nodule.pod_users.first.get_or_insert(FIRST_LOCAL_USER);
        file.kubelet.cgroup_root.get_or_insert_with(|| LOCAL_GROUP.into());
        // Images, pods and credentials are one user's.
        let verification = &mut file.kubelet.image_pull_credentials_verification_policy;
        verification.get_or_insert(Verification::NeverVerify);
        if !host.is_root {
            file.kubelet.cgroups_per_qos.get_or_insert(false);
        }
        let arguments = Arguments {
            run_dir: Some(run.to_owned()),
            pod_logs_dir: Some(logs.to_owned()),
            container_logs_dir: Some(root.join("containers")),
            healthz_port: Some(0),
            ..without_cluster(root)
        };
        let (name, addresses) = (name(&arguments, host)?, addresses(&arguments, host)?);
        Ok(Self {
            images: images(&arguments, &file, host)?,
            pods: pods(&arguments, &file, host, &name, &addresses)?,
            log: log(&arguments, &file),
        })
    }
}

/// The settings of the images below a root directory, for commands.
pub(crate) fn images_of(root: &Path, file: &File, host: &Host) -> Result<nodule_image::Config> {
    images(&without_cluster(root), file, host)
}

fn without_cluster(root: &Path) -> Arguments {
    Arguments {
        root_dir: root.to_owned(),
        ..Arguments::parse_from(["nodule", "--kubeconfig=none"])
    }
}

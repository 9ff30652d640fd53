//! The pods' cgroups, where this machine has cgroup v2 and this agent may use it: made before a sandbox starts, asked when it
//! was killed, removed when nothing of the pod runs.
//!
//! All here is blocking; only [`Groups::leave`] may take long.

use std::collections::HashSet;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};
use nodule_cgroup::{Error, Group, Limits, Tree};
use tracing::{info, warn};

use crate::host::Cgroups;
use crate::layers::Layers;
use crate::resources;

/// The name under which the missing of cgroups is told.
const LAYER: &str = "cgroup";

/// The tree, if there is one.
#[derive(Debug)]
pub(crate) struct Groups {
    tree: Option<Tree>,
    /// The most processes and threads of a pod.
    pids: Option<u64>,
}

impl Groups {
    /// Opens the tree. What this machine lacks is told once: pods run without.
    pub(crate) fn open(config: Option<&Cgroups>, layers: &Layers) -> Self {
        let Some(config) = config else { return Self { tree: None, pids: None } };
        let opened = Tree::open(&config.mount, &config.root).and_then(|tree| {
            tree.limit(&Limits { cpu_request: Some(config.cpus), ..Limits::default() })?;
            Ok(tree)
        });
        if let Err(error) = &opened {
            warn!(
                error = error as &dyn std::error::Error,
                "pods have no cgroups: CPU limits are not kept, and memory is that of guests alone"
            );
            layers.miss(&[LAYER.to_owned()]);
        }
        Self { tree: opened.ok(), pids: config.pids }
    }

    /// Whether pods have cgroups.
    pub(crate) fn are_there(&self) -> bool {
        self.tree.is_some()
    }

    /// The cgroup of one run of a container, whose id is `id`, with the limits of now; none where there are none.
    pub(crate) fn make(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(tree) = &self.tree else { return Ok(None) };
        let group = tree.pod(resources::qos(pod), uid(pod), &resources::pod(pod, self.pids))?;
        let group = group.container(id, &resources::container(container, None))?;
        Ok(Some(group.path()))
    }

    /// Gives a run, and its pod, the limits of now. Memory that is in use is not taken away: the kernel would kill for it.
    pub(crate) fn resize(&self, pod: &Pod, container: &Container, id: &str) -> Result<(), Resized> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let (of_pod, own) = (resources::pod(pod, self.pids), resources::container(container, None));
        let (qos, uid) = (resources::qos(pod), uid(pod));
        let group = tree.find(qos, uid);
        if let Some(group) = &group {
            spare(group, of_pod.memory)?;
            if let Some(inner) = group.find_container(id) {
                spare(&inner, own.memory)?;
            }
        }
        tree.pod(qos, uid, &of_pod)?.container(id, &own)?;
        Ok(())
    }

    /// Whether a run was killed because its memory, or its pod's, was used up.
    pub(crate) fn ran_out_of_memory(&self, pod: &Pod, id: &str) -> bool {
        let find = || self.tree.as_ref()?.find(resources::qos(pod), uid(pod))?.find_container(id);
        find().and_then(|group| group.stats().ok()).is_some_and(|stats| stats.oom_kills > 0)
    }

    /// Removes the cgroup of a run that has ended.
    pub(crate) fn forget(&self, pod: &Pod, id: &str) -> Result<(), Error> {
        let find = || self.tree.as_ref()?.find(resources::qos(pod), uid(pod))?.find_container(id);
        find().map_or(Ok(()), |group| group.remove())
    }

    /// Kills what is left of a pod, and removes its cgroup. Waits for the end of what it kills.
    pub(crate) fn leave(&self, pod: &Pod) -> Result<(), Error> {
        let find = || self.tree.as_ref()?.find(resources::qos(pod), uid(pod));
        find().map_or(Ok(()), |group| group.remove())
    }

    /// Removes the cgroups of pods that this agent has no record of.
    pub(crate) fn sweep(&self, known: &HashSet<String>) -> Result<(), Error> {
        for pod in self.tree.iter().map(Tree::pods).collect::<Result<Vec<_>, _>>()?.iter().flatten()
        {
            if !known.contains(pod.uid()) {
                info!(uid = pod.uid(), "cgroup of a pod that nobody knows removed");
                pod.remove()?;
            }
        }
        Ok(())
    }

    /// Gives the burstable pods their share beside the others: `requests` in thousandths of a CPU, all together.
    pub(crate) fn weigh<'a>(&self, pods: impl Iterator<Item = &'a Pod>) {
        let Some(tree) = &self.tree else { return };
        let burstable = pods.filter(|pod| resources::qos(pod) == nodule_cgroup::Qos::Burstable);
        let requests = burstable.filter_map(|pod| resources::pod(pod, None).cpu_request);
        if let Err(error) = tree.weigh_burstable(requests.fold(0, u64::saturating_add)) {
            warn!(error = &error as &dyn std::error::Error, "burstable pods are not weighed");
        }
    }
}

/// Why a cgroup has not got other limits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Resized {
    #[error("memory cannot be limited to {limit} bytes while {used} are in use")]
    InUse { limit: u64, used: u64 },
    #[error(transparent)]
    Group(#[from] Error),
}

fn spare(group: &Group, limit: Option<u64>) -> Result<(), Resized> {
    let used = group.stats()?.working_set;
    match limit.filter(|limit| *limit < used) {
        Some(limit) => Err(Resized::InUse { limit, used }),
        None => Ok(()),
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

//! The upper part of the tree, and the pods in it.

use std::path::Path;
use std::sync::Arc;

use crate::controllers::{self, Residents};
use crate::limits::Kind;
use crate::top::Top;
use crate::{Error, Group, Limits, Pod, Qos, Stats};

/// `kubepods` and the cgroups of its classes.
#[derive(Debug, Clone)]
pub struct Tree {
    /// `kubepods`, where Guaranteed pods are too.
    pods: Group,
    burstable: Group,
    best_effort: Group,
}

impl Tree {
    /// Makes the tree in the cgroup `root` of the file system at `mount`, `/sys/fs/cgroup` mostly. What is there stays as it
    /// is, the running pods of an earlier agent too.
    ///
    /// An empty `root` is the whole file system, as for the kubelet. Processes that are in `root` itself, as the agent is in
    /// a cgroup that was delegated to it, are moved into its child `supervisor`: cgroup v2 wants processes in leaves only.
    /// Cgroups above `root` are changed only if `root` lacks a controller, and nothing is moved there.
    ///
    /// # Errors
    /// [`Error::NotMounted`], [`Error::Controllers`], [`Error::NotWritable`] and [`Error::Occupied`] say what this machine
    /// lacks, and what can be done.
    pub fn open(mount: &Path, root: &Path) -> Result<Self, Error> {
        let top = Arc::new(Top::open(mount)?);
        let root = controllers::provide(&top, root)?;
        controllers::pass_on(&root, Residents::Move)?;
        let pods = inner(&root, "kubepods")?;
        let burstable = inner(&pods, "burstable")?;
        let best_effort = inner(&pods, "besteffort")?;
        // The least that there is (`setCPUCgroupConfig` of the kubelet's `cm/qos_container_manager_linux.go`).
        best_effort.weigh(0)?;
        Ok(Self { pods, burstable, best_effort })
    }

    /// Sets what all pods together may use: the node's allocatable, its CPUs as the request, as in the kubelet.
    pub fn limit(&self, limits: &Limits) -> Result<(), Error> {
        self.pods.limit(limits)
    }

    /// Gives Burstable pods their share beside Guaranteed ones: `requests` is the sum of their `requests.cpu`, in thousandths
    /// of a CPU. The kubelet does so at each admission and every minute.
    pub fn weigh_burstable(&self, requests: u64) -> Result<(), Error> {
        self.burstable.weigh(requests)
    }

    /// What all pods together use and have used.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.pods.stats()
    }

    /// Makes the cgroup of a pod, unless it is there, and sets its limits.
    pub fn pod(&self, qos: Qos, uid: &str, limits: &Limits) -> Result<Pod, Error> {
        Pod::create(self.class(qos), uid, limits)
    }

    /// The pod of this UID, if this program has made its cgroup.
    pub fn find(&self, qos: Qos, uid: &str) -> Option<Pod> {
        Pod::find(self.class(qos), &format!("pod{uid}"))
    }

    /// All pods that there are, those of an earlier agent too, in no order. Whatever else is in the tree is left out: cgroups
    /// with other names, and the pods of a kubelet, which bear no mark of this program's.
    pub fn pods(&self) -> Result<Vec<Pod>, Error> {
        let mut pods = Vec::new();
        for qos in Qos::ALL {
            let class = self.class(qos);
            let children = class.top().children(class.below());
            let error =
                |cause: rustix::io::Errno| Error::List { path: class.path(), source: cause.into() };
            let children = children.map_err(error)?;
            let names = children.iter().filter_map(|path| path.file_name()?.to_str());
            pods.extend(names.filter_map(|name| Pod::find(class, name)));
        }
        Ok(pods)
    }

    fn class(&self, qos: Qos) -> &Group {
        match qos {
            Qos::Guaranteed => &self.pods,
            Qos::Burstable => &self.burstable,
            Qos::BestEffort => &self.best_effort,
        }
    }
}

fn inner(parent: &Group, name: &str) -> Result<Group, Error> {
    let group = parent.child(name, Kind::Inner);
    group.create()?;
    controllers::pass_on(&group, Residents::Stay)?;
    Ok(group)
}

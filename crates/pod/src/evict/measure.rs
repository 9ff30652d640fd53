//! What a pod uses of the node: blocking.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodule_sandbox_proto::Process;
use nodule_volume::Usage;

use super::Resource;
use crate::host::Host;
use crate::record::Folder;
use crate::storage::used;
use crate::view::{View, log_folder};

/// What is left of the disk that `root` is on, in the resource's units; none of what is not of the disk, or cannot be measured.
pub(super) fn left(root: &Path, resource: Resource) -> Option<u64> {
    let disk = rustix::fs::statvfs(root).ok()?;
    match resource {
        Resource::Storage => Some(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Resource::Inodes => Some(disk.f_favail),
        Resource::Memory | Resource::Pids => None,
    }
}

/// By container, in the resource's units; under no name what is the pod's as a whole. What cannot be measured is nothing.
pub(super) fn pod(host: &Host, view: &View, resource: Resource) -> BTreeMap<String, u64> {
    match resource {
        Resource::Memory => by_process(view, |process| memory(process).unwrap_or(0)),
        Resource::Pids => by_process(view, |process| threads(process).unwrap_or(0)),
        // Every file has one inode, and what files a pod has is what it uses of the disk.
        Resource::Storage | Resource::Inodes => disk(host, view),
    }
}

fn by_process(view: &View, measure: impl Fn(&Process) -> u64) -> BTreeMap<String, u64> {
    let processes = view.processes.iter();
    processes.map(|(container, process)| (container.clone(), measure(process))).collect()
}

/// What is its own: resident, less what it shares with other processes and with files (proc_pid_statm(5)).
fn memory(process: &Process) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", process.pid)).ok()?;
    let mut pages = text.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(resident.saturating_sub(shared).saturating_mul(page))
}

fn threads(process: &Process) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).ok()?;
    u64::try_from(tasks.count()).ok()
}

fn disk(host: &Host, view: &View) -> BTreeMap<String, u64> {
    let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
    let folder = Folder::new(&host.config.root, uid);
    let places = [folder.containers(), host.config.logs.join(log_folder(&view.pod))];
    let of_containers = view.containers().map(|name| {
        let folders = places.each_ref().map(|place| place.join(name));
        (name.to_owned(), bytes(used(&folders)))
    });
    let volumes = (String::new(), bytes(used(&[folder.volumes()])));
    of_containers.chain([volumes]).collect()
}

fn bytes(usage: Usage) -> u64 {
    match usage {
        Usage::Bytes(bytes) => bytes,
        Usage::Unbounded => u64::MAX,
    }
}

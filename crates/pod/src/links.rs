//! The links that log collectors look for: `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, one for each run
//! of a container whose log is kept, to the file that is written. When that is turned the link stays as it is.
//!
//! The names are the kubelet's (`k8s.io/kubernetes/pkg/kubelet/kuberuntime/legacy.go`). A link that cannot be made costs a
//! collector its log and nobody else anything.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::host::Config;
use crate::view::{log_folder, log_path};

/// The longest name of a file on ext4, which is where the kubelet cuts.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";

/// A folder of links. All here is blocking.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    folder: PathBuf,
    /// Where the logs are that the links lead to. Absolute: a link's target is looked up from the link's folder.
    logs: PathBuf,
}

/// Why a link is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("link {} to its log", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("remove the links in {} of logs that are gone", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

impl Links {
    pub(crate) fn new(config: &Config) -> Self {
        let logs = std::path::absolute(&config.logs).unwrap_or_else(|_| config.logs.clone());
        Self { folder: config.log_links.clone(), logs }
    }

    /// Makes the link of one run. It may be there already.
    pub(crate) fn make(
        &self,
        pod: &Pod,
        container: &str,
        id: &str,
        attempt: u32,
    ) -> Result<(), Error> {
        let path = self.folder.join(name(pod, container, id));
        let target = log_path(&self.logs, pod, container, attempt);
        self.place(&path, &target).map_err(|source| Error::Make { path, source })
    }

    fn place(&self, path: &Path, target: &Path) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        match std::os::unix::fs::symlink(target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_link(path).is_ok_and(|known| known == target) {
                    return Ok(());
                }
                std::fs::remove_file(path)?;
                std::os::unix::fs::symlink(target, path)
            }
            made => made,
        }
    }

    /// Removes the link of a run whose log is no longer kept.
    pub(crate) fn forget(&self, pod: &Pod, container: &str, attempt: u32) -> Result<(), Error> {
        let log = log_path(&self.logs, pod, container, attempt);
        self.remove(&name(pod, container, ""), |target| target == log)
    }

    /// Removes the links of a pod that is gone; not those of another one of its name.
    pub(crate) fn forget_pod(&self, pod: &Pod) -> Result<(), Error> {
        let logs = self.logs.join(log_folder(pod));
        self.remove(&format!("{}_", prefix(pod)), |target| target.starts_with(&logs))
    }

    /// Removes the links that lead to logs of this node which are gone: those of pods that ended while no agent was there.
    /// A log that is just being turned is not gone, so its folder is what is looked for.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        self.remove("", |target| {
            target.starts_with(&self.logs) && target.parent().is_some_and(|folder| !folder.exists())
        })
    }

    /// Removes the links whose name begins with `prefix`, as far as that fits into a name, and whose target is `meant`.
    fn remove(&self, prefix: &str, meant: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let error = |source| Error::Remove { path: self.folder.clone(), source };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(error)?,
        };
        let prefix = cut(prefix.trim_end_matches(SUFFIX));
        for entry in entries {
            let entry = entry.map_err(error)?;
            if !entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
                continue;
            }
            let path = entry.path();
            if std::fs::read_link(&path).is_ok_and(|target| meant(&target)) {
                match std::fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(error(source));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn prefix(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}_{}", part(&pod.metadata.name), part(&pod.metadata.namespace))
}

fn name(pod: &Pod, container: &str, id: &str) -> String {
    let name = format!("{}_{container}-{id}", prefix(pod));
    format!("{}{SUFFIX}", cut(&name))
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST - SUFFIX.len())).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use tempfile::TempDir;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn links() -> (TempDir, Links) {
        let root = tempfile::tempdir().unwrap();
        let (folder, logs) = (root.path().join("containers"), root.path().join("pods"));
        (root, Links { folder, logs })
    }

    fn pod(name: &str, uid: &str) -> Pod {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        Pod { metadata, ..Pod::default() }
    }

    fn names(links: &Links) -> Vec<String> {
        let entries = std::fs::read_dir(&links.folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_has_the_kubelets_name_and_leads_to_the_file_that_is_written() {
        let (_root, links) = links();
        for _ in 0..2 {
            links.make(&pod("web", "u1"), "app", ID, 3).unwrap();
        }
        let path = links.folder.join(format!("web_ns_app-{ID}.log"));
        assert_eq!(std::fs::read_link(path).unwrap(), links.logs.join("ns_web_u1/app/3.log"));
    }

    #[test]
    fn a_long_name_is_cut_as_the_kubelet_cuts_it() {
        let (_root, links) = links();
        let long = pod(&"p".repeat(253), "u1");
        links.make(&long, "app", ID, 0).unwrap();
        let name = names(&links).remove(0);
        assert_eq!((name.len(), name.ends_with(".log")), (255, true));
        links.forget(&long, "app", 0).unwrap();
        assert!(names(&links).is_empty());
    }

    #[test]
    fn what_is_gone_loses_its_links_and_nothing_else_does() {
        let (_root, links) = links();
        let (pod, next) = (pod("web", "u1"), pod("web", "u2"));
        for (pod, id, attempt) in [(&pod, "a", 0), (&pod, "b", 1), (&next, "c", 0)] {
            links.make(pod, "app", id, attempt).unwrap();
        }
        links.forget(&pod, "app", 0).unwrap();
        assert_eq!(names(&links), ["web_ns_app-b.log", "web_ns_app-c.log"]);
        links.forget_pod(&pod).unwrap();
        assert_eq!(names(&links), ["web_ns_app-c.log"]);
    }

    #[test]
    fn a_sweep_removes_links_to_this_nodes_logs_whose_folder_is_gone() {
        let (root, links) = links();
        links.make(&pod("gone", "u1"), "app", "a", 0).unwrap();
        links.make(&pod("turned", "u2"), "app", "b", 0).unwrap();
        // Between two files of a log there is none of its name.
        std::fs::create_dir_all(links.logs.join("ns_turned_u2/app")).unwrap();
        std::fs::write(links.folder.join("file.log"), "").unwrap();
        let other = links.folder.join("other_ns_app-c.log");
        std::os::unix::fs::symlink(root.path().join("others/x/app/0.log"), other).unwrap();
        links.sweep().unwrap();
        assert_eq!(names(&links), ["file.log", "other_ns_app-c.log", "turned_ns_app-b.log"]);
    }
}

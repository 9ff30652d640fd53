//! Local storage: what a pod may use of the node's disk, what it uses, and that it is evicted when that is more.
//!
//! The rules, their order and their words are the kubelet's (`k8s.io/kubernetes/pkg/kubelet/eviction/eviction_manager.go`,
//! `localStorageEviction`): a volume's `sizeLimit`, then the sum of the containers' limits, then a container's own. Used is
//! what `du` counts: a container uses its log and what it has changed of its image's files, a pod also its volumes of the kind
//! `emptyDir` that are not in memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nodule_volume::Usage;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use crate::admission::is_critical;
use crate::events::Kind;
use crate::failure::Failure;
use crate::notice::Notice;
use crate::quantity::{self, Total};
use crate::record::{Folder, Phase};
use crate::restart::is_sidecar;
use crate::view::log_folder;
use crate::worker::Worker;

/// How often is looked: the kubelet's `evictionMonitoringPeriod`. (What it knows of volumes is up to a minute older, its
/// `volumeStatsAggPeriod`; here it is fresh.)
const PERIOD: Duration = Duration::from_secs(10);
/// A look that took long is followed by a wait of so many times as long: no guest keeps more than a tenth of a core busy by
/// what it leaves on the disk.
const REST: u32 = 9;
const RESOURCE: &str = "ephemeral-storage";

/// A part of the disk that a pod uses.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    name: String,
    limit: Option<Quantity>,
    folders: Vec<PathBuf>,
    used: Usage,
}

/// What a pod may use, and uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    /// Those that matter: with a limit, or all where the pod has one.
    volumes: Vec<Part>,
    containers: Vec<Part>,
    /// Of all parts together.
    limit: Option<Total>,
}

impl Storage {
    /// What is limited of a pod. None: nothing is.
    fn of(pod: &Pod, folder: &Folder, logs: &Path) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let limit = pod_limit(spec);
        let matters = |part: &Part| limit.is_some() || part.limit.is_some();
        let places = [folder.containers(), logs.join(log_folder(pod))];
        let storage = Self {
            volumes: empty_dirs(spec, &folder.volumes()).filter(matters).collect(),
            containers: containers(spec, &places).filter(matters).collect(),
            limit,
        };
        let any = !storage.volumes.is_empty() || !storage.containers.is_empty();
        (any && !is_critical(pod)).then_some(storage)
    }

    /// Blocking, for as long as the disk takes.
    fn measure(&mut self) {
        for part in self.volumes.iter_mut().chain(&mut self.containers) {
            part.used = used(&part.folders);
        }
    }

    /// The first limit that is exceeded, in the kubelet's words.
    fn exceeded(&self) -> Option<String> {
        let volume = self.volumes.iter().find_map(|part| {
            let limit = part.limit.as_ref().filter(|limit| part.exceeds(limit))?;
            Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ",
                part.name, limit.0
            ))
        });
        volume.or_else(|| self.pod_exceeded()).or_else(|| {
            self.containers.iter().find_map(|part| {
                let limit = part.limit.as_ref().filter(|limit| part.exceeds(limit))?;
                Some(format!(
                    "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                    part.name, limit.0
                ))
            })
        })
    }

    fn pod_exceeded(&self) -> Option<String> {
        let limit = self.limit?;
        let used: Usage = self.volumes.iter().chain(&self.containers).map(|part| part.used).sum();
        used.exceeds(limit.bytes).then(|| {
            format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
            )
        })
    }
}

impl Part {
    fn new(name: &str, limit: Option<&Quantity>, folders: Vec<PathBuf>) -> Self {
        let limit = limit.filter(|limit| quantity::bytes(limit).is_some_and(|bytes| bytes > 0));
        Self { name: name.to_owned(), limit: limit.cloned(), folders, used: Usage::Bytes(0) }
    }

    fn exceeds(&self, limit: &Quantity) -> bool {
        quantity::bytes(limit).is_some_and(|limit| self.used.exceeds(limit))
    }
}

/// What folders take of the disk together. What cannot be measured is nothing. Blocking.
pub(crate) fn used(folders: &[PathBuf]) -> Usage {
    let used = folders.iter().map(|folder| {
        nodule_volume::usage(folder).unwrap_or_else(|error| {
            let folder = folder.display();
            warn!(%folder, error = &error as &dyn std::error::Error, "not measured");
            Usage::Bytes(0)
        })
    });
    used.sum()
}

/// The pod's own volumes on disk. The size of those in memory is kept by the kernel.
fn empty_dirs(spec: &PodSpec, folder: &Path) -> impl Iterator<Item = Part> {
    spec.volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        let folder = nodule_volume::empty_dir_path(folder, &volume.name);
        on_disk.then(|| Part::new(&volume.name, source.size_limit.as_ref(), vec![folder]))
    })
}

/// All containers, each with a folder in all of these places. Limits of their own have only those that run for as long as the
/// pod.
fn containers(spec: &PodSpec, places: &[PathBuf]) -> impl Iterator<Item = Part> {
    let part = |container: &Container, limit| {
        let folders = places.iter().map(|place| place.join(&container.name));
        Part::new(&container.name, limit, folders.collect())
    };
    let init = spec.init_containers.iter().flatten();
    let regular = spec.containers.iter();
    init.map(move |container| part(container, None))
        .chain(regular.map(move |container| part(container, limit_of(container))))
}

fn limit_of(container: &Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)
}

/// The pod's limit: what its containers may use at one time, if any of them has a limit (KEP-753; the scheduler's formula
/// for requests), and the overhead of its RuntimeClass.
fn pod_limit(spec: &PodSpec) -> Option<Total> {
    let (mut sidecars, mut most) = (None, None);
    for container in spec.init_containers.iter().flatten() {
        let limit = limit_of(container).and_then(Total::of);
        let together = Total::sum([sidecars, limit]);
        if is_sidecar(container) {
            sidecars = together;
        }
        most = Total::max(most, together);
    }
    let regular = spec.containers.iter().map(|container| limit_of(container).and_then(Total::of));
    let limit = Total::max(Total::sum(regular.chain([sidecars])), most)?;
    let overhead = spec.overhead.as_ref().and_then(|overhead| overhead.get(RESOURCE));
    let overhead = overhead.and_then(Total::of).filter(|_| limit.bytes > 0);
    Total::sum([Some(limit), overhead])
}

impl Worker {
    /// Has the pod's use of the disk looked at after `wait`, if it has a limit.
    pub(crate) fn watch_storage(&mut self, wait: Duration) {
        if self.record.phase != Phase::Syncing || self.record.failure.is_some() {
            return;
        }
        let (pod, logs) = (&self.record.pod, &self.host.config.logs);
        let Some(mut storage) = Storage::of(pod, &self.folder, logs) else { return };
        let host = std::sync::Arc::clone(&self.host);
        self.tasks.spawn(async move {
            sleep(wait.max(PERIOD)).await;
            let _turn = host.measures.acquire().await;
            let begun = Instant::now();
            let exceeded = tokio::task::spawn_blocking(move || {
                storage.measure();
                storage.exceeded()
            });
            let exceeded = exceeded.await.unwrap_or_else(|error| {
                error!(%error, "local storage not measured");
                None
            });
            Notice::Measured { exceeded, took: begun.elapsed() }
        });
    }

    /// Acts on what was measured.
    pub(crate) fn measured(&mut self, exceeded: Option<String>, took: Duration) {
        match exceeded {
            Some(message) if self.record.phase == Phase::Syncing => {
                self.fail(Failure::evicted(message), Kind::Warning);
            }
            _ => self.watch_storage(took * REST),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn limited(name: &str, limit: Option<&str>) -> Value {
        let limits = limit.map_or(json!({}), |limit| json!({ RESOURCE: limit }));
        json!({"name": name, "resources": {"limits": limits}})
    }

    fn storage(spec: &Value) -> Option<Storage> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        let folder = Folder::new(Path::new("/n"), "u");
        Storage::of(&serde_json::from_value(pod).unwrap(), &folder, Path::new("/l"))
    }

    fn empty_dir(name: &str, limit: Option<&str>, medium: &str) -> Value {
        json!({"name": name, "emptyDir": {"sizeLimit": limit, "medium": medium}})
    }

    /// What is measured, by folder.
    fn folders(storage: &Storage) -> Vec<&str> {
        let parts = storage.volumes.iter().chain(&storage.containers);
        parts.flat_map(|part| &part.folders).map(|folder| folder.to_str().unwrap()).collect()
    }

    #[test]
    fn nothing_is_measured_that_no_limit_asks_for() {
        let volumes = json!([
            empty_dir("a", None, ""), empty_dir("b", Some("1Mi"), ""), empty_dir("m", Some("1Mi"), "Memory"),
            {"name": "h", "hostPath": {"path": "/h"}},
        ]);
        let none =
            json!({"containers": [limited("c", None)], "volumes": [empty_dir("a", None, "")]});
        assert_eq!(storage(&none), None);
        let zero =
            json!({"containers": [limited("c", None)], "volumes": [empty_dir("a", Some("0"), "")]});
        assert_eq!(storage(&zero), None);

        let volume = json!({"containers": [limited("c", None)], "volumes": volumes});
        assert_eq!(
            folders(&storage(&volume).unwrap()),
            ["/n/pods/u/volumes/kubernetes.io~empty-dir/b"]
        );
        let mut critical = volume.clone();
        critical["priority"] = json!(2_000_000_000);
        assert_eq!(storage(&critical), None);

        let mut all = volume;
        all["containers"] = json!([limited("c", Some("1Mi"))]);
        all["initContainers"] = json!([limited("i", None)]);
        assert_eq!(
            folders(&storage(&all).unwrap()),
            [
                "/n/pods/u/volumes/kubernetes.io~empty-dir/a",
                "/n/pods/u/volumes/kubernetes.io~empty-dir/b",
                "/n/pods/u/containers/i",
                "/l/n_p_u/i",
                "/n/pods/u/containers/c",
                "/l/n_p_u/c"
            ]
        );
    }

    #[test]
    fn the_pods_limit_is_what_its_containers_may_use_at_one_time() {
        let sidecar = |name, limit| {
            let mut container = limited(name, limit);
            container["restartPolicy"] = json!("Always");
            container
        };
        let (one, two, five) = (Some("1Gi"), Some("2Gi"), Some("5Gi"));
        for (init, regular, overhead, limit) in [
            (vec![], vec![limited("a", None)], None, None),
            (vec![], vec![limited("a", one), limited("b", None)], None, Some("1Gi")),
            (vec![], vec![limited("a", one), limited("b", two)], None, Some("3Gi")),
            (vec![limited("i", five)], vec![limited("a", one)], None, Some("5Gi")),
            (vec![sidecar("s", two)], vec![limited("a", one)], None, Some("3Gi")),
            (
                vec![sidecar("s", two), limited("i", five)],
                vec![limited("a", one)],
                None,
                Some("7Gi"),
            ),
            (
                vec![limited("i", five), sidecar("s", two)],
                vec![limited("a", one)],
                None,
                Some("5Gi"),
            ),
            (vec![], vec![limited("a", one)], Some("1Mi"), Some("1025Mi")),
            (vec![], vec![limited("a", None)], Some("1Mi"), None),
        ] {
            let overhead = overhead.map(|overhead| json!({ RESOURCE: overhead }));
            let spec = json!({"initContainers": init, "containers": regular, "overhead": overhead});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let found = pod_limit(&spec).map(|limit| limit.to_string());
            assert_eq!(found.as_deref(), limit, "{spec:?}");
        }
    }

    #[test]
    fn the_first_limit_that_is_exceeded_is_told_in_the_kubelets_words() {
        const KIB: u64 = 1 << 10;
        let volume = "Usage of EmptyDir volume \"v\" exceeds the limit \"4Ki\". ";
        let pod = "Pod ephemeral local storage usage exceeds the total limit of containers 12Ki. ";
        let container = "Container a exceeded its local ephemeral storage limit \"8Ki\". ";
        let bytes = Usage::Bytes;
        for (v, a, b, told) in [
            (bytes(0), bytes(0), bytes(0), None),
            (bytes(4 * KIB), bytes(8 * KIB), bytes(0), None),
            (bytes(4 * KIB + 1), bytes(0), bytes(0), Some(volume)),
            (bytes(5 * KIB), bytes(9 * KIB), bytes(9 * KIB), Some(volume)),
            (bytes(4 * KIB), bytes(8 * KIB), bytes(1), Some(pod)),
            // A container without a limit of its own counts for the pod.
            (bytes(0), bytes(0), bytes(13 * KIB), Some(pod)),
            (bytes(0), bytes(8 * KIB + 1), bytes(0), Some(container)),
            (Usage::Unbounded, bytes(0), bytes(0), Some(volume)),
            (bytes(0), Usage::Unbounded, bytes(0), Some(pod)),
        ] {
            let spec = json!({
                "containers": [limited("a", Some("8Ki")), limited("b", None), limited("c", Some("4Ki"))],
                "volumes": [empty_dir("v", Some("4Ki"), "")],
            });
            let mut storage = storage(&spec).unwrap();
            storage.volumes[0].used = v;
            storage.containers[0].used = a;
            storage.containers[1].used = b;
            assert_eq!(storage.exceeded().as_deref(), told, "{v:?} {a:?} {b:?}");
        }
    }
}

//! From a container's configuration to its process: recorded first, then started.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use nodule_sandbox_proto as proto;
use tracing::warn;

use crate::epilogue;
use crate::etc::Etc;
use crate::events::Kind;
use crate::host::Host;
use crate::links::Links;
use crate::notice::Notice;
use crate::pull::Ready;
use crate::restart::Backoff;
use crate::sandbox::{self, Place, Sandbox};
use crate::view::log_path;
use crate::volumes::image_mounts;
use crate::words::chain;
use crate::worker::Worker;

impl Worker {
    /// Records a new run, unless the newest was recorded and never started. False if it could not be kept.
    pub(crate) fn create(
        &mut self,
        container: &Container,
        ready: &Ready,
        backoff: Option<Backoff>,
    ) -> bool {
        let name = &container.name;
        let Some(attempt) = self.record.begin(container, new_id(), ready.image.id(), backoff)
        else {
            return self.save();
        };
        self.waiting.remove(name);
        if !self.save() {
            return false;
        }
        self.forget(name, attempt);
        self.say(name, Kind::Normal, "Created", "Container created");
        true
    }

    pub(crate) async fn launch(&mut self, container: &Container, mut config: proto::Container) {
        let name = &container.name;
        let etc = match self.etc(&config.net.names) {
            Ok(etc) => (self.folder.etc(), etc),
            Err(message) => {
                self.hold(container, "CreateContainerConfigError", message);
                return self.again();
            }
        };
        let (Some(place), Some(run)) = (self.place(name), self.record.run_mut(name)) else {
            return;
        };
        config.id.clone_from(&run.id);
        run.user.clone_from(&config.user);
        let attempt = run.attempt;
        config.log.path = log_path(&self.host.config.logs, &self.record.pod, name, attempt);
        config.mounts.extend(epilogue::mount(container, &config.mounts, &place.state));
        // An earlier try may have come further than anybody could say.
        if proto::State::new(&place.state).has_container() && self.recover(name).await {
            return;
        }
        let host = Arc::clone(&self.host);
        let Ok(_turn) = host.starts.acquire().await else { return };
        let (host, pod) = (Arc::clone(&self.host), Arc::clone(&self.record.pod));
        let asked = container.clone();
        let start = move || start(&host, &pod, &asked, &place, &etc, config);
        let started = tokio::task::spawn_blocking(start).await;
        let of_images = image_mounts(&self.record.pod, container);
        let is_mounted = !matches!(started, Ok(Err(sandbox::Error::ImageSubPath { .. })));
        self.host.metrics.images.volumes.mounted(of_images, is_mounted);
        match started {
            Ok(Ok(sandbox)) => {
                self.attend(name, sandbox);
                self.save();
            }
            Ok(Err(error)) => {
                self.hold(container, error.reason(), chain(&error));
                self.again();
            }
            Err(error) => warn!(container = name, %error, "start was broken off"),
        }
    }

    /// Removes what is kept of runs that nobody can ask for any more: all but the newest and the one before.
    fn forget(&mut self, container: &str, newest: u32) {
        let Some(old) = newest.checked_sub(2) else { return };
        let log = log_path(&self.host.config.logs, &self.record.pod, container, old);
        let run = self.folder.run(container, old);
        let (links, pod) = (Links::new(&self.host.config), Arc::clone(&self.record.pod));
        let container = container.to_owned();
        self.tasks.spawn_blocking(move || {
            let mut errors = Vec::new();
            errors.extend(crate::record::remove(&run).err().map(Into::into));
            errors.extend(links.forget(&pod, &container, old).err().map(Into::into));
            errors.extend(remove_log(&log).err().map(Into::into));
            Notice::Forgotten { container, errors }
        });
    }
}

/// Makes the container's cgroup and starts its process. Blocks.
fn start(
    host: &Host,
    pod: &Pod,
    container: &Container,
    place: &Place,
    (folder, etc): &(PathBuf, Etc),
    mut config: proto::Container,
) -> Result<Sandbox, sandbox::Error> {
    for mount in &config.mounts {
        if let Some(path) = &mount.sub_path {
            find(host, container, mount, path)?;
        }
    }
    etc.write(folder).map_err(|source| sandbox::Error::Create { path: folder.clone(), source })?;
    let mut roots = config.mounts.iter().filter(|mount| mount.guest == "/");
    let image = roots.find(|root| host.images.shares(&root.host)).map(|root| root.host.clone());
    etc.mount(folder, image.as_deref(), &mut config.mounts);
    config.cgroup = host
        .groups
        .make(pod, container, &config.id)
        .map_err(|source| sandbox::Error::Cgroup { source })?;
    let words = epilogue::folder(&place.state);
    if config.mounts.iter().any(|mount| mount.host == words) {
        epilogue::make(container, &words, config.user.as_ref())
            .map_err(|source| sandbox::Error::Create { path: words, source })?;
    }
    sandbox::start(&host.config.sandbox, &host.zygote, place, &config)
}

/// Sees that there is a part of a volume. What all who use an image share is never added to.
fn find(
    host: &Host,
    container: &Container,
    mount: &proto::Mount,
    path: &str,
) -> Result<(), sandbox::Error> {
    if host.images.shares(&mount.host) {
        return nodule_volume::look(&mount.host, path)
            .map_err(|source| sandbox::Error::ImageSubPath { path: path.to_owned(), source });
    }
    nodule_volume::make(&mount.host, path).map_err(|source| {
        let mut asked = container.volume_mounts.iter().flatten();
        let name = asked.find(|asked| asked.mount_path == mount.guest);
        sandbox::Error::SubPath {
            mount: name.map_or_else(|| mount.guest.clone(), |asked| asked.name.clone()),
            container: container.name.clone(),
            source,
        }
    })
}

/// Removes a run's log and the files it was turned into.
fn remove_log(path: &std::path::Path) -> Result<(), crate::record::Error> {
    let error = |source| crate::record::Error::Remove { path: path.to_owned(), source };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            std::fs::remove_file(entry.path()).map_err(error)?;
        }
    }
    Ok(())
}

/// 64 hex digits that no other container has.
fn new_id() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

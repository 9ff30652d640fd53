//! Images that are volumes (KEP-4639): on their way like those of containers, and mounted where they lie, for reading.
//!
//! All of them are asked for when the pod begins; a container waits for those that it mounts, in the words of its own image.
//! Which image a volume has is decided once and written down before anybody mounts it: runs of containers and other agents
//! find the same files, whatever a tag has come to mean (Kubernetes docs, "Volumes: image": it is resolved again when the pod
//! is made again).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nodule_image::{Image, Purpose, Reference};

use super::{Volumes, volume};
use crate::notice::Fetched;
use crate::order::Role;
use crate::pull::{self, Asked};
use crate::pulls::{Need, Pulls};
use crate::status::Waiting;
use crate::want::Want;
use crate::worker::Worker;

/// The images of a pod's volumes. Owned by its worker.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    pub(crate) pulls: Pulls<Image>,
    /// Those that are here, by volume. In hand: nobody removes them.
    here: BTreeMap<String, Arc<Image>>,
    /// Why others are not.
    failed: BTreeMap<String, Waiting>,
}

/// How far the images are that a container mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// All are here.
    Here,
    /// At least one is not.
    OnTheWay,
}

impl Pictures {
    /// The volumes with the files of the images that are here.
    pub(crate) fn beside(&self, volumes: Arc<Volumes>) -> Arc<Volumes> {
        if self.here.is_empty() {
            return volumes;
        }
        let mut all = Arc::unwrap_or_clone(volumes);
        let files =
            |(name, image): (&String, &Arc<Image>)| Some((name.clone(), image.root.clone()?));
        all.extend(self.here.iter().filter_map(files));
        Arc::new(all)
    }
}

/// An image that is a volume, as the pod asks for it.
struct Wish {
    volume: String,
    want: Want,
    policy: String,
}

fn wishes(pod: &Pod) -> Vec<Wish> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let wish = |one: &k8s_openapi::api::core::v1::Volume| {
        let image = one.image.as_ref()?;
        Some(Wish {
            volume: one.name.clone(),
            want: Want::files(image.reference.as_deref().unwrap_or_default()),
            policy: image.pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned()),
        })
    };
    volumes.filter_map(wish).collect()
}

impl Worker {
    /// Begins what has to be done about images that are volumes, and takes in those that have come.
    pub(crate) fn pull_volumes(&mut self) {
        let here = |pictures: &Pictures, wish: &Wish| pictures.here.contains_key(&wish.volume);
        for wish in wishes(&self.record.pod) {
            if !here(&self.pictures, &wish) {
                self.pull_volume(wish);
            }
        }
    }

    fn pull_volume(&mut self, wish: Wish) {
        match self.pictures.pulls.need(&wish.want, Timestamp::now()) {
            Need::Ready(image) => self.take_in(wish, image),
            Need::Wait => {}
            Need::Fetch => self.fetch_volume(wish),
            Need::Failed { waiting, until, news } => {
                if news {
                    self.tell_back_off(&wish.want, &waiting, None);
                }
                self.pictures.failed.insert(wish.volume, waiting);
                self.wake_at(until);
            }
        }
    }

    /// Nobody mounts an image before it is written down that the pod has it.
    fn take_in(&mut self, wish: Wish, image: Arc<Image>) {
        let known = self.record.images.insert(wish.volume.clone(), image.id());
        if known.as_ref() != Some(&image.id()) && !self.save() {
            return self.pictures.pulls.keep(wish.want, image);
        }
        self.pictures.failed.remove(&wish.volume);
        self.pictures.here.insert(wish.volume, image);
    }

    fn fetch_volume(&mut self, wish: Wish) {
        let Wish { volume, want, policy } = wish;
        let wait = self.pictures.pulls.begin(&want);
        let known = self.record.images.get(&volume);
        let digest = known.and_then(|id| Reference::parse(id).ok());
        // What the pod has had it has again, and no other.
        let (image, policy) = match (known, policy.as_str()) {
            (Some(id), "Always") => (Want::files(id), "IfNotPresent".to_owned()),
            (Some(id), _) => (Want::files(id), policy),
            (None, _) => (want.clone(), policy),
        };
        let ran: BTreeSet<_> = self.record.images.values().cloned().collect();
        let asked = Asked { want: image, policy, ran, field: None, purpose: Purpose::Mount };
        let (host, pod) = (Arc::clone(&self.host), Arc::clone(&self.record.pod));
        self.fetches.spawn(async move {
            let outcome = pull::mount(host, pod, asked, digest).await;
            Fetched::Files(want, Box::new(outcome), wait)
        });
    }

    /// How far the images are that a container mounts; none where one is not to be had, which is told.
    pub(crate) fn has_images(&mut self, role: Role, container: &Container) -> Option<Mounts> {
        let mut mounts = Mounts::Here;
        for mount in container.volume_mounts.iter().flatten() {
            let is_image =
                volume(&self.record.pod, &mount.name).is_some_and(|volume| volume.image.is_some());
            if !is_image || self.pictures.here.contains_key(&mount.name) {
                continue;
            }
            if let Some(waiting) = self.pictures.failed.get(&mount.name).cloned() {
                self.lack(role, container, waiting);
                return None;
            }
            mounts = Mounts::OnTheWay;
        }
        Some(mounts)
    }

    /// A container waits for an image that it mounts, and that is told once (the kubelet's `toKubeContainerImageVolumes`).
    fn lack(&mut self, role: Role, container: &Container, waiting: Waiting) {
        let told = format!("Error: {}", waiting.message);
        if self.waiting.insert(container.name.clone(), waiting.clone()) != Some(waiting) {
            let (events, pod) = (&self.host.events, &self.record.pod);
            let field = Some(role.field(&container.name));
            events.say(pod, field, crate::events::Kind::Warning, "Failed", &told);
        }
    }
}

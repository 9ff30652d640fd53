//! What a pod's containers need beside their images: what it refers to, its volumes, their environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, FileKeySelector};

use crate::env::{self, Environment};
use crate::field::Downward;
use crate::objects::{Known, references};
use crate::pull::Ready;
use crate::service::Services;
use crate::settings;
use crate::source::Origin;
use crate::volumes::Volumes;
use crate::words::chain;
use crate::worker::Worker;

/// What is there for the pod's containers.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) known: Known,
    pub(crate) volumes: Arc<Volumes>,
}

/// Why a container does not run yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// What it refers to is not known yet. There is a turn when it is.
    Unknown,
    /// `CreateContainerConfigError`, with this message.
    Config(String),
}

impl From<String> for Unready {
    fn from(message: String) -> Self {
        Self::Config(message)
    }
}

impl From<env::Error> for Unready {
    fn from(error: env::Error) -> Self {
        if error.is_unknown() { Self::Unknown } else { Self::Config(error.to_string()) }
    }
}

impl Worker {
    /// Follows what the pod refers to, and sees that its volumes are there. None: not yet.
    pub(crate) fn needs(&mut self) -> Option<Needs> {
        let mut keys = references(&self.record.pod);
        keys.extend(settings::reference(&self.record.pod));
        self.follow.only(&keys, &self.host.objects);
        let known = self.follow.known();
        self.pull_volumes();
        let volumes = self.volumes(&known)?;
        Some(Needs { known, volumes: self.pictures.beside(volumes) })
    }

    /// The pod ends: what it refers to means nothing any more.
    pub(crate) fn refer_no_more(&mut self) {
        self.follow.only(&BTreeSet::new(), &self.host.objects);
    }

    /// The container's environment, as far as everything that it refers to is known.
    pub(crate) fn environment(
        &self,
        container: &Container,
        ready: &Ready,
        needs: &Needs,
    ) -> Result<Environment, Unready> {
        let (config, allocatable) = (&self.host.config, self.host.allocatable());
        let identity = self.identity()?;
        let listed = self.host.services.borrow();
        // What is not of the API server does not wait for it (the kubelet's `makeEnvironmentVariables`).
        let none = Services::default();
        let own = Origin::of(&self.record.pod) != Origin::Cluster;
        let services = listed.as_ref().or(own.then_some(&none));
        let sources = env::Sources {
            downward: Downward {
                pod: &self.record.pod,
                node: &config.node,
                addresses: &config.addresses,
                allocatable: &allocatable,
            },
            hostname: &identity.name,
            image: &ready.image.config.env,
            known: &needs.known,
            services,
            file: &|from| read(from, &needs.volumes),
        };
        Ok(env::environment(container, &sources)?)
    }
}

/// The environment file that a container of the pod wrote. What lies in the volume is a guest's work.
fn read(from: &FileKeySelector, volumes: &Volumes) -> Result<Option<String>, String> {
    /// Kubernetes' limit on such a file (KEP-3721).
    const LIMIT: u64 = 64 << 10;
    let none = || format!("cannot find the volume {:?} referenced by FileKeyRef", from.volume_name);
    let folder = volumes.get(&from.volume_name).ok_or_else(none)?;
    let text = nodule_volume::read(folder, &from.path, LIMIT);
    text.map_err(|error| format!("couldn't parse env file {:?}: {}", from.path, chain(&error)))
}

//! Which object of the API server shows a pod, if any does.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::Api;
use tokio::sync::watch;

use crate::host::Host;
use crate::mirror::{self, Mirrors, Name};
use crate::source::Origin;

/// Where a pod's status goes.
pub(crate) enum Sink {
    /// The pod is an object of the API server.
    Object { api: Api<Pod>, name: String, uid: String },
    /// A static pod: its mirror, whenever there is one.
    Mirror { api: Api<Pod>, name: Name, uid: String, mirrors: watch::Receiver<Mirrors> },
    /// A node that stands alone: nobody is told.
    Nowhere,
}

/// The object to write to now.
pub(crate) struct Target {
    pub(crate) api: Api<Pod>,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// What it was last seen to show: of a mirror alone, as a pod's own object is its worker's to look at.
    pub(crate) shown: Option<(Option<u64>, PodStatus)>,
}

impl Sink {
    pub(crate) fn of(host: &Host, pod: &Pod) -> Self {
        let Some(client) = &host.client else { return Self::Nowhere };
        let (namespace, name) = mirror::name(pod);
        let api = Api::namespaced(client.clone(), &namespace);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match Origin::of(pod) {
            Origin::Cluster => Self::Object { api, name, uid },
            Origin::Static(_) => {
                Self::Mirror { api, name: (namespace, name), uid, mirrors: host.mirrors.clone() }
            }
            Origin::Hand => Self::Nowhere,
        }
    }

    /// Whether the object is the pod: without it there is none.
    pub(crate) fn is_the_pod(&self) -> bool {
        matches!(self, Self::Object { .. })
    }

    pub(crate) fn target(&mut self) -> Option<Target> {
        match self {
            Self::Object { api, name, uid } => {
                Some(Target { api: api.clone(), name: name.clone(), uid: uid.clone(), shown: None })
            }
            Self::Mirror { api, name, uid, mirrors } => {
                let mirrors = mirrors.borrow_and_update();
                let mirror: &Arc<Pod> = mirrors.of(name, uid)?;
                let status = mirror.status.clone().unwrap_or_default();
                Some(Target {
                    api: api.clone(),
                    name: name.1.clone(),
                    uid: mirror.metadata.uid.clone()?,
                    shown: Some((crate::publish::version(mirror), status)),
                })
            }
            Self::Nowhere => None,
        }
    }

    /// Returns when there may be another target. May be dropped.
    pub(crate) async fn changed(&mut self) {
        if let Self::Mirror { mirrors, .. } = self
            && mirrors.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nodule_manifest::{Folder, Origin, Set, Url};
use nodule_pod::Static;
use tokio::sync::watch;

use crate::{config::Kubelet, supervisor::Supervisor};

/// The kubelet's `fileCheckFrequency` and `httpCheckFrequency`.
const PERIOD: Duration = Duration::from_secs(20);

/// Where static pods come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    node: String,
    /// `staticPodPath`, and how often it is looked at.
    pub(crate) folder: Option<(PathBuf, Duration)>,
    pub(crate) url: Option<Address>,
}

/// `staticPodURL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) period: Duration,
}

impl Places {
    /// For the pods of `node`. A place that is named by an empty string is none.
    pub(crate) fn new(kubelet: &Kubelet, node: &str) -> Self {
        let path = kubelet.static_pod_path.clone().filter(|path| !path.as_os_str().is_empty());
        let folder = path.map(|path| (path, kubelet.file_check_frequency.or(PERIOD)));
        let url = (!kubelet.static_pod_url.is_empty()).then(|| Address {
            url: kubelet.static_pod_url.clone(),
            headers: kubelet.static_pod_url_header.clone(),
            period: kubelet.http_check_frequency.or(PERIOD),
        });
        Self { node: node.to_owned(), folder, url }
    }

    /// Begins to look there.
    pub(crate) fn watch(self, supervisor: &mut Supervisor) -> Result<Vec<Static>> {
        let mut statics = Vec::new();
        if let Some((path, period)) = self.folder {
            let (sender, source) = place(Origin::File);
            let folder = Folder::new(path, &self.node, period);
            supervisor.start("static pods of a folder", async {
                folder.watch(sender).await;
                Ok(())
            });
            statics.push(source);
        }
        if let Some(Address { url, headers, period }) = self.url {
            let (sender, source) = place(Origin::Http);
            let url = Url::new(&url, &headers, &self.node, period);
            let url = url.context("fields \"staticPodURL\" and \"staticPodURLHeader\"")?;
            supervisor.start("static pods of a URL", async {
                url.watch(sender).await;
                Ok(())
            });
            statics.push(source);
        }
        Ok(statics)
    }
}

fn place(origin: Origin) -> (watch::Sender<Option<Set>>, Static) {
    let (sender, sets) = watch::channel(None);
    (sender, Static { source: origin.source(), sets })
}

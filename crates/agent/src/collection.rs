//! Removes images that nobody uses, as often as the kubelet does.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use nodule_image::{Collect, Images};
use nodule_pod::Pods;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// The kubelet's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_mins(5);

/// Looks every five minutes whether there is too little room. Pods that an earlier agent left are known long before the
/// first look; what cannot be removed is tried again at the next.
pub(crate) async fn run(images: Images, collect: Collect, pods: Pods) -> Result<()> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let used = pods.list().iter().flat_map(used).collect::<BTreeSet<_>>();
        match images.collect(collect.clone(), used).await {
            Ok(done) if done.lacking > 0 => {
                let bytes = done.lacking;
                warn!(
                    bytes,
                    "images take too much room, and those that are left are in use or new"
                );
            }
            Ok(done) if done.aged + done.spaced > 0 => {
                info!(aged = done.aged, spaced = done.spaced, "unused images removed");
            }
            Ok(_) => {}
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "unused images not removed");
            }
        }
    }
}

/// The images of a pod's containers, those that have ended too: they may run again.
fn used(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let id = |status: &ContainerStatus| status.image_id.clone();
    all.into_iter().flatten().flatten().map(id).filter(|id| !id.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    #[test]
    fn a_pod_uses_the_images_of_all_its_containers() {
        let status = |id: &str| {
            Some(vec![ContainerStatus { image_id: id.to_owned(), ..ContainerStatus::default() }])
        };
        let pod = Pod {
            status: Some(PodStatus {
                init_container_statuses: status("a@sha256:1"),
                container_statuses: status("b@sha256:2"),
                ephemeral_container_statuses: status(""),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        assert_eq!(used(&pod), ["a@sha256:1", "b@sha256:2"]);
        assert!(used(&Pod::default()).is_empty());
    }
}

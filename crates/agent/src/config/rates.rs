//! How often the API server is asked, under the kubelet's names and with its defaults.

use nodule_image::PullRate;

use super::kubelet::Kubelet;
use crate::rate::Limit;

/// How often the API server is asked by whom. The node's heartbeat has no limit, as the kubelet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// For pods, what they refer to, and who may ask the agent itself.
    pub(crate) requests: Limit,
    /// For Events.
    pub(crate) events: Limit,
}

impl Rates {
    pub(super) fn new(kubelet: &Kubelet) -> Self {
        Self { requests: requests(kubelet), events: events(kubelet) }
    }
}

/// `kubeAPIQPS` and `kubeAPIBurst`. 0 means the default, less than 0 no limit.
fn requests(kubelet: &Kubelet) -> Limit {
    let default = Limit::default();
    let qps = match kubelet.kube_api_qps {
        None | Some(0) => default.qps,
        Some(qps) => u32::try_from(qps).ok(),
    };
    let burst = kubelet.kube_api_burst.filter(|burst| *burst > 0);
    Limit { qps, burst: burst.unwrap_or(default.burst) }
}

/// `eventRecordQPS` and `eventBurst`. Here 0 means no limit.
fn events(kubelet: &Kubelet) -> Limit {
    let default = Limit::default();
    let qps = match kubelet.event_record_qps {
        None => default.qps,
        Some(qps) => Some(qps).filter(|qps| *qps > 0),
    };
    let burst = kubelet.event_burst.filter(|burst| *burst > 0);
    Limit { qps, burst: burst.unwrap_or(default.burst) }
}

/// `registryPullQPS` and `registryBurst`. Here too 0 means no limit.
pub(super) fn pulls(kubelet: &Kubelet) -> PullRate {
    let default = PullRate::default();
    let qps = match kubelet.registry_pull_qps {
        None => default.qps,
        Some(qps) => Some(qps).filter(|qps| *qps > 0),
    };
    let burst = kubelet.registry_burst.filter(|burst| *burst > 0);
    PullRate { qps, burst: burst.unwrap_or(default.burst) }
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    #[test]
    fn pulls_are_as_many_as_the_kubelets() {
        for (fields, qps, burst) in [
            ("", Some(5), 10),
            ("registryPullQPS: 0\nregistryBurst: 0\n", None, 10),
            ("registryPullQPS: 7\nregistryBurst: 8\n", Some(7), 8),
        ] {
            let text = format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{fields}"
            );
            let rate = pulls(&File::parse(&text).unwrap().kubelet);
            assert_eq!((rate.qps, rate.burst), (qps, burst), "{fields}");
        }
    }

    #[test]
    fn rates_are_the_kubelets() {
        let of = |fields: &str| {
            let text = format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{fields}"
            );
            let kubelet = File::parse(&text).unwrap().kubelet;
            let pair = |limit: Limit| (limit.qps, limit.burst);
            (pair(requests(&kubelet)), pair(events(&kubelet)))
        };
        let default = (Some(50), 100);
        for (fields, expected) in [
            ("", (default, default)),
            ("kubeAPIQPS: 0\nkubeAPIBurst: 0\neventBurst: 0\n", (default, default)),
            ("kubeAPIQPS: 5\nkubeAPIBurst: 7\n", ((Some(5), 7), default)),
            ("kubeAPIQPS: -1\neventRecordQPS: 0\n", ((None, 100), (None, 100))),
            ("eventRecordQPS: 3\neventBurst: 4\n", (default, (Some(3), 4))),
        ] {
            assert_eq!(of(fields), expected, "{fields}");
        }
        for wrong in [
            "eventRecordQPS: -1\n",
            "eventBurst: -1\n",
            "kubeAPIBurst: -1\n",
            "registryPullQPS: -1\n",
        ] {
            let text = format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{wrong}"
            );
            assert!(File::parse(&text).is_err(), "{wrong}");
        }
    }
}

use k8s_openapi::api::core::v1::Pod;
use nodule_pod::{Instance, Log, LogError, Pods};

/// What the server shows of this node. Two functions, so that it can be served without pods that run.
pub struct Node {
    /// The pods bound to the node, with the status known here.
    pub pods: Box<dyn Fn() -> Vec<Pod> + Send + Sync>,
    /// Where the log of a container lies: by namespace, pod and container.
    pub log: Box<FindLog>,
}

type FindLog = dyn Fn(&str, &str, &str, Instance) -> Result<Log, LogError> + Send + Sync;

impl From<Pods> for Node {
    fn from(pods: Pods) -> Self {
        let listed = pods.clone();
        Node {
            pods: Box::new(move || listed.list()),
            log: Box::new(move |namespace, pod, container, instance| {
                pods.log(namespace, pod, container, instance)
            }),
        }
    }
}

//! How often the API server may be asked.
//!
//! A rate is its client's, as the kubelet's are: whoever has the client keeps to it, whatever is asked for, watches, second
//! tries and all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep_until};
use tower::service_fn;

/// A rate of requests, in the kubelet's terms: `kubeAPIQPS` with `kubeAPIBurst`, `eventRecordQPS` with `eventBurst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Requests a second in the long run; none for no limit.
    pub(crate) qps: Option<u32>,
    /// Requests that may be made at once after a rest.
    pub(crate) burst: u32,
}

impl Default for Limit {
    /// The kubelet's defaults, which are the same for both.
    fn default() -> Self {
        Self { qps: Some(50), burst: 100 }
    }
}

/// A client that asks over this one's connections, at this rate and with the others of its kind: clones share their turns.
/// What waits for its turn holds up no other request than those that asked later.
pub(crate) fn limited(client: Client, limit: Limit) -> Client {
    let rate = Arc::new(Rate::new(limit));
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, rate) = (client.clone(), Arc::clone(&rate));
        async move {
            rate.turn().await;
            client.send(request).await
        }
    });
    Client::new(service, namespace)
}

/// Gives everyone who asks a turn, in the order of asking (the generic cell rate algorithm).
#[derive(Debug)]
struct Rate {
    /// Between two turns; none for no limit.
    interval: Option<Duration>,
    burst: u32,
    /// When all turns that were given are worked off.
    full: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(limit: Limit) -> Self {
        let qps = limit.qps.filter(|qps| *qps > 0);
        Self {
            interval: qps.map(|qps| Duration::from_secs(1) / qps),
            burst: limit.burst.max(1),
            full: Mutex::default(),
        }
    }

    /// Waits for a turn. Dropped, the turn is lost and nothing else.
    async fn turn(&self) {
        if let Some(due) = self.due() {
            sleep_until(due).await;
        }
    }

    fn due(&self) -> Option<Instant> {
        let interval = self.interval?;
        let now = Instant::now();
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = full.map_or(now, |full| full.max(now));
        *full = Some(begin + interval);
        begin.checked_sub(interval * (self.burst - 1)).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use kube::Api;
    use kube::api::{DeleteParams, ListParams, PostParams, WatchParams};
    use tokio::sync::mpsc;
    use tower::BoxError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_has_its_turns_at_once_and_the_rest_at_the_rate() {
        let rate = Rate::new(Limit { qps: Some(10), burst: 3 });
        let start = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            rate.turn().await;
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let rest = Instant::now();
        for _ in 0..3 {
            rate.turn().await;
        }
        assert_eq!(rest.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_a_client_asks_for_waits_for_its_turn() {
        let start = Instant::now();
        let (asked, mut seen) = mpsc::unbounded_channel();
        let server = service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            asked.send((path, start.elapsed().as_millis())).unwrap();
            async { Ok::<_, BoxError>(Response::new(Body::from(b"{}".to_vec()))) }
        });
        let limit = Limit { qps: Some(10), burst: 2 };
        let client = limited(Client::new(server, "default"), limit);
        let pods = Api::<Pod>::default_namespaced(client.clone());
        let nodes = Api::<Node>::all(client);
        let wait = WatchParams::default();
        drop(pods.list_metadata(&ListParams::default()).await);
        drop(nodes.watch_metadata(&wait, "0").await);
        drop(pods.delete("a", &DeleteParams::default()).await);
        drop(nodes.create(&PostParams::default(), &Node::default()).await);
        let times: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).collect();
        let (pods, nodes) = ("/api/v1/namespaces/default/pods", "/api/v1/nodes");
        let wanted = [(pods, 0), (nodes, 0), (&format!("{pods}/a"), 100), (nodes, 200)];
        assert_eq!(times, wanted.map(|(path, at)| (path.to_owned(), at)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let rate = Rate::new(Limit { qps: None, burst: 0 });
        for _ in 0..10_000 {
            rate.turn().await;
        }
        assert!(rate.full.lock().unwrap().is_none());
    }
}

//! The pods that the API server binds to this node: one watch.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// The waits between two tries to watch while the API server is away.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<Pod>>> + Send>>;

/// What the API server has to say.
pub(crate) enum Word {
    /// The node is registered: its pods follow.
    Registered(Arc<Node>),
    /// Of the node's pods.
    Pod(Box<Event<Pod>>),
}

/// Why it says nothing more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silent {
    #[error("the node is not told any more whether it is registered")]
    Unregistered,
    #[error("the watch of the node's pods has ended")]
    Watch,
}

/// The watch.
pub(crate) struct Listener {
    client: Option<kube::Client>,
    /// The Node, once it is registered: before that no pod is asked for.
    registered: watch::Receiver<Option<Arc<Node>>>,
    node: String,
    /// None before the node is registered.
    stream: Option<Events>,
    /// Whether the API server is taken to know streaming lists.
    streaming: bool,
    /// The API server has not answered since it last did.
    away: bool,
}

impl Listener {
    /// Of the pods of `node`; a node without an API server hears nothing.
    pub(crate) fn new(
        client: Option<kube::Client>,
        registered: watch::Receiver<Option<Arc<Node>>>,
        node: String,
    ) -> Self {
        Self { client, registered, node, stream: None, streaming: true, away: false }
    }

    /// The next word. May be dropped: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Word, Silent> {
        let Some(client) = &self.client else { return std::future::pending().await };
        let Some(stream) = &mut self.stream else {
            let node = self.registered.wait_for(Option::is_some).await;
            let node = node.map_err(|_| Silent::Unregistered)?.clone().unwrap_or_default();
            self.stream = Some(stream(client, &self.node, self.streaming));
            return Ok(Word::Registered(node));
        };
        loop {
            match stream.next().await.ok_or(Silent::Watch)? {
                Ok(event) => {
                    if std::mem::take(&mut self.away) {
                        info!("the API server answers again");
                    }
                    return Ok(Word::Pod(Box::new(event)));
                }
                Err(error) if self.streaming && is_not_served(&error) => {
                    self.streaming = false;
                    *stream = self::stream(client, &self.node, false);
                }
                Err(error) => complain(&mut self.away, &error),
            }
        }
    }
}

/// The node's pods: by a streaming list (KEP-3157) where that is served, else by list and watch.
fn stream(client: &kube::Client, node: &str, streaming: bool) -> Events {
    let api: Api<Pod> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let config = if streaming { config.streaming_lists() } else { config };
    let waits = ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times();
    watcher::watcher(api, config).backoff(ExponentialBackoff::from(waits)).boxed()
}

/// One line when the API server goes away, however often it is tried.
fn complain(away: &mut bool, error: &watcher::Error) {
    if std::mem::replace(away, true) {
        debug!(error = error as &dyn std::error::Error, "still no watch of the node's pods");
    } else {
        warn!(
            error = error as &dyn std::error::Error,
            "the watch of the node's pods broke off: tried again"
        );
    }
}

/// Whether the API server does not know streaming lists.
fn is_not_served(error: &watcher::Error) -> bool {
    let refused = |code| matches!(code, 400 | 422);
    if let watcher::Error::WatchError(status) = error {
        return refused(status.code);
    }
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if refused(status.code))
}

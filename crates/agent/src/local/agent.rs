//! The agent in the background: the pods, and the socket where commands ask.

use anyhow::{Context, Result, anyhow};
use nodule_image::Images;
use nodule_pod::{Inputs, Metrics, Pods, Sources};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::place::Place;
use super::server::{Server, listen};
use crate::collection;
use crate::config::{Alone, File};
use crate::host::Host;
use crate::image::Keeper;
use crate::lock::Lock;
use crate::telemetry;

/// Orders that wait for the runner.
const QUEUE: usize = 64;
/// Where the pods of this agent have their cgroups: apart from those of a node's agent, which removes what it does not know.
const GROUP: &str = "/sys/fs/cgroup/nodule";

/// Looks after the pods until nothing runs and nobody asks. Pods outlive it in any case.
pub(crate) async fn run(place: &Place) -> Result<()> {
    // Not of the session of a terminal that may be closed, nor meant by its Ctrl-C. Who leads one already stays so.
    let _ = rustix::process::setsid();
    place.make()?;
    let _lock = Lock::take(&place.root)?;
    let file = place.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let host = Host::look()?;
    let settings = Alone::new(&place.root, &place.run, &place.logs(), file, &host)?;
    telemetry::start(settings.log)?;
    if host.is_root {
        // Without it pods have no cgroups, which is told where they are opened.
        let _ = std::fs::create_dir(GROUP);
    }
    crate::agent::has_sandbox(&settings.pods)?;
    let collect = settings.images.collect.clone();
    // Nobody asks for what is counted.
    let nobody = prometheus::Registry::new();
    let counted = nodule_image::Metrics::register(&nobody).context("count images")?;
    let images = Images::open(settings.images, counted).await.context("open the images")?;
    let (orders, ordered) = mpsc::channel(QUEUE);
    let sources = Sources { orders: Some(ordered), ..Sources::default() };
    // There is no Node, nobody who measures this machine, and nobody who waits with its shutdown.
    let inputs = Inputs {
        node: watch::channel(None).1,
        starved: watch::channel(Vec::new()).1,
        shutting: watch::channel(false).1,
    };
    let metrics = Metrics::register(&nobody, &nobody).context("count what pods do")?;
    let (pods, runner) = Pods::new(sources, settings.pods, images.clone(), inputs, metrics);
    let listener = listen(&place.socket())?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting without a cluster");

    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let keeper = Keeper::new(images.clone(), place.root.clone());
    let server = Server {
        pods: pods.clone(),
        orders,
        images: images.clone(),
        keeper,
        volumes: place.volumes(),
    };
    let ended = tokio::select! {
        result = server.run(listener) => result,
        result = runner.run() => Err(result.err().map_or_else(|| anyhow!("the pods"), Into::into)),
        result = collection::run(images, collect, place.root.clone()) => result,
        _ = terminate.recv() => Ok(()),
    };
    if let Err(error) = &ended {
        warn!(error = format!("{error:#}"), "the agent ends; pods run on");
    }
    // The next one makes its own; a command that meets none starts one.
    let _ = std::fs::remove_file(place.socket());
    ended
}

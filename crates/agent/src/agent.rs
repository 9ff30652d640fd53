use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ContainerImage;
use nodule_api::{Health, HealthServer, Metrics, Server};
use nodule_image::{Collect, Images};
use nodule_node::{Inputs, Outputs};
use nodule_pod::{Pods, Sources};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    client::Clients, collection, config::Settings, image, image::Keeper, inventory, local::SOCKET,
    lock::Lock, pressure, shutdown::Waiting, supervisor::Supervisor,
};

/// Runs the agent until a signal or the first task that ends. Pods run on in any case.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    let Settings {
        kubeconfig,
        mut node,
        api,
        listen,
        health,
        images,
        pods,
        rates,
        shutdown,
        statics,
        log: _,
        meaningless,
    } = settings;
    tell_meaningless(&meaningless);
    let _lock = Lock::take(&node.root)?;
    has_sandbox(&pods)?;
    let clients = Clients::read(&kubeconfig).await?;
    let tended = Tended::new(&images, &pods, node.periods.update);
    let metrics = Metrics::default();
    let counted = nodule_image::Metrics::register(&metrics.node).context("count images")?;
    let images = Images::open(images, counted).await.context("open the images")?;

    // The API listens first: the Node then tells the port that it really has.
    let server = Server::bind(listen, api).await.context("start the HTTPS API")?;
    node.port = server.port();
    let healthz = serve_health(health).await?;
    info!(version = node.version, node = node.name, port = node.port, "starting");

    let (registered, registration) = watch::channel(None);
    let (listed, published) = watch::channel(Vec::new());
    // What else keeps this node from running pods ends the agent instead: a shutdown is the only problem.
    let (telling, problems) = watch::channel(Vec::new());
    let (shuts, shutting) = watch::channel(false);
    let (connections, cluster) = clients.connect(rates)?;
    let (measured, shortages) = watch::channel(Vec::new());
    let (told, starved) = watch::channel(Vec::new());
    let seen = nodule_pod::Inputs { node: registration, starved, shutting: shutting.clone() };
    let counted = nodule_pod::Metrics::register(&metrics.node, &metrics.probes);
    let counted = counted.context("count what pods do")?;
    let mut supervisor = Supervisor::new();
    let reviews = cluster.pods.clone();
    let statics = statics.watch(&mut supervisor)?;
    let sources = Sources { cluster: Some(cluster), statics, orders: None };
    let (handle, runner) = Pods::new(sources, pods, images.clone(), seen, counted);
    let inputs = Inputs { problems, unconfined: handle.missing_layers(), images: published };
    let outputs = Outputs { registered, starved: measured };
    // The first task that ends ends the agent: to answer at all is to be well.
    let well = Health::new(|| Ok(()));

    let checks = well.clone();
    let waiting = Waiting { shuts, shutting, problems: telling, drained: handle.drained() };
    waiting.start(shutdown, &mut supervisor);
    tended.start(images, listed, &mut supervisor);
    supervisor.serve("api", |stop| server.run(handle, reviews, checks, metrics, stop));
    if let Some(server) = healthz {
        supervisor.serve("healthz", |stop| server.run(well, stop));
    }
    supervisor.start("pressure", pressure::forward(shortages, told));
    supervisor.start("pods", async { Ok(runner.run().await.map(|_| ())?) });
    supervisor.start("node", async move {
        Ok(nodule_node::run(connections, node, inputs, outputs).await.map(|_| ())?)
    });
    supervisor.run().await
}

/// How a node's images are looked after.
struct Tended {
    collect: Collect,
    /// Where it is written what pods use.
    root: PathBuf,
    /// Where commands ask.
    socket: PathBuf,
    /// How often they are listed.
    period: Duration,
}

impl Tended {
    fn new(images: &nodule_image::Config, pods: &nodule_pod::Config, period: Duration) -> Self {
        let (root, socket) = (pods.root.clone(), pods.run.join(SOCKET));
        Self { collect: images.collect.clone(), root, socket, period }
    }

    /// Starts what removes them, what lists them for the Node's status, and what answers commands.
    fn start(
        self,
        images: Images,
        listed: watch::Sender<Vec<ContainerImage>>,
        supervisor: &mut Supervisor,
    ) {
        let collection = collection::run(images.clone(), self.collect, self.root.clone());
        supervisor.start("image collection", collection);
        let keeper = Keeper::new(images.clone(), self.root);
        supervisor.start("image commands", image::serve(self.socket, keeper));
        supervisor.start("images", inventory::watch(images, self.period, listed));
    }
}

fn tell_meaningless(fields: &[String]) {
    if !fields.is_empty() {
        let fields = fields.join(", ");
        warn!(fields, "these fields of the configuration have no effect here");
    }
}

/// Said at once, and not by each pod.
pub(crate) fn has_sandbox(pods: &nodule_pod::Config) -> Result<()> {
    let sandbox = pods.sandbox.display();
    ensure!(
        pods.sandbox.is_file(),
        "there is no sandbox program {sandbox}: install it there, or set sandboxPath"
    );
    Ok(())
}

async fn serve_health(address: Option<SocketAddr>) -> Result<Option<HealthServer>> {
    let Some(address) = address else { return Ok(None) };
    let server = HealthServer::bind(address).await;
    Ok(Some(server.with_context(|| format!("serve /healthz on {address}"))?))
}

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use nodule_api::{Health, HealthServer, Metrics, Server};
use nodule_node::{Inputs, Outputs};
use nodule_pod::{Pods, Sources};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    client::Clients, config::Settings, lock::Lock, pressure, shutdown::Waiting,
    supervisor::Supervisor, tended::Tended,
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
    let metrics = Metrics::default();
    let tended = Tended::open(images, &pods, node.periods.update, &metrics).await?;

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
    let (handle, runner) = Pods::new(sources, pods, tended.images.clone(), seen, counted);
    let inputs = Inputs { problems, unconfined: handle.missing_layers(), images: published };
    let outputs = Outputs { registered, starved: measured };
    // The first task that ends ends the agent: to answer at all is to be well.
    let well = Health::new(|| Ok(()));

    let checks = well.clone();
    let waiting = Waiting { shuts, shutting, problems: telling, drained: handle.drained() };
    waiting.start(shutdown, &mut supervisor);
    tended.start(listed, &mut supervisor);
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

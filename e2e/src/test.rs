//! What each test starts from: a namespace, a client, and its agent; and what it prints when it fails.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::agent::{Agent, Options};
use crate::cluster::Cluster;
use crate::terminal::say;
use crate::{access, wait};

/// How many lines of the agent's log a failed test shows.
const TAIL: usize = 60;

/// One test's surroundings.
pub struct Test<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// A client with all rights.
    pub client: Client,
    /// The test's own namespace.
    pub namespace: String,
    /// The test's own node.
    pub agent: Agent,
    passed: bool,
}

/// Runs a test on the shared cluster with a node of its own.
pub async fn run(body: impl AsyncFnOnce(&mut Test<'_>) -> Result<()>) -> Result<()> {
    run_with(&Options::default(), body).await
}

/// [`run`] with a node made for it.
pub async fn run_with(
    options: &Options,
    body: impl AsyncFnOnce(&mut Test<'_>) -> Result<()>,
) -> Result<()> {
    run_on(Cluster::shared().await?, options, body).await
}

/// [`run_with`] on this cluster.
pub async fn run_on(
    cluster: &Cluster,
    options: &Options,
    body: impl AsyncFnOnce(&mut Test<'_>) -> Result<()>,
) -> Result<()> {
    let _turn = turn(options).await;
    let mut test = Test::new(cluster, options).await?;
    body(&mut test).await?;
    test.passed = true;
    Ok(())
}

/// Tests run side by side, but for those that have to be alone on the machine.
async fn turn(
    options: &Options,
) -> (Option<RwLockReadGuard<'static, ()>>, Option<RwLockWriteGuard<'static, ()>>) {
    static TURNS: RwLock<()> = RwLock::const_new(());
    if options.alone { (None, Some(TURNS.write().await)) } else { (Some(TURNS.read().await), None) }
}

impl<'a> Test<'a> {
    async fn new(cluster: &'a Cluster, options: &Options) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        // Unique on a cluster that other runs use too.
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let client = cluster.client().await?;
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context("make a namespace")?;
        access::service_account(client.clone(), &name).await?;
        let agent = Agent::start(cluster, client.clone(), &name, options).await?;
        Ok(Self { cluster, client, namespace: name, agent, passed: false })
    }

    /// The objects of one kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object of a kind from what a manifest would say.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).context("an object of this kind")?;
        Ok(self.api().create(&PostParams::default(), &object).await?)
    }

    /// The name of an image in the registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster.registry().host)
    }

    /// The spec of a pod with one container that runs the probe with these arguments on the test's node.
    pub fn spec(&self, arguments: &[&str]) -> Value {
        json!({
            "containers": [{ "name": "main", "image": self.image("examples/probe:p1"), "args": arguments }],
            "nodeSelector": { "kubernetes.io/hostname": self.agent.name() },
            "tolerations": [{ "key": "kubernetes.io/arch", "operator": "Equal", "value": "wasm32-wasi" }],
            "terminationGracePeriodSeconds": 2,
        })
    }

    /// Makes a pod.
    pub async fn pod(&self, name: &str, spec: Value) -> Result<Pod> {
        self.create(json!({ "metadata": { "name": name }, "spec": spec })).await
    }

    /// Waits until the pods with this label, or all where it is empty, are as wanted.
    pub async fn pods_until(
        &self,
        labels: &str,
        what: &str,
        wanted: impl FnMut(&[Pod]) -> bool,
    ) -> Result<Vec<Pod>> {
        let which = wait::all();
        let which = if labels.is_empty() { which } else { which.labels(labels) };
        wait::until(self.api(), which, what, wanted).await
    }

    /// Waits until the one pod of this name is as wanted.
    pub async fn pod_until(
        &self,
        name: &str,
        what: &str,
        mut wanted: impl FnMut(&Pod) -> bool,
    ) -> Result<Pod> {
        let what = format!("pod {name}: {what}");
        let pods =
            wait::until(self.api(), wait::named(name), &what, |pods| pods.iter().any(&mut wanted))
                .await?;
        pods.into_iter().next().context("the pod")
    }

    /// kubectl in the test's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<_> =
            ["--namespace", &self.namespace].into_iter().chain(arguments.iter().copied()).collect();
        self.cluster.kubectl().run(&all)
    }

    fn tell(&self) {
        say(format!("--- failed in namespace {}", self.namespace));
        for command in [&["get", "pods", "-o", "wide"][..], &["describe", "pods"]] {
            let text = self.kubectl(command).unwrap_or_else(|error| format!("{error:#}"));
            say(format!("--- kubectl {}\n{text}", command.join(" ")));
        }
        let log = self.agent.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
        say(format!("--- the end of the agent's log ({} lines)\n{}", lines.len(), tail.join("\n")));
    }
}

impl Drop for Test<'_> {
    fn drop(&mut self) {
        if !self.passed {
            self.tell();
        }
        let _removed =
            self.cluster.kubectl().run(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

//! Many pods at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use nodule_e2e::agent::Options;
use nodule_e2e::audit::Request;
use nodule_e2e::cluster::Cluster;
use nodule_e2e::test::{self, Test};
use nodule_e2e::{status, wait};
use serde_json::json;
use tokio::time::timeout;

const PODS: usize = 500;
/// Every so many pods one refers to a ConfigMap that no other does.
const OWN: usize = 5;
/// What the test has under way at once to make them.
const AT_ONCE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(900);
/// The agent's own memory, without its pods' processes and without its code.
const MEMORY: u64 = 80_000_000;

/// A rate: requests a second, and at once after a rest.
type Rate = (u32, u32);
/// Less than the defaults, so that it is not the machine that keeps them.
const REQUESTS: Rate = (25, 30);
const EVENTS: Rate = (20, 10);

#[tokio::test]
async fn five_hundred_pods_at_once_keep_the_rates_and_the_lease_is_never_late() -> Result<()> {
    let ((qps, burst), (event_qps, event_burst)) = (REQUESTS, EVENTS);
    let kubelet = json!({
        "kubeAPIQPS": qps, "kubeAPIBurst": burst, "eventRecordQPS": event_qps, "eventBurst": event_burst,
    });
    let max_pods = u32::try_from(PODS)? + 10;
    let options = Options { max_pods, kubelet, alone: true, ..Options::default() };
    let cluster = Cluster::own().await?;
    test::run_on(&cluster, &options, async |test| {
        own_config_maps(test).await?;
        let renewals = RefCell::default();
        let leases: Api<Lease> = Api::namespaced(test.client.clone(), "kube-node-lease");
        let begun = Timestamp::now();
        tokio::select! {
            run = timeout(PATIENCE, all_run(test)) => run.context("not all run")??,
            broken = note(leases.clone(), test.agent.name(), &renewals) => broken?,
        }
        let all_run = Timestamp::now();
        let renewed = |found: &[Lease]| {
            renewals.borrow_mut().extend(found.iter().filter_map(renewal));
            renewals.borrow().last().is_some_and(|last| last.at > all_run)
        };
        let which = wait::named(test.agent.name());
        wait::until(leases, which, "a renewal after all run", renewed).await?;
        on_time(&renewals.borrow())?;

        let asked = cluster.asked(test.agent.name())?;
        let asked: Vec<_> = asked.into_iter().filter(|request| request.at >= begun).collect();
        let is_event = |request: &&Request| request.resource == "events";
        let beats =
            |request: &&Request| ["leases", "nodes", "nodes/status"].contains(&&*request.resource);
        kept(asked.iter().filter(is_event), begun, EVENTS).context("Events")?;
        let others = asked.iter().filter(|request| !is_event(request) && !beats(request));
        kept(others, begun, REQUESTS).context("requests")?;
        assert_eq!(test.agent.sandboxes().len(), PODS);
        let memory = test.agent.memory()?;
        assert!(memory < MEMORY, "the agent has {memory} bytes");
        Ok(())
    })
    .await
}

async fn own_config_maps(test: &Test<'_>) -> Result<()> {
    for number in (0..PODS).step_by(OWN) {
        let name = format!("own-{number}");
        test.create::<ConfigMap>(json!({ "metadata": { "name": name }, "data": { "a": "b" } }))
            .await?;
    }
    Ok(())
}

/// Binds all pods to the node, and returns when all are Ready.
async fn all_run(test: &Test<'_>) -> Result<()> {
    let make = async |number: usize| {
        let mut spec = test.spec(&["lines", "0", "10000"]);
        spec["nodeName"] = json!(test.agent.name());
        if number.is_multiple_of(OWN) {
            let own = json!([{ "configMapRef": { "name": format!("own-{number}") } }]);
            spec["containers"][0]["envFrom"] = own;
        }
        test.pod(&format!("pod-{number}"), spec).await
    };
    stream::iter(0..PODS).map(make).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    let pods = watcher(test.api::<Pod>(), wait::all()).applied_objects().default_backoff();
    let (mut pods, mut ready) = (pin!(pods), BTreeSet::new());
    while ready.len() < PODS {
        let pod = pods.try_next().await?.context("the watch ended")?;
        if status::is_ready(&pod) {
            ready.insert(pod.name_any());
        }
    }
    Ok(())
}

/// A renewal of the Lease, and how long it holds.
#[derive(Debug)]
struct Renewal {
    at: Timestamp,
    holds: SignedDuration,
}

fn renewal(lease: &Lease) -> Option<Renewal> {
    let spec = lease.spec.as_ref()?;
    let holds = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    Some(Renewal { at: spec.renew_time.as_ref()?.0, holds })
}

/// Notes the renewals; ends only if it cannot.
async fn note(leases: Api<Lease>, node: &str, renewals: &RefCell<Vec<Renewal>>) -> Result<()> {
    let mut changes = pin!(watcher(leases, wait::named(node)).applied_objects().default_backoff());
    while let Some(lease) = changes.try_next().await? {
        renewals.borrow_mut().extend(renewal(&lease));
    }
    bail!("the watch ended")
}

/// No renewal came after the one before had run out.
fn on_time(renewals: &[Renewal]) -> Result<()> {
    for (one, next) in renewals.iter().zip(renewals.iter().skip(1)) {
        let gap = next.at.duration_since(one.at);
        ensure!(gap < one.holds, "{} s between two renewals", gap.as_secs());
    }
    Ok(())
}

/// From the beginning on, at no moment were there more than the burst and what the rate adds. Requests arrive later than they
/// are made, never earlier: a slow machine cannot break it.
fn kept<'a>(
    requests: impl Iterator<Item = &'a Request>,
    begun: Timestamp,
    (qps, burst): Rate,
) -> Result<()> {
    for (count, request) in (1_u32..).zip(requests) {
        let time = request.at.duration_since(begun).as_secs_f64();
        let most = f64::from(burst) + f64::from(qps) * time;
        ensure!(f64::from(count) <= most, "{count} after {time} s: {request:?}");
    }
    Ok(())
}

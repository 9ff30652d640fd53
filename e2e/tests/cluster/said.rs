//! What is said of pods, in a few words: `phase=Failed`, `Ready=False PodFailed`, `main terminated Error 3`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt;
use nodule_e2e::test::Test;
use serde_json::{Value, json};

/// A pod, and all that must be said of it at one time or another.
pub(crate) type Case = (&'static str, Value, &'static [&'static str]);

/// A pod that runs, and that no scheduler was asked about.
pub(crate) fn on_node(test: &Test<'_>) -> Value {
    let mut spec = test.spec(&["lines", "0", "1000"]);
    spec["nodeName"] = json!(test.agent.name());
    spec
}

/// Makes the pods of all cases, and waits until all was said of each.
pub(crate) async fn all_said(test: &Test<'_>, cases: Vec<Case>) -> Result<()> {
    let mut wanted = Vec::new();
    for (name, spec, words) in cases {
        test.pod(name, spec).await.with_context(|| format!("make pod {name}"))?;
        wanted.push((name, words));
    }
    said(test, &wanted).await
}

/// Waits until all of this was said of the pods; for some of it is said for a moment only.
pub(crate) async fn said(test: &Test<'_>, wanted: &[(&str, &[&str])]) -> Result<()> {
    let mut heard = BTreeMap::<String, BTreeSet<String>>::new();
    let missing = |heard: &BTreeMap<String, BTreeSet<String>>| {
        let all =
            wanted.iter().flat_map(|(pod, words)| words.iter().map(move |word| (*pod, *word)));
        let missing =
            all.filter(|(pod, word)| !heard.get(*pod).is_some_and(|said| said.contains(*word)));
        missing.map(|(pod, word)| format!("{pod}: {word}")).collect::<Vec<_>>()
    };
    let pods = test.pods_until("", "all to be said", |pods| {
        for pod in pods {
            heard.entry(pod.name_any()).or_default().extend(words(pod));
        }
        missing(&heard).is_empty()
    });
    let outcome = pods.await;
    outcome.with_context(|| format!("not said: {:?}; said: {heard:?}", missing(&heard)))?;
    Ok(())
}

/// What a pod's status says, each in a few words.
fn words(pod: &Pod) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let mut words = vec![
        format!("phase={}", status.phase.unwrap_or_default()),
        format!("reason={}", status.reason.unwrap_or_default()),
        format!("message={}", status.message.unwrap_or_default()),
    ];
    for condition in status.conditions.into_iter().flatten() {
        let reason = condition.reason.unwrap_or_default();
        words.push(
            format!("{}={} {reason}", condition.type_, condition.status).trim_end().to_owned(),
        );
    }
    let lists = [status.init_container_statuses, status.container_statuses];
    words.extend(lists.into_iter().flatten().flatten().flat_map(|container| states(&container)));
    words
}

fn states(container: &ContainerStatus) -> Vec<String> {
    let state = |verb: &str, state: Option<&ContainerState>| {
        let state = state?;
        let name = &container.name;
        if let Some(waiting) = &state.waiting {
            return Some(format!(
                "{name} waiting {}",
                waiting.reason.as_deref().unwrap_or_default()
            ));
        }
        if let Some(end) = &state.terminated {
            let reason = end.reason.as_deref().unwrap_or_default();
            return Some(format!("{name} {verb} {reason} {}", end.exit_code));
        }
        state.running.as_ref().map(|_| format!("{name} running"))
    };
    let now = state("terminated", container.state.as_ref());
    now.into_iter().chain(state("before", container.last_state.as_ref())).collect()
}

//! A `nodule run` that stays: shows the logs, waits for the end, stops on Ctrl-C.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use nodule_logs::Query;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Client;
use super::logs::{self, Key, Progress};
use super::output::{Lines, Screen};
use super::pods::{self, statuses};
use crate::terminal::warn;

/// The exit codes of commands that a signal ended: 128 and its number.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Pods that are shown until they end.
pub(crate) struct Attached<'c> {
    client: &'c Client,
    pods: Vec<Pod>,
    progress: watch::Sender<Progress>,
    /// A task for each container.
    screens: JoinSet<io::Result<()>>,
    /// What was said of a container that waits, so that it is said once.
    said: BTreeMap<Key, String>,
}

/// Why the end is waited for.
enum Call {
    Changed(Option<Vec<Pod>>),
    /// A signal; the exit code that it makes.
    Stop(u8),
    /// Nobody looks at what is shown any more.
    Unseen,
}

impl<'c> Attached<'c> {
    pub(crate) fn new(client: &'c Client, pods: Vec<Pod>) -> Self {
        Self {
            client,
            pods,
            progress: watch::channel(Progress::default()).0,
            screens: JoinSet::new(),
            said: BTreeMap::new(),
        }
    }

    /// Until all have ended; the exit code.
    pub(crate) async fn run(mut self) -> Result<u8> {
        let mut signals = Signals::new()?;
        self.show();
        let mut watch = self.client.watch().await?;
        let mut code = None;
        loop {
            let call = tokio::select! {
                pods = watch.next() => Call::Changed(pods?),
                code = signals.next() => Call::Stop(code),
                Some(shown) = self.screens.join_next() => match shown {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) | Err(_) => Call::Unseen,
                },
            };
            match call {
                Call::Changed(Some(all)) => {
                    if let Some(last) = self.look(&all) {
                        self.finish().await;
                        return Ok(code.unwrap_or(last));
                    }
                }
                // The agent is gone: the next one goes on.
                Call::Changed(None) => watch = self.client.watch().await?,
                Call::Stop(by) => {
                    // Supervisors send SIGTERM more than once without meaning more by it.
                    self.stop(code.is_some() && by == INTERRUPTED).await?;
                    code = code.or(Some(by));
                }
                Call::Unseen => {
                    self.stop(false).await?;
                    code = code.or(Some(1));
                }
            }
        }
    }

    /// Begins to show each container.
    fn show(&mut self) {
        let named = |pod: &Pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            let all = spec.init_containers.unwrap_or_default().into_iter().chain(spec.containers);
            let pod = pod.clone();
            all.map(move |container| (pod.clone(), container.name)).collect::<Vec<_>>()
        };
        let containers: Vec<(Pod, String)> = self.pods.iter().flat_map(named).collect();
        let shown = |(pod, name): &(Pod, String)| format!("{}/{name}", pods::name(pod));
        let names: Vec<String> = containers.iter().map(shown).collect();
        let screen = Arc::new(Screen::new(&names));
        for (number, ((pod, container), name)) in containers.into_iter().zip(names).enumerate() {
            let (screen, progress) = (Arc::clone(&screen), self.progress.subscribe());
            let mut lines = Lines::new(&screen, &name, number);
            let logs = self.client.place().logs();
            let key = (pods::uid(&pod).to_owned(), container.clone());
            self.screens.spawn(async move {
                let path = |run| logs::path(&logs, &pod, &container, run);
                let query = Query { follow: true, ..Query::default() };
                let show = |text: &[u8]| lines.add(&screen, text);
                logs::follow(path, &key, 0, &query, progress, show).await?;
                lines.end(&screen)
            });
        }
    }

    /// Takes in how it stands. The exit code once all have ended.
    fn look(&mut self, all: &[Pod]) -> Option<u8> {
        let uids: Vec<String> = self.pods.iter().map(|pod| pods::uid(pod).to_owned()).collect();
        self.progress.send_replace(Progress::of(all, &uids));
        let now: Vec<&Pod> =
            all.iter().filter(|pod| uids.iter().any(|uid| uid == pods::uid(pod))).collect();
        for pod in &now {
            self.tell(pod);
        }
        // One that somebody has removed has ended, too.
        let ended = now.iter().all(|pod| pods::has_ended(pod));
        let codes = now.iter().map(|pod| pods::exit_code(pod));
        ended.then(|| {
            codes.filter(|code| *code != 0).collect::<Vec<_>>().first().copied().unwrap_or(0)
        })
    }

    /// Says why a container does not run, once.
    fn tell(&mut self, pod: &Pod) {
        const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
        for status in statuses(pod) {
            let key = (pods::uid(pod).to_owned(), status.name.clone());
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
            if reason.is_empty() || ORDINARY.contains(&reason) {
                continue;
            }
            let message =
                waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
            if self.said.insert(key, reason.to_owned()).as_deref() != Some(reason) {
                let (name, container) = (pods::name(pod), &status.name);
                warn(&format!("{name}/{container}: {reason}: {message}"));
            }
        }
        let failed = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"));
        if let Some((reason, message)) =
            failed.and_then(|status| status.reason.clone().zip(status.message.clone()))
        {
            warn(&format!("{}: {reason}: {message}", pods::name(pod)));
        }
    }

    /// Within their grace periods; asked again, at once.
    async fn stop(&self, again: bool) -> Result<()> {
        let uids = self.pods.iter().map(|pod| pods::uid(pod).to_owned()).collect();
        warn(if again { "killing the pods" } else { "stopping the pods; Ctrl-C kills them" });
        self.client.stop(uids, again.then_some(0)).await
    }

    /// Shows what is left, and leaves nothing behind.
    async fn finish(mut self) {
        while self.screens.join_next().await.is_some() {}
        let uids: BTreeSet<String> =
            self.pods.iter().map(|pod| pods::uid(pod).to_owned()).collect();
        // They have ended: what is left of them harms nobody, and nodule rm removes it.
        let _ = self.client.remove(uids.iter().cloned().collect(), None).await;
        let gone = |all: &[Pod]| !all.iter().any(|pod| uids.contains(pods::uid(pod)));
        let _ = self.client.until(gone).await;
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The exit code of the next. May be dropped.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
            _ = self.hangup.recv() => TERMINATED,
        }
    }
}

//! The agent's end of the socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nodule_image::{Images, Keyring, Reference};
use nodule_pod::{Order, Pods};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::login::keyring;
use super::message::{Answer, LONGEST, Request};
use super::{inline, manifest, pods};
use crate::image::Keeper;

/// Commands that may be connected at once.
const CONNECTIONS: usize = 64;
/// How often it is looked whether there is news for those who watch; nobody looks while nobody watches.
const LOOK: Duration = Duration::from_millis(100);
/// An agent for which there is nothing to do stays so long: the next command may come at once.
const IDLE: Duration = Duration::from_secs(10);
/// Images without a tag that nobody has used for so long are removed when the agent ends.
const YOUNGEST: Duration = Duration::from_hours(24);

/// What the commands are served with. Clones serve the same pods.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) pods: Pods,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) images: Images,
    /// Answers what is asked about them.
    pub(crate) keeper: Keeper,
    /// Where pods' volumes have their content.
    pub(crate) volumes: PathBuf,
}

/// Listens where only this user can ask. What lies there is of an agent that is gone: this one holds the lock.
pub(crate) fn listen(path: &Path) -> Result<UnixListener> {
    let place = || format!("listen at {}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(place);
        }
        _ => {}
    }
    // Whoever connects before the mode is set is looked at by `is_own`.
    let listener = UnixListener::bind(path).with_context(place)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(place)?;
    Ok(listener)
}

impl Server {
    /// Serves until nobody has asked for a while and nothing runs.
    pub(crate) async fn run(self, listener: UnixListener) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let room = connections.len() < CONNECTIONS;
            let idle = connections.is_empty();
            tokio::select! {
                accepted = listener.accept(), if room => {
                    let (stream, _) = accepted.context("accept a command")?;
                    if is_own(&stream) {
                        connections.spawn(self.clone().serve(stream));
                    }
                }
                Some(_) = connections.join_next() => {}
                () = sleep(IDLE), if idle => {
                    let known = self.pods.list();
                    if known.iter().all(pods::has_ended) {
                        inline::sweep(&self.volumes, &known);
                        self.forget().await;
                        info!("nothing runs: the agent ends");
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Removes what earlier builds left: a file that has changed is another image.
    async fn forget(&self) {
        let gone = self.keeper.prune(false, YOUNGEST).await;
        if let Err(error) = gone {
            warn!(error = format!("{error:#}"), "unused images not removed");
        }
    }

    async fn serve(self, stream: UnixStream) {
        let (reading, mut writing) = stream.into_split();
        if let Err(error) = self.answer(reading, &mut writing).await {
            debug!(error = format!("{error:#}"), "a command has gone");
        }
    }

    async fn answer(&self, reading: OwnedReadHalf, writing: &mut OwnedWriteHalf) -> Result<()> {
        let mut line = String::new();
        let mut reading = BufReader::new(reading.take(LONGEST));
        reading.read_line(&mut line).await?;
        let request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                let text = format!("the agent in the background does not understand it: {error}");
                return say(writing, &Answer::Refused(text)).await;
            }
        };
        match request {
            Request::List => say(writing, &Answer::Pods(self.pods.list())).await,
            Request::Watch => self.watch(reading, writing).await,
            Request::Run { pods, logins, replace } => {
                let answer = match self.begin(pods, &logins, replace).await {
                    Ok(pods) => Answer::Pods(pods),
                    Err(error) => Answer::Refused(format!("{error:#}")),
                };
                say(writing, &answer).await
            }
            Request::Stop { uids, grace } => {
                for uid in uids {
                    self.order(Order::Stop { uid, grace }).await?;
                }
                say(writing, &Answer::Done).await
            }
            Request::Remove { uids, grace } => {
                for uid in uids {
                    self.order(Order::Remove { uid, grace }).await?;
                }
                say(writing, &Answer::Done).await
            }
            Request::Image(ask) => self.keeper.answer(ask, writing).await,
        }
    }

    /// Tells of all pods until the command is gone.
    async fn watch(
        &self,
        mut reading: BufReader<tokio::io::Take<OwnedReadHalf>>,
        writing: &mut OwnedWriteHalf,
    ) -> Result<()> {
        let mut told = None;
        loop {
            let pods = self.pods.list();
            if told.as_ref() != Some(&pods) {
                say(writing, &Answer::Pods(pods.clone())).await?;
                told = Some(pods);
            }
            // Nothing more is asked: what comes is the end.
            if let Ok(read) = timeout(LOOK, reading.read_u8()).await {
                return read.map(drop).context("the end of a watch");
            }
        }
    }

    async fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).await.map_err(|_| anyhow!("the pods are looked after no more"))
    }

    /// All of them or none.
    async fn begin(
        &self,
        mut wanted: Vec<Pod>,
        logins: &[String],
        replace: bool,
    ) -> Result<Vec<Pod>> {
        let keyring = keyring(logins)?;
        for pod in &mut wanted {
            self.images(pod, &keyring).await?;
        }
        self.make_room(&wanted, replace).await?;
        for pod in &mut wanted {
            pod.metadata.uid = Some(new_uid());
            pod.metadata.creation_timestamp = Some(Time(Timestamp::now()));
            self.order(Order::Run(Box::new(pod.clone()))).await?;
        }
        while !wanted.iter().all(|pod| self.knows(pods::uid(pod))) {
            sleep(LOOK).await;
        }
        Ok(wanted)
    }

    fn knows(&self, uid: &str) -> bool {
        self.pods.list().iter().any(|pod| pods::uid(pod) == uid)
    }

    /// Sees to it that no pod of these names is there.
    async fn make_room(&self, wanted: &[Pod], replace: bool) -> Result<()> {
        let same = |pod: &Pod| {
            let named = |other: &Pod| {
                pods::name(other) == pods::name(pod)
                    && pods::namespace(other) == pods::namespace(pod)
            };
            wanted.iter().any(named)
        };
        let there: Vec<Pod> = self.pods.list().into_iter().filter(same).collect();
        let first = there.iter().min_by_key(|pod| pods::name(pod));
        if let (Some(pod), false) = (first, replace) {
            anyhow::bail!(
                "there is a pod \"{}\" already: remove it with nodule rm --force {}, or use --replace",
                pods::name(pod),
                pods::name(pod)
            );
        }
        for pod in &there {
            let uid = pods::uid(pod).to_owned();
            self.order(Order::Remove { uid, grace: None }).await?;
        }
        while there.iter().any(|pod| self.knows(pods::uid(pod))) {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Takes up images that lie on this machine, and pulls those for which there are credentials.
    async fn images(&self, pod: &mut Pod, keyring: &Keyring) -> Result<()> {
        let Some(spec) = &mut pod.spec else { return Ok(()) };
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            match container.image.as_deref().and_then(manifest::local) {
                Some(local) => {
                    let image = self.images.import(&local).await?;
                    container.image = Some(image.reference.to_string());
                    container.image_pull_policy = Some("Never".to_owned());
                }
                None => self.pull(container, keyring).await?,
            }
        }
        Ok(())
    }

    /// Pulls now, as podman does, what needs credentials: they are not kept for later. All else the pod pulls itself.
    async fn pull(&self, container: &mut Container, keyring: &Keyring) -> Result<()> {
        let name = container.image.as_deref().unwrap_or_default();
        let Ok(reference) = Reference::parse(name) else { return Ok(()) };
        let policy = container.image_pull_policy.as_deref();
        let is_wanted = match policy {
            Some("Never") => false,
            Some("Always") => true,
            _ => self.images.find(&reference).is_none(),
        };
        if is_wanted && keyring.opens(&reference) {
            self.images.pull(&reference, keyring).await?;
            container.image_pull_policy = Some("IfNotPresent".to_owned());
        }
        Ok(())
    }
}

/// Of this user, or of root: the mode of the socket says so too.
pub(crate) fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn say(writing: &mut OwnedWriteHalf, answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer).context("write an answer")?;
    line.push(b'\n');
    writing.write_all(&line).await.context("answer a command")
}

/// A random UUID (RFC 9562, version 4), as an API server gives.
fn new_uid() -> String {
    let random = rand::random::<u128>();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_random_uuid() {
        let uid = new_uid();
        let parts: Vec<_> = uid.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{uid}");
        assert_ne!(uid, new_uid());
    }
}

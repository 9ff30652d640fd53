//! A command's end of the socket.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::cli::AGENT;
use super::commands::HELD;
use super::message::{Answer, Request};
use super::place::Place;

/// An agent that does not answer in this time is waited for no more: a machine may be slow, a disk full.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// A log of the agent that is longer is begun anew with the next agent.
const LONGEST_LOG: u64 = 1 << 20;
/// So much of the agent's log is shown where it does not start.
const SHOWN: usize = 5;

/// The agent of a place, as commands see it.
pub(crate) struct Client {
    place: Place,
}

/// What an agent tells of its pods, whenever something of them has changed.
pub(crate) struct Watch {
    stream: BufReader<UnixStream>,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Client {
    pub(crate) fn new(place: Place) -> Result<Self> {
        place.make()?;
        Ok(Self { place })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The pods that there are.
    pub(crate) async fn list(&self) -> Result<Vec<Pod>> {
        self.pods(&Request::List).await
    }

    /// Runs pods, with these credentials for their images, and gives them back with their UIDs.
    pub(crate) async fn run(
        &self,
        pods: Vec<Pod>,
        logins: Vec<String>,
        replace: bool,
    ) -> Result<Vec<Pod>> {
        self.pods(&Request::Run { pods, logins, replace }).await
    }

    pub(crate) async fn stop(&self, uids: Vec<String>, grace: Option<u64>) -> Result<()> {
        self.done(&Request::Stop { uids, grace }).await
    }

    pub(crate) async fn remove(&self, uids: Vec<String>, grace: Option<u64>) -> Result<()> {
        self.done(&Request::Remove { uids, grace }).await
    }

    /// Waits until the pods are as wanted, over the deaths of agents.
    pub(crate) async fn until(&self, mut wanted: impl FnMut(&[Pod]) -> bool) -> Result<()> {
        let mut watch = self.watch().await?;
        loop {
            match watch.next().await? {
                Some(pods) if wanted(&pods) => return Ok(()),
                Some(_) => {}
                None => watch = self.watch().await?,
            }
        }
    }

    pub(crate) async fn watch(&self) -> Result<Watch> {
        let mut stream = self.connect().await?;
        send(&mut stream, &Request::Watch).await?;
        Ok(Watch { stream: BufReader::new(stream), line: Vec::new() })
    }

    async fn pods(&self, request: &Request) -> Result<Vec<Pod>> {
        match self.ask(request).await? {
            Answer::Pods(pods) => Ok(pods),
            Answer::Refused(why) => Err(anyhow!(why)),
            Answer::Done => bail!("the agent in the background answers something else"),
        }
    }

    async fn done(&self, request: &Request) -> Result<()> {
        match self.ask(request).await? {
            Answer::Refused(why) => Err(anyhow!(why)),
            Answer::Done | Answer::Pods(_) => Ok(()),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer> {
        let mut stream = self.connect().await?;
        send(&mut stream, request).await?;
        let answer = answer(&mut BufReader::new(stream)).await?;
        answer.context("the agent in the background ended: see nodule ps for what runs")
    }

    /// Connects to the agent, which is started if none listens. One that ends at this moment is followed by the next.
    async fn connect(&self) -> Result<UnixStream> {
        let deadline = Instant::now() + PATIENCE;
        let mut child: Option<Child> = None;
        loop {
            if let Ok(stream) = UnixStream::connect(self.place.socket()).await {
                return Ok(stream);
            }
            let ended = match &mut child {
                None => None,
                Some(child) => child.try_wait().context("wait for the agent")?,
            };
            let other = i32::from(HELD);
            if ended.is_some_and(|ended| !ended.success() && ended.code() != Some(other))
                || Instant::now() > deadline
            {
                bail!("the agent in the background does not start: {}", self.last_words());
            }
            // Another command may have started one: then this one ends at the lock.
            let gone = child.is_none() || ended.is_some();
            if gone {
                child = Some(self.start()?);
            }
            sleep(if gone { PAUSE * 5 } else { PAUSE }).await;
        }
    }

    fn start(&self) -> Result<Child> {
        let path = self.place.log();
        let place = || format!("open {}", path.display());
        let long = std::fs::metadata(&path).is_ok_and(|log| log.len() > LONGEST_LOG);
        let mut options = File::options();
        options.create(true).write(true).truncate(long).append(!long);
        let log = options.open(&path).with_context(place)?;
        let program = std::env::current_exe().context("find this program's own file")?;
        let mut command = Command::new(program);
        command.arg(AGENT).arg("--root-dir").arg(&self.place.root);
        command.arg("--run-dir").arg(&self.place.run);
        if let Some(config) = &self.place.config {
            command.arg("--config").arg(config);
        }
        let errors = log.try_clone().with_context(place)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        command.current_dir("/");
        command.spawn().context("start the agent in the background")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.place.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        format!("its log {} ends with\n{}", self.place.log().display(), tail.join("\n"))
    }
}

impl Watch {
    /// All pods, when something of them has changed; none when the agent is gone. May be dropped: what has come is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Pod>>> {
        // An agent that is killed leaves half a line.
        let read = self.stream.read_until(b'\n', &mut self.line).await;
        if read.is_err() || !self.line.ends_with(b"\n") {
            return Ok(None);
        }
        match serde_json::from_slice(&std::mem::take(&mut self.line)) {
            Ok(Answer::Pods(pods)) => Ok(Some(pods)),
            Ok(Answer::Refused(why)) => Err(anyhow!(why)),
            Ok(Answer::Done) | Err(_) => {
                bail!("the agent in the background answers something else")
            }
        }
    }
}

async fn send(stream: &mut UnixStream, request: &Request) -> Result<()> {
    let mut line = serde_json::to_vec(request).context("write a request")?;
    line.push(b'\n');
    stream.write_all(&line).await.context("ask the agent in the background")
}

async fn answer(stream: &mut BufReader<UnixStream>) -> Result<Option<Answer>> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.context("hear the agent in the background")?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .context("the agent in the background answers something else")
        .map(Some)
}

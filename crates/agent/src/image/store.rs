//! A command's end: asks the owner of the store, or becomes that.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nodule_image::{Config, Download, Images, Metrics};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::keeper::Keeper;
use super::message::{Ask, Told};
use crate::config::{File, images_of};
use crate::host::Host;
use crate::local::{Place, Request};
use crate::lock::{Held, Lock};

/// So much may be told before the command has read of it.
const BUFFER: usize = 64 << 10;
/// An owner that does not listen is waited for so long: it may be starting, or be another command.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The images that commands are about.
pub(super) struct Store {
    place: Place,
    own: Option<Own>,
}

/// The store is this command's own, as long as it has the lock.
struct Own {
    keeper: Keeper,
    _lock: Lock,
}

/// Who has the store.
enum Owner {
    Agent(UnixStream),
    Command(Lock),
}

impl Store {
    pub(super) fn new(place: Place) -> Self {
        Self { place, own: None }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Asks, and gives back the answer; `show` is told how far downloads are.
    pub(super) async fn ask(
        &mut self,
        ask: Ask,
        show: impl FnMut(&[Download]) -> Result<()>,
    ) -> Result<Told> {
        if self.own.is_none() {
            match self.owner().await? {
                Owner::Agent(stream) => return over(stream, ask, show).await,
                Owner::Command(lock) => self.own = Some(Own::open(&self.place, lock).await?),
            }
        }
        match &self.own {
            Some(own) => own.ask(ask, show).await,
            None => bail!("nobody has the images"),
        }
    }

    async fn owner(&self) -> Result<Owner> {
        self.place.make()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = UnixStream::connect(self.place.socket()).await {
                return Ok(Owner::Agent(stream));
            }
            match Lock::take(&self.place.root) {
                Ok(lock) => return Ok(Owner::Command(lock)),
                Err(error) if !error.is::<Held>() || Instant::now() > deadline => {
                    let socket = self.place.socket();
                    let hint = format!("nobody listens at {}", socket.display());
                    return Err(error.context(hint));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// How images are to be kept in a place.
pub(super) fn config(place: &Place) -> Result<Config> {
    let file = place.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
    images_of(&place.root, &file, &Host::look()?)
}

impl Own {
    async fn open(place: &Place, lock: Lock) -> Result<Self> {
        // Nobody asks for what is counted.
        let counted = Metrics::register(&prometheus::Registry::new()).context("count images")?;
        let images = Images::open(config(place)?, counted).await.context("open the images")?;
        Ok(Self { keeper: Keeper::new(images, place.root.clone()), _lock: lock })
    }

    async fn ask(&self, ask: Ask, show: impl FnMut(&[Download]) -> Result<()>) -> Result<Told> {
        let (mut writing, reading) = tokio::io::duplex(BUFFER);
        let keep = async move { self.keeper.answer(ask, &mut writing).await };
        let (kept, heard) = tokio::join!(keep, hear(reading, show));
        kept.and(heard)
    }
}

async fn over(
    mut stream: UnixStream,
    ask: Ask,
    show: impl FnMut(&[Download]) -> Result<()>,
) -> Result<Told> {
    let mut line = serde_json::to_vec(&Request::Image(ask)).context("write a request")?;
    line.push(b'\n');
    stream.write_all(&line).await.context("ask the agent")?;
    hear(stream, show).await
}

async fn hear(
    stream: impl AsyncRead + Unpin,
    mut show: impl FnMut(&[Download]) -> Result<()>,
) -> Result<Told> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.context("hear the agent")? {
        match serde_json::from_str(&line).context("the agent answers something else")? {
            Told::Downloads(downloads) => show(&downloads)?,
            Told::Refused(why) => return Err(anyhow!(why)),
            told @ (Told::Here(_) | Told::Images(_) | Told::Inspected(_) | Told::Removed(_)) => {
                return Ok(told);
            }
        }
    }
    bail!("the agent ended before it answered: try again")
}

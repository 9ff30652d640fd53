//! What an agent and a sandbox say to each other.

use std::path::Path;
use std::time::Duration;

use nodule_sandbox_proto::frame::{self, Decoder, FrameError};
use nodule_sandbox_proto::{Report, Request, SPOKEN, VERSION};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::sandbox::Error;

/// How long a sandbox may take to answer: its socket is served by a thread of its own.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The first version of a sandbox that takes another limit while it runs.
const LIMITS: u32 = 3;

/// A connection to a sandbox, both sides of which have said who they are.
pub(crate) struct Conversation<'a> {
    path: &'a Path,
    stream: UnixStream,
    decoder: Decoder<Report>,
    /// What the sandbox is of.
    version: u32,
}

impl<'a> Conversation<'a> {
    pub(crate) async fn open(path: &'a Path) -> Result<Self, Error> {
        Self::within(ANSWER, path).await
    }

    /// With `patience` for the sandbox's first word.
    pub(crate) async fn within(patience: Duration, path: &'a Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        let mut conversation = Self { path, stream, decoder: Decoder::new(), version: VERSION };
        conversation.say(&Request::Hello { version: VERSION }).await?;
        if let Report::Hello { version, .. } = conversation.hear(patience).await? {
            if !SPOKEN.contains(&version) {
                return Err(Error::Version { path: path.to_owned(), version });
            }
            conversation.version = version;
        }
        Ok(conversation)
    }

    pub(crate) async fn say(&mut self, request: &Request) -> Result<(), Error> {
        let frame = frame::encode(request).map_err(|source| self.error(source))?;
        let sent =
            timeout(ANSWER, self.stream.write_all(&frame)).await.map_err(|_| self.silent())?;
        sent.map_err(|source| self.error(FrameError::Read { source }))
    }

    async fn hear(&mut self, patience: Duration) -> Result<Report, Error> {
        let heard = timeout(patience, self.decoder.read_async(&mut self.stream))
            .await
            .map_err(|_| self.silent())?;
        heard.map_err(|source| self.error(source))?.ok_or_else(|| self.silent())
    }

    /// The first thing that the sandbox says of its guest, however long that takes it to start.
    pub(crate) async fn first(&mut self) -> Result<Report, Error> {
        let heard = self.decoder.read_async(&mut self.stream).await;
        heard.map_err(|source| self.error(source))?.ok_or_else(|| self.silent())
    }

    /// Sets another limit of the guest's memory, in bytes. What the guest has where the old limit stays, which is below that.
    pub(crate) async fn limit(&mut self, memory: Option<u64>) -> Result<Option<u64>, Error> {
        if self.version < LIMITS {
            return Err(Error::Old { path: self.path.to_owned(), version: self.version });
        }
        self.say(&Request::Limit { memory }).await?;
        loop {
            match self.hear(ANSWER).await? {
                Report::Limited { used, memory: holds } => {
                    return Ok((holds != memory).then_some(used));
                }
                // It has no memory any more.
                Report::Ended(_) => return Ok(None),
                Report::Hello { .. } | Report::Started(_) => {}
            }
        }
    }

    fn error(&self, source: FrameError) -> Error {
        Error::Frame { path: self.path.to_owned(), source }
    }

    fn silent(&self) -> Error {
        Error::Silent { path: self.path.to_owned() }
    }
}

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

/// A connection to a sandbox, both sides of which have said who they are.
pub(crate) struct Conversation<'a> {
    path: &'a Path,
    stream: UnixStream,
    decoder: Decoder<Report>,
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
        let mut conversation = Self { path, stream, decoder: Decoder::new() };
        conversation.say(&Request::Hello { version: VERSION }).await?;
        match conversation.hear(patience).await? {
            Report::Hello { version, .. } if !SPOKEN.contains(&version) => {
                Err(Error::Version { path: path.to_owned(), version })
            }
            Report::Hello { .. } | Report::Started(_) | Report::Ended(_) => Ok(conversation),
        }
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

    fn error(&self, source: FrameError) -> Error {
        Error::Frame { path: self.path.to_owned(), source }
    }

    fn silent(&self) -> Error {
        Error::Silent { path: self.path.to_owned() }
    }
}

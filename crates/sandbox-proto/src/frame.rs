//! Messages as bytes: a little-endian `u32` length, then that many bytes of JSON.
//!
//! [`encode`] and [`Decoder`] know nothing of IO, so that the agent's tasks and the sandbox's thread share them.

use std::io::{self, Read};
use std::marker::PhantomData;

use serde::Deserialize;
use thiserror::Error;

use crate::{Message, VERSION};

/// The longest message in bytes, its length not counted. A longer one is refused before it is kept.
pub const LIMIT: usize = 1 << 20;

const HEADER: usize = size_of::<u32>();

/// The bytes of one message, to be written whole.
pub fn encode<T: Message>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(|source| FrameError::Encode { source })?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= LIMIT)
        .ok_or(FrameError::TooLong { length })?;
    frame.splice(..HEADER, header.to_le_bytes());
    Ok(frame)
}

/// Cuts a stream of bytes into messages. After an error the stream cannot be gone on with.
#[derive(Debug)]
pub struct Decoder<T> {
    buffer: Vec<u8>,
    /// The version that the peer said in its `Hello`, which the decoder sees pass by.
    peer: Option<u32>,
    message: PhantomData<T>,
}

impl<T> Default for Decoder<T> {
    fn default() -> Self {
        Self { buffer: Vec::new(), peer: None, message: PhantomData }
    }
}

impl<T: Message> Decoder<T> {
    /// A decoder at the beginning of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read from the connection, whatever it is cut at.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message; none if more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not tell 'need more bytes' from 'at the end'"
    )]
    pub fn next(&mut self) -> Result<Option<T>, FrameError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if length > LIMIT {
            return Err(FrameError::TooLong { length });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message: T = self.parse(body)?;
        self.peer = message.version().or(self.peer);
        self.buffer.drain(..HEADER + length);
        Ok(Some(message))
    }

    /// The peer closed the connection: an error if it did so within a message.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated { length: self.buffer.len() })
        }
    }

    /// Reads the next message; none at the end of the connection.
    pub fn read(&mut self, stream: &mut impl Read) -> Result<Option<T>, FrameError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            let count = match stream.read(&mut chunk) {
                Ok(count) => count,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(FrameError::Read { source }),
            };
            match chunk.get(..count) {
                Some(bytes) if !bytes.is_empty() => self.push(bytes),
                Some(_) | None => return self.end().map(|()| None),
            }
        }
    }

    /// Reads the next message; none at the end of the connection. It may be dropped at any await: what was read is
    /// kept here.
    #[cfg(feature = "tokio")]
    pub async fn read_async(
        &mut self,
        stream: &mut (impl tokio::io::AsyncRead + Unpin),
    ) -> Result<Option<T>, FrameError> {
        use tokio::io::AsyncReadExt;
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            if stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|source| FrameError::Read { source })?
                == 0
            {
                return self.end().map(|()| None);
            }
        }
    }

    fn parse(&self, body: &[u8]) -> Result<T, FrameError> {
        serde_json::from_slice(body).map_err(|source| match serde_json::from_slice::<Tag>(body) {
            Ok(Tag { kind }) if !T::KINDS.contains(&kind.as_str()) => {
                FrameError::UnknownKind { kind, peer: self.peer }
            }
            Ok(_) | Err(_) => FrameError::Malformed { source },
        })
    }
}

/// What every message has.
#[derive(Deserialize)]
struct Tag {
    kind: String,
}

/// Why a connection cannot be gone on with.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A message over [`LIMIT`].
    #[error("a message of {length} bytes is over the limit of {LIMIT}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The connection ended within a message.
    #[error("the connection ended after {length} bytes of a message")]
    Truncated {
        /// How much of it was there, its length counted.
        length: usize,
    },
    /// A message that this release does not know.
    #[error("unknown message `{kind}` from a peer of version {}, this program knows version {VERSION}", peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string()))]
    UnknownKind {
        /// What it calls itself.
        kind: String,
        /// The version that the peer said, if it did.
        peer: Option<u32>,
    },
    /// A message of a known kind that is not as it should be, or no JSON at all.
    #[error("parse a message")]
    Malformed {
        /// Where and why.
        source: serde_json::Error,
    },
    /// The message has no JSON form.
    #[error("encode a message")]
    Encode {
        /// Why not.
        source: serde_json::Error,
    },
    /// The connection failed.
    #[error("read a message")]
    Read {
        /// How.
        source: io::Error,
    },
}

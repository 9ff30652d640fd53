//! Bodies on their way, whose every piece is a sign of life.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::Error;

use super::connection::Running;
use super::pace::Pace;

/// A body that touches its request's pace with every piece.
pub(super) struct Paced<B> {
    inner: B,
    pace: Arc<Pace>,
    /// Of an answer: that its request is not done yet.
    _running: Option<Running>,
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B, pace: Arc<Pace>, running: Option<Running>) -> Self {
        Self { inner, pace, _running: running }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_ready() {
            self.pace.touch();
        }
        match polled {
            // A body that an instance has not ended itself ends as if it had.
            Poll::Ready(None) if self.pace.is_broken() => {
                Poll::Ready(Some(Err(Error::HttpResponseIncomplete)))
            }
            other @ (Poll::Ready(_) | Poll::Pending) => other.map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.pace.is_broken() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

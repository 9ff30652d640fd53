//! The body of another server's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error;

use super::pool::{Connection, Server};
use super::send::{Client, broken};

/// A body that ends when the time between two of its pieces is over, and gives its connection back when it has all been
/// read.
pub(super) struct Answer {
    inner: Incoming,
    between: Duration,
    sleep: Pin<Box<Sleep>>,
    connection: Option<(Arc<Client>, Server, Connection)>,
}

impl Answer {
    pub(super) fn new(
        inner: Incoming,
        between: Duration,
        client: Arc<Client>,
        server: Server,
        connection: Connection,
    ) -> Self {
        let connection = Some((client, server, connection));
        let mut answer = Self { inner, between, sleep: Box::pin(sleep(between)), connection };
        answer.settle();
        answer
    }

    fn settle(&mut self) {
        if self.inner.is_end_stream()
            && let Some((client, server, connection)) = self.connection.take()
        {
            client.keep(server, connection);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let next = Instant::now() + self.between;
                self.sleep.as_mut().reset(next);
                self.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(&error)))),
            Poll::Ready(None) => {
                self.settle();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.sleep.as_mut().poll(context));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

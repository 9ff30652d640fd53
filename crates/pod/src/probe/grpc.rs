//! The health service of gRPC, asked over one HTTP/2 connection, in plain text unless the pod says otherwise.
//!
//! One request with one field and one answer with another need no more of gRPC than its frame: a flag and a length before
//! the message, and the status in the trailers (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Attempt, Outcome, tcp, tls};

/// The longest answer that is read, in bytes: a health check's is two.
const ANSWER_LIMIT: usize = 4 << 10;
/// The longest headers and trailers, in bytes, as in other clients of gRPC.
const HEADER_LIMIT: u32 = 8 << 10;
/// `google.rpc.Code.UNIMPLEMENTED`.
const UNIMPLEMENTED: &str = "12";

/// What is asked, of whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// Nothing for the server as a whole.
    pub(crate) service: &'a str,
    /// The `User-Agent`.
    pub(crate) agent: &'a str,
    pub(crate) tls: bool,
}

impl Check<'_> {
    /// Asks `grpc.health.v1.Health/Check`. The caller bounds the time.
    pub(crate) async fn probe(self) -> Attempt {
        let authority = tcp::authority(self.host, self.port);
        let unreached =
            |said: String| format!("error: failed to connect service at \"{authority}\": {said}");
        let answer = match tcp::dial(self.host, self.port).await {
            Ok(stream) if self.tls => match tls::connect(self.host, "h2", stream).await {
                Ok(stream) => self.ask(stream).await,
                Err(said) => return Ok(Outcome::Failure(unreached(said))),
            },
            Ok(stream) => self.ask(stream).await,
            Err(said) => return Ok(Outcome::Failure(unreached(said))),
        };
        Ok(match answer {
            Ok(answer) => judge(&answer),
            Err(error) => Outcome::Failure(format!("error: health rpc probe failed: {error}")),
        })
    }

    async fn ask(self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Answer, h2::Error> {
        let mut builder = h2::client::Builder::new();
        let (client, connection) =
            builder.max_header_list_size(HEADER_LIMIT).handshake(stream).await?;
        let (mut connection, mut exchange) =
            (std::pin::pin!(connection), std::pin::pin!(self.exchange(client)));
        // Driven for as long as the exchange needs it. If it ends before, the exchange knows why.
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection => {}
        }
        exchange.await
    }

    async fn exchange(self, client: SendRequest<Bytes>) -> Result<Answer, h2::Error> {
        let mut client = client.ready().await?;
        // All of it is made here, of words that were checked before.
        let request = self.request().map_err(|_| h2::Reason::INTERNAL_ERROR)?;
        let (response, mut sent) = client.send_request(request, false)?;
        sent.send_data(message(self.service), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut read = BytesMut::new();
        while read.len() <= ANSWER_LIMIT
            && let Some(data) = body.data().await
        {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            read.extend_from_slice(&data);
        }
        let trailers = if read.len() > ANSWER_LIMIT { None } else { body.trailers().await? };
        // An answer that is an error may have its trailers as headers.
        let last = trailers.unwrap_or(head.headers);
        let text = |name: &str| Some(last.get(name)?.to_str().ok()?.to_owned());
        let message = text("grpc-message").unwrap_or_default();
        let message = percent_decode_str(&message).decode_utf8_lossy().into_owned();
        Ok(Answer { status: text("grpc-status"), message, body: read.freeze() })
    }

    fn request(&self) -> Result<Request<()>, http::Error> {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = tcp::authority(self.host, self.port);
        Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", self.agent)
            .body(())
    }
}

/// What a check that took too long is said to have failed with.
pub(crate) fn timed_out(limit: Duration) -> String {
    format!("timeout: health rpc did not complete within {}s", limit.as_secs())
}

/// What came back.
#[derive(Debug, Default)]
struct Answer {
    /// `grpc-status`, a number; none where the peer is no gRPC server.
    status: Option<String>,
    message: String,
    body: Bytes,
}

/// `HealthCheckRequest { service: string = 1 }` in its frame.
fn message(service: &str) -> Bytes {
    let mut inner = BytesMut::new();
    if !service.is_empty() {
        inner.put_u8(0x0a);
        let mut rest = service.len();
        while rest >= 0x80 {
            inner.put_u8(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
            rest >>= 7;
        }
        inner.put_u8(u8::try_from(rest).unwrap_or_default());
        inner.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(inner.len()).unwrap_or_default());
    frame.put(inner);
    frame.freeze()
}

/// In the kubelet's words (`pkg/probe/grpc`).
fn judge(answer: &Answer) -> Outcome {
    let failure = |said: String| Outcome::Failure(said);
    let message = &answer.message;
    match answer.status.as_deref() {
        Some("0") => {}
        Some(UNIMPLEMENTED) => {
            return failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        Some(code) => {
            return failure(format!(
                "error: health rpc probe failed: code = {code} desc = {message}"
            ));
        }
        None => {
            return failure(
                "error: health rpc probe failed: this is not an answer of gRPC".to_owned(),
            );
        }
    }
    let name = match serving(&answer.body) {
        Some(1) => return Outcome::Success,
        Some(0) => "UNKNOWN",
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        Some(_) | None => "an answer that is no health check's",
    };
    failure(format!("service unhealthy (responded with \"{name}\")"))
}

/// `HealthCheckResponse { status: enum = 1 }` in its frame. A field that is left out is 0.
fn serving(body: &[u8]) -> Option<u8> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(head.get(1..)?.try_into().ok()?);
    let whole = head.first() == Some(&0) && usize::try_from(length).ok()? == message.len();
    match message {
        [] if whole => Some(0),
        [0x08, status @ ..] if whole && status.len() == 1 => status.first().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

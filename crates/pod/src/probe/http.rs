//! An HTTP request, and what its answer says of the container.
//!
//! One connection a request, which is closed after it; no proxy; redirects are followed within the host.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::action::Get;
use super::{Attempt, Outcome, tcp, tls};

/// How much of an answer is read (the kubelet's `maxRespBodyLength`), in bytes.
const BODY_LIMIT: usize = 10 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// The longest redirect that is followed, in characters: it is repeated in messages.
const LOCATION_LIMIT: usize = 2 << 10;

/// An answer, as far as it is looked at.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The first of it, at most [`BODY_LIMIT`].
    pub(crate) body: Bytes,
}

/// Asks, and judges the answer. The caller bounds the time.
pub(crate) async fn probe(get: &Get) -> Attempt {
    let answer = match request(get).await {
        Ok(answer) => answer,
        Err(said) => return Ok(Outcome::Failure(said)),
    };
    Ok(match answer.status.as_u16() {
        200..=299 => Outcome::Success,
        300..=399 => {
            let body = String::from_utf8_lossy(&answer.body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // Without the body: it may hold what the readers of Events should not see.
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    })
}

/// What a request that took too long is said to have failed with.
pub(crate) fn timed_out(get: &Get) -> String {
    let said = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    failed(&get.url, said)
}

fn failed(url: &Url, said: &str) -> String {
    format!("Get \"{}://{}{}\": {said}", url.scheme(), authority(url), target(url))
}

/// The host and the port, which is named even where it is the scheme's: as the kubelet does.
fn authority(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

fn target(url: &Url) -> String {
    let path = url.path();
    url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// The answer to a request, after redirects within the host; or why there is none.
pub(crate) async fn request(get: &Get) -> Result<Answer, String> {
    let mut now = get.clone();
    for _ in 0..REDIRECTS {
        let (status, location, body) =
            exchange(&now).await.map_err(|said| failed(&now.url, &said))?;
        let Some(next) = redirect(&now.url, status, location.as_ref())? else {
            return Ok(Answer { status, body });
        };
        if next.host_str() != get.url.host_str() {
            return Ok(Answer { status, body });
        }
        now.url = next;
    }
    Err(failed(&now.url, &format!("stopped after {REDIRECTS} redirects")))
}

/// Where an answer sends the client to. One that does not say is an answer like any other.
fn redirect(
    from: &Url,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, String> {
    let Some(location) = location.filter(|_| matches!(status.as_u16(), 301..=303 | 307 | 308))
    else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(location.as_bytes());
    let text: String = text.chars().take(LOCATION_LIMIT).collect();
    let next = from.join(&text).ok().filter(|next| matches!(next.scheme(), "http" | "https"));
    let wrong = || failed(from, &format!("failed to parse Location header \"{text}\""));
    next.map(Some).ok_or_else(wrong)
}

type Reply = (StatusCode, Option<HeaderValue>, Bytes);

async fn exchange(get: &Get) -> Result<Reply, String> {
    let host = get.url.host_str().unwrap_or_default();
    let port = get.url.port_or_known_default().unwrap_or_default();
    let stream = tcp::dial(host, port).await?;
    if get.url.scheme() == "https" {
        send(get, tls::connect(host, "http/1.1", stream).await?).await
    } else {
        send(get, stream).await
    }
}

async fn send(
    get: &Get,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Reply, String> {
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| chain(&error))?;
    let asked = request_of(get)?;
    let reply = async {
        let response = sender.send_request(asked).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION).cloned();
        Ok((status, location, read(response.into_body()).await?))
    };
    // The connection has to be driven for as long as the reply is read, and only for so long. If it ends before, the reply
    // knows why, or has all that it needs.
    let (mut connection, mut reply) = (std::pin::pin!(connection), std::pin::pin!(reply));
    tokio::select! {
        reply = &mut reply => return reply,
        _ = &mut connection => {}
    }
    reply.await
}

fn request_of(get: &Get) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::builder().uri(target(&get.url));
    if let Some(headers) = request.headers_mut() {
        *headers = get.headers.clone();
        let own = HeaderValue::from_str(&authority(&get.url)).ok();
        headers.extend(get.host.clone().or(own).map(|host| (header::HOST, host)));
    }
    request.body(Empty::new()).map_err(|error| error.to_string())
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    while read.len() < BODY_LIMIT
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| chain(&error))?;
        if let Some(data) = frame.data_ref() {
            let room = BODY_LIMIT - read.len();
            read.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }
    Ok(read.freeze())
}

/// An error with its causes: that of hyper alone says nothing. A connection that ends without an answer is what it is for
/// the kubelet.
fn chain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    crate::words::chain(error)
}

#[cfg(test)]
mod tests;

//! The HTTP client, and what its errors mean.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url, redirect};
use rustls::InvalidMessage;
use tokio::time::timeout;

use crate::Patience;
use crate::error::Problem;
use crate::pace::Meter;

/// The part of an error's body that is read, and shown.
const SHOWN: usize = 400;
/// Blob stores are reached by one redirect, seldom by two.
const REDIRECTS: usize = 5;

/// Whether a registry is asked over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    Tls,
    /// Only where the node's configuration says so.
    Plain,
}

/// What all clients have in common.
pub(crate) fn client(dial: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(crate::USER_AGENT)
        .connect_timeout(dial)
        .redirect(redirect::Policy::custom(follow))
}

/// `Authorization` is dropped by reqwest where host, port or scheme change.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    match objection(attempt.previous(), attempt.url()) {
        Some(objection) => attempt.error(objection),
        None => attempt.follow(),
    }
}

/// Against following to `next`: a few redirects are followed and none that leaves TLS.
pub(crate) fn objection(previous: &[Url], next: &Url) -> Option<&'static str> {
    let was_secure = previous.last().is_some_and(|url| url.scheme() == "https");
    if was_secure && next.scheme() != "https" {
        return Some("it leads from https to plain HTTP");
    }
    (previous.len() > REDIRECTS).then_some("there are too many")
}

/// Makes a request, and waits for the beginning of the answer.
pub(crate) async fn send(
    request: RequestBuilder,
    what: &'static str,
    patience: &Patience,
) -> Result<Response, Problem> {
    let within = patience.answer;
    let answer = timeout(within, request.send()).await;
    answer.map_err(|_| Problem::Stalled { what, within })?.map_err(|error| problem(&error))
}

/// The next piece of a body.
pub(crate) async fn chunk(
    response: &mut Response,
    what: &'static str,
    patience: &Patience,
) -> Result<Option<Bytes>, Problem> {
    let within = patience.idle;
    let chunk = timeout(within, response.chunk()).await;
    chunk.map_err(|_| Problem::Stalled { what, within })?.map_err(|error| problem(&error))
}

/// A whole body, of up to `limit` bytes. `heard` is called for each piece that comes.
pub(crate) async fn body(
    mut response: Response,
    what: &'static str,
    limit: u64,
    patience: &Patience,
    heard: impl Fn(),
) -> Result<Vec<u8>, Problem> {
    let (mut body, mut meter) = (Vec::new(), Meter::new(&patience.pace));
    let mut last = 0;
    while let Some(chunk) = chunk(&mut response, what, patience).await? {
        heard();
        if !body.is_empty() {
            meter.add(last, what)?;
        }
        last = chunk.len();
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(Problem::TooLarge { what, size: body.len() as u64, limit });
        }
    }
    Ok(body)
}

/// What an error of the HTTP client means for a pull.
pub(crate) fn problem(error: &reqwest::Error) -> Problem {
    let chain = || std::iter::successors(error.source(), |error| (*error).source());
    let cause = cause(error);
    if error.is_redirect() {
        return Problem::Redirect { cause };
    }
    match chain().find_map(tls) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            return Problem::NoTls { cause };
        }
        Some(_) => return Problem::Tls { cause },
        None => {}
    }
    match (error.is_connect(), chain().any(|error| error.to_string() == "dns error")) {
        (true, true) => Problem::Name { cause },
        (true, false) => Problem::Unreachable { cause },
        _ => Problem::Broken { cause },
    }
}

/// The first cause of an error.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An `io::Error` leaves out of the chain what it wraps: it is unwrapped here.
fn tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref().or_else(|| inner.and_then(|inner| tls(inner)))
}

/// What an answer that is no success means.
pub(crate) async fn refusal(response: Response, who: String, patience: &Patience) -> Problem {
    let status = response.status();
    let after = retry_after(response.headers());
    let answer = words(response, patience).await;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Problem::Denied { who, answer },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Problem::Busy { answer, after }
        }
        _ if status.is_server_error() => Problem::Busy { answer, after },
        _ => Problem::Unexpected { answer },
    }
}

/// An answer in one line, for users. Reads a little of its body, no more.
pub(crate) async fn words(mut response: Response, patience: &Patience) -> String {
    let status = response.status();
    let mut start = Vec::new();
    // The status says enough: nobody waits long for the rest.
    let _ = timeout(patience.idle, read_start(&mut response, &mut start)).await;
    format!("{status} {}", shown(&start)).trim_end().to_owned()
}

async fn read_start(response: &mut Response, start: &mut Vec<u8>) {
    while start.len() < SHOWN
        && let Ok(Some(chunk)) = response.chunk().await
    {
        start.extend_from_slice(&chunk);
        start.truncate(SHOWN);
    }
}

/// `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()
}

/// A registry's error in one line: its codes and messages (distribution specification,
/// "Error Codes"), else the text itself.
fn shown(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => {
            let lines =
                envelope.errors.iter().map(|error| format!("{}: {}", error.code, error.message));
            lines.collect::<Vec<_>>().join(", ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |value| {
            let value = HeaderValue::from_static(value);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert!(read("Tue, 31 Dec 2199 23:59:59 GMT").is_some_and(|wait| wait.as_secs() > 3600));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn a_redirect_is_followed_unless_it_leaves_tls_or_is_one_of_many() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (previous, next, is_followed) in [
            (&["https://a"][..], "https://b", true),
            (&["http://a"], "http://b", true),
            (&["http://a"], "https://b", true),
            (&["https://a"], "http://a", false),
            (&["http://a", "https://b"], "http://a", false),
            (&["https://a"; REDIRECTS], "https://b", true),
            (&["https://a"; REDIRECTS + 1], "https://b", false),
        ] {
            let previous: Vec<_> = previous.iter().map(|text| url(text)).collect();
            assert_eq!(objection(&previous, &url(next)).is_none(), is_followed, "{previous:?}");
        }
    }

    #[test]
    fn an_error_is_shown_in_one_short_line() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag","detail":1}]}"#;
        assert_eq!(shown(body), "MANIFEST_UNKNOWN: no such tag");
        assert_eq!(shown(b"<html>\nno"), "<html> no");
        assert_eq!(shown(&[b'x'; 10_000]).len(), SHOWN);
    }
}

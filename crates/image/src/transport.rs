//! The HTTP client, and what its errors mean.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use tokio::time::timeout;

use crate::Patience;
use crate::error::Problem;

/// The part of an error's body that is read, and shown.
const SHOWN: usize = 400;
/// Blob stores are reached by one redirect, seldom by two.
const REDIRECTS: usize = 5;

/// A client for all registries: it holds connections, no credentials.
pub(crate) fn client(patience: &Patience) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(crate::USER_AGENT)
        .connect_timeout(patience.connect)
        .redirect(redirect::Policy::custom(follow))
        .build()
}

/// Follows a few redirects and none that leaves TLS. `Authorization` is dropped by reqwest
/// where host, port or scheme change.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error("it leads from https to plain HTTP");
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("there are too many");
    }
    attempt.follow()
}

/// What an error of the HTTP client means for a pull.
pub(crate) fn problem(error: &reqwest::Error) -> Problem {
    let chain = || std::iter::successors(error.source(), |error| (*error).source());
    let cause = chain().last().map_or_else(|| error.to_string(), ToString::to_string);
    if error.is_redirect() {
        return Problem::Redirect { cause };
    }
    if chain().any(is_tls) {
        return Problem::Tls { cause };
    }
    match (error.is_connect(), chain().any(|error| error.to_string() == "dns error")) {
        (true, true) => Problem::Name { cause },
        (true, false) => Problem::Unreachable { cause },
        _ => Problem::Broken { cause },
    }
}

/// An `io::Error` leaves out of the chain what it wraps: it is unwrapped here.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_tls(inner))
}

/// What an answer that is no success means. Reads a little of its body, no more.
pub(crate) async fn refusal(mut response: Response, who: String, patience: &Patience) -> Problem {
    let status = response.status();
    let after = retry_after(response.headers());
    let mut body = Vec::new();
    while body.len() < SHOWN
        && let Ok(Ok(Some(chunk))) = timeout(patience.idle, response.chunk()).await
    {
        body.extend_from_slice(&chunk);
        body.truncate(SHOWN);
    }
    let answer = format!("{status} {}", shown(&body)).trim_end().to_owned();
    match status {
        StatusCode::NOT_FOUND => Problem::Unknown { answer },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Problem::Denied { who, answer },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Problem::Busy { answer, after }
        }
        _ if status.is_server_error() => Problem::Busy { answer, after },
        _ => Problem::Unexpected { answer },
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
pub(crate) fn shown(body: &[u8]) -> String {
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
    fn an_error_is_shown_in_one_short_line() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag","detail":1}]}"#;
        assert_eq!(shown(body), "MANIFEST_UNKNOWN: no such tag");
        assert_eq!(shown(b"<html>\nno"), "<html> no");
        assert_eq!(shown(&[b'x'; 10_000]).len(), SHOWN);
    }
}

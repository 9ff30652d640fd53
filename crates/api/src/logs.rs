use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use nodule_logs::{Query, Streams};
use nodule_pod::{Instance, LogError};
use tracing::warn;

use crate::node::Node;

/// `GET /containerLogs/{namespace}/{pod}/{container}`: the log as plain text, for `kubectl logs`.
pub(crate) async fn read(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    parameters: Result<Parameters<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let asked = parameters
        .map_err(|_| Invalid::Undecodable)
        .and_then(|Parameters(parameters)| Asked::parse(&parameters, Timestamp::now()));
    let Asked { instance, query } = match asked {
        Ok(asked) => asked,
        Err(invalid) => return invalid.into_response(),
    };
    let log = match (node.log)(&namespace, &pod, &container, instance) {
        Ok(log) => log,
        Err(error) => return refusal(&error),
    };
    let follow = query.follow;
    let mut text = Box::pin(nodule_logs::read(log.path, query, log.ended));
    if follow {
        // The header must go out even when nothing is written for hours.
        return plain(Body::from_stream(text));
    }
    match text.next().await {
        None => plain(Body::empty()),
        Some(Ok(first)) => plain(Body::from_stream(futures::stream::iter([Ok(first)]).chain(text))),
        Some(Err(error)) => {
            warn!(
                error = &error as &dyn std::error::Error,
                namespace, pod, container, "log not read"
            );
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

fn plain(body: Body) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, body).into_response()
}

fn refusal(error: &LogError) -> Response {
    let status = match error {
        LogError::NoPod { .. } | LogError::NoContainer { .. } => StatusCode::NOT_FOUND,
        LogError::Waiting { .. } | LogError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
    };
    (status, format!("{error}\n")).into_response()
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    instance: Instance,
    query: Query,
}

/// Why a request can not be served. The texts are the kubelet's.
#[derive(Debug, PartialEq, Eq)]
enum Invalid {
    /// A parameter does not have the form that it must have.
    Undecodable,
    /// A parameter makes no sense, alone or with another.
    Senseless,
}

impl IntoResponse for Invalid {
    fn into_response(self) -> Response {
        match self {
            Invalid::Undecodable => {
                (StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#)
            }
            Invalid::Senseless => {
                (StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#)
            }
        }
        .into_response()
    }
}

impl Asked {
    /// Reads Kubernetes' `PodLogOptions` from a query. Unknown parameters are ignored, the first of several counts.
    fn parse(parameters: &[(String, String)], now: Timestamp) -> Result<Self, Invalid> {
        let value = |name: &str| {
            parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let is_set = |name: &str| value(name).is_some_and(|value| !matches!(value, "false" | "0"));
        let number = |name: &str| value(name).map(integer).transpose();
        let tail_lines = match value("tail").filter(|value| !value.is_empty()) {
            Some("all") => None,
            Some(lines) => Some(integer(lines)?),
            None => number("tailLines")?,
        };
        let limit_bytes = number("limitBytes")?;
        let since_seconds = number("sinceSeconds")?;
        let since_time =
            value("sinceTime").filter(|value| !value.is_empty()).map(time).transpose()?;
        let streams = value("stream");
        let query = Query {
            follow: is_set("follow"),
            timestamps: is_set("timestamps"),
            since: since(since_seconds, since_time, now)?,
            tail_lines: at_least(0, tail_lines)?,
            limit_bytes: at_least(1, limit_bytes)?,
            streams: streams.map_or(Ok(Streams::Both), parse_streams)?,
        };
        if query.tail_lines.is_some() && query.streams != Streams::Both {
            // The tail is found before records are told apart.
            return Err(Invalid::Senseless);
        }
        Ok(Asked {
            instance: if is_set("previous") { Instance::Previous } else { Instance::Current },
            query,
        })
    }
}

fn integer(text: &str) -> Result<i64, Invalid> {
    text.parse().map_err(|_| Invalid::Undecodable)
}

fn time(text: &str) -> Result<Timestamp, Invalid> {
    text.parse().map_err(|_| Invalid::Undecodable)
}

fn at_least(least: i64, number: Option<i64>) -> Result<Option<u64>, Invalid> {
    let number =
        number.filter(|number| *number < least).map_or(Ok(number), |_| Err(Invalid::Senseless))?;
    number.map(u64::try_from).transpose().map_err(|_| Invalid::Senseless)
}

fn since(
    seconds: Option<i64>,
    time: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Invalid> {
    match (seconds, time) {
        (None, time) => Ok(time),
        (Some(seconds), None) if seconds > 0 => {
            Ok(Some(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)))
        }
        (Some(_), _) => Err(Invalid::Senseless),
    }
}

fn parse_streams(name: &str) -> Result<Streams, Invalid> {
    match name {
        "All" => Ok(Streams::Both),
        "Stdout" => Ok(Streams::Stdout),
        "Stderr" => Ok(Streams::Stderr),
        _ => Err(Invalid::Senseless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-08-01T10:00:00Z";

    fn parse(query: &str) -> Result<Asked, Invalid> {
        let uri = format!("/?{query}").parse().unwrap();
        let Parameters(parameters) =
            Parameters::<Vec<(String, String)>>::try_from_uri(&uri).unwrap();
        Asked::parse(&parameters, NOW.parse().unwrap())
    }

    fn at(time: &str) -> Option<Timestamp> {
        Some(time.parse().unwrap())
    }

    #[test]
    fn what_is_asked_is_understood() {
        let none = Query::default;
        for (text, query) in [
            ("", none()),
            ("unknown=1", none()),
            ("follow=true", Query { follow: true, ..none() }),
            ("follow", Query { follow: true, ..none() }),
            ("follow=false&timestamps=0", none()),
            ("timestamps=1", Query { timestamps: true, ..none() }),
            ("tailLines=0", Query { tail_lines: Some(0), ..none() }),
            ("tailLines=5&tailLines=x", Query { tail_lines: Some(5), ..none() }),
            ("tail=7&tailLines=5", Query { tail_lines: Some(7), ..none() }),
            ("tail=all&tailLines=5", none()),
            ("tail=&tailLines=5", Query { tail_lines: Some(5), ..none() }),
            ("limitBytes=1", Query { limit_bytes: Some(1), ..none() }),
            ("sinceSeconds=60", Query { since: at("2026-08-01T09:59:00Z"), ..none() }),
            ("sinceSeconds=9223372036854775807", Query { since: Some(Timestamp::MIN), ..none() }),
            (
                "sinceTime=2026-08-01T11:00:00%2B02:00",
                Query { since: at("2026-08-01T09:00:00Z"), ..none() },
            ),
            ("sinceTime=", none()),
            ("stream=All&tailLines=1", Query { tail_lines: Some(1), ..none() }),
            ("stream=Stdout", Query { streams: Streams::Stdout, ..none() }),
            ("stream=Stderr", Query { streams: Streams::Stderr, ..none() }),
        ] {
            assert_eq!(parse(text), Ok(Asked { instance: Instance::Current, query }), "{text}");
        }
        assert_eq!(parse("previous=true").map(|asked| asked.instance), Ok(Instance::Previous));
    }

    #[test]
    fn what_can_not_be_understood_is_told_apart_from_what_makes_no_sense() {
        for (text, invalid) in [
            ("tailLines=x", Invalid::Undecodable),
            ("tailLines=", Invalid::Undecodable),
            ("tail=x", Invalid::Undecodable),
            ("limitBytes=1.5", Invalid::Undecodable),
            ("sinceSeconds=1m", Invalid::Undecodable),
            ("sinceTime=yesterday", Invalid::Undecodable),
            ("tailLines=-1", Invalid::Senseless),
            ("limitBytes=0", Invalid::Senseless),
            ("sinceSeconds=0", Invalid::Senseless),
            ("sinceSeconds=-1", Invalid::Senseless),
            ("sinceSeconds=1&sinceTime=2026-08-01T10:00:00Z", Invalid::Senseless),
            ("stream=stdin", Invalid::Senseless),
            ("stream=Stdout&tailLines=1", Invalid::Senseless),
        ] {
            assert_eq!(parse(text), Err(invalid), "{text}");
        }
    }
}

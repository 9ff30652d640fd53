//! What a proxy makes of a request, and of an answer or a watch that is to break.

use std::time::Duration;

use anyhow::{Result, ensure};
use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use futures::{StreamExt, stream};
use nodule_e2e::{test::Test, wait};
use serde_json::json;
use tokio::sync::watch;

/// What a refusal for too many requests asks to wait.
pub(crate) const AFTER: Duration = Duration::from_secs(1);

/// How a watch goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Feed {
    /// As the API server says.
    #[default]
    Flows,
    /// Whatever happens, nothing is said.
    Silent,
    /// It has ended (410), as the version that it goes on from is too old.
    Expired,
    /// Its connection is cut.
    Cut,
}

/// Verb with resource, and the object's name, of a request (Kubernetes docs, "API concepts": resource URIs).
pub(crate) fn named(method: &Method, uri: &Uri) -> (String, String) {
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    let (resource, name) = match rest {
        ["namespaces", _, resource, name, sub] => (format!("{resource}/{sub}"), *name),
        ["namespaces", _, resource, name] => ((*resource).to_owned(), *name),
        ["namespaces", _, resource] | [resource] => ((*resource).to_owned(), ""),
        [resource, name] => ((*resource).to_owned(), *name),
        [resource, name, sub] => (format!("{resource}/{sub}"), *name),
        _ => (String::new(), ""),
    };
    let asks = |parameter: &str| uri.query().is_some_and(|query| query.contains(parameter));
    let verb = match method.as_str() {
        "GET" if asks("watch=true") && !asks("sendInitialEvents=true") => "watch",
        "GET" if name.is_empty() => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        _ => "delete",
    };
    (format!("{verb} {resource}"), name.to_owned())
}

/// What the API server says, as long as the feed flows.
pub(crate) fn fed(body: Body, feed: watch::Receiver<Feed>) -> Body {
    let state = Some((body.into_data_stream(), feed));
    let said = stream::unfold(state, |state| async {
        let (mut body, mut feed) = state?;
        loop {
            let now = *feed.borrow_and_update();
            match now {
                Feed::Flows => tokio::select! {
                    biased;
                    Ok(()) = feed.changed() => {}
                    said = body.next() => {
                        let said = said?.map_err(BoxError::from);
                        return Some((said, Some((body, feed))));
                    }
                },
                Feed::Silent => feed.changed().await.ok()?,
                Feed::Expired => return Some((Ok(expired()), None)),
                Feed::Cut => return Some((Err("cut".into()), None)),
            }
        }
    });
    Body::from_stream(said)
}

/// The event with which a watch ends when what it goes on from is no longer kept.
fn expired() -> Bytes {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version: 1 (2)", "metadata": {},
    });
    Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": status })))
}

/// An answer whose connection breaks off.
pub(crate) fn broken_off() -> Response {
    let parts = [Ok(Bytes::from_static(b"{\"kind\"")), Err("broken off")];
    Response::new(Body::from_stream(stream::iter(parts)))
}

/// The API server's refusal with this code.
pub(crate) fn refusal(code: u16) -> Response {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let mut status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("told to say {code}"),
    });
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if code == 429 {
        status["details"] = json!({ "retryAfterSeconds": AFTER.as_secs() });
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(AFTER.as_secs()));
    }
    response.map(|_| Body::from(status.to_string()))
}

/// Waits until there is nothing of any pod.
pub(crate) async fn nothing_is_left(test: &Test<'_>) -> Result<()> {
    let folder = test.agent.file("root/pods");
    let empty = || std::fs::read_dir(&folder).ok()?.next().is_none().then_some(());
    wait::found("nothing of a pod to be left", empty).await?;
    ensure!(test.agent.sandboxes().is_empty(), "a container runs on");
    Ok(())
}

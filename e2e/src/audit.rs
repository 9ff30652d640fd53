//! What nodes ask the API server for, as that writes it down (Kubernetes docs, "Auditing").

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;

/// The name of the API server's second log.
pub(crate) const LOG: &str = "audit";

/// One line for each request of a node, when it comes in.
pub(crate) const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules:
- level: Metadata
  userGroups: ['system:nodes']
- level: None
";

/// A request that the API server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it was received, by the API server's clock.
    pub at: Timestamp,
    /// `watch`, `patch`, ….
    pub verb: String,
    /// `pods/status`, `leases`, …; empty for what is no resource.
    pub resource: String,
}

/// One line of the log, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    object_ref: Option<Object>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
}

/// The requests of a node, in the order of their coming.
pub(crate) fn of(log: &str, node: &str) -> Result<Vec<Request>> {
    let user = format!("system:node:{node}");
    // The last line may be half written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| line.contains(&user));
    let lines = lines.map(|line| serde_json::from_str::<Line>(line).context("a line of the audit"));
    let lines: Vec<Line> = lines.collect::<Result<_>>()?;
    let own = lines.into_iter().filter(|line| line.user.username == user);
    let mut requests: Vec<_> = own.map(Request::from).collect();
    requests.sort_by_key(|request| request.at);
    Ok(requests)
}

impl From<Line> for Request {
    fn from(line: Line) -> Self {
        let Object { resource, subresource } = line.object_ref.unwrap_or_default();
        let slash = if subresource.is_empty() { "" } else { "/" };
        Self {
            at: line.request_received_timestamp,
            verb: line.verb,
            resource: format!("{resource}{slash}{subresource}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_this_very_node_are_read() {
        let line = |user: &str, second: u32, object: &str| {
            format!(
                r#"{{"verb":"patch","user":{{"username":"{user}"}},"requestReceivedTimestamp":"2026-01-01T00:00:0{second}.000001Z"{object}}}"#
            )
        };
        let object = r#","objectRef":{"resource":"pods","subresource":"status","name":"a"}"#;
        let log = [
            line("system:node:n1", 2, object),
            line("system:node:n10", 1, object),
            line("system:node:n1", 1, ""),
            line("system:node:n1", 3, object)[..40].to_owned(),
        ];
        let found = of(&log.join("\n"), "n1").unwrap();
        let found: Vec<_> = found.iter().map(|one| one.resource.as_str()).collect();
        assert_eq!(found, ["", "pods/status"]);
    }
}

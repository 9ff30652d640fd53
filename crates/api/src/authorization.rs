use std::time::Duration;

use axum::http::Method;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use tracing::warn;

use crate::authentication::User;
use crate::cache::Cache;
use crate::review::{self, review};

/// How long a yes is good (the kubelet's `authorization.webhook.cacheAuthorizedTTL`).
const ALLOWED_LIFETIME: Duration = Duration::from_mins(5);

/// How long a no is good (`cacheUnauthorizedTTL`).
const FORBIDDEN_LIFETIME: Duration = Duration::from_secs(30);

/// How it is decided what a user may do: the kubelet's `authorization.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// All, if it is known who they are.
    AlwaysAllow,
    /// What the API server answers to a SubjectAccessReview.
    Webhook,
}

/// What a request does, in the words of Kubernetes' authorization.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: &'static str,
    /// Of the node. A right to any of them is enough.
    pub(crate) subresources: &'static [&'static str],
}

pub(crate) enum Decision {
    Allowed,
    Forbidden,
    /// The API server did not answer.
    Unknown {
        subresource: &'static str,
    },
}

pub(crate) struct Authorizer {
    mode: Authorization,
    client: kube::Client,
    node: String,
    answers: Cache<(User, &'static str, &'static str), bool>,
}

impl Attributes {
    /// The table of the Kubernetes documentation, "Kubelet authentication/authorization". Who may `get` the
    /// subresource `proxy` may run code in containers.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let subresources: &[_] =
            match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
                "stats" => &["stats"],
                "metrics" => &["metrics"],
                "logs" => &["log"],
                "checkpoint" => &["checkpoint"],
                "statusz" => &["statusz"],
                "flagz" => &["configz"],
                "pods" | "runningpods" => &["pods", "proxy"],
                "healthz" => &["healthz", "proxy"],
                "configz" => &["configz", "proxy"],
                _ => &["proxy"],
            };
        Attributes { verb: verb(method), subresources }
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

impl Authorizer {
    pub(crate) fn new(mode: Authorization, client: kube::Client, node: String) -> Self {
        Authorizer { mode, client, node, answers: Cache::new() }
    }

    pub(crate) async fn decide(&self, user: &User, attributes: &Attributes) -> Decision {
        if self.mode == Authorization::AlwaysAllow {
            return Decision::Allowed;
        }
        for subresource in attributes.subresources {
            match self.is_allowed(user, attributes.verb, subresource).await {
                Ok(true) => return Decision::Allowed,
                Ok(false) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, user = user.name, "access not reviewed");
                    return Decision::Unknown { subresource };
                }
            }
        }
        Decision::Forbidden
    }

    async fn is_allowed(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, review::Error> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.answers.get(&key) {
            return Ok(known);
        }
        let answer = review(&self.client, &self.asked(user, verb, subresource)).await?;
        let allowed =
            answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        self.answers.put(key, allowed, if allowed { ALLOWED_LIFETIME } else { FORBIDDEN_LIFETIME });
        Ok(allowed)
    }

    fn asked(&self, user: &User, verb: &str, subresource: &str) -> SubjectAccessReview {
        let resource = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        SubjectAccessReview { spec, ..SubjectAccessReview::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_verb_and_subresources() {
        for (method, path, verb, subresources) in [
            (Method::GET, "/stats/summary", "get", &["stats"][..]),
            (Method::POST, "/stats/summary", "create", &["stats"]),
            (Method::GET, "/metrics", "get", &["metrics"]),
            (Method::GET, "/metrics/resource", "get", &["metrics"]),
            (Method::GET, "/logs/", "get", &["log"]),
            (Method::POST, "/checkpoint/ns/p/c", "create", &["checkpoint"]),
            (Method::GET, "/statusz", "get", &["statusz"]),
            (Method::GET, "/flagz", "get", &["configz"]),
            (Method::GET, "/pods", "get", &["pods", "proxy"]),
            (Method::GET, "/runningpods/", "get", &["pods", "proxy"]),
            (Method::GET, "/healthz/ping", "get", &["healthz", "proxy"]),
            (Method::GET, "/configz", "get", &["configz", "proxy"]),
            (Method::GET, "/containerLogs/ns/p/c", "get", &["proxy"]),
            (Method::PUT, "/debug/flags/v", "update", &["proxy"]),
            (Method::PATCH, "/podsandmore", "patch", &["proxy"]),
            (Method::DELETE, "/", "delete", &["proxy"]),
            (Method::HEAD, "/metricsandmore", "", &["proxy"]),
        ] {
            assert_eq!(
                Attributes::of(&method, path),
                Attributes { verb, subresources },
                "{method} {path}"
            );
        }
    }
}

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::authentication::{Authentication, User};
use crate::authorization::{Attributes, Authorizer, Decision};

/// Who decides about requests.
pub(crate) struct Guard {
    pub(crate) authentication: Authentication,
    pub(crate) authorizer: Authorizer,
}

/// Lets a request through if it is known whose it is and if they may. The answers are the kubelet's.
pub(crate) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(user) = guard.user(Claim::of(&request)).await else {
        // The connection ends too: one that nobody answers for is not kept.
        return (StatusCode::UNAUTHORIZED, [(CONNECTION, "close")], "Unauthorized").into_response();
    };
    let attributes = Attributes::of(request.method(), request.uri().path());
    match guard.authorizer.decide(&user, &attributes).await {
        Decision::Allowed => next.run(request).await,
        Decision::Forbidden => {
            let subresources = attributes.subresources.join(" ");
            let what = format!("user={}, verb={}, resource=nodes", user.name, attributes.verb);
            (
                StatusCode::FORBIDDEN,
                format!("Forbidden ({what}, subresource(s)=[{subresources}])\n"),
            )
                .into_response()
        }
        Decision::Unknown { subresource } => {
            let what = format!("user={}, verb={}, resource=nodes", user.name, attributes.verb);
            let text = format!("Authorization error ({what}, subresource={subresource})");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// What a request says about its maker: the user of the connection's certificate, or a token.
enum Claim {
    Certificate(User),
    Token(String),
}

impl Claim {
    fn of(request: &Request) -> Option<Self> {
        match request.extensions().get::<Option<User>>() {
            Some(Some(user)) => Some(Claim::Certificate(user.clone())),
            Some(None) | None => {
                bearer(request.headers()).map(|token| Claim::Token(token.to_owned()))
            }
        }
    }
}

impl Guard {
    async fn user(&self, claim: Option<Claim>) -> Option<User> {
        match claim? {
            Claim::Certificate(user) => Some(user),
            Claim::Token(token) => self.authentication.of_token(&token).await,
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().unwrap());
            assert_eq!(bearer(&headers), expected, "{header:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}

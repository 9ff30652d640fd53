use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use tracing::warn;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::cache::Cache;
use crate::review::{self, review};

/// How long an answer about a token is good (the kubelet's `authentication.webhook.cacheTTL`).
const TOKEN_LIFETIME: Duration = Duration::from_mins(2);

/// The group of all whom somebody has authenticated.
const AUTHENTICATED: &str = "system:authenticated";

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Finds out whose a token is.
pub(crate) struct Authentication {
    client: kube::Client,
    /// By the token's SHA-256: the tokens themselves are not kept.
    tokens: Cache<Vec<u8>, Option<User>>,
}

impl User {
    /// Whom a verified client certificate names: the common name, and each organization as a group.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let name =
            subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
        let organizations = subject.iter_organization().filter_map(|group| group.as_str().ok());
        let groups = organizations.chain([AUTHENTICATED]).map(str::to_owned).collect();
        Some(User { name: name.to_owned(), uid: None, groups, extra: BTreeMap::new() })
    }

    fn of_review(user: UserInfo) -> Option<Self> {
        let name = user.username.filter(|name| !name.is_empty())?;
        let (groups, extra) = (user.groups.unwrap_or_default(), user.extra.unwrap_or_default());
        Some(User { name, uid: user.uid, groups, extra })
    }
}

impl Authentication {
    pub(crate) fn new(client: kube::Client) -> Self {
        Authentication { client, tokens: Cache::new() }
    }

    /// Whose this token is: nobody's, if the API server does not say so.
    pub(crate) async fn of_token(&self, token: &str) -> Option<User> {
        let key = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let user = match self.whose(token).await {
            Ok(user) => user,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "token not reviewed");
                return None;
            }
        };
        self.tokens.put(key, user.clone(), TOKEN_LIFETIME);
        user
    }

    async fn whose(&self, token: &str) -> Result<Option<User>, review::Error> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let asked = TokenReview { spec, ..TokenReview::default() };
        let user = review(&self.client, &asked)
            .await?
            .status
            .filter(|status| status.authenticated == Some(true))
            .and_then(|status| status.user);
        Ok(user.and_then(User::of_review))
    }
}

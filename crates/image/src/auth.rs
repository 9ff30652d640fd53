//! Answers a registry's challenge. `oci-client` speaks the token protocol.

use oci_client::Client;
use oci_client::RegistryOperation::Pull;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::time::timeout;

use crate::Patience;
use crate::error::Problem;
use crate::keyring::Credential;
use crate::reference::Reference;
use crate::transport;

/// With whose credentials, and how, a repository is asked.
pub(crate) struct Account {
    reference: Reference,
    credential: Option<Credential>,
    protocol: ClientProtocol,
}

impl Account {
    pub(crate) fn new(
        reference: &Reference,
        credential: Option<&Credential>,
        protocol: ClientProtocol,
    ) -> Self {
        Self { reference: reference.clone(), credential: credential.cloned(), protocol }
    }

    /// For messages.
    pub(crate) fn who(&self) -> String {
        match &self.credential {
            Some(credential) => format!("user {:?}", credential.username),
            None => "anonymous (no pull secret is for this image)".to_owned(),
        }
    }

    /// The `Authorization` that the challenges of a 401 ask for; none if this account has no
    /// answer to them.
    pub(crate) async fn answer(
        &self,
        challenges: &HeaderMap,
        patience: &Patience,
    ) -> Result<Option<HeaderValue>, Problem> {
        let challenges: Vec<_> = challenges
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_ascii_lowercase)
            .collect();
        if challenges.iter().any(|challenge| challenge.contains("bearer ")) {
            self.check_realm(&challenges)?;
            return self.token(patience).await;
        }
        Ok(self.credential.as_ref().and_then(basic))
    }

    /// A password goes out unencrypted only where the registry itself is configured so.
    fn check_realm(&self, challenges: &[String]) -> Result<(), Problem> {
        let realm = challenges.iter().find_map(|challenge| challenge.split_once("realm=\"http://"));
        let (Some((_, realm)), Some(_), false) = (realm, &self.credential, self.is_plain()) else {
            return Ok(());
        };
        let host = realm.split(['/', '"']).next().unwrap_or_default();
        Err(Problem::InsecureRealm { realm: format!("http://{host}") })
    }

    fn is_plain(&self) -> bool {
        self.protocol == ClientProtocol::Http
    }

    /// Fetches a token for this repository. The client is made for this one credential:
    /// a shared one would give the first credential of a registry to everybody.
    async fn token(&self, patience: &Patience) -> Result<Option<HeaderValue>, Problem> {
        let client = Client::try_from(ClientConfig {
            protocol: self.protocol.clone(),
            connect_timeout: Some(patience.connect),
            read_timeout: Some(patience.idle),
            user_agent: crate::USER_AGENT,
            platform_resolver: None,
            ..ClientConfig::default()
        });
        let client = client.map_err(|error| self.problem(error))?;
        let auth = match &self.credential {
            Some(Credential { username, password }) => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            None => RegistryAuth::Anonymous,
        };
        let answer = timeout(patience.answer, client.auth(self.reference.as_oci(), &auth, Pull));
        let stalled = |_| Problem::Stalled { what: "a token", within: patience.answer };
        let token = answer.await.map_err(stalled)?.map_err(|error| self.problem(error))?;
        Ok(token.and_then(|token| secret(&format!("Bearer {token}"))))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other variants are not of this call")]
    fn problem(&self, error: OciDistributionError) -> Problem {
        match error {
            OciDistributionError::AuthenticationFailure(answer) => Problem::Denied {
                who: self.who(),
                answer: format!(
                    "the token service answered {}",
                    transport::shown(answer.as_bytes())
                ),
            },
            OciDistributionError::RequestError(error) => transport::problem(&error),
            error => Problem::Malformed { what: "the token", cause: error.to_string() },
        }
    }
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    use base64::Engine;
    let Credential { username, password } = credential;
    let encoded =
        base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {encoded}"))
}

/// A header value that is left out of debug output.
fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Puts an account's authorization into a request.
pub(crate) fn authorized(
    request: reqwest::RequestBuilder,
    authorization: Option<&HeaderValue>,
) -> reqwest::RequestBuilder {
    match authorization {
        Some(value) => request.header(AUTHORIZATION, value.clone()),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(protocol: ClientProtocol, challenge: &'static str) -> Result<(), Problem> {
        let reference = Reference::parse("reg.example/app").unwrap();
        let credential = Credential { username: "u".to_owned(), password: "p".to_owned() };
        let account = Account::new(&reference, Some(&credential), protocol);
        account.check_realm(&[challenge.to_owned()])
    }

    #[test]
    fn a_password_is_not_sent_in_the_clear_for_a_token() {
        let plain = "bearer realm=\"http://auth.example/token\",service=\"s\"";
        let secure = "bearer realm=\"https://auth.example/token\",service=\"s\"";
        let refused = answered(ClientProtocol::Https, plain).unwrap_err().to_string();
        assert!(refused.contains("http://auth.example, which is not encrypted"), "{refused}");
        assert!(answered(ClientProtocol::Https, secure).is_ok());
        assert!(answered(ClientProtocol::Http, plain).is_ok());
    }
}

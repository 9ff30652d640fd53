//! Answers a registry's challenge: with a password, or with a token that a service gives
//! for it (distribution specification, "Token Authentication").

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use tokio::time::timeout;

use crate::Patience;
use crate::challenge::Challenge;
use crate::credential::Credential;
use crate::error::Problem;
use crate::reference::Reference;
use crate::transport::{self, Security};

/// The longest answer with a token: tokens have a few KiB, and no server takes longer headers.
const LIMIT: u64 = 64 << 10;

/// With whose credentials, and how, a repository is asked.
pub(crate) struct Account {
    repository: String,
    credential: Option<Credential>,
    security: Security,
}

impl Account {
    pub(crate) fn new(
        reference: &Reference,
        credential: Option<&Credential>,
        security: Security,
    ) -> Self {
        let repository = reference.repository().to_owned();
        Self { repository, credential: credential.cloned(), security }
    }

    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    pub(crate) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// For messages.
    pub(crate) fn who(&self) -> String {
        match &self.credential {
            Some(credential) => format!("user {:?}", credential.username),
            None => "anonymous (no pull secret is for this image)".to_owned(),
        }
    }

    /// The `Authorization` that the challenges of a 401 ask for; none if this account has no
    /// answer to them. A password is given only to who asks for it.
    pub(crate) async fn answer(
        &self,
        http: &Client,
        headers: &HeaderMap,
        patience: &Patience,
    ) -> Result<Option<HeaderValue>, Problem> {
        let challenges = Challenge::read(headers);
        let bearer = challenges.iter().filter(|challenge| challenge.is("Bearer"));
        for challenge in bearer {
            if let Some(realm) = challenge.parameter("realm") {
                let service = self.service(realm, challenge)?;
                return self.token(http, service, patience).await.map(Some);
            }
        }
        let is_asked = challenges.iter().any(|challenge| challenge.is("Basic"));
        Ok(self.credential.as_ref().filter(|_| is_asked).and_then(basic))
    }

    /// Where a token is asked for. The registry knows best which scopes its answer needs.
    fn service(&self, realm: &str, challenge: &Challenge) -> Result<Url, Problem> {
        let mut url = address(realm).ok_or_else(|| Problem::BadRealm { realm: cut(realm) })?;
        self.check(&url)?;
        let own = format!("repository:{}:pull", self.repository);
        let scopes = challenge.parameter("scope").unwrap_or(&own);
        let service = challenge.parameter("service").map(|service| ("service", service));
        let scopes = scopes.split_ascii_whitespace().map(|scope| ("scope", scope));
        url.query_pairs_mut().extend_pairs(service.into_iter().chain(scopes));
        Ok(url)
    }

    /// A password goes out unencrypted only where the registry itself is configured so.
    fn check(&self, url: &Url) -> Result<(), Problem> {
        let is_safe = url.scheme() == "https" || self.security == Security::Plain;
        match is_safe || self.credential.is_none() {
            true => Ok(()),
            false => Err(Problem::InsecureRealm { realm: url.origin().ascii_serialization() }),
        }
    }

    async fn token(
        &self,
        http: &Client,
        url: Url,
        patience: &Patience,
    ) -> Result<HeaderValue, Problem> {
        let host = url.authority().to_owned();
        let authorization = self.credential.as_ref().and_then(basic);
        let request = authorized(http.get(url), authorization.as_ref());
        let token = self.fetch(request, patience).await;
        token.map_err(|problem| Problem::TokenService { host, problem: Box::new(problem) })
    }

    async fn fetch(
        &self,
        request: RequestBuilder,
        patience: &Patience,
    ) -> Result<HeaderValue, Problem> {
        let what = "the token";
        let response = transport::send(request, what, patience).await?;
        if response.status() != StatusCode::OK {
            return Err(transport::refusal(response, self.who(), patience).await);
        }
        // All of it is as short as the beginning of another answer: it may not drip for long.
        let within = patience.answer;
        let body = timeout(within, transport::body(response, what, LIMIT, patience, || ())).await;
        let body = body.map_err(|_| Problem::Stalled { what, within })??;
        // The parser's own words may quote the token.
        let none = || Problem::Malformed { what, cause: "the answer holds none".to_owned() };
        bearer(&body).ok_or_else(none)
    }
}

/// The address of a token service: nothing but a place on the web, in particular no user.
fn address(realm: &str) -> Option<Url> {
    let url = Url::parse(realm).ok()?;
    let is_web = matches!(url.scheme(), "https" | "http");
    (is_web && url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn cut(realm: &str) -> String {
    realm.chars().take(100).collect()
}

/// The token of an answer. Services write either name, or both with the same value.
fn bearer(body: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let mut tokens = [answer.token, answer.access_token].into_iter().flatten();
    tokens.find(|token| !token.is_empty()).and_then(|token| secret(&format!("Bearer {token}")))
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    use base64::Engine;
    let Credential { username, password, .. } = credential;
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
    request: RequestBuilder,
    authorization: Option<&HeaderValue>,
) -> RequestBuilder {
    match authorization {
        Some(value) => request.header(AUTHORIZATION, value.clone()),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::WWW_AUTHENTICATE;

    use super::*;

    fn asked(account: &Account, challenge: &'static str) -> Result<String, Problem> {
        let value = HeaderValue::from_static(challenge);
        let challenges = Challenge::read(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
        let realm = challenges[0].parameter("realm").unwrap();
        account.service(realm, &challenges[0]).map(String::from)
    }

    fn account(password: Option<&str>, security: Security) -> Account {
        let reference = Reference::parse("reg.example/team/app").unwrap();
        let credential = password.map(|password| Credential::new("u", password));
        Account::new(&reference, credential.as_ref(), security)
    }

    #[test]
    fn a_password_is_not_sent_in_the_clear_for_a_token() {
        let plain = "Bearer realm=\"HTTP://auth.example/token\",service=\"s\"";
        let secure = "Bearer realm=\"https://auth.example/token\",service=\"s\"";
        for (challenge, password, security, is_sent) in [
            (plain, Some("p"), Security::Tls, false),
            (plain, None, Security::Tls, true),
            (plain, Some("p"), Security::Plain, true),
            (secure, Some("p"), Security::Tls, true),
            (secure, Some("p"), Security::Plain, true),
        ] {
            let asked = asked(&account(password, security), challenge);
            assert_eq!(asked.is_ok(), is_sent, "{challenge} {security:?}");
        }
        let refused = asked(&account(Some("p"), Security::Tls), plain).unwrap_err().to_string();
        assert!(refused.contains("http://auth.example, which is not encrypted"), "{refused}");
    }

    #[test]
    fn a_token_is_asked_for_with_what_the_challenge_says() {
        let account = account(None, Security::Tls);
        for (challenge, url) in [
            (
                "Bearer realm=\"https://a.example/token\"",
                "https://a.example/token?scope=repository%3Ateam%2Fapp%3Apull",
            ),
            (
                "Bearer realm=\"https://a.example/?x=1\",service=\"a&b\",scope=\"aws\"",
                "https://a.example/?x=1&service=a%26b&scope=aws",
            ),
            (
                "Bearer scope=\"r:a:pull,push  r:b:pull\",realm=\"https://a.example:1\"",
                "https://a.example:1/?scope=r%3Aa%3Apull%2Cpush&scope=r%3Ab%3Apull",
            ),
        ] {
            assert_eq!(asked(&account, challenge).unwrap(), url);
        }
    }

    #[test]
    fn a_realm_that_is_no_place_on_the_web_is_refused() {
        for challenge in [
            "Bearer realm=\"here\"",
            "Bearer realm=\"/token\"",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"https://user@a.example\"",
            "Bearer realm=\"https://:password@a.example\"",
        ] {
            let refused = asked(&account(None, Security::Tls), challenge).unwrap_err();
            assert!(matches!(refused, Problem::BadRealm { .. }), "{refused}");
        }
    }

    #[test]
    fn a_token_has_one_of_two_names_and_is_hidden() {
        let read = |body: &str| bearer(body.as_bytes());
        for body in [
            r#"{"token":"abc","expires_in":300}"#,
            r#"{"access_token":"abc"}"#,
            r#"{"token":"","access_token":"abc"}"#,
            r#"{"token":null,"access_token":"abc"}"#,
            r#"{"token":"abc","access_token":"abc"}"#,
        ] {
            let token = read(body).unwrap();
            assert_eq!(token, "Bearer abc");
            assert!(!format!("{token:?}").contains("abc"));
        }
        for body in ["", "{}", "[]", r#""abc""#, r#"{"token":5}"#, r#"{"token":"a\nb"}"#] {
            assert_eq!(read(body), None, "{body}");
        }
    }
}

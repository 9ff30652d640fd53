//! Pushes a Wasm binary to a registry as an artifact (distribution specification, "Pushing"). No store is needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::added::Added;
use crate::artifact::{Artifact, MANIFEST};
use crate::auth::{Account, authorized};
use crate::clients::Clients;
use crate::credential::Credential;
use crate::digest::Digest;
use crate::error::Problem;
use crate::hosts::{self, Host};
use crate::keyring::Keyring;
use crate::reference::Reference;
use crate::transport::{self, Security};
use crate::wasm::Kind;
use crate::{Config, Patience};

/// A binary that was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no Wasm binary but {found}: build it for wasm32-wasip1 or wasm32-wasip2", .path.display())]
    NotWasm {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The registry is asked for nothing by digest: that is made of what is pushed.
    #[error("push to {image}: name a tag instead of a digest")]
    Digest {
        /// The name.
        image: String,
    },
    /// The registry did not take it.
    #[error("push {image}: {cause}; {remedy}")]
    Refused {
        /// The name.
        image: String,
        /// What happened.
        cause: String,
        /// What can be done.
        remedy: &'static str,
    },
}

/// Something that is pushed with a request: what it is, and the type that it has.
struct Body<'b> {
    kind: &'static str,
    content: &'b [u8],
}

/// One repository that is pushed to, as one account.
struct Target<'c> {
    http: Client,
    /// What the registry's file adds to each request to it.
    added: Option<Added>,
    patience: &'c Patience,
    account: Account,
    /// `scheme://host/v2/repository`.
    url: String,
    authorization: Mutex<Option<HeaderValue>>,
}

/// Pushes a file, and gives back the digest that its manifest has in the registry. Of the configuration only what says how
/// registries are reached matters.
///
/// # Errors
/// [`PushError`] names what is wrong and what can be done.
pub async fn push(
    config: &Config,
    reference: &Reference,
    path: &Path,
    keyring: &Keyring,
) -> Result<String, PushError> {
    if reference.digest().is_some() {
        return Err(PushError::Digest { image: reference.to_string() });
    }
    let (wasm, kind) = read(path).await?;
    let title = path.file_name().unwrap_or_default().to_string_lossy();
    let artifact = Artifact::of(&wasm, kind, &title);
    let mut accounts: Vec<_> = keyring.credentials(reference).into_iter().map(Some).collect();
    if accounts.is_empty() {
        accounts.push(None);
    }
    let mut last = Problem::Nobody;
    for account in accounts {
        match push_as(config, reference, account, (&wasm, &artifact)).await {
            Ok(()) => return Ok(Digest::of(&artifact.manifest).to_string()),
            Err(problem) if problem.is_answer_to_the_credential() => last = problem,
            Err(problem) => return Err(refused(reference, &problem)),
        }
    }
    Err(refused(reference, &last))
}

/// To the registry's own server; without TLS where there is none and need not be.
async fn push_as(
    config: &Config,
    reference: &Reference,
    account: Option<&Credential>,
    (wasm, artifact): (&[u8], &Artifact),
) -> Result<(), Problem> {
    let is_plain = config.plain_http.iter().any(|host| host == reference.registry());
    let mut hosts = hosts::hosts(config.hosts.as_deref(), reference, is_plain)?.into_iter();
    let host = hosts.rfind(|host| host.is_own).ok_or(Problem::Nobody)?;
    let push = async |host: &Host| {
        let target = Target::new(config, host, reference, account)?;
        Box::pin(target.push(reference, wasm, artifact)).await
    };
    match (push(&host).await, host.plain()) {
        (Err(problem), Some(plain)) if host.is_not_secure(&problem) => push(&plain).await,
        (pushed, _) => pushed,
    }
}

async fn read(path: &Path) -> Result<(Vec<u8>, Kind), PushError> {
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    let wasm = tokio::fs::read(path).await.map_err(failed)?;
    match Kind::of(wasm.get(..8).unwrap_or(&wasm)) {
        Ok(kind) => Ok((wasm, kind)),
        Err(found) => Err(PushError::NotWasm { path: path.to_owned(), found }),
    }
}

fn refused(reference: &Reference, problem: &Problem) -> PushError {
    let remedy = if matches!(problem.itself(), Problem::Unknown { .. } | Problem::Denied { .. }) {
        "log in to the registry, for example with docker login, as somebody who may push there"
    } else if matches!(problem.itself(), Problem::Tls { .. } | Problem::NoTls { .. }) {
        "install the registry's CA on this machine; if it speaks plain HTTP, use --plain-http"
    } else {
        problem.remedy()
    };
    PushError::Refused { image: reference.to_string(), cause: problem.to_string(), remedy }
}

impl<'c> Target<'c> {
    fn new(
        config: &'c Config,
        host: &Host,
        reference: &Reference,
        credential: Option<&Credential>,
    ) -> Result<Self, Problem> {
        let security = if host.trust.is_plain { Security::Plain } else { Security::Tls };
        let (http, added) = host.way(&Clients::default(), &config.patience)?;
        Ok(Self {
            http,
            added,
            patience: &config.patience,
            account: Account::new(reference, credential, security),
            url: format!("{}/{}", host.base, reference.repository()),
            authorization: Mutex::default(),
        })
    }

    async fn push(
        &self,
        reference: &Reference,
        wasm: &[u8],
        artifact: &Artifact,
    ) -> Result<(), Problem> {
        self.blob(wasm).await?;
        self.blob(&artifact.config).await?;
        let url = self.address(&format!("{}/manifests/{}", self.url, reference.target()))?;
        let body = Body { kind: MANIFEST, content: &artifact.manifest };
        self.expect(Method::PUT, url, Some(&body), &[StatusCode::CREATED]).await.map(drop)
    }

    /// Uploads what is not there.
    async fn blob(&self, content: &[u8]) -> Result<(), Problem> {
        let digest = Digest::of(content);
        let there = self.address(&format!("{}/blobs/{digest}", self.url))?;
        if self.send(Method::HEAD, there, None).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let url = self.address(&format!("{}/blobs/uploads/", self.url))?;
        let begun = self.expect(Method::POST, url, None, &[StatusCode::ACCEPTED]).await?;
        let mut place = location(begun.url(), begun.headers())?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let body = Body { kind: "application/octet-stream", content };
        self.expect(Method::PUT, place, Some(&body), &[StatusCode::CREATED]).await.map(drop)
    }

    fn address(&self, url: &str) -> Result<Url, Problem> {
        Url::parse(url).map_err(|error| Problem::Unexpected { answer: error.to_string() })
    }

    async fn expect(
        &self,
        method: Method,
        url: Url,
        body: Option<&Body<'_>>,
        good: &[StatusCode],
    ) -> Result<Response, Problem> {
        let response = self.send(method, url, body).await?;
        match response.status() {
            status if good.contains(&status) => Ok(response),
            StatusCode::NOT_FOUND => {
                Err(Problem::Unknown { answer: transport::words(response, self.patience).await })
            }
            _ => Err(transport::refusal(response, self.account.who(), self.patience).await),
        }
    }

    /// Makes a request; the registry's own challenge is answered once.
    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Body<'_>>,
    ) -> Result<Response, Problem> {
        let response = self.once(method.clone(), url.clone(), body).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(response.url()) {
            return Ok(response);
        }
        match self.account.answer(&self.http, response.headers(), self.patience).await? {
            None => Ok(response),
            answer => {
                *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = answer;
                self.once(method, url, body).await
            }
        }
    }

    /// Credentials are for the registry alone: some name another server for the content.
    async fn once(
        &self,
        method: Method,
        url: Url,
        body: Option<&Body<'_>>,
    ) -> Result<Response, Problem> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_own = self.is_own(&url);
        let own = known.filter(|_| is_own);
        let mut request = match self.added.as_ref().filter(|_| is_own) {
            Some(added) => added.request(method, url, own),
            None => authorized(self.http.request(method, url), own.as_ref()),
        };
        if let Some(Body { kind, content }) = body {
            request = request.header(CONTENT_TYPE, *kind).body(content.to_vec());
            // How long an upload takes nobody knows; one that stands still the kernel ends.
            return request.send().await.map_err(|error| transport::problem(&error));
        }
        transport::send(request, "an answer", self.patience).await
    }

    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| own.origin() == url.origin())
    }
}

/// Where an upload goes on, by the answer that began it: an address or a path of the same server.
fn location(asked: &Url, headers: &HeaderMap) -> Result<Url, Problem> {
    let place = headers.get(LOCATION).and_then(|place| place.to_str().ok());
    let place = place.and_then(|place| asked.join(place).ok());
    let none = || Problem::Unexpected { answer: "it does not say where to upload to".to_owned() };
    place.filter(|place| asked.scheme() == "http" || place.scheme() == "https").ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_the_registry_says_but_never_out_of_tls() {
        let at = |asked: &str, place: &'static str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(place))]);
            location(&Url::parse(asked).unwrap(), &headers).ok().map(String::from)
        };
        let own = Some("https://r.io/v2/a/up/1?s=x".to_owned());
        assert_eq!(at("https://r.io/v2/a/blobs/uploads/", "/v2/a/up/1?s=x"), own);
        assert_eq!(at("https://r.io/", "https://cdn.io/x").as_deref(), Some("https://cdn.io/x"));
        assert_eq!(at("https://r.io/", "http://cdn.io/x"), None);
        assert!(location(&Url::parse("http://r.io").unwrap(), &HeaderMap::new()).is_err());
    }
}

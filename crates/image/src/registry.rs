//! Reads manifests and blobs of one repository, with one account.
//!
//! Any author of a pod may name a registry, and must not be able to fill the agent's memory
//! or to get at the credentials of others (docs/adr/0001-own-registry-reads.md).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};

use crate::added::Added;
use crate::auth::{Account, authorized};
use crate::credential::Credential;
use crate::digest::Digest;
use crate::error::Problem;
use crate::hosts::{Host, Trust};
use crate::layout::Layout;
use crate::reference::Reference;
use crate::retry::Retry;
use crate::silence::{Asking, Silence};
use crate::transport::{self, Security};
use crate::{Config, Pace, Patience, manifest};

/// One repository, as one account sees it on one server.
pub(crate) struct Repository<'c> {
    http: reqwest::Client,
    patience: &'c Patience,
    account: Account,
    /// `scheme://host/v2/repository`.
    url: String,
    /// What tells a mirror whose repository is meant; empty for the registry itself.
    query: String,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<HeaderValue>>,
    /// What the server's file adds to each request to it.
    added: Option<Added>,
    /// Where the content is a folder of this machine: nobody else is asked.
    layout: Option<Layout>,
    /// Ended by each byte of the image that comes.
    silence: Arc<Silence>,
    /// How often it is asked.
    pub(crate) retry: Retry,
}

/// The body of a blob, from `offset` on.
pub(crate) struct Body {
    pub(crate) offset: u64,
    pub(crate) response: Response,
}

impl<'c> Repository<'c> {
    pub(crate) fn new(
        http: reqwest::Client,
        config: &'c Config,
        host: &Host,
        reference: &Reference,
        credential: Option<&Credential>,
        silence: Arc<Silence>,
    ) -> Self {
        let security = if host.trust.is_plain { Security::Plain } else { Security::Tls };
        let is_other = !host.base.contains(&format!("://{}/", reference.host()));
        // A mirror that does not answer is no reason to wait: there is another server.
        let tries = if host.is_own { config.retry.tries } else { 1 };
        Self {
            http,
            patience: &config.patience,
            account: Account::new(reference, credential, security),
            url: format!("{}/{}", host.base, reference.repository()),
            query: if is_other { format!("?ns={}", reference.registry()) } else { String::new() },
            authorization: Mutex::default(),
            added: None,
            layout: None,
            silence,
            retry: Retry { tries, ..config.retry.clone() },
        }
    }

    /// The content of a folder, under a name of this machine's. Nobody is asked by `http`.
    pub(crate) fn folder(
        http: reqwest::Client,
        config: &'c Config,
        reference: &Reference,
        layout: Layout,
    ) -> Self {
        let trust = Trust { is_plain: true, ..Trust::default() };
        let host = Host { base: String::new(), trust, ..Host::own(reference, true) };
        let silence = Arc::new(Silence::new(config.patience.silence));
        Self { layout: Some(layout), ..Self::new(http, config, &host, reference, None, silence) }
    }

    pub(crate) fn adding(self, added: Option<Added>) -> Self {
        Self { added, ..self }
    }

    /// Whether the content is a folder of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.layout.is_some()
    }

    /// To be kept while it is asked, and between two tries.
    pub(crate) fn ask(&self) -> Asking {
        self.silence.ask()
    }

    /// Its path in the registry.
    pub(crate) fn name(&self) -> &str {
        self.account.repository()
    }

    pub(crate) fn credential(&self) -> Option<&Credential> {
        self.account.credential()
    }

    /// Reads a manifest by tag or digest, up to `limit` bytes of it.
    pub(crate) async fn manifest(&self, target: &str, limit: u64) -> Result<Vec<u8>, Problem> {
        if let Some(layout) = &self.layout {
            return layout.manifest(target, limit).await;
        }
        let url = format!("{}/manifests/{target}{}", self.url, self.query);
        let response = self.get(&url, (ACCEPT, HeaderValue::from_static(manifest::ACCEPT))).await?;
        let heard = || self.silence.end();
        transport::body(response, "the manifest", limit, self.patience, heard).await
    }

    /// Asks for a blob from `offset` on; a registry may send all of it all the same.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Body, Problem> {
        if let Some(layout) = &self.layout {
            return Ok(Body { offset: 0, response: layout.blob(digest).await? });
        }
        let url = format!("{}/blobs/{digest}{}", self.url, self.query);
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"));
            let range = range.expect("digits are a header value");
            match self.get(&url, (RANGE, range)).await {
                Ok(response) if is_rest(&response, offset) => return Ok(Body { offset, response }),
                Ok(response) if response.status() == StatusCode::OK => {
                    return Ok(Body { offset: 0, response });
                }
                // Neither the rest nor all: the rest is not to be had from this registry.
                Ok(_) | Err(Problem::Unexpected { .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        let response = self.get(&url, (ACCEPT, HeaderValue::from_static("*/*"))).await?;
        Ok(Body { offset: 0, response })
    }

    /// How fast a blob has to come.
    pub(crate) fn pace(&self) -> &Pace {
        &self.patience.pace
    }

    /// The next piece of a body.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        what: &'static str,
    ) -> Result<Option<Bytes>, Problem> {
        let chunk = transport::chunk(response, what, self.patience).await?;
        if chunk.is_some() {
            self.silence.end();
        }
        Ok(chunk)
    }

    /// Makes a request; a challenge is answered once, with a fresh token.
    async fn get(&self, url: &str, header: Header) -> Result<Response, Problem> {
        let response = self.send(url, &header).await?;
        let response = match response.status() {
            StatusCode::UNAUTHORIZED => self.challenged(response, url, &header).await?,
            _ => response,
        };
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => {
                Err(Problem::Unknown { answer: transport::words(response, self.patience).await })
            }
            _ => Err(transport::refusal(response, self.account.who(), self.patience).await),
        }
    }

    /// Answers the registry's own challenge. Nobody else is answered: where a redirect leads
    /// to is no business of these credentials.
    async fn challenged(
        &self,
        response: Response,
        url: &str,
        header: &Header,
    ) -> Result<Response, Problem> {
        let asked = Url::parse(url).map(|url| url.origin());
        if asked != Ok(response.url().origin()) {
            return Ok(response);
        }
        match self.account.answer(&self.http, response.headers(), self.patience).await? {
            None => Ok(response),
            answer => {
                self.set_authorization(answer);
                self.send(url, header).await
            }
        }
    }

    async fn send(&self, url: &str, (name, value): &Header) -> Result<Response, Problem> {
        if let Some(added) = &self.added {
            let address = Url::parse(url);
            let address = address.map_err(|error| Problem::Broken { cause: error.to_string() })?;
            let authorization = self.authorization().map(|value| (AUTHORIZATION, value));
            let asked = authorization.into_iter().chain([(name.clone(), value.clone())]).collect();
            return added.get(address, asked, self.patience).await;
        }
        let request = self.http.get(url).header(name, value);
        let request = authorized(request, self.authorization().as_ref());
        transport::send(request, "an answer", self.patience).await
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_authorization(&self, value: Option<HeaderValue>) {
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

type Header = (reqwest::header::HeaderName, HeaderValue);

/// Whether an answer is the rest from `offset` on, as asked for.
fn is_rest(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

//! What a registry's `hosts.toml` adds to each request to a server. It may be what opens it: it is for nobody else.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, Url};

use crate::Patience;
use crate::error::Problem;
use crate::transport;

/// Headers, and a client that follows no redirect by itself: it would take them along.
pub(crate) struct Added {
    pub(crate) headers: HeaderMap,
    pub(crate) http: Client,
}

impl Added {
    /// A request to the server itself. A password replaces what is added as one.
    pub(crate) fn request(
        &self,
        method: Method,
        url: Url,
        authorization: Option<HeaderValue>,
    ) -> RequestBuilder {
        let mut headers = self.headers.clone();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value);
        }
        self.http.request(method, url).headers(headers)
    }

    /// Asks with `asked`, and with what is added and not in that. A redirect to another server gets neither that nor a
    /// password.
    pub(crate) async fn get(
        &self,
        url: Url,
        mut asked: HeaderMap,
        patience: &Patience,
    ) -> Result<Response, Problem> {
        let (origin, mut before) = (url.origin(), Vec::new());
        let mut next = url;
        loop {
            let mut headers = HeaderMap::new();
            if next.origin() == origin {
                headers.clone_from(&self.headers);
            } else {
                asked.remove(AUTHORIZATION);
            }
            headers.extend(asked.clone());
            let request = self.http.get(next.clone()).headers(headers);
            let response = transport::send(request, "an answer", patience).await?;
            let Some(place) = place(&response) else { return Ok(response) };
            before.push(next);
            if let Some(objection) = transport::objection(&before, &place) {
                return Err(Problem::Redirect { cause: objection.to_owned() });
            }
            next = place;
        }
    }
}

/// Where an answer leads to.
fn place(response: &Response) -> Option<Url> {
    let place = response.headers().get(LOCATION).filter(|_| response.status().is_redirection())?;
    response.url().join(place.to_str().ok()?).ok()
}

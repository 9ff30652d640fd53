//! Static pods from a URL (the kubelet's `staticPodURL`).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::document::{MOST, read};
use crate::fixed::{Origin, static_pod};
use crate::set::Set;

/// The kubelet's limit for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The static pods of a URL: a Pod, a PodList, or several documents.
#[derive(Debug, Clone)]
pub struct Url {
    url: String,
    http: reqwest::Client,
    node: String,
    period: Duration,
}

/// A URL, or a header for it, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadUrl {
    /// It is no HTTP URL.
    #[error("\"{url}\" is no URL of http or https")]
    Url {
        /// The text.
        url: String,
    },
    /// A header's name or value is no such thing.
    #[error("header \"{name}\" has a name or a value that cannot be sent")]
    Header {
        /// The header.
        name: String,
    },
    /// No client can be made: most likely this machine has no CA certificates.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Url {
    /// `url` with the headers `headers` (`staticPodURLHeader`), for the pods of `node`: asked every `period` (the kubelet's
    /// `httpCheckFrequency`).
    ///
    /// # Errors
    /// What cannot be used is named.
    pub fn new(
        url: &str,
        headers: &BTreeMap<String, Vec<String>>,
        node: &str,
        period: Duration,
    ) -> Result<Self, BadUrl> {
        let parsed = reqwest::Url::parse(url).ok();
        if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(BadUrl::Url { url: url.to_owned() });
        }
        let http = reqwest::Client::builder()
            .default_headers(header_map(headers)?)
            .timeout(PATIENCE)
            .user_agent(concat!("nodule/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(BadUrl::Client)?;
        Ok(Self { url: url.to_owned(), http, node: node.to_owned(), period })
    }

    /// Tells what there is, at once and after each change. Never ends.
    pub async fn watch(self, sets: watch::Sender<Option<Set>>) {
        loop {
            let found = self.look().await;
            sets.send_if_modified(|known| {
                let set = self.next(found, known.as_ref());
                let news = known.as_ref() != Some(&set);
                *known = Some(set);
                news
            });
            sleep(self.period).await;
        }
    }

    /// What follows from an answer. One that is none leaves all as it was.
    fn next(&self, found: Result<Vec<Pod>, String>, last: Option<&Set>) -> Set {
        let known = last.map(|last| last.pods.as_slice()).unwrap_or_default();
        match found {
            Ok(mut pods) => {
                for pod in &mut pods {
                    let same = known.iter().find(|known| known.metadata.uid == pod.metadata.uid);
                    same.into_iter().for_each(|known| pod.clone_from(known));
                }
                Set { pods, troubles: BTreeMap::new() }
            }
            Err(trouble) => {
                let troubles = BTreeMap::from([(self.url.clone(), trouble)]);
                Set { pods: known.to_vec(), troubles }
            }
        }
    }

    async fn look(&self) -> Result<Vec<Pod>, String> {
        let text = self.text().await.map_err(|error| format!("ask {}: {error}", self.url))?;
        let documents = read(&self.url, &text).map_err(|error| error.to_string())?;
        let mut pods: Vec<Pod> = Vec::new();
        for document in &documents {
            let pod = static_pod(document, &self.node, Origin::Http)
                .map_err(|error| error.to_string())?;
            let (meta, known) = (&pod.metadata, &pods);
            if known.iter().any(|known| {
                known.metadata.name == meta.name && known.metadata.namespace == meta.namespace
            }) {
                return Err(document
                    .error("there is a pod of this name before")
                    .at("metadata.name")
                    .to_string());
            }
            pods.push(pod);
        }
        Ok(pods)
    }

    async fn text(&self) -> Result<String, String> {
        let chain = |error: reqwest::Error| chain(&error.without_url());
        let mut answer = self.http.get(&self.url).send().await.map_err(chain)?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let mut content = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(chain)? {
            content.extend_from_slice(&piece);
            if content.len() as u64 > MOST {
                return Err(format!("it answers with more than {} MiB", MOST >> 20));
            }
        }
        String::from_utf8(content).map_err(|_| "it answers with what is no text".to_owned())
    }
}

/// An error and its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn header_map(headers: &BTreeMap<String, Vec<String>>) -> Result<HeaderMap, BadUrl> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let bad = || BadUrl::Header { name: name.clone() };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        for value in values {
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            // It may be a token: never printed.
            value.set_sensitive(true);
            map.append(key.clone(), value);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    use tokio::task::JoinSet;

    use super::*;

    const POD: &str = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"containers\": [{\"name\": \"c\", \"image\": \"i\"}]}}";

    /// What a server answers next.
    type Answer = Arc<Mutex<(StatusCode, String)>>;

    async fn serve(tasks: &mut JoinSet<()>, answer: Answer) -> String {
        let handler = move |headers: HeaderMap| async move {
            assert_eq!(headers["x-token"], "t");
            answer.lock().unwrap().clone()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pods", listener.local_addr().unwrap());
        let router = Router::new().route("/pods", get(handler));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    async fn seen(sets: &mut watch::Receiver<Option<Set>>, holds: impl Fn(&Set) -> bool) -> Set {
        let found = sets.wait_for(|set| set.as_ref().is_some_and(&holds));
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap()
    }

    #[tokio::test]
    async fn what_is_served_counts_and_no_answer_changes_nothing() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut tasks = JoinSet::new();
        let answer = Answer::new(Mutex::new((StatusCode::OK, POD.to_owned())));
        let url = serve(&mut tasks, Arc::clone(&answer)).await;
        let headers = BTreeMap::from([("x-token".to_owned(), vec!["t".to_owned()])]);
        let place = Url::new(&url, &headers, "n1", Duration::from_millis(10)).unwrap();
        let (sender, mut sets) = watch::channel(None);
        tasks.spawn(place.watch(sender));
        let first = seen(&mut sets, |set| set.pods.len() == 1).await;
        for (code, text, part) in [
            (StatusCode::INTERNAL_SERVER_ERROR, POD, "500"),
            (StatusCode::OK, "kind: [", "/pods"),
            (StatusCode::OK, "kind: Pod", "document 1"),
        ] {
            *answer.lock().unwrap() = (code, text.to_owned());
            let set =
                seen(&mut sets, |set| set.troubles.values().any(|trouble| trouble.contains(part)))
                    .await;
            assert_eq!(set.pods, first.pods);
        }
        let none = "{\"kind\": \"PodList\", \"apiVersion\": \"v1\", \"items\": []}";
        *answer.lock().unwrap() = (StatusCode::OK, none.to_owned());
        seen(&mut sets, |set| set.pods.is_empty() && set.troubles.is_empty()).await;
    }

    #[test]
    fn what_is_no_url_or_header_is_refused() {
        let none = BTreeMap::new();
        for url in ["", "file:///etc/passwd", "pods.yaml", "http://"] {
            assert!(Url::new(url, &none, "n1", PATIENCE).is_err(), "{url}");
        }
        let bad = BTreeMap::from([("a b".to_owned(), vec![String::new()])]);
        let error = Url::new("http://h/", &bad, "n1", PATIENCE).unwrap_err();
        assert!(error.to_string().contains("\"a b\""), "{error}");
    }
}

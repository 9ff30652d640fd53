//! Programs of the node that know credentials for images: the kubelet's credential providers
//! (`kubelet.config.k8s.io/v1`, KEP-2133), also those that want a token of the pod's service account (KEP-4412).
//!
//! Read this file for who is asked, `answers.rs` for how long an answer holds, `exec.rs` for the conversation; `file.rs` is
//! what the node knows by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::credential::{Credential, Origin, ServiceAccount};
use crate::digest::Digest;
use crate::keyring::{self, Keyring};
use crate::reference::Reference;
use crate::{Images, Inner};

mod answers;
mod exec;
mod file;

pub(crate) use answers::Answers;
use answers::{Answer, Scope};
pub use exec::ProviderError;
use exec::Request;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use exec::read;

/// A program that knows credentials (`CredentialProvider`).
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name, for messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// For which images it is asked: `host[:port][/path]`, each label of the host a shell pattern.
    pub images: Vec<String>,
    /// For how long an answer holds that does not say it.
    pub cache: Duration,
    /// The version of the conversation, `credentialprovider.kubelet.k8s.io/…`.
    pub version: String,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What its environment has beside the agent's own.
    pub env: Vec<(String, String)>,
    /// Whether it wants a token of the pod's service account.
    pub token: Option<TokenAttributes>,
}

/// What a provider wants of a pod's service account (`ServiceAccountTokenAttributes`).
#[derive(Debug, Clone)]
pub struct TokenAttributes {
    /// For whom the token is.
    pub audience: String,
    /// For whom an answer holds.
    pub cache: TokenCache,
    /// Whether a pod without a service account is passed over.
    pub required: bool,
    /// Annotations that it is told; an account without one of them is passed over.
    pub required_annotations: Vec<String>,
    /// Annotations that it is told where they are there.
    pub optional_annotations: Vec<String>,
}

/// For whom an answer to a token holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCache {
    /// For this token.
    Token,
    /// For all tokens of the account.
    ServiceAccount,
}

/// Whose pod it is that wants an image.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The service account.
    pub account: ServiceAccount,
    /// The account's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A user name and password, under the key that says what they open. Its debug form hides the password.
#[derive(Clone, serde::Deserialize)]
pub(crate) struct Login {
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What an answer opens, by key.
pub(crate) type Logins = BTreeMap<String, Login>;

impl Provider {
    /// As in the kubelet's `matchImages`.
    fn is_for(&self, image: &str) -> bool {
        self.images.iter().any(|pattern| keyring::opens(pattern, image))
    }
}

impl TokenAttributes {
    /// What the provider is told of the account; none if one is missing that it cannot do without.
    fn annotations(&self, of: &Identity) -> Option<BTreeMap<String, String>> {
        let get = |name: &String| Some((name.clone(), of.annotations.get(name)?.clone()));
        let required: Option<Vec<_>> = self.required_annotations.iter().map(get).collect();
        Some(
            required?.into_iter().chain(self.optional_annotations.iter().filter_map(get)).collect(),
        )
    }
}

/// For whom a provider is asked: nobody in particular, or an account.
#[derive(Debug, Clone, Default)]
struct Caller {
    account: Option<ServiceAccount>,
    annotations: BTreeMap<String, String>,
    /// Got when it is needed: at once where answers hold for one token.
    token: Option<String>,
}

impl Caller {
    /// None if the provider is not for this pod.
    fn of(provider: &Provider, pod: Option<&Identity>) -> Option<Self> {
        match (&provider.token, pod) {
            (None, _) => Some(Self::default()),
            (Some(attributes), None) => (!attributes.required).then(Self::default),
            (Some(attributes), Some(pod)) => {
                let annotations = attributes.annotations(pod)?;
                Some(Self { account: Some(pod.account.clone()), annotations, token: None })
            }
        }
    }

    fn origin(&self) -> Origin {
        self.account.clone().map_or(Origin::Node, Origin::Account)
    }

    /// What tells its answers from those for others. A token is in it as a hash alone.
    fn key(&self, provider: &str) -> String {
        let token = self.token.as_ref().map(|token| Digest::of(token.as_bytes()).to_string());
        let account = self.account.as_ref().map(|one| (&one.namespace, &one.name, &one.uid));
        format!("{provider:?} {account:?} {:?} {token:?}", self.annotations)
    }
}

impl Images {
    /// Whether one of the providers for this image wants to know the pod's service account.
    pub fn wants_account(&self, reference: &Reference) -> bool {
        let name = reference.name();
        let mut providers = self.0.config.providers.iter();
        providers.any(|provider| provider.token.is_some() && provider.is_for(&name))
    }

    /// Adds the node's own credentials to the keyring, and what the providers for this image give. `token` gets a token of the pod's
    /// service account for an audience, for those that want one.
    ///
    /// A provider that fails gives nothing: the pull goes on with what there is.
    pub async fn provide<F>(
        &self,
        reference: &Reference,
        keyring: &mut Keyring,
        pod: Option<&Identity>,
        token: impl Fn(String) -> F,
    ) -> Vec<ProviderError>
    where
        F: Future<Output = Result<String, String>>,
    {
        let (image, mut failed) = (reference.name(), Vec::new());
        if let Some(path) = &self.0.config.credentials {
            failed.extend(file::add(path, keyring).err());
        }
        for provider in self.0.config.providers.iter().filter(|provider| provider.is_for(&image)) {
            let Some(caller) = Caller::of(provider, pod) else {
                tracing::debug!(provider = provider.name, image, "not for this service account");
                continue;
            };
            let origin = caller.origin();
            match self.0.answer(provider, &image, caller, &token).await {
                Ok(logins) => add(keyring, &logins, &origin),
                Err(error) => failed.push(error),
            }
        }
        failed
    }
}

impl Inner {
    /// What a provider says now, or has said. Those who ask the same at the same time get the same answer.
    async fn answer<F>(
        &self,
        provider: &Provider,
        image: &str,
        mut caller: Caller,
        token: &impl Fn(String) -> F,
    ) -> Result<Logins, ProviderError>
    where
        F: Future<Output = Result<String, String>>,
    {
        let wanted = provider.token.as_ref().filter(|_| caller.account.is_some());
        let get = async |attributes: &TokenAttributes| {
            let got = token(attributes.audience.clone()).await;
            got.map(Some).map_err(|cause| ProviderError::token(provider, cause))
        };
        if let Some(attributes) = wanted.filter(|wanted| wanted.cache == TokenCache::Token) {
            caller.token = get(attributes).await?;
        }
        let (key, asked) = (caller.key(&provider.name), Instant::now());
        if let Some(known) = self.answers.find(&key, image, asked) {
            return known;
        }
        let _turn = self.answers.turn(&format!("{key} {image}")).await;
        if let Some(known) = self.answers.find(&key, image, asked) {
            return known;
        }
        if let (Some(attributes), None) = (wanted, &caller.token) {
            caller.token = get(attributes).await?;
        }
        let answer = self.question(provider, image, &caller).await;
        let logins = answer.logins.clone();
        self.answers.keep(&key, image, answer);
        logins
    }

    async fn question(&self, provider: &Provider, image: &str, caller: &Caller) -> Answer {
        let request = Request::new(provider, image, caller.token.as_deref(), &caller.annotations);
        let (label, since) = ([provider.name.as_str()], Instant::now());
        let ran = request.run(provider, self.config.patience.provider).await;
        let took = since.elapsed().as_secs_f64();
        self.metrics.providers.durations.with_label_values(&label).observe(took);
        match ran {
            Ok(answer) => answer,
            Err(error) => {
                self.metrics.providers.errors.with_label_values(&label).inc();
                tracing::warn!(
                    provider = provider.name,
                    image,
                    words = error.words(),
                    %error,
                    "no credentials from a provider"
                );
                Answer { logins: Err(error), scope: Scope::Image, holds: Duration::ZERO }
            }
        }
    }
}

fn add(keyring: &mut Keyring, logins: &Logins, origin: &Origin) {
    for (key, Login { username, password }) in logins {
        keyring.add_provided(key, Credential::new(username, password).of(origin.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(images: &[&str], token: Option<TokenAttributes>) -> Provider {
        Provider {
            name: "p".to_owned(),
            program: PathBuf::new(),
            images: images.iter().map(|&image| image.to_owned()).collect(),
            cache: Duration::ZERO,
            version: String::new(),
            args: Vec::new(),
            env: Vec::new(),
            token,
        }
    }

    #[test]
    fn a_provider_is_asked_for_the_images_that_it_names() {
        for (pattern, image, expected) in [
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu.amazonaws.com/a", true),
            ("*.dkr.ecr.*.amazonaws.com", "amazonaws.com/a", false),
            ("r.io:8080/path", "r.io:8080/path/a", true),
            ("r.io:8080/path", "r.io/path/a", false),
            ("docker.io", "docker.io/library/busybox", true),
            ("*", "r.io/a", false),
        ] {
            assert_eq!(provider(&["no.where", pattern], None).is_for(image), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pod_is_passed_over_where_it_has_not_what_a_provider_must_know() {
        let attributes = |required, must: &[&str]| TokenAttributes {
            audience: "a".to_owned(),
            cache: TokenCache::ServiceAccount,
            required,
            required_annotations: must.iter().map(|&name| name.to_owned()).collect(),
            optional_annotations: vec!["may".to_owned()],
        };
        let account = ServiceAccount {
            namespace: "ns".to_owned(),
            name: "sa".to_owned(),
            uid: "1".to_owned(),
        };
        let words = [("must", "1"), ("may", "2"), ("other", "3")];
        let words = words.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let pod = Identity { account, annotations: BTreeMap::from(words) };
        for (attributes, pod, told) in [
            (None, Some(&pod), Some(0)),
            (Some(attributes(true, &[])), None, None),
            (Some(attributes(false, &[])), None, Some(0)),
            (Some(attributes(true, &["must"])), Some(&pod), Some(2)),
            (Some(attributes(true, &["must", "missing"])), Some(&pod), None),
        ] {
            let caller = Caller::of(&provider(&[], attributes.clone()), pod);
            let told_of = caller.map(|caller| caller.annotations.len());
            assert_eq!(told_of, told, "{attributes:?}");
        }
    }
}

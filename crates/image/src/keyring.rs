//! Pull secrets: which credentials a pod has for an image, by the kubelet's rules
//! (Kubernetes documentation, "Interpretation of config.json").

use std::collections::BTreeMap;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use serde::Deserialize;

use crate::credential::{Credential, Origin, Secret, ServiceAccount};
use crate::glob;
use crate::reference::{Reference, split_port, unbracketed};

/// The key that Docker's own tools write for Docker Hub.
const HUB: &str = "index.docker.io";

/// The credentials of one pod. The default has none: pulls are anonymous.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    secrets: Ring,
    /// What providers gave; it is tried after the secrets.
    provided: Ring,
    /// The pod's service account, where a provider wants to know it.
    account: Option<ServiceAccount>,
}

/// By normalised key (`host[:port][/path]`), each in the order in which they were added.
#[derive(Debug, Clone, Default)]
struct Ring(BTreeMap<String, Vec<Credential>>);

impl Ring {
    fn add(&mut self, registry: &str, credential: Credential) {
        self.0.entry(normalised(registry)).or_default().push(credential);
    }

    fn credentials(&self, image: &Reference) -> Vec<&Credential> {
        let name = image.name();
        let matching = self.0.iter().rev().filter(|(key, _)| opens(key, &name));
        let found: Vec<_> = matching.flat_map(|(_, credentials)| credentials).collect();
        if found.is_empty() && image.registry() == "docker.io" {
            return self.0.get(HUB).into_iter().flatten().collect();
        }
        found
    }
}

impl Keyring {
    /// Adds the credentials of a secret, given its `type` and `data`.
    ///
    /// Secrets of other types, or with nothing under the key of their type, hold no credentials:
    /// they are passed over, as by the kubelet.
    ///
    /// # Errors
    /// When the secret's content is not what its type promises.
    pub fn add_secret<'a>(
        &mut self,
        kind: &str,
        data: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), SecretError> {
        self.add_secret_of(None, kind, data)
    }

    /// As [`add_secret`](Self::add_secret), with the secret's own coordinates: pods that name the same secret may use what
    /// was pulled with it.
    ///
    /// # Errors
    /// When the secret's content is not what its type promises.
    pub fn add_secret_of<'a>(
        &mut self,
        secret: Option<&Secret>,
        kind: &str,
        data: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), SecretError> {
        let (key, read): (_, Read) = match kind {
            "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", read_config),
            "kubernetes.io/dockercfg" => (".dockercfg", read_entries),
            _ => return Ok(()),
        };
        let content = data.into_iter().find(|(name, _)| *name == key).map(|(_, content)| content);
        let Some(content) = content.filter(|content| !content.is_empty()) else {
            return Ok(());
        };
        let origin = secret.cloned().map_or(Origin::Unnamed, Origin::Secret);
        add(&mut self.secrets, &origin, key, || read(content))
    }

    /// Adds the node's own credentials, a docker configuration.
    pub(crate) fn add_node(&mut self, content: &[u8]) -> Result<(), SecretError> {
        add(&mut self.provided, &Origin::Node, "auths", || read_config(content))
    }

    /// Says whose pod this is: what was pulled for the same account is the pod's too.
    pub fn set_account(&mut self, account: ServiceAccount) {
        self.account = Some(account);
    }

    pub(crate) fn account(&self) -> Option<&ServiceAccount> {
        self.account.as_ref()
    }

    /// Adds what a provider gave, under the key that it said.
    pub(crate) fn add_provided(&mut self, key: &str, credential: Credential) {
        self.provided.add(key, credential);
    }

    /// Whether there are credentials for an image.
    pub fn opens(&self, image: &Reference) -> bool {
        !self.credentials(image).is_empty()
    }

    /// Everything that may open the image's repository, the most specific first, and what providers gave last.
    pub(crate) fn credentials(&self, image: &Reference) -> Vec<&Credential> {
        [&self.secrets, &self.provided].iter().flat_map(|ring| ring.credentials(image)).collect()
    }
}

/// JSON's `null` is as good as nothing, here and below: it is so for the kubelet.
type Entries = BTreeMap<String, Option<Entry>>;

/// All of a file's entries, or none.
fn add(
    ring: &mut Ring,
    origin: &Origin,
    key: &'static str,
    read: impl FnOnce() -> Result<Entries, serde_json::Error>,
) -> Result<(), SecretError> {
    let entries = read().map_err(|source| SecretError::Json { key, source })?;
    let credential = |(registry, entry): (String, Option<Entry>)| {
        let credential = entry.unwrap_or_default().credential();
        match credential {
            Some(credential) => Ok((registry, credential.of(origin.clone()))),
            None => Err(SecretError::Auth { key, registry }),
        }
    };
    let all: Vec<_> = entries.into_iter().map(credential).collect::<Result<_, _>>()?;
    for (registry, credential) in all {
        ring.add(&registry, credential);
    }
    Ok(())
}

type Read = fn(&[u8]) -> Result<Entries, serde_json::Error>;

#[derive(Deserialize)]
struct DockerConfig {
    auths: Option<Entries>,
}

fn read_config(content: &[u8]) -> Result<Entries, serde_json::Error> {
    let config: Option<DockerConfig> = serde_json::from_slice(content)?;
    Ok(config.and_then(|config| config.auths).unwrap_or_default())
}

fn read_entries(content: &[u8]) -> Result<Entries, serde_json::Error> {
    serde_json::from_slice::<Option<Entries>>(content).map(Option::unwrap_or_default)
}

/// Nothing else counts: no `identitytoken`, which the kubelet does not read either.
#[derive(Default, Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    /// base64 of `username:password`, padded or not; wins over the two fields.
    auth: Option<String>,
}

/// As Go's decoder takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Entry {
    fn credential(self) -> Option<Credential> {
        let Some(mut auth) = self.auth.filter(|auth| !auth.is_empty()) else {
            let [username, password] =
                [self.username, self.password].map(Option::unwrap_or_default);
            return Some(Credential::new(&username, &password));
        };
        // The program base64 breaks lines.
        auth.retain(|c| !c.is_ascii_whitespace());
        let bytes = BASE64.decode(auth).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Credential::new(username, password))
    }
}

/// Drops the scheme and a leading `/v1/` or `/v2/` of the path.
fn normalised(registry: &str) -> String {
    let key = registry.strip_prefix("https://").or(registry.strip_prefix("http://"));
    let key = key.unwrap_or(registry);
    let (host, path) = split_path(key);
    let path = match path.get(..4) {
        Some("/v1/" | "/v2/") => path.get(3..).unwrap_or_default(),
        _ => path,
    };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Whether the credentials under `key` are meant for the repository `name`.
///
/// The path is a plain prefix, without regard to `/`: `reg/team` opens `reg/teammate/x`.
pub(crate) fn opens(key: &str, name: &str) -> bool {
    let ((key_host, key_path), (host, path)) = (split_path(key), split_path(name));
    let ((key_labels, key_port), (labels, port)) = (split_port(key_host), split_port(host));
    let (key_labels, labels) = (unbracketed(key_labels), unbracketed(labels));
    key_port == port
        && path.starts_with(key_path)
        && key_labels.split('.').count() == labels.split('.').count()
        && key_labels
            .split('.')
            .zip(labels.split('.'))
            .all(|(key, label)| glob::matches(key, label))
}

fn split_path(name: &str) -> (&str, &str) {
    name.split_at(name.find('/').unwrap_or(name.len()))
}

/// A pull secret that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not the JSON that the secret's type promises.
    #[error("key {key} does not hold a Docker configuration")]
    Json {
        /// The key in the secret's data.
        key: &'static str,
        /// What the JSON parser says.
        #[source]
        source: serde_json::Error,
    },
    /// An `auth` that is not base64 of `username:password`.
    #[error("key {key}: auth of {registry:?} is not base64 of username:password")]
    Auth {
        /// The key in the secret's data.
        key: &'static str,
        /// The entry's own key.
        registry: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn keyring(auths: &serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        let content = json!({ "auths": auths }).to_string();
        let data = [(".dockerconfigjson", content.as_bytes())];
        keyring.add_secret("kubernetes.io/dockerconfigjson", data).unwrap();
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        let image = Reference::parse(image).unwrap();
        keyring.credentials(&image).into_iter().map(|found| found.username.clone()).collect()
    }

    #[test]
    fn a_key_opens_what_the_kubelet_says_it_opens() {
        for (key, image, expected) in [
            ("reg.example", "reg.example/a", true),
            ("https://reg.example", "reg.example/a", true),
            ("http://reg.example/v1/", "reg.example/a", true),
            ("reg.example/v2/team", "reg.example/team/a", true),
            ("reg.example/team", "reg.example/teammate/x", true),
            ("reg.example/team", "reg.example/other/x", false),
            ("reg.example:443", "reg.example/a", false),
            ("reg.example:5000", "reg.example:5000/a", true),
            ("[::1]:5000", "[::1]:5000/a", true),
            ("https://[::1]:5000/v2/", "[::1]:5000/a", true),
            ("[::1]", "[::1]:5000/a", false),
            ("[::2]:5000", "[::1]:5000/a", false),
            ("*.example", "reg.example/a", true),
            ("*.example", "deep.reg.example/a", false),
            ("*", "reg.example/a", false),
            ("r?g.ex*", "reg.example/a", true),
            ("docker.io", "busybox", true),
            ("https://index.docker.io/v1/", "busybox", true),
            ("https://index.docker.io/v1/", "ghcr.io/o/a", false),
            ("docker.io/library", "user/app", false),
        ] {
            let keyring = keyring(&json!({ key: { "username": "u", "password": "p" } }));
            assert_eq!(!users(&keyring, image).is_empty(), expected, "{key} {image}");
        }
    }

    #[test]
    fn every_match_is_given_the_most_specific_first() {
        let entry = |name: &str| json!({ "username": name, "password": "p" });
        let mut keyring = keyring(&json!({
            "reg.example": entry("host"), "reg.example/team": entry("team"), "other": entry("other"),
        }));
        let again = json!({ "reg.example": entry("second") }).to_string();
        keyring.add_secret("kubernetes.io/dockercfg", [(".dockercfg", again.as_bytes())]).unwrap();
        assert_eq!(users(&keyring, "reg.example/team/a"), ["team", "host", "second"]);
    }

    #[test]
    fn auth_wins_padded_or_not_and_a_password_may_hold_colons() {
        for auth in ["YTpiOmM=", "YTpiOmM", " YTpi\nOmM=\r\n", "YTpiOmN="] {
            let keyring = keyring(&json!({ "r.io": { "auth": auth, "username": "x" } }));
            let image = Reference::parse("r.io/a").unwrap();
            let found = keyring.credentials(&image);
            assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("a", "b:c"));
        }
    }

    #[test]
    fn an_unreadable_secret_is_an_error_without_the_secret_in_it() {
        let mut keyring = Keyring::default();
        for content in
            ["{", r#"{"auths":{"r":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":{"r":{"auth":"%"}}}"#]
        {
            let data = [(".dockerconfigjson", content.as_bytes())];
            let error = keyring.add_secret("kubernetes.io/dockerconfigjson", data).unwrap_err();
            assert!(!format!("{error:?}").contains("secret\""), "{error:?}");
        }
    }

    #[test]
    fn what_says_nothing_opens_nothing_and_is_no_error() {
        for (kind, content) in [
            ("dockerconfigjson", ""),
            ("dockerconfigjson", "null"),
            ("dockerconfigjson", "{}"),
            (
                "dockerconfigjson",
                r#"{"auths":null,"credsStore":"desktop","credHelpers":{"r.io":"x"}}"#,
            ),
            ("dockerconfigjson", r#"{"r.io":{"username":"u","password":"p"}}"#),
            ("dockercfg", ""),
            ("dockercfg", "null"),
            ("dockercfg", "{}"),
        ] {
            let mut keyring = Keyring::default();
            let data = [(&*format!(".{kind}"), content.as_bytes())];
            keyring.add_secret(&format!("kubernetes.io/{kind}"), data).unwrap();
            assert!(!keyring.opens(&Reference::parse("r.io/a").unwrap()), "{content}");
        }
    }

    #[test]
    fn an_entry_is_a_name_and_a_password_and_nothing_else() {
        for entry in [
            json!(null),
            json!({}),
            json!({ "username": null, "password": null, "auth": null }),
            json!({ "identitytoken": "t", "registrytoken": "t", "email": "m" }),
        ] {
            let keyring = keyring(&json!({ "r.io": entry }));
            let image = Reference::parse("r.io/a").unwrap();
            let found = keyring.credentials(&image);
            assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("", ""));
        }
    }

    #[test]
    fn secrets_come_before_what_the_node_knows_whatever_the_keys() {
        let mut keyring = keyring(&json!({ "r.io": { "username": "secret", "password": "p" } }));
        keyring.add_provided("r.io/team", Credential::new("node", "p"));
        assert_eq!(users(&keyring, "r.io/team/a"), ["secret", "node"]);
    }

    #[test]
    fn secrets_of_other_types_are_passed_over() {
        let mut keyring = Keyring::default();
        keyring.add_secret("Opaque", [(".dockerconfigjson", &b"{"[..])]).unwrap();
        keyring.add_secret("kubernetes.io/dockercfg", []).unwrap();
        assert!(users(&keyring, "busybox").is_empty());
    }

    proptest! {
        #[test]
        fn a_key_of_the_host_itself_opens_all_its_repositories(
            host in "[a-z]{1,8}(\\.[a-z]{1,8}){1,3}(:[0-9]{2,4})?",
            path in "[a-z]{1,8}(/[a-z]{1,8}){0,2}",
            scheme in "(|https://|http://)",
            suffix in "(|/|/v1/|/v2/)",
        ) {
            let key = normalised(&format!("{scheme}{host}{suffix}"));
            let name = format!("{host}/{path}");
            prop_assert!(opens(&key, &name));
            let other = format!("x{name}");
            prop_assert!(!opens(&key, &other));
        }

        #[test]
        fn any_key_is_matched_or_not(key in ".{0,40}", image in "[a-z.]{1,10}/[a-z]{1,10}") {
            opens(&normalised(&key), &image);
        }
    }
}

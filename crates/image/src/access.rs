//! Who may use an image that is here already: whoever has proven it to the registry once (KEP-2535, "Ensure secret pulled
//! images").
//!
//! What proved it is written down before there is an image: a crash leaves none without its proof. An image without any,
//! which an operator has put here, is everybody's unless the policy says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Inner;
use crate::digest::Digest;
use crate::image::Image;
use crate::keyring::{Credential, Keyring};
use crate::reference::Reference;
use crate::store::{StoreError, blocking};

/// Which images that are here need a proof (`imagePullCredentialsVerificationPolicy`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verification {
    /// None: an image that is here is everybody's.
    Never,
    /// Those that were pulled.
    #[default]
    NeverPreloaded,
    /// All but those of these repositories: whole names, or their beginnings with `/*` after them.
    NeverAllowed(Vec<String>),
    /// All.
    Always,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Secret {
    /// The secret's namespace.
    pub namespace: String,
    /// The secret's name.
    pub name: String,
    /// The secret's UID.
    pub uid: String,
}

/// What proved access to an image, by repository.
pub(crate) type Proofs = BTreeMap<String, Proof>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The registry asked for no credentials.
    everybody: bool,
    /// Secrets whose credentials were taken.
    secrets: BTreeSet<Secret>,
    /// Hashes of credentials that were taken.
    credentials: BTreeSet<Digest>,
}

impl Proof {
    fn of(credential: Option<&Credential>) -> Self {
        Self {
            everybody: credential.is_none(),
            secrets: credential
                .and_then(|credential| credential.secret.clone())
                .into_iter()
                .collect(),
            credentials: credential.map(hash).into_iter().collect(),
        }
    }

    fn join(&mut self, other: Self) {
        self.everybody |= other.everybody;
        self.secrets.extend(other.secrets);
        self.credentials.extend(other.credentials);
    }

    /// A secret that has changed since is the same secret; other secrets may hold the same credentials.
    fn opens(&self, credential: &Credential) -> bool {
        let is_secret = credential.secret.as_ref().is_some_and(|one| self.secrets.contains(one));
        is_secret || self.credentials.contains(&hash(credential))
    }
}

fn hash(credential: &Credential) -> Digest {
    let Credential { username, password, .. } = credential;
    Digest::of(format!("{}:{username}{password}", username.len()).as_bytes())
}

impl Inner {
    /// Writes down that a registry gave an image to this account.
    pub(crate) async fn prove(
        &self,
        image: &Digest,
        reference: &Reference,
        credential: Option<&Credential>,
    ) -> Result<(), StoreError> {
        let (store, image, name) = (self.store.clone(), image.clone(), reference.name());
        let proof = Proof::of(credential);
        let turn = self.proofs.turn(image.hex()).await;
        blocking(move || {
            let mut proofs = store.proofs(&image)?.unwrap_or_default();
            let known = proofs.entry(name).or_default();
            let before = known.clone();
            known.join(proof);
            let is_new = *known != before;
            let written = if is_new { store.put_proofs(&image, &proofs) } else { Ok(()) };
            drop(turn);
            written
        })
        .await
    }

    /// Whether a pod with these credentials may use an image without asking its registry.
    pub(crate) fn permits(&self, image: &Image, keyring: &Keyring) -> Result<bool, StoreError> {
        let name = image.reference.name();
        let policy = &self.config.verification;
        if is_exempt(policy, &name) {
            return Ok(true);
        }
        let Some(proofs) = self.store.proofs(&image.top)? else {
            return Ok(*policy == Verification::NeverPreloaded);
        };
        Ok(proofs.get(&name).is_some_and(|proof| {
            let mut own = keyring.credentials(&image.reference).into_iter();
            proof.everybody || own.any(|credential| proof.opens(credential))
        }))
    }
}

fn is_exempt(policy: &Verification, name: &str) -> bool {
    match policy {
        Verification::Never => true,
        Verification::NeverPreloaded | Verification::Always => false,
        Verification::NeverAllowed(list) => list.iter().any(|allowed| {
            let below = allowed.strip_suffix("/*");
            allowed == name
                || below.is_some_and(|above| {
                    name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
                })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: Option<&str>, password: &str) -> Credential {
        let secret = name.map(|name| Secret {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: "1".to_owned(),
        });
        Credential { username: "u".to_owned(), password: password.to_owned(), secret }
    }

    #[test]
    fn a_proof_opens_to_the_same_secret_or_the_same_credentials() {
        let proof = Proof::of(Some(&credential(Some("a"), "p")));
        for (name, password, expected) in [
            (Some("a"), "p", true),
            (Some("a"), "changed", true),
            (Some("b"), "p", true),
            (None, "p", true),
            (Some("b"), "q", false),
        ] {
            assert_eq!(proof.opens(&credential(name, password)), expected, "{name:?} {password}");
        }
        let text = serde_json::to_string(&proof).unwrap();
        assert!(!text.contains("\"p\""), "{text}");
    }

    #[test]
    fn an_allowlist_names_repositories_or_what_is_below_them() {
        let policy =
            Verification::NeverAllowed(vec!["r.io/a".to_owned(), "r.io/team/*".to_owned()]);
        for (name, expected) in [
            ("r.io/a", true),
            ("r.io/a/b", false),
            ("r.io/team/x/y", true),
            ("r.io/team", false),
            ("r.io/teammate/x", false),
        ] {
            assert_eq!(is_exempt(&policy, name), expected, "{name}");
        }
    }
}

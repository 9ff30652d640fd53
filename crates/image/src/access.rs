//! Who may use an image that is here already: whoever has proven it to the registry once (KEP-2535, "Ensure secret pulled
//! images").
//!
//! What proved it is written down before there is an image: a crash leaves none without its proof. An image without any,
//! which an operator has put here, is everybody's unless the policy says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Inner;
use crate::credential::{Credential, Origin, Secret, ServiceAccount};
use crate::digest::Digest;
use crate::image::Image;
use crate::keyring::Keyring;
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

/// What proved access to an image, by repository.
pub(crate) type Proofs = BTreeMap<String, Proof>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The registry asked for no credentials, or took the node's own.
    everybody: bool,
    /// Secrets whose credentials were taken.
    secrets: BTreeSet<Secret>,
    /// Service accounts for which a provider gave credentials that were taken.
    #[serde(default)]
    accounts: BTreeSet<ServiceAccount>,
    /// Hashes of credentials that were taken.
    credentials: BTreeSet<Digest>,
}

impl Proof {
    fn of(credential: Option<&Credential>) -> Self {
        let mut proof = Self { everybody: credential.is_none(), ..Self::default() };
        let Some(credential) = credential else { return proof };
        match &credential.origin {
            Origin::Unnamed => {}
            Origin::Secret(secret) => _ = proof.secrets.insert(secret.clone()),
            Origin::Node => proof.everybody = true,
            Origin::Account(account) => _ = proof.accounts.insert(account.clone()),
        }
        proof.credentials.insert(hash(credential));
        proof
    }

    fn join(&mut self, other: Self) {
        self.everybody |= other.everybody;
        self.secrets.extend(other.secrets);
        self.accounts.extend(other.accounts);
        self.credentials.extend(other.credentials);
    }

    /// Whether a pod may have the image for this proof.
    fn permits(&self, keyring: &Keyring, image: &Reference) -> bool {
        self.everybody
            || keyring.account().is_some_and(|account| self.accounts.contains(account))
            || keyring.credentials(image).into_iter().any(|credential| self.opens(credential))
    }

    /// A secret that has changed since is the same secret; other secrets may hold the same credentials.
    fn opens(&self, credential: &Credential) -> bool {
        let is_secret =
            matches!(&credential.origin, Origin::Secret(one) if self.secrets.contains(one));
        is_secret || self.credentials.contains(&hash(credential))
    }
}

/// What a look for a pod's right to an image found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nobody has to prove anything.
    Exempt,
    /// The pod's credentials, or anybody's, have opened it.
    Proven,
    /// The registry has to be asked.
    Unproven,
}

impl Check {
    /// The kubelet's word in what it counts.
    fn as_str(self) -> &'static str {
        match self {
            Self::Exempt => "credentialPolicyAllowed",
            Self::Proven => "credentialRecordFound",
            Self::Unproven => "mustAuthenticate",
        }
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
        let (proof, metrics) = (Proof::of(credential), self.metrics.clone());
        let turn = self.proofs.turn(image.hex()).await;
        blocking(move || {
            let mut proofs = store.proofs(&image)?.unwrap_or_default();
            let known = proofs.entry(name).or_default();
            let before = known.clone();
            known.join(proof);
            let is_new = *known != before;
            let written = if is_new { store.put_proofs(&image, &proofs) } else { Ok(()) };
            metrics.count_proofs(&store);
            drop(turn);
            written
        })
        .await
    }

    /// Whether a pod with these credentials may use an image without asking its registry.
    pub(crate) fn permits(&self, image: &Image, keyring: &Keyring) -> Result<bool, StoreError> {
        let checked = self.check(image, keyring);
        let result = checked.as_ref().map_or("error", |check| check.as_str());
        self.metrics.checks.with_label_values(&[result]).inc();
        checked.map(|check| check != Check::Unproven)
    }

    fn check(&self, image: &Image, keyring: &Keyring) -> Result<Check, StoreError> {
        let name = image.reference.name();
        let policy = &self.config.verification;
        if is_exempt(policy, &name) {
            return Ok(Check::Exempt);
        }
        let proof = match self.store.proofs(&image.top)? {
            None if *policy == Verification::NeverPreloaded => return Ok(Check::Exempt),
            None => None,
            Some(mut proofs) => proofs.remove(&name),
        };
        let is_proven = proof.is_some_and(|proof| proof.permits(keyring, &image.reference));
        Ok(if is_proven { Check::Proven } else { Check::Unproven })
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
        let secret = |name: &str| Secret {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: "1".to_owned(),
        };
        let origin = name.map_or(Origin::Unnamed, |name| Origin::Secret(secret(name)));
        Credential::new("u", password).of(origin)
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
    fn what_the_nodes_own_credentials_opened_is_everybodys_and_an_accounts_is_the_accounts() {
        let image = Reference::parse("r.io/a").unwrap();
        let account = |uid: &str| ServiceAccount {
            namespace: "ns".to_owned(),
            name: "builder".to_owned(),
            uid: uid.to_owned(),
        };
        let (nobody, mut same, mut anew) =
            (Keyring::default(), Keyring::default(), Keyring::default());
        same.set_account(account("1"));
        anew.set_account(account("2"));
        let of = |origin| Proof::of(Some(&Credential::new("u", "p").of(origin)));
        for (proof, expected) in [
            (of(Origin::Node), [true, true, true]),
            (of(Origin::Account(account("1"))), [false, true, false]),
            (of(Origin::Unnamed), [false, false, false]),
        ] {
            let permits = [&nobody, &same, &anew].map(|keyring| proof.permits(keyring, &image));
            assert_eq!(permits, expected, "{proof:?}");
        }
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

//! What opens a repository, and whose it is.

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// The service account of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Its namespace, which is the pod's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: an account that was made anew is another.
    pub uid: String,
}

/// A user name and password for a registry. Its debug form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) origin: Origin,
}

/// Whose credentials these are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody says it.
    #[default]
    Unnamed,
    /// A secret of the cluster's.
    Secret(Secret),
    /// The node's own: all of its pods may use what was pulled with them.
    Node,
    /// Given for a pod's service account.
    Account(ServiceAccount),
}

impl Credential {
    pub(crate) fn new(username: &str, password: &str) -> Self {
        let (username, password) = (username.to_owned(), password.to_owned());
        Self { username, password, origin: Origin::Unnamed }
    }

    pub(crate) fn of(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

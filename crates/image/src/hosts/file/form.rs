//! What stands in a `hosts.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// What is said of a server; the whole file says it of the registry's own. What is not known is an error: it may be what keeps
/// somebody out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Entry {
    /// Only of the whole file.
    pub(super) server: Option<String>,
    /// Only of the whole file.
    pub(super) host: Named,
    pub(super) capabilities: Vec<Capability>,
    pub(super) ca: Option<Paths>,
    pub(super) client: Option<Pairs>,
    pub(super) skip_verify: Option<bool>,
    pub(super) header: BTreeMap<String, Values>,
    pub(super) override_path: bool,
    pub(super) dial_timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capability {
    Pull,
    Resolve,
    Push,
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.to_ascii_lowercase().as_str() {
            "pull" => Ok(Self::Pull),
            "resolve" => Ok(Self::Resolve),
            "push" => Ok(Self::Push),
            _ => Err(D::Error::custom(format!(
                "unknown capability {name:?}: there are pull, resolve and push"
            ))),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Pairs {
    One(PathBuf),
    Many(Vec<Pair>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Pair {
    Both(PathBuf),
    Apart([PathBuf; 2]),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Values {
    One(String),
    Many(Vec<String>),
}

/// The mirrors in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Named(pub(super) Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of hosts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Named, M::Error> {
                let mut hosts = Vec::new();
                while let Some(host) = map.next_entry()? {
                    hosts.push(host);
                }
                Ok(Named(hosts))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

//! Who answers for a registry: its mirrors and how each is trusted, by containerd's files (containerd, "Registry
//! Configuration"). They are read at each pull: a change needs no restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use reqwest::Url;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::reference::Reference;

/// One server that is asked for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// `scheme://host[:port]/path`, without a slash at its end: what comes before a repository's name.
    pub(crate) base: String,
    /// Whether it may say what a tag means.
    pub(crate) resolves: bool,
    pub(crate) trust: Trust,
    /// Whether it is the registry's own, for which credentials are.
    pub(crate) is_own: bool,
}

/// Whom a connection trusts and who it says it is. The default is what the system trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// No TLS, only where the node's configuration says so.
    pub(crate) is_plain: bool,
    /// Nobody is checked.
    pub(crate) skips: bool,
    /// PEM files of certificates that are trusted, too.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// PEM files of a certificate and its key.
    pub(crate) identity: Option<Vec<u8>>,
}

/// A registry's files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostsError {
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {cause}", .path.display())]
    Bad { path: PathBuf, cause: String },
}

/// `hosts.toml`. What is not known is an error: it may be what keeps somebody out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    server: Option<String>,
    host: Named,
    capabilities: Option<Vec<String>>,
    ca: Option<Paths>,
    client: Option<Pairs>,
    skip_verify: bool,
    override_path: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<Paths>,
    client: Option<Pairs>,
    skip_verify: bool,
    override_path: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Pairs {
    One(PathBuf),
    Many(Vec<Pair>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(PathBuf),
    Apart(Vec<PathBuf>),
}

/// The mirrors in the order of the file.
#[derive(Debug, Default)]
struct Named(Vec<(String, Entry)>);

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

/// The servers to be asked for an image, the registry's own last. `is_plain` says that it speaks no TLS.
pub(crate) fn hosts(
    folder: Option<&Path>,
    reference: &Reference,
    is_plain: bool,
) -> Result<Vec<Host>, HostsError> {
    let own = |trust: Trust| {
        let scheme = if trust.is_plain { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2", reference.host());
        vec![Host { base, resolves: true, trust, is_own: true }]
    };
    let plain = Trust { is_plain, ..Trust::default() };
    let Some(folder) = folder.and_then(|folder| find(folder, reference.registry())) else {
        return Ok(own(plain));
    };
    let path = folder.join("hosts.toml");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let bad = |cause: String| HostsError::Bad { path: path.clone(), cause };
            let file: File =
                toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
            file.hosts(&folder, &own(plain)).map_err(|cause| match cause {
                Cause::Bad(cause) => bad(cause),
                Cause::Read(error) => error,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_plain => {
            certificates(&folder).map(own)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(own(plain)),
        Err(source) => Err(HostsError::Read { path, source }),
    }
}

/// The folder of a registry: `host_port_`, `host:port` or `host`, else the one for all others.
fn find(folder: &Path, registry: &str) -> Option<PathBuf> {
    let (host, port) = registry.rsplit_once(':').unwrap_or((registry, ""));
    let spelt = if port.is_empty() { registry.to_owned() } else { format!("{host}_{port}_") };
    let names = [spelt.as_str(), registry, host, "_default"];
    names.iter().map(|name| folder.join(name)).find(|folder| folder.is_dir())
}

enum Cause {
    Bad(String),
    Read(HostsError),
}

impl From<HostsError> for Cause {
    fn from(error: HostsError) -> Self {
        Self::Read(error)
    }
}

impl File {
    fn hosts(self, folder: &Path, own: &[Host]) -> Result<Vec<Host>, Cause> {
        let mut hosts = Vec::new();
        for (address, entry) in self.host.0 {
            let can = |what| can(entry.capabilities.as_ref(), what);
            if can("pull") {
                let (resolves, is_plain) = (can("resolve"), address.starts_with("http://"));
                let base = base(&address, entry.override_path)?;
                let trust = entry.trust(folder, is_plain)?;
                hosts.push(Host { base, resolves, trust, is_own: false });
            }
        }
        let entry = Entry {
            capabilities: self.capabilities,
            ca: self.ca,
            client: self.client,
            skip_verify: self.skip_verify,
            override_path: self.override_path,
        };
        for host in own.iter().filter(|_| can(entry.capabilities.as_ref(), "pull")) {
            let base = match &self.server {
                Some(server) => base(server, entry.override_path)?,
                None => host.base.clone(),
            };
            let trust = entry.trust(folder, base.starts_with("http://"))?;
            // Where another server stands in for the registry, credentials for the registry are still meant for it.
            hosts.push(Host { base, trust, ..host.clone() });
        }
        Ok(hosts)
    }
}

fn can(capabilities: Option<&Vec<String>>, what: &str) -> bool {
    capabilities.is_none_or(|all| all.iter().any(|one| one == what))
}

/// An address as what comes before a repository's name.
fn base(address: &str, is_whole: bool) -> Result<String, Cause> {
    let text =
        if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let bad = || Cause::Bad(format!("{address:?} is not the address of a registry"));
    let url = Url::parse(&text).map_err(|_| bad())?;
    let is_plain_address = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain_address {
        return Err(bad());
    }
    let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
    let version = if is_whole || path.ends_with("/v2") { "" } else { "/v2" };
    Ok(format!("{origin}{path}{version}"))
}

impl Entry {
    fn trust(&self, folder: &Path, is_plain: bool) -> Result<Trust, Cause> {
        let read = |path: &PathBuf| read(&folder.join(path));
        let authorities = match &self.ca {
            None => Vec::new(),
            Some(Paths::One(path)) => vec![read(path)?],
            Some(Paths::Many(paths)) => paths.iter().map(read).collect::<Result<_, _>>()?,
        };
        let pair = match &self.client {
            None => Vec::new(),
            Some(Pairs::One(path)) => vec![path.clone()],
            Some(Pairs::Many(pairs)) => match pairs.as_slice() {
                [Pair::Both(path)] => vec![path.clone()],
                [Pair::Apart(paths)] if paths.len() <= 2 => paths.clone(),
                [] => Vec::new(),
                _ => return Err(Cause::Bad("client: one pair of certificate and key".to_owned())),
            },
        };
        let parts = pair.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let identity = (!parts.is_empty()).then(|| parts.join(&b'\n'));
        Ok(Trust { is_plain, skips: self.skip_verify, authorities, identity })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HostsError> {
    fs::read(path).map_err(|source| HostsError::Read { path: path.to_owned(), source })
}

/// Docker's way, without a `hosts.toml`: `*.crt` are authorities, a `*.cert` and its `*.key` are who this node is.
fn certificates(folder: &Path) -> Result<Trust, HostsError> {
    let mut trust = Trust::default();
    let mut files = crate::store::entries(folder);
    files.sort();
    for path in files {
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("crt") => trust.authorities.push(read(&path)?),
            Some("cert") if trust.identity.is_none() => {
                let (certificate, key) = (read(&path)?, read(&path.with_extension("key"))?);
                trust.identity = Some([certificate, key].join(&b'\n'));
            }
            _ => {}
        }
    }
    Ok(trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str) -> Result<Vec<Host>, String> {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("reg.example_5000_");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("ca.pem"), "CA").unwrap();
        fs::write(own.join("hosts.toml"), file).unwrap();
        let image = Reference::parse("reg.example:5000/team/app:1").unwrap();
        hosts(Some(folder.path()), &image, false).map_err(|error| error.to_string())
    }

    fn shown(hosts: &[Host]) -> Vec<(&str, bool, bool)> {
        hosts.iter().map(|host| (host.base.as_str(), host.resolves, host.is_own)).collect()
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let hosts = found(
            r#"
            server = "https://upstream.example"
            [host."https://z.example/prefix"]
              capabilities = ["pull", "resolve"]
              ca = "ca.pem"
            [host."http://a.example:81/whole/v2"]
              capabilities = ["pull"]
              override_path = true
            [host."push.example"]
              capabilities = ["push"]
            "#,
        )
        .unwrap();
        let expected = [
            ("https://z.example/prefix/v2", true, false),
            ("http://a.example:81/whole/v2", false, false),
            ("https://upstream.example/v2", true, true),
        ];
        assert_eq!(shown(&hosts), expected);
        assert_eq!(hosts[0].trust.authorities, [b"CA".to_vec()]);
        assert!(hosts[1].trust.is_plain && !hosts[2].trust.is_plain);
    }

    #[test]
    fn a_file_that_says_nothing_leaves_the_registry_as_it_is() {
        let expected = [("https://reg.example:5000/v2", true, true)];
        assert_eq!(shown(&found("").unwrap()), expected);
        assert!(found("skip_verify = true").unwrap()[0].trust.skips);
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_the_file() {
        for (file, word) in [
            ("server = 5", "invalid type"),
            ("[host.\"https://a\".header]\nx = \"y\"", "unknown field `header`"),
            ("server = \"ftp://a\"", "not the address"),
            ("server = \"https://user@a\"", "not the address"),
            ("ca = \"none.pem\"", "none.pem"),
        ] {
            let error = found(file).unwrap_err();
            assert!(error.contains(word) && error.contains("reg.example_5000_"), "{error}");
        }
    }

    #[test]
    fn a_folder_of_certificates_is_read_as_docker_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("a.crt", "A"), ("me.cert", "C"), ("me.key", "K")] {
            fs::create_dir_all(folder.path().join("reg.example")).unwrap();
            fs::write(folder.path().join("reg.example").join(name), content).unwrap();
        }
        let image = Reference::parse("reg.example/app").unwrap();
        let hosts = hosts(Some(folder.path()), &image, false).unwrap();
        assert_eq!(hosts[0].trust.authorities, [b"A".to_vec()]);
        assert_eq!(hosts[0].trust.identity.as_deref(), Some(&b"C\nK"[..]));
    }
}

//! Who answers for a registry: its mirrors and how each is trusted, by containerd's files (containerd, "Registry
//! Configuration"). They are read at each pull: a change needs no restart.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::reference::{Reference, split_port};

pub(crate) use host::{Host, Trust};
use pem::certificates;

mod file;
mod host;
mod pem;

/// A registry's files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostsError {
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {cause}", .path.display())]
    Bad { path: PathBuf, cause: String },
}

/// The servers to be asked for an image, the registry's own last. `is_plain` says that it speaks no TLS.
pub(crate) fn hosts(
    folder: Option<&Path>,
    reference: &Reference,
    is_plain: bool,
) -> Result<Vec<Host>, HostsError> {
    let own = Host::own(reference, is_plain);
    let Some(folder) = folder.and_then(|folder| find(folder, reference.registry())) else {
        return Ok(vec![own]);
    };
    let path = folder.join("hosts.toml");
    match fs::read_to_string(&path) {
        Ok(text) => file::hosts(&path, &text, own, reference),
        Err(error) if error.kind() == io::ErrorKind::NotFound && own.trust.is_plain => {
            Ok(vec![own])
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(vec![own.trusting(certificates(&folder)?)])
        }
        Err(source) => Err(HostsError::Read { path, source }),
    }
}

/// The folder of a registry: `host_port_`, `host:port` or `host`, else the one for all others.
fn find(folder: &Path, registry: &str) -> Option<PathBuf> {
    let (host, port) = split_port(registry);
    let spelt = if port.is_empty() { registry.to_owned() } else { format!("{host}_{port}_") };
    let names = [spelt.as_str(), registry, host, "_default"];
    names.iter().map(|name| folder.join(name)).find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::pem::tests::pem;
    use super::*;

    #[test]
    fn a_registrys_folder_is_the_first_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let found = |registry: &str| {
            let found = find(folder.path(), registry);
            found.map(|found| found.file_name().unwrap().to_str().unwrap().to_owned())
        };
        let make = |name: &str| fs::create_dir(folder.path().join(name)).unwrap();
        assert_eq!(found("reg.example:5000"), None);
        for name in ["_default", "reg.example", "reg.example:5000", "reg.example_5000_"] {
            make(name);
            assert_eq!(found("reg.example:5000").as_deref(), Some(name));
        }
        assert_eq!(found("reg.example").as_deref(), Some("reg.example"));
        assert_eq!(found("[::1]:5000").as_deref(), Some("_default"));
        make("[::1]_5000_");
        assert_eq!(found("[::1]:5000").as_deref(), Some("[::1]_5000_"));
        assert_eq!(found("other.example").as_deref(), Some("_default"));
    }

    #[test]
    fn a_folder_of_certificates_is_read_as_docker_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("localhost_5000_");
        fs::create_dir(&own).unwrap();
        let hosts = || {
            let image = Reference::parse("localhost:5000/app").unwrap();
            hosts(Some(folder.path()), &image, false).map_err(|error| error.to_string())
        };
        assert!(hosts().unwrap()[0].trust.skips, "nothing is in it");
        let (certificate, key) = pem();
        for (name, content) in
            [("a.crt", &certificate), ("me.cert", &certificate), ("me.key", &key)]
        {
            fs::write(own.join(name), content).unwrap();
        }
        let host = hosts().unwrap().remove(0);
        assert_eq!(host.trust.authorities, [certificate.clone().into_bytes()]);
        assert_eq!(host.trust.identity, Some(format!("{certificate}\n{key}").into_bytes()));
        assert!(!host.trust.skips && !host.may_be_plain, "whom it trusts was said");
        for (file, content, word) in [
            ("you.cert", certificate.as_str(), "you.cert: of several"),
            ("me.key", "none", "me.cert: holds no certificate in PEM, or there is no key"),
            ("b.crt", "none", "b.crt: holds no certificate"),
        ] {
            fs::write(own.join(file), content).unwrap();
            let error = hosts().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}

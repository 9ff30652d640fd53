//! Files of certificates and keys.

use std::fs;
use std::path::Path;

use reqwest::{Certificate, Identity};

use super::{HostsError, Trust, file};

fn read(path: &Path) -> Result<Vec<u8>, HostsError> {
    fs::read(path).map_err(|source| HostsError::Read { path: path.to_owned(), source })
}

/// A PEM file of certificates, which are trusted. Without one it would be as if it were not there.
pub(super) fn authority(path: &Path) -> Result<Vec<u8>, HostsError> {
    let pem = read(path)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(bad(path, "holds no certificate in PEM")),
    }
}

fn bad(path: &Path, cause: &str) -> HostsError {
    HostsError::Bad { path: path.to_owned(), cause: cause.to_owned() }
}

/// The PEM files of a certificate and its key, which may be in the same one.
pub(super) fn identity(certificate: &Path, key: Option<&Path>) -> Result<Vec<u8>, HostsError> {
    let mut pem = read(certificate)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    match Identity::from_pem(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(bad(certificate, "holds no certificate in PEM, or there is no key for it")),
    }
}

/// Docker's way, without a `hosts.toml`: `*.crt` are authorities, a `*.cert` and its `*.key` are who this node is.
pub(super) fn certificates(folder: &Path) -> Result<Trust, HostsError> {
    let mut trust = Trust::default();
    let mut files = crate::store::entries(folder);
    files.sort();
    for path in files {
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("crt") => trust.authorities.push(authority(&path)?),
            Some("cert") if trust.identity.is_none() => {
                trust.identity = Some(identity(&path, Some(&path.with_extension("key")))?);
            }
            Some("cert") => return Err(bad(&path, file::SEVERAL)),
            _ => {}
        }
    }
    Ok(trust)
}

#[cfg(test)]
pub(super) mod tests {
    /// PEM of a certificate, and of its key.
    pub(in crate::hosts) fn pem() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["reg.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}

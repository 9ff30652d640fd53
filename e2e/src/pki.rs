//! The certificates of a cluster: one authority for servers and clients, one for the front proxy, keys for service accounts.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Signs the certificates of one cluster.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's group, which Kubernetes reads from the organisation.
    pub group: Option<&'a str>,
    /// The names and addresses under which a server is reached; a client has none.
    pub hosts: &'a [String],
}

/// A certificate and its key, both as PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS#8).
    pub key: String,
}

impl Authority {
    /// Makes a new authority and writes `NAME.crt` and `NAME.key`.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = authority(name).self_signed(&key)?.pem();
        Pair { certificate: certificate.clone(), key: key.serialize_pem() }.write(folder, name)?;
        Ok(Self { certificate, issuer: Issuer::new(authority(name), key) })
    }

    /// Opens one that [`Authority::create`] wrote.
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        let read = |ending: &str| {
            let path = folder.join(format!("{name}.{ending}"));
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read("key")?)?;
        Ok(Self { certificate: read("crt")?, issuer: Issuer::new(authority(name), key) })
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new key with a certificate for it, good for a client, and for a server where there are hosts.
    pub fn issue(&self, subject: &Subject<'_>) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params(subject)?.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

/// A new key and a request for a certificate for it, both as PEM.
pub fn request(subject: &Subject<'_>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = params(subject)?;
    // Signers decide by what the request object says of usages, and refuse what differs from it.
    params.key_usages.clear();
    params.extended_key_usages.clear();
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem(), request))
}

fn params(subject: &Subject<'_>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(subject.hosts)?;
    params.distinguished_name.push(DnType::CommonName, subject.name);
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !subject.hosts.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(params)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("nodule e2e {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write_private(&folder.join(format!("{name}.crt")), &self.certificate)?;
        write_private(&folder.join(format!("{name}.key")), &self.key)
    }
}

/// Writes `NAME.key` and `NAME.pub`: what signs and what checks service accounts' tokens.
pub fn service_account_keys(folder: &Path, name: &str) -> Result<()> {
    let key = KeyPair::generate()?;
    write_private(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
    write_private(&folder.join(format!("{name}.pub")), &key.public_key_pem())
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};

/// A certificate, a key or a list of authorities in PEM form.
#[derive(Clone)]
pub enum Pem {
    /// In a file. It is read again when it has changed.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

/// What the server needs for TLS.
#[derive(Clone)]
pub struct Tls {
    /// The serving certificate, and those that lead from it to its authority.
    pub certificate: Pem,
    /// Its private key.
    pub key: Pem,
    /// The authorities of clients (the kubelet's `authentication.x509.clientCAFile`). None: no client can show a
    /// certificate, and all need a token.
    pub client_ca: Option<Pem>,
}

/// What is wrong with [`Tls`].
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not PEM, or without what it should hold.
    #[error("find the {what} in {place}")]
    Pem {
        /// What should be there.
        what: &'static str,
        /// Where.
        place: String,
        /// Why it was not found.
        #[source]
        source: pem::Error,
    },
    /// The certificate authorities of clients can not be used.
    #[error("use the client certificate authorities in {place}")]
    ClientCa {
        /// Where they are.
        place: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The certificate and the key can not be used together.
    #[error("use the serving certificate")]
    Certificate(#[source] rustls::Error),
}

/// The TLS configuration of the moment.
pub(crate) struct Current {
    tls: Tls,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the files, when they were last looked at, whether they could be used or not.
    stamps: Vec<Option<SystemTime>>,
}

impl Current {
    pub(crate) fn load(tls: Tls) -> Result<Self, TlsError> {
        let stamps = tls.stamps();
        let loaded = Mutex::new(Loaded { config: tls.load()?, stamps });
        Ok(Current { tls, loaded })
    }

    /// For one handshake. Looks whether the files have changed; files that can not be used, because only one of
    /// two is written yet, change nothing.
    pub(crate) fn get(&self) -> Arc<ServerConfig> {
        let stamps = self.tls.stamps();
        let mut loaded = self.lock();
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match self.tls.load() {
                Ok(config) => {
                    loaded.config = config;
                    info!("serving certificate loaded");
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "serving certificate not loaded"
                ),
            }
        }
        Arc::clone(&loaded.config)
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tls {
    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = self.certificate.certificates("certificate")?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder =
            builder.with_safe_default_protocol_versions().map_err(TlsError::Certificate)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(ca.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated();
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|error| ca.unusable(error))?,
                )
            }
        };
        let mut config =
            builder.with_single_cert(chain, self.key.key()?).map_err(TlsError::Certificate)?;
        // The API server would use HTTP/2 if it could, but not for the requests that matter (exec): one is enough.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let files = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        files.into_iter().flatten().map(Pem::stamp).collect()
    }
}

impl Pem {
    fn text(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Pem::File(path) => read(path),
            Pem::Text(text) => Ok(text.clone().into_bytes()),
        }
    }

    fn certificates(&self, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text()?).collect();
        let found = found.and_then(|found| {
            if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
        });
        found.map_err(|source| TlsError::Pem { what, place: self.place(), source })
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(&self.text()?);
        key.map_err(|source| TlsError::Pem { what: "private key", place: self.place(), source })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates("client certificate authorities")? {
            roots.add(certificate).map_err(|error| self.unusable(error))?;
        }
        Ok(roots)
    }

    fn unusable(&self, error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
        TlsError::ClientCa { place: self.place(), source: error.into() }
    }

    fn place(&self) -> String {
        match self {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) => "the given text".to_owned(),
        }
    }

    fn stamp(&self) -> Option<SystemTime> {
        match self {
            Pem::File(path) => fs::metadata(path).and_then(|metadata| metadata.modified()).ok(),
            Pem::Text(_) => None,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

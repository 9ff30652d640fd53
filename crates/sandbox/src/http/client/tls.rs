//! TLS to other servers: whom it believes.

use std::io;
use std::sync::{Arc, OnceLock};

use nodule_sandbox_proto::Roots;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::Error;

use crate::error::StartError;

/// Reads the roots that a container is given, each of which must be one.
pub(crate) fn roots(given: &[Roots]) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let mut all = Vec::new();
    for roots in given {
        let (name, pem) = match roots {
            Roots::Pem(pem) => ("the given text".to_owned(), pem.clone().into_bytes()),
            Roots::File(path) => {
                let pem = std::fs::read(path);
                let name = path.display().to_string();
                (name.clone(), pem.map_err(|error| StartError::Roots(name, error.to_string()))?)
            }
        };
        let read = read(&pem).map_err(|problem| StartError::Roots(name, problem))?;
        all.extend(read);
    }
    Ok(all)
}

fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("this is no PEM: {error}"))?;
    if found.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let mut store = RootCertStore::empty();
    for (number, certificate) in found.iter().enumerate() {
        let added = store.add(certificate.clone());
        added.map_err(|error| format!("certificate {}: {error}", number + 1))?;
    }
    Ok(found)
}

/// Makes TLS connections. What that needs is made when the first is: most programs never do.
pub(super) struct Tls {
    roots: Vec<CertificateDer<'static>>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(roots: Vec<CertificateDer<'static>>) -> Self {
        Self { roots, config: OnceLock::new() }
    }

    /// Says to `host` that it is one, or why not.
    pub(super) async fn wrap(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Problem> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Problem {
            error: Error::HttpRequestUriInvalid,
            why: "no such name can be certified".into(),
        })?;
        let config = match self.config.get() {
            Some(config) => config,
            None => {
                let config = self.config().map_err(|error| Problem {
                    error: Error::ConfigurationError,
                    why: error.to_string(),
                })?;
                self.config.get_or_init(|| Arc::new(config))
            }
        };
        let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        connected.map_err(|error| problem(&error))
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let mut store = RootCertStore::empty();
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for root in &self.roots {
            store.add(root.clone())?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(store);
        Ok(config.with_no_client_auth())
    }
}

/// Why there is no TLS: for the guest, which has codes, and for its log, which has words.
pub(super) struct Problem {
    pub(super) error: Error,
    pub(super) why: String,
}

fn problem(error: &io::Error) -> Problem {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let code = match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    };
    Problem { error: code, why: error.to_string() }
}

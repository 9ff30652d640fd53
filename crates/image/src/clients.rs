//! HTTP clients, one for each way to a server: made when it is first needed, so that a node that speaks with no public
//! registry needs no CA certificates.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use crate::error::Problem;
use crate::hosts::Trust;
use crate::{Patience, transport};

/// The most clients that are kept: files change, and what they were is never asked for again.
const KEPT: usize = 32;

/// All clients, by their way. They hold connections, no credentials.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Way, Client>>);

/// How a server is reached. The default is by what the system trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) trust: Trust,
    /// How long a connection may take, where this server has a time of its own.
    pub(crate) dial: Option<Duration>,
    /// Redirects are for the caller to follow.
    pub(crate) stays: bool,
}

impl Clients {
    pub(crate) fn client(&self, way: &Way, patience: &Patience) -> Result<Client, Problem> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(way) {
            return Ok(client.clone());
        }
        let built = trusting(begun(way, patience), &way.trust).and_then(ClientBuilder::build);
        // A registry without TLS needs nobody's trust; where it leads to TLS, that is the system's, if it has any.
        let built = match way.trust.is_plain {
            true => built.or_else(|_| begun(way, patience).tls_certs_only([]).build()),
            false => built,
        };
        let client =
            built.map_err(|error| Problem::NoClient { cause: transport::cause(&error) })?;
        if clients.len() >= KEPT {
            clients.clear();
        }
        clients.insert(way.clone(), client.clone());
        Ok(client)
    }
}

fn begun(way: &Way, patience: &Patience) -> ClientBuilder {
    let builder = transport::client(way.dial.unwrap_or(patience.connect));
    if way.stays { builder.redirect(Policy::none()) } else { builder }
}

fn trusting(mut builder: ClientBuilder, trust: &Trust) -> reqwest::Result<ClientBuilder> {
    let mut authorities = Vec::new();
    for bundle in &trust.authorities {
        authorities.extend(Certificate::from_pem_bundle(bundle)?);
    }
    if let Some(identity) = &trust.identity {
        builder = builder.identity(Identity::from_pem(identity)?);
    }
    Ok(match trust.skips {
        true => builder.tls_danger_accept_invalid_certs(true),
        false => builder.tls_certs_merge(authorities),
    })
}

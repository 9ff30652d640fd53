//! HTTP clients, one for each way of trusting: made when it is first needed, so that a node that speaks with no public
//! registry needs no CA certificates.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::{Certificate, Client, ClientBuilder, Identity};

use crate::error::Problem;
use crate::hosts::Trust;
use crate::{Patience, transport};

/// The most clients that are kept: files change, and what they were is never asked for again.
const KEPT: usize = 32;

/// All clients, by whom they trust. They hold connections, no credentials.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Trust, Client>>);

impl Clients {
    pub(crate) fn client(&self, trust: &Trust, patience: &Patience) -> Result<Client, Problem> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let built = trusting(transport::client(patience), trust).and_then(ClientBuilder::build);
        // A registry without TLS needs nobody's trust; where it leads to TLS, that is the system's, if it has any.
        let built = match trust.is_plain {
            true => built.or_else(|_| transport::client(patience).tls_certs_only([]).build()),
            false => built,
        };
        let client =
            built.map_err(|error| Problem::NoClient { cause: transport::cause(&error) })?;
        if clients.len() >= KEPT {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }
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

//! What a name means: hosts(5), then the domain name system, as resolv.conf(5) has it.
//!
//! The C library's own resolver would read files that a confined process has not, and block a thread. There is no cache:
//! that is the name server's, which all of the node share, and a short-lived answer must not outlive itself here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nodule_sandbox_proto::Names;
use simple_dns::Name;
use thiserror::Error;
use tokio::sync::Semaphore;
use url::Host;

use super::client::{Client, Failure};
use super::order::order;

/// Names that one guest looks up at a time; the others wait. Each takes some sockets.
const AT_ONCE: usize = 32;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LookupError {
    /// It is no name.
    #[error("this is no name of a host")]
    Invalid,
    /// Nobody knows it, or it has no addresses.
    #[error("there is no such name, or it has no addresses")]
    Unknown,
    /// The name servers do not answer, or not this time.
    #[error("the name servers give no answer")]
    Temporary,
    /// There is no name server to ask.
    #[error("there is no name server")]
    NoServer,
}

/// Finds addresses.
pub(crate) struct Resolver {
    names: Names,
    client: Client,
    turns: Semaphore,
}

impl Resolver {
    pub(crate) fn new(names: &Names) -> Self {
        Self { names: names.clone(), client: Client::new(names), turns: Semaphore::new(AT_ONCE) }
    }

    /// The addresses of a name, or the address that it is: at least one, in the order in which to try them. IPv6 may be in
    /// brackets. Whether they may be used is for [`Policy`](super::policy::Policy) to say.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        // Names of other scripts become ASCII here (IDNA).
        let name = match Host::parse(name) {
            Ok(Host::Domain(name)) => name,
            Ok(Host::Ipv4(address)) => return Ok(vec![address.into()]),
            Ok(Host::Ipv6(address)) => return Ok(vec![address.into()]),
            Err(_) => {
                let address = name.parse::<Ipv6Addr>().map_err(|_| LookupError::Invalid)?;
                return Ok(vec![address.into()]);
            }
        };
        let mut found = match self.known(&name) {
            Some(found) => found,
            None => self.ask(&name).await?,
        };
        order(&mut found);
        Ok(found)
    }

    /// What needs no server: the hosts file's, and `localhost` (RFC 6761).
    fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        let hosts = self.names.hosts.iter().filter(|host| host.names.iter().any(same));
        let found: Vec<_> = hosts.map(|host| host.address).collect();
        if !found.is_empty() {
            return Some(found);
        }
        let local = name == "localhost" || name.ends_with(".localhost");
        local.then(|| vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
    }

    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let _turn = self.turns.acquire().await.map_err(|_| LookupError::Temporary)?;
        let mut error = LookupError::Unknown;
        for full in self.candidates(name) {
            // One that is too long is none.
            let Ok(full) = Name::new(&full) else { continue };
            match self.client.addresses(&full).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => return Ok(found),
                // A server that cannot say this may know the next one.
                Err(Failure::Server) => error = LookupError::Temporary,
                Err(Failure::Silence) => return Err(LookupError::Temporary),
                Err(Failure::Nobody) => return Err(LookupError::NoServer),
            }
        }
        Err(error)
    }

    /// The full names that a name may stand for, in the order in which they are asked for: it is completed by the search
    /// list, unless it ends with a dot; before that or after that it is taken as it is.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let mut candidates: Vec<_> =
            self.names.search.iter().map(|suffix| completed(name, suffix)).collect();
        let place = if dots >= self.names.ndots.into() { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates
    }
}

fn completed(name: &str, suffix: &str) -> String {
    match suffix.trim_matches('.') {
        "" => name.to_owned(),
        suffix => format!("{name}.{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_and_full_ones_are_not() {
        let names = Names {
            search: vec!["ns.svc.cluster.local".into(), "lan.".into()],
            ndots: 2,
            ..Names::default()
        };
        let resolver = Resolver::new(&names);
        for (name, candidates) in [
            ("db", vec!["db.ns.svc.cluster.local", "db.lan", "db"]),
            ("db.ns", vec!["db.ns.ns.svc.cluster.local", "db.ns.lan", "db.ns"]),
            ("a.b.c", vec!["a.b.c", "a.b.c.ns.svc.cluster.local", "a.b.c.lan"]),
            ("db.", vec!["db"]),
        ] {
            assert_eq!(resolver.candidates(name), candidates, "{name}");
        }
        let resolver = Resolver::new(&Names { ndots: 0, ..names });
        assert_eq!(resolver.candidates("db")[0], "db");
    }
}

//! A server that is asked for an image, and how.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Url};

use crate::Patience;
use crate::added::Added;
use crate::clients::{Clients, Way};
use crate::error::Problem;
use crate::reference::{Reference, split_port, unbracketed};

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
    /// Whether it is asked without TLS where it turns out that it speaks none.
    pub(crate) may_be_plain: bool,
    /// How long a connection to it may take, where its file says so.
    pub(crate) dial: Option<Duration>,
    /// What each request to it has.
    pub(crate) headers: HeaderMap,
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

impl Host {
    /// The registry's own server, as it is without a word of it in a file. One on this machine is not checked, and is asked
    /// without TLS where it speaks none, unless its port says what it speaks (containerd, `ConfigureHosts`).
    pub(crate) fn own(reference: &Reference, is_plain: bool) -> Self {
        let (host, port) = split_port(reference.registry());
        let is_here = is_here(host) && !is_plain;
        let is_plain = is_plain || is_here && port == "80";
        let scheme = if is_plain { "http" } else { "https" };
        let skips = is_here && !is_plain;
        Self {
            base: format!("{scheme}://{}/v2", reference.host()),
            resolves: true,
            trust: Trust { is_plain, skips, ..Trust::default() },
            is_own: true,
            may_be_plain: skips && !matches!(port, "" | "443"),
            dial: None,
            headers: HeaderMap::new(),
        }
    }

    /// The server with what files say of whom to trust; where they say nothing, as it was.
    pub(super) fn trusting(self, trust: Trust) -> Self {
        match trust == Trust::default() {
            true => self,
            false => Self { trust, may_be_plain: false, ..self },
        }
    }

    /// The same server without TLS, where it may be asked so.
    pub(crate) fn plain(&self) -> Option<Self> {
        let rest = self.base.strip_prefix("https://").filter(|_| self.may_be_plain)?;
        let trust = Trust { is_plain: true, ..self.trust.clone() };
        Some(Self { base: format!("http://{rest}"), trust, may_be_plain: false, ..self.clone() })
    }

    /// How it is reached, and what is added to what it is asked.
    pub(crate) fn way(
        &self,
        clients: &Clients,
        patience: &Patience,
    ) -> Result<(Client, Option<Added>), Problem> {
        let way = Way { trust: self.trust.clone(), dial: self.dial, stays: false };
        let client = clients.client(&way, patience)?;
        if self.headers.is_empty() {
            return Ok((client, None));
        }
        let http = clients.client(&Way { stays: true, ..way }, patience)?;
        Ok((client, Some(Added { headers: self.headers.clone(), http })))
    }

    /// Whether it turns out that it speaks no TLS. At the port that TLS has, nobody need be.
    pub(crate) fn is_not_secure(&self, problem: &Problem) -> bool {
        let is_at_own_port = || Url::parse(&self.base).is_ok_and(|url| url.port().is_none());
        problem.speaks_no_tls() || problem.is_unreachable() && is_at_own_port()
    }

    /// A problem, and that it was met with a mirror.
    pub(crate) fn tell(&self, problem: Problem) -> Problem {
        match self.is_own {
            true => problem,
            false => Problem::Mirror { mirror: self.base.clone(), problem: Box::new(problem) },
        }
    }
}

/// Whether a registry is on this machine, where nobody listens in.
fn is_here(host: &str) -> bool {
    let address = unbracketed(host).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(image: &str) -> Host {
        Host::own(&Reference::parse(image).unwrap(), false)
    }

    #[test]
    fn a_registry_is_spoken_with_over_tls_and_one_of_this_machine_by_its_port() {
        for (image, base, skips, may_be_plain) in [
            ("busybox", "https://registry-1.docker.io/v2", false, false),
            ("reg.example:80/a", "https://reg.example:80/v2", false, false),
            ("localhost/a", "https://localhost/v2", true, false),
            ("localhost:443/a", "https://localhost:443/v2", true, false),
            ("localhost:80/a", "http://localhost:80/v2", false, false),
            ("localhost:5000/a", "https://localhost:5000/v2", true, true),
            ("127.0.0.2:5000/a", "https://127.0.0.2:5000/v2", true, true),
            ("[::1]:5000/a", "https://[::1]:5000/v2", true, true),
            ("[::1]/a", "https://[::1]/v2", true, false),
            ("[fd00::1]:5000/a", "https://[fd00::1]:5000/v2", false, false),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2", false, false),
            ("localhost.example:5000/a", "https://localhost.example:5000/v2", false, false),
        ] {
            let host = own(image);
            let found = (host.base.as_str(), host.trust.skips, host.may_be_plain);
            assert_eq!(found, (base, skips, may_be_plain), "{image}");
        }
        let plain = Host::own(&Reference::parse("localhost:5000/a").unwrap(), true);
        assert!(plain.trust.is_plain && plain.base.starts_with("http://"));
    }

    #[test]
    fn tls_is_left_before_who_has_none_and_where_nobody_is() {
        let refused = || Problem::Unreachable { cause: String::new() };
        let (none, bad) =
            (Problem::NoTls { cause: String::new() }, Problem::Tls { cause: String::new() });
        let at = |base: &str| Host { base: base.to_owned(), ..own("reg.example/a") };
        assert!(at("https://m.example:81/v2").is_not_secure(&none));
        assert!(!at("https://m.example/v2").is_not_secure(&bad));
        assert!(at("https://m.example/v2").is_not_secure(&refused()));
        assert!(!at("https://m.example:81/v2").is_not_secure(&refused()));
    }

    #[test]
    fn the_same_server_is_asked_without_tls_where_it_may_be() {
        let plain = own("localhost:5000/a").plain().unwrap();
        assert_eq!(plain.base, "http://localhost:5000/v2");
        assert!(plain.trust.is_plain && plain.plain().is_none());
        assert_eq!(own("reg.example:5000/a").plain(), None);
    }
}

//! The address of a server, as a `hosts.toml` names it.

use reqwest::Url;

pub(super) struct Address {
    url: Url,
    /// Whether port 80 is written out: the parser leaves out what the scheme says.
    is_at_port_80: bool,
}

impl Address {
    /// Without a scheme it is one of TLS.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let url = Url::parse(&format!("{scheme}://{rest}")).ok()?;
        let is_nobodys = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        let is_at_port_80 = rest.split('/').next().is_some_and(|host| host.ends_with(":80"));
        (is_web && is_nobodys).then_some(Self { url, is_at_port_80 })
    }

    /// What comes before a repository's name: the version of the protocol is appended, unless the address `is_whole`.
    pub(super) fn base(&self, is_whole: bool) -> String {
        let path = self.url.path().trim_end_matches('/');
        let version = if is_whole || path.ends_with("/v2") { "" } else { "/v2" };
        format!("{}{path}{version}", self.url.origin().ascii_serialization())
    }

    pub(super) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Whether it is said that it is plain.
    pub(super) fn is_at_port_80(&self) -> bool {
        self.is_at_port_80
    }

    /// Whether it is on the host and port of a registry's name.
    pub(super) fn is_of(&self, registry: &str) -> bool {
        let named = Url::parse(&format!("{}://{registry}", self.url.scheme()));
        named.is_ok_and(|named| named.origin() == self.url.origin())
    }
}

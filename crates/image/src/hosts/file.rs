//! A registry's `hosts.toml`.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::pem::{authority, identity};
use super::{Host, HostsError, Trust};
use crate::reference::Reference;
use address::Address;
use form::{Capability, Entry, Pair, Pairs, Paths, Values};

mod address;
mod form;

/// Which of them a registry wants cannot be asked beforehand.
pub(super) const SEVERAL: &str = "of several client certificates none can be chosen: name one";

/// What is wrong with a file, or with one that it names.
enum Cause {
    Bad(String),
    Read(HostsError),
}

impl From<HostsError> for Cause {
    fn from(error: HostsError) -> Self {
        Self::Read(error)
    }
}

/// The servers that a file names, in its order, and the registry's own, which is `own` unless the file says another one.
pub(super) fn hosts(
    path: &Path,
    text: &str,
    own: Host,
    reference: &Reference,
) -> Result<Vec<Host>, HostsError> {
    let bad = |cause: String| HostsError::Bad { path: path.to_owned(), cause };
    let file: Entry = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
    let folder = path.parent().unwrap_or(path);
    file.all(folder, own, reference).map_err(|cause| match cause {
        Cause::Bad(cause) => bad(cause),
        Cause::Read(error) => error,
    })
}

impl Entry {
    fn all(&self, folder: &Path, own: Host, reference: &Reference) -> Result<Vec<Host>, Cause> {
        let mut hosts = Vec::new();
        for (address, entry) in &self.host.0 {
            if entry.server.is_some() || !entry.host.0.is_empty() {
                let cause = format!("host {address:?} has no server and no hosts of its own");
                return Err(Cause::Bad(cause));
            }
            hosts.extend(entry.at(address, folder, reference)?);
        }
        // Where another server stands in for the registry, credentials for the registry are still meant for it.
        hosts.extend(match &self.server {
            Some(server) => {
                self.at(server, folder, reference)?.map(|host| Host { is_own: true, ..host })
            }
            None => {
                let trust = self.trust(folder)?;
                // That it shall be checked is also said by `skip_verify = false`.
                let own = match self.speaks_tls() && !own.trust.is_plain {
                    true => Host { trust, may_be_plain: false, ..own },
                    false => own,
                };
                self.settle(own)?
            }
        });
        Ok(hosts)
    }

    /// The server of an address, if anything may be pulled there.
    fn at(
        &self,
        address: &str,
        folder: &Path,
        reference: &Reference,
    ) -> Result<Option<Host>, Cause> {
        let bad = || Cause::Bad(format!("{address:?} is not the address of a registry"));
        let address = Address::parse(address).ok_or_else(bad)?;
        let (base, is_plain) = (address.base(self.override_path), address.is_plain());
        let is_own = address.is_of(reference.registry()) || address.is_of(reference.host());
        // Where TLS was thought of, it is tried first, unless the port says what is spoken.
        let may_be_plain = is_plain && self.speaks_tls() && !address.is_at_port_80();
        let base = match base.strip_prefix("http://").filter(|_| may_be_plain) {
            Some(rest) => format!("https://{rest}"),
            None => base,
        };
        let trust = Trust { is_plain: is_plain && !may_be_plain, ..self.trust(folder)? };
        self.settle(Host { base, trust, is_own, may_be_plain, ..Host::own(reference, false) })
    }

    fn speaks_tls(&self) -> bool {
        self.ca.is_some() || self.client.is_some() || self.skip_verify.is_some()
    }

    /// A server with what this entry says of requests to it, if anything may be pulled there.
    fn settle(&self, host: Host) -> Result<Option<Host>, Cause> {
        // An empty list is none, as with containerd.
        let can = |what| self.capabilities.is_empty() || self.capabilities.contains(&what);
        let dial = self.dial_timeout.as_deref().map(duration).transpose()?;
        let headers = self.headers()?;
        let host = Host { resolves: can(Capability::Resolve), dial, headers, ..host };
        Ok(can(Capability::Pull).then_some(host))
    }

    fn trust(&self, folder: &Path) -> Result<Trust, Cause> {
        let authorities = match &self.ca {
            None => Vec::new(),
            Some(Paths::One(path)) => vec![authority(&folder.join(path))?],
            Some(Paths::Many(paths)) => {
                let read = |path| authority(&folder.join(path));
                paths.iter().map(read).collect::<Result<_, _>>()?
            }
        };
        let skips = self.skip_verify == Some(true);
        Ok(Trust { is_plain: false, skips, authorities, identity: self.identity(folder)? })
    }

    fn identity(&self, folder: &Path) -> Result<Option<Vec<u8>>, Cause> {
        let (certificate, key) = match &self.client {
            None => return Ok(None),
            Some(Pairs::One(path)) => (path, None),
            Some(Pairs::Many(pairs)) => match pairs.as_slice() {
                [] => return Ok(None),
                [Pair::Both(path)] => (path, None),
                // An empty name of a key: it is in the same file.
                [Pair::Apart([certificate, key])] => {
                    (certificate, Some(key).filter(|key| !key.as_os_str().is_empty()))
                }
                _ => return Err(Cause::Bad(format!("client: {SEVERAL}"))),
            },
        };
        let key = key.map(|key| folder.join(key));
        Ok(Some(identity(&folder.join(certificate), key.as_deref())?))
    }

    /// They may hold a password, and are not shown.
    fn headers(&self) -> Result<HeaderMap, Cause> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.header {
            let bad = || Cause::Bad(format!("header {name:?} is none of HTTP"));
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Many(values) => values,
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            for value in values {
                let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
                value.set_sensitive(true);
                headers.append(&name, value);
            }
        }
        Ok(headers)
    }
}

/// A duration as Go writes it: `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, Cause> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let parsed = parsed.and_then(|parsed| Duration::try_from(parsed).ok());
    let parsed = parsed.filter(|parsed| !parsed.is_zero());
    parsed.ok_or_else(|| Cause::Bad(format!("dial_timeout {text:?} is no time, such as \"10s\"")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::LazyLock;

    use super::super::pem::tests::pem;
    use super::*;

    struct Pem {
        ca: String,
        certificate: String,
        key: String,
        both: String,
    }

    /// The same in all tests, so that it can be compared.
    fn pems() -> &'static Pem {
        static PEMS: LazyLock<Pem> = LazyLock::new(|| {
            let ((certificate, key), (ca, _)) = (pem(), pem());
            let both = format!("{certificate}{key}");
            Pem { ca, certificate, key, both }
        });
        &PEMS
    }

    fn found_for(image: &str, file: &str) -> Result<Vec<Host>, String> {
        let folder = tempfile::tempdir().unwrap();
        let Pem { ca, certificate, key, both } = pems();
        for (name, content) in
            [("ca.pem", ca), ("b.pem", both), ("me.cert", certificate), ("me.key", key)]
        {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let image = Reference::parse(image).unwrap();
        let path = folder.path().join("hosts.toml");
        let own = Host::own(&image, false);
        hosts(&path, file, own, &image).map_err(|error| error.to_string())
    }

    fn found(file: &str) -> Result<Vec<Host>, String> {
        found_for("reg.example:5000/team/app:1", file)
    }

    fn shown(hosts: &[Host]) -> Vec<(&str, bool, bool)> {
        hosts.iter().map(|host| (host.base.as_str(), host.resolves, host.is_own)).collect()
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let hosts = found(
            r#"
            server = "https://upstream.example"
            [host."https://z.example/prefix"]
              capabilities = ["pull", "Resolve"]
            [host."http://a.example:81/whole/v2"]
              capabilities = ["pull"]
              override_path = true
            [host."https://b.example/whole"]
              override_path = true
            [host."push.example"]
              capabilities = ["push"]
            [host."reg.example:5000"]
              capabilities = []
            "#,
        )
        .unwrap();
        let expected = [
            ("https://z.example/prefix/v2", true, false),
            ("http://a.example:81/whole/v2", false, false),
            ("https://b.example/whole", true, false),
            ("https://reg.example:5000/v2", true, true),
            ("https://upstream.example/v2", true, true),
        ];
        assert_eq!(shown(&hosts), expected);
        assert!(hosts[1].trust.is_plain && !hosts[2].trust.is_plain);
    }

    #[test]
    fn a_file_that_says_nothing_leaves_the_registry_as_it_is() {
        for image in ["reg.example:5000/app", "localhost:5000/app", "busybox"] {
            let own = Host::own(&Reference::parse(image).unwrap(), false);
            assert_eq!(found_for(image, "").unwrap(), [own]);
        }
    }

    #[test]
    fn what_the_whole_file_says_is_of_the_registrys_own_server() {
        for file in ["", "server = \"https://upstream.example\"\n"] {
            let all = "skip_verify = true\nca = \"ca.pem\"\nclient = \"b.pem\"\ndial_timeout = \"3s\"\n\
                       capabilities = [\"pull\"]\n[header]\nx-a = \"b\"\n[host.\"https://z.example\"]\n";
            let hosts = found(&format!("{file}{all}")).unwrap();
            assert_eq!((hosts[0].trust.skips, hosts[0].resolves), (false, true));
            let own = &hosts[1];
            assert!(own.is_own && own.trust.skips && !own.resolves);
            assert_eq!(own.trust.authorities, [pems().ca.clone().into_bytes()]);
            assert_eq!(own.trust.identity.as_deref(), Some(pems().both.as_bytes()));
            assert_eq!(own.dial, Some(Duration::from_secs(3)));
            assert_eq!(own.headers["x-a"], "b");
        }
        assert!(found("capabilities = [\"push\"]").unwrap().is_empty());
    }

    #[test]
    fn files_are_named_alone_or_in_lists_from_the_files_own_folder() {
        let trust = |file: &str| found(file).unwrap().remove(0).trust;
        let Pem { ca, certificate, key, both } = pems();
        let apart = format!("{certificate}\n{key}");
        assert_eq!(trust("ca = \"ca.pem\"").authorities, [ca.as_bytes()]);
        assert_eq!(
            trust("ca = [\"ca.pem\", \"b.pem\"]").authorities,
            [ca.as_bytes(), both.as_bytes()]
        );
        for (client, pem) in [
            ("\"b.pem\"", Some(both)),
            ("[\"b.pem\"]", Some(both)),
            ("[[\"me.cert\", \"me.key\"]]", Some(&apart)),
            ("[[\"b.pem\", \"\"]]", Some(both)),
            ("[]", None),
        ] {
            let identity = trust(&format!("client = {client}")).identity;
            assert_eq!(identity.as_deref(), pem.map(String::as_bytes), "{client}");
        }
    }

    #[test]
    fn tls_is_tried_first_where_it_was_thought_of() {
        let first = |file: &str| {
            let host = found(file).unwrap().remove(0);
            let plain = host.plain().map(|plain| plain.base);
            (host.base, host.trust.is_plain, plain)
        };
        let plain = |base: &str| (base.to_owned(), true, None);
        let secure =
            |base: &str, plain: Option<&str>| (base.to_owned(), false, plain.map(str::to_owned));
        for (address, says, expected) in [
            ("http://m.example", "", plain("http://m.example/v2")),
            (
                "http://m.example:81/a",
                "skip_verify = true",
                secure("https://m.example:81/a/v2", Some("http://m.example:81/a/v2")),
            ),
            (
                "http://m.example",
                "ca = \"ca.pem\"",
                secure("https://m.example/v2", Some("http://m.example/v2")),
            ),
            (
                "http://m.example",
                "client = \"b.pem\"",
                secure("https://m.example/v2", Some("http://m.example/v2")),
            ),
            ("http://m.example:80", "skip_verify = false", plain("http://m.example/v2")),
            ("https://m.example", "ca = \"ca.pem\"", secure("https://m.example/v2", None)),
            ("m.example:80", "", secure("https://m.example:80/v2", None)),
        ] {
            assert_eq!(first(&format!("[host.\"{address}\"]\n{says}")), expected, "{address}");
            let server = first(&format!("server = \"{address}\"\n{says}"));
            assert_eq!(server, expected, "server {address}");
        }
    }

    #[test]
    fn a_registry_of_this_machine_is_checked_where_the_file_says_how() {
        let own = |file: &str| found_for("localhost:5000/app", file).unwrap().remove(0);
        let host = own("");
        assert!(host.trust.skips && host.may_be_plain);
        for file in
            ["skip_verify = false", "ca = \"ca.pem\"", "server = \"https://localhost:5000\""]
        {
            let host = own(file);
            assert!(!host.trust.skips && !host.may_be_plain, "{file}");
        }
    }

    #[test]
    fn headers_have_one_value_or_several_which_are_not_shown() {
        let host = found("[header]\nx-a = [\"1\", \"2\"]\nAuthorization = \"Basic x\"").unwrap();
        let values: Vec<_> = host[0].headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(host[0].headers["authorization"], "Basic x");
        assert!(!format!("{host:?}").contains("Basic"));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_the_file() {
        for (file, word) in [
            ("server = 5", "invalid type"),
            ("sever = 5", "unknown field `sever`"),
            ("[host.\"https://a\"]\nproxy = \"y\"", "unknown field `proxy`"),
            ("[host.\"https://a\"]\nserver = \"https://b\"", "has no server"),
            ("capabilities = [\"pul\"]", "unknown capability \"pul\""),
            ("server = \"ftp://a\"", "not the address"),
            ("server = \"https://user@a\"", "not the address"),
            ("ca = \"none.pem\"", "none.pem"),
            ("client = [[\"me.cert\", \"none.key\"]]", "none.key"),
            ("client = [\"b.pem\", \"ca.pem\"]", "name one"),
            ("client = \"me.cert\"", "me.cert: holds no certificate"),
            ("ca = \"me.key\"", "me.key: holds no certificate"),
            ("dial_timeout = \"0s\"", "dial_timeout \"0s\""),
            ("dial_timeout = \"soon\"", "dial_timeout \"soon\""),
            ("dial_timeout = \"-1s\"", "dial_timeout \"-1s\""),
            ("[header]\n\"x y\" = \"1\"", "header \"x y\""),
            ("[header]\nx = \"a\\nb\"", "header \"x\""),
        ] {
            let error = found(file).unwrap_err();
            let names_it = ["hosts.toml", "none.", "me."].iter().any(|name| error.contains(name));
            assert!(error.contains(word) && names_it, "{error}");
        }
    }
}

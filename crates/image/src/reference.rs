//! Names of images: `registry/repository:tag@digest`.

use std::fmt;
use std::net::Ipv6Addr;

use oci_spec::distribution::{ParseError, Reference as Oci};

use crate::digest::Digest;

/// The name of an image, normalised: `busybox` is `docker.io/library/busybox:latest`.
///
/// With a digest, the digest says what is meant; a tag beside it is only shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    oci: Oci,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads an image name as users write it.
    ///
    /// # Errors
    /// [`InvalidReference`] says what is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |cause| InvalidReference { text: shown(text), cause };
        let oci = read(text).map_err(|error| invalid(cause(text, &error)))?;
        // The parser takes `User` of `User/app` for a host, of which it may be a part, and then not for one.
        if is_upper(oci.repository()) {
            return Err(invalid(UPPER));
        }
        let digest = match oci.digest() {
            Some(digest) => Some(Digest::parse(digest).ok_or_else(|| invalid(BAD_DIGEST))?),
            None => None,
        };
        Ok(Self { oci, digest })
    }

    /// The registry's host and, where it was given, port.
    pub fn registry(&self) -> &str {
        self.oci.registry()
    }

    /// The path of the repository in its registry.
    pub fn repository(&self) -> &str {
        self.oci.repository()
    }

    /// The tag; `latest` if the name had neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.oci.tag()
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }

    /// The host that answers for the registry: Docker Hub's is another than its name.
    pub(crate) fn host(&self) -> &str {
        match self.registry() {
            "docker.io" => "registry-1.docker.io",
            registry => registry,
        }
    }

    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub(crate) fn target(&self) -> &str {
        self.oci.digest().or(self.oci.tag()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.oci.fmt(f)
    }
}

/// Reads a name. The parser knows no registries that are addresses of IPv6, which the grammar of `distribution/reference` has.
fn read(text: &str) -> Result<Oci, ParseError> {
    let Some((address, rest)) = ipv6(text) else { return Oci::try_from(text) };
    let oci = Oci::try_from(format!("{STAND_IN}{rest}"))?;
    let registry = oci.registry().replacen(STAND_IN, address, 1);
    let (repository, digest) = (oci.repository().to_owned(), oci.digest().map(str::to_owned));
    Ok(match (oci.tag().map(str::to_owned), digest) {
        (Some(tag), Some(digest)) => Oci::with_tag_and_digest(registry, repository, tag, digest),
        (None, Some(digest)) => Oci::with_digest(registry, repository, digest),
        (tag, None) => Oci::with_tag(registry, repository, tag.unwrap_or_else(|| "latest".into())),
    })
}

/// What is a host for the parser.
const STAND_IN: &str = "localhost";

/// The address that a name begins with, in its brackets, and the rest.
fn ipv6(text: &str) -> Option<(&str, &str)> {
    let (address, rest) = text.split_at(text.find(']')? + 1);
    let (port, _) = rest.split_once('/')?;
    let is_host = address.starts_with('[') && unbracketed(address).parse::<Ipv6Addr>().is_ok();
    (is_host && (port.is_empty() || port.starts_with(':'))).then_some((address, rest))
}

/// Host and port of a registry's name; the port is empty where there is none.
pub(crate) fn split_port(registry: &str) -> (&str, &str) {
    let parts = registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    parts.unwrap_or((registry, ""))
}

/// A host as an address is written alone: one of IPv6 has brackets in the name of a registry.
pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A text that is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {text:?}: {cause}")]
pub struct InvalidReference {
    text: String,
    cause: &'static str,
}

impl InvalidReference {
    /// The `reason` of a container that waits because of this.
    pub fn reason(&self) -> &'static str {
        "InvalidImageName"
    }
}

const UPPER: &str = "the repository must be lower-case";
const BAD_DIGEST: &str = "a digest is `sha256:` and 64 lower-case hex digits";

/// Names the mistake: the parser's own words for most of them are "invalid format".
fn cause(text: &str, error: &ParseError) -> &'static str {
    let (name, digest) =
        text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    let is_bad_digest = digest.is_some_and(|digest| Digest::parse(digest).is_none());
    match () {
        () if text.trim().is_empty() => "it is empty",
        () if text.contains("://") => "a name has no scheme such as https://",
        () if text.contains(char::is_whitespace) => "there is a space in it",
        () if *error == ParseError::NameTooLong => "the repository is longer than 255 characters",
        () if is_bad_digest => BAD_DIGEST,
        () if is_upper(untagged(path)) => UPPER,
        () => "it is not of the form registry/repository:tag or registry/repository@sha256:digest",
    }
}

fn is_upper(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_uppercase())
}

fn untagged(path: &str) -> &str {
    path.rsplit_once(':').map_or(path, |(repository, _)| repository)
}

/// A name goes into events and statuses: no more of it than can be read.
fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_is_left_out_gets_its_default() {
        for (text, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("user/app:1", "docker.io/user/app:1"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("ghcr.io/o/app", "ghcr.io/o/app:latest"),
            ("localhost/app:v2", "localhost/app:v2"),
            ("127.0.0.1:5000/a/b/c:X-y_z.1", "127.0.0.1:5000/a/b/c:X-y_z.1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[2001:db8::1]/team/app:1", "[2001:db8::1]/team/app:1"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn a_digest_decides_and_a_tag_beside_it_is_kept() {
        let reference = Reference::parse(&format!("ghcr.io/o/app:1@sha256:{HEX}")).unwrap();
        assert_eq!(reference.target(), format!("sha256:{HEX}"));
        assert_eq!(reference.tag(), Some("1"));
        assert_eq!(Reference::parse(&format!("app@sha256:{HEX}")).unwrap().tag(), None);
        for text in [format!("[::1]/a@sha256:{HEX}"), format!("[::1]:5000/a:1@sha256:{HEX}")] {
            let reference = Reference::parse(&text).unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.target(), format!("sha256:{HEX}"));
        }
    }

    #[test]
    fn a_bad_name_is_refused_with_its_mistake() {
        let upper = format!("app@sha256:{}", HEX.to_uppercase());
        let long = format!("ghcr.io/{}", "a/".repeat(130) + "a");
        for (text, cause) in [
            ("", "empty"),
            ("  ", "empty"),
            ("https://ghcr.io/o/app", "no scheme"),
            ("ghcr.io/o/my app", "space"),
            ("ghcr.io/o/App:1", "lower-case"),
            ("App", "lower-case"),
            ("User/app", "lower-case"),
            ("app@sha256:12", "64 lower-case hex"),
            (&format!("app@sha512:{HEX}{HEX}"), "64 lower-case hex"),
            (&upper, "64 lower-case hex"),
            ("ghcr.io/../../etc/passwd", "not of the form"),
            ("app:", "not of the form"),
            ("[::1]", "not of the form"),
            ("[::1]app", "not of the form"),
            ("[::1]:5000", "not of the form"),
            ("[::1/app", "not of the form"),
            ("[fe80::1%eth0]/app", "not of the form"),
            ("[reg.example]/app", "not of the form"),
            ("[::1]/App", "lower-case"),
            ("/app", "not of the form"),
            (&long, "longer than 255"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.to_string().contains(cause), "{text:?}: {error}");
            assert_eq!(error.reason(), "InvalidImageName");
        }
    }

    #[test]
    fn a_registry_has_a_host_and_may_have_a_port() {
        for (registry, host, port) in [
            ("reg.example", "reg.example", ""),
            ("reg.example:5000", "reg.example", "5000"),
            ("[::1]", "[::1]", ""),
            ("[::1]:5000", "[::1]", "5000"),
        ] {
            assert_eq!(split_port(registry), (host, port));
        }
        assert_eq!((unbracketed("[::1]"), unbracketed("a")), ("::1", "a"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,60}") {
            let _ = Reference::parse(&text);
        }

        /// Names become paths below `refs/`: no component may leave that folder.
        #[test]
        fn no_part_of_a_name_climbs(text in "(\\[::1\\])?[a-z0-9./:@_-]{1,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let name = reference.name();
                for part in name.split('/') {
                    prop_assert!(!part.is_empty() && !part.starts_with(['.', '_', '-']), "{name}");
                }
                prop_assert!(!reference.target().contains('/'));
            }
        }

        #[test]
        fn a_normalised_name_is_its_own_normal_form(
            registry in "(ghcr\\.io|localhost:5000|docker\\.io|a-b\\.example:1|\\[::1\\](:1)?)",
            path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        ) {
            let once = Reference::parse(&format!("{registry}/{path}{tag}")).unwrap();
            let twice = Reference::parse(&once.to_string()).unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}

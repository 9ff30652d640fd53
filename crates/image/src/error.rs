//! What goes wrong in a pull, in words that the owner of a pod can act on.

use std::time::Duration;

use crate::hosts::HostsError;
use crate::reference::Reference;
use crate::store::StoreError;
use crate::stranger::Stranger;
use crate::tree::LayerError;
use crate::wasm;

/// A pull that did not succeed. Its text names the image, the registry, what happened and
/// what can be done: it is shown in the pod's status.
#[derive(Debug, thiserror::Error)]
#[error("pull {image} from registry {registry}: {problem}; {}{}", .problem.remedy(), told(.earlier))]
pub struct PullError {
    image: String,
    registry: String,
    problem: Problem,
    /// What the registry answered to the credentials that were tried before.
    earlier: Vec<Problem>,
}

impl PullError {
    pub(crate) fn new(image: &Reference, problem: Problem, earlier: Vec<Problem>) -> Self {
        let (registry, image) = (image.registry().to_owned(), image.to_string());
        Self { image, registry, problem, earlier }
    }

    /// Whether nobody was asked, because this node has pulled too many images of late (`registryPullQPS`).
    pub fn is_throttled(&self) -> bool {
        matches!(self.problem, Problem::TooOften)
    }

    /// The `reason` of a container that waits because of this, in the kubelet's words.
    pub fn reason(&self) -> &'static str {
        if self.problem.is_unreachable() { "RegistryUnavailable" } else { "ErrImagePull" }
    }
}

fn seconds(time: &Duration) -> String {
    format!("{} s", time.as_secs())
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!(" (before that: {problem})")).collect()
}

/// What happened. The image and the registry are named by [`PullError`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("there is no such image: {answer}")]
    Unknown { answer: String },
    #[error("access denied to {who}: {answer}")]
    Denied { who: String, answer: String },
    #[error("the registry asks for the password over {realm}, which is not encrypted")]
    InsecureRealm { realm: String },
    #[error("the registry asks for a token from {realm:?}, which is no address of a service")]
    BadRealm { realm: String },
    /// Met not with the registry but with the service that the registry sends to for a token.
    #[error("token service {host}: {problem}")]
    TokenService { host: String, problem: Box<Problem> },
    #[error("not able to answer now: {answer}")]
    Busy { answer: String, after: Option<Duration> },
    #[error("unexpected answer: {answer}")]
    Unexpected { answer: String },
    #[error("cannot connect: {cause}")]
    Unreachable { cause: String },
    #[error("cannot find the registry's address: {cause}")]
    Name { cause: String },
    #[error("no trusted TLS connection: {cause}")]
    Tls { cause: String },
    /// What came instead of it was no TLS at all.
    #[error("no trusted TLS connection: {cause}")]
    NoTls { cause: String },
    #[error("refused to follow a redirect: {cause}")]
    Redirect { cause: String },
    #[error("the connection broke: {cause}")]
    Broken { cause: String },
    #[error("{what} did not arrive within {within:?}")]
    Stalled { what: &'static str, within: Duration },
    #[error("nothing of the image came within {within:?}, whoever was asked")]
    Silent { within: Duration },
    #[error("{what} comes too slowly: {got} bytes in {}", seconds(.within))]
    TooSlow { what: &'static str, got: u64, within: Duration },
    #[error("{what} was cut off after {got} of {size} bytes ({cause})")]
    Cut { what: &'static str, got: u64, size: u64, cause: String },
    #[error("{what} is longer than the {size} bytes that the manifest says")]
    TooLong { what: &'static str, size: u64 },
    #[error("{what} has {got} bytes, the manifest says {size}")]
    TooShort { what: &'static str, got: u64, size: u64 },
    #[error("{what} has digest {got}, expected {expected}")]
    WrongDigest { what: &'static str, expected: String, got: String },
    #[error("{what} has {size} bytes, more than the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("{what} is malformed: {cause}")]
    Malformed { what: &'static str, cause: String },
    #[error("this is {}: configuration {config:?}, layers {layers:?}", .found.what())]
    NotWasm { found: Stranger, config: String, layers: Vec<String> },
    #[error("layer {number} of the image: {cause}")]
    Layer { number: usize, cause: LayerError },
    #[error("layer {number} of the artifact: {cause}")]
    Title { number: usize, cause: LayerError },
    #[error("the image has {count} layers, more than the limit of {limit}")]
    TooManyLayers { count: usize, limit: usize },
    #[error("the index has no entry for Wasm, only {}", .platforms.join(", "))]
    NoPlatform { platforms: Vec<String> },
    #[error("the Wasm layer holds {found}")]
    NotWasmInside { found: &'static str },
    #[error("mirror {mirror}: {problem}")]
    Mirror { mirror: String, problem: Box<Problem> },
    /// In the kubelet's words.
    #[error("pull QPS exceeded")]
    TooOften,
    #[error("no server may be asked for it")]
    Nobody,
    #[error("no TLS: {cause}")]
    NoClient { cause: String },
    #[error(transparent)]
    Hosts(#[from] HostsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Problem {
    /// What was met, with whomever.
    pub(crate) fn itself(&self) -> &Self {
        if let Self::TokenService { problem, .. } | Self::Mirror { problem, .. } = self {
            problem.itself()
        } else {
            self
        }
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self.itself(), Self::Unreachable { .. } | Self::Name { .. })
    }

    pub(crate) fn speaks_no_tls(&self) -> bool {
        matches!(self, Self::NoTls { .. })
    }

    /// Whether another credential may get another answer: registries also say 404 to those who may not know, 400 to what
    /// is no password of theirs, and 429 to an account that asked too often.
    pub(crate) fn is_answer_to_the_credential(&self) -> bool {
        matches!(
            self.itself(),
            Self::Unknown { .. }
                | Self::Denied { .. }
                | Self::Busy { .. }
                | Self::Unexpected { .. }
        )
    }

    /// Whether the same request may succeed later: nothing is wrong with what was asked.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self.itself(),
            Self::Busy { .. }
                | Self::Unreachable { .. }
                | Self::Name { .. }
                | Self::Broken { .. }
                | Self::Stalled { .. }
                | Self::Silent { .. }
                | Self::TooSlow { .. }
                | Self::Cut { .. }
        )
    }

    /// Whether the remedy is the same for a registry and a token service.
    fn is_of_no_one_server(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::Busy { .. } | Self::Tls { .. } | Self::NoTls { .. }
        )
    }

    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "check the name and the tag; for a private image check imagePullSecrets too"
            }
            Self::Denied { .. } => "check the user name and password in the pod's imagePullSecrets",
            Self::TokenService { problem, .. } if problem.is_of_no_one_server() => problem.remedy(),
            Self::TokenService { .. } => "check the token service that the registry sends to",
            Self::BadRealm { .. } => "check the registry's configuration of token authentication",
            Self::InsecureRealm { .. } => "the registry's token service must use https",
            Self::Busy { .. } => "it will be asked again",
            Self::TooOften => {
                "it will be pulled later; registryPullQPS and registryBurst of this node say how often"
            }
            Self::Unreachable { .. } => {
                "check that the registry runs and that this node reaches it"
            }
            Self::Name { .. } => "check the registry's name and this node's DNS",
            Self::Tls { .. } | Self::NoTls { .. } => {
                "install the registry's CA on this node; if it speaks plain HTTP, list it as \
                 a plain-HTTP registry in the node's configuration"
            }
            Self::Stalled { .. }
            | Self::Silent { .. }
            | Self::TooSlow { .. }
            | Self::Cut { .. }
            | Self::Broken { .. } => "check the network between this node and the registry",
            Self::TooLong { .. }
            | Self::TooShort { .. }
            | Self::WrongDigest { .. }
            | Self::Malformed { .. } => "the content was thrown away; push the image again",
            Self::TooLarge { .. } | Self::TooManyLayers { .. } => "make it smaller",
            Self::Layer {
                cause: LayerError::TooLarge { .. } | LayerError::TooMany { .. }, ..
            } => "make it smaller",
            Self::Layer { .. } => "the layer was thrown away; build and push the image again",
            Self::Title { .. } => {
                "push it with names of files within one folder (annotation org.opencontainers.image.title)"
            }
            Self::NotWasm { found, .. } => found.instead(),
            Self::NotWasmInside { .. } => wasm::INSTEAD,
            Self::NoPlatform { .. } => {
                "this node runs WebAssembly: build the image for the platform wasi/wasm, too"
            }
            Self::Mirror { problem, .. } => problem.remedy(),
            Self::Nobody | Self::Hosts(_) => "check the hosts.toml of this registry on this node",
            Self::NoClient { .. } => {
                "install CA certificates on this node, for example the package ca-certificates, and check those that hosts.toml names"
            }
            Self::Store(_) => "check the disk of this node",
            Self::Unexpected { .. } | Self::Redirect { .. } => "check that this is a registry",
        }
    }
}

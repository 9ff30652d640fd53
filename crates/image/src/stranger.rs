//! What is found in registries and cannot be run here: what it is, and what to do instead.

/// Something that is no program for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    Spin,
    Helm,
    Linux,
    Encrypted,
    Empty,
    ArtifactLayers,
    LegacyLayers,
    ManyWasmLayers,
    StrangeLayer,
    Unknown,
}

impl Stranger {
    /// After "this is".
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Spin => "a Spin application, which needs a Spin host",
            Self::Helm => "a Helm chart",
            Self::Linux => "a Linux container image whose program is native code",
            Self::Encrypted => "an image with encrypted layers",
            Self::Empty => "an artifact without layers",
            Self::ArtifactLayers => "a Wasm artifact whose layers are not one of application/wasm",
            Self::LegacyLayers => "a Wasm artifact without exactly one Wasm layer",
            Self::ManyWasmLayers => "an image with more than one Wasm layer",
            Self::StrangeLayer => "an image with a layer of a kind that is not known here",
            Self::Unknown => "an artifact of a kind that is not known here",
        }
    }

    /// After a semicolon.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Self::Spin => {
                "run it on nodes with SpinKube's shim, or push its component alone with `wkg oci push`"
            }
            Self::Helm => {
                "install it with `helm install`; the pod needs the image that the chart names"
            }
            Self::Linux => {
                "this node runs WebAssembly: build the image for the platform wasi/wasm, or run \
                 the pod on a Linux node"
            }
            Self::Encrypted => "push the image without encryption",
            Self::ManyWasmLayers | Self::ArtifactLayers | Self::LegacyLayers => {
                "push each program as an image of its own, or compose components before the push"
            }
            Self::Empty | Self::StrangeLayer | Self::Unknown => {
                "this node runs WebAssembly: push a Wasm artifact, for example with `wkg oci push`"
            }
        }
    }
}

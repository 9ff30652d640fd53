use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::local::{Form, Place, Places};

/// Looks at and changes the images of this machine.
///
/// They are those of this machine's node, for root where there is one; else those of nodule run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The images of this machine's node, wherever --root-dir and --run-dir say that its agent has them.
    /// [default: /var/lib/nodule, /run/nodule]
    #[arg(long, global = true, conflicts_with = "local")]
    pub(crate) node: bool,

    /// The images of nodule run, on a node too.
    #[arg(long, global = true)]
    pub(crate) local: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Where the images are that are meant. A folder that is named is not the node's unless that is said, too.
    pub(super) fn place(&self, places: &Places) -> Result<Place> {
        let is_default = places.root_dir.is_none() && !self.local;
        if self.node || is_default && Place::is_node() {
            return Place::of_node(places);
        }
        Place::new(places)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Downloads images.
    ///
    /// Credentials are those of docker login or podman login.
    Pull(Pull),
    /// Lists the images.
    Ls(Ls),
    /// Shows what images are: kind, WASI version, imports, exports, and whether this machine can run them.
    Inspect(Inspect),
    /// Removes images that no pod uses.
    ///
    /// A name with a tag goes alone as long as the image has others; a digest means the image with all its names.
    Rm(Rm),
    /// Removes all images without a tag that no pod uses.
    Prune(Prune),
    /// Takes up images from files: Wasm binaries, folders in the form of the OCI image layout, and archives (tar) of those or
    /// of docker save.
    ///
    /// Pods use them by their names with the pull policy IfNotPresent or Never.
    Import(Import),
    /// Pushes a Wasm binary to a registry, as the CNCF's Wasm OCI artifact.
    ///
    /// Credentials are those of docker login or podman login.
    Push(Push),
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Images, such as registry.example.com/team/app:v1.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The form of the list. An image without a name is called by its digest.
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Images, by name or by the beginning of the digest (sha256:...).
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,

    /// The form of the answer.
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Shape::Text)]
    pub(crate) output: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// For people.
    Text,
    /// An array.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Images, by name or by the beginning of the digest (sha256:...).
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Images with tags, too.
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files and folders; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The name of the image, where there is one. [default: its own, or localhost/FILE:latest]
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The Wasm binary.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Where to, such as registry.example.com/team/app:v1.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,

    /// Speak plain HTTP with the registry.
    #[arg(long)]
    pub(crate) plain_http: bool,
}

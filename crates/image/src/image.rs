//! An image that is on this node.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::classify::Packaging;
use crate::digest::Digest;
use crate::holds::Hold;
use crate::manifest::Execution;
use crate::program::Program;
use crate::reference::Reference;
use crate::store::Store;
use crate::volume::Purpose;
use crate::wasm::Kind;

/// An image whose content is on this node, verified.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name by which it was asked for.
    pub reference: Reference,
    /// `sha256:…` of what the name resolved to: a manifest, or the index above it.
    pub digest: String,
    /// Bytes of all its content: manifests, configuration, layers.
    pub size: u64,
    /// How it is packaged.
    pub packaging: Packaging,
    /// The program, where the image is one and not many files.
    pub program: Option<Program>,
    /// The image's files, where it has any, or those of the volume if it was wanted for one: a folder that is shared by all
    /// who use them, and never changed.
    pub root: Option<PathBuf>,
    /// How the image wants to be run.
    pub config: Settings,
    /// The file name that the Wasm binary was pushed with.
    pub title: Option<String>,
    /// The digest, as the store has it.
    pub(crate) top: Digest,
    /// As long as somebody has this, the image is not removed.
    pub(crate) _hold: Hold,
}

/// How an image wants to be run. Empty for artifacts, which have no such wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The image's `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// The image's `Cmd`.
    pub cmd: Vec<String>,
    /// The image's environment, in order.
    pub env: Vec<(String, String)>,
    /// The image's `WorkingDir`.
    pub working_dir: Option<String>,
    /// The image's `User`.
    pub user: Option<String>,
}

impl Image {
    /// `registry/repository@sha256:…`: the `imageID` of a container's status.
    pub fn id(&self) -> String {
        format!("{}@{}", self.reference.name(), self.digest)
    }

    /// The arguments of a program that runs this image in a container with these `command`
    /// and `args`. Its name, the first, is always there.
    ///
    /// An image with a configuration follows Kubernetes' rules: `command` replaces the image's
    /// entrypoint and arguments, `args` replaces the arguments. An artifact has nothing to
    /// replace: without a `command` the name is its file's, or its repository's last part.
    pub fn argv(&self, command: &[String], args: &[String]) -> Vec<String> {
        let (entrypoint, args) = match (command, args) {
            ([], []) => (&*self.config.entrypoint, &*self.config.cmd),
            ([], args) => (&*self.config.entrypoint, args),
            (command, args) => (command, args),
        };
        let is_nameless = entrypoint.is_empty() && (!self.packaging.is_image() || args.is_empty());
        let name = is_nameless.then(|| self.name());
        name.into_iter().chain(entrypoint.iter().chain(args).cloned()).collect()
    }

    fn name(&self) -> String {
        let repository = self.reference.repository();
        let last = repository.rsplit('/').next().unwrap_or(repository);
        self.title.clone().unwrap_or_else(|| last.to_owned())
    }
}

impl From<Execution> for Settings {
    fn from(execution: Execution) -> Self {
        let pair = |line: String| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (line, String::new()),
        };
        let filled = |text: &String| !text.is_empty();
        Self {
            entrypoint: execution.entrypoint.unwrap_or_default(),
            cmd: execution.cmd.unwrap_or_default(),
            env: execution.env.unwrap_or_default().into_iter().map(pair).collect(),
            working_dir: execution.working_dir.filter(filled),
            user: execution.user.filter(filled),
        }
    }
}

/// What the store keeps of an image: everything but the names that lead to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What names resolve to; the record's own name.
    pub(crate) digest: Digest,
    /// The manifest in use: another only if `digest` is an index.
    pub(crate) manifest: Digest,
    pub(crate) packaging: Packaging,
    /// The program, where it is a blob of its own.
    pub(crate) wasm: Option<Wasm>,
    /// The chain of the layers of files.
    pub(crate) tree: Option<Digest>,
    /// The tree of its files as a volume, where one was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<Digest>,
    pub(crate) settings: Settings,
    pub(crate) title: Option<String>,
    /// All content, each blob once.
    pub(crate) blobs: Vec<Blob>,
}

/// A program that is a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wasm {
    pub(crate) digest: Digest,
    pub(crate) kind: Kind,
}

/// Content of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What a pull has so far: all content of an image, and that it is not removed before something refers to it.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) holds: Vec<Hold>,
}

impl Record {
    /// Of an image of which only that is known.
    pub(crate) fn empty(digest: &Digest, packaging: Packaging) -> Self {
        Self {
            digest: digest.clone(),
            manifest: digest.clone(),
            packaging,
            wasm: None,
            tree: None,
            volume: None,
            settings: Settings::default(),
            title: None,
            blobs: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// The tree of its files as a volume. Of an ordinary image it is the one that containers have.
    pub(crate) fn files(&self) -> Option<&Digest> {
        let own = self.tree.as_ref().filter(|_| self.packaging == Packaging::Root);
        self.volume.as_ref().or(own)
    }

    /// Whether all is here that is wanted.
    pub(crate) fn serves(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Run => self.packaging != Packaging::Files,
            Purpose::Mount => self.files().is_some(),
        }
    }

    /// Adds what is known of the same image for another purpose.
    pub(crate) fn join(mut self, known: Self) -> Self {
        self.volume = self.volume.or(known.volume.clone());
        let blobs = known.blobs.iter().chain(&self.blobs).cloned();
        let blobs = blobs.map(|blob| (blob.digest.to_string(), blob)).collect::<BTreeMap<_, _>>();
        let blobs = blobs.into_values().collect();
        match self.packaging == Packaging::Files {
            true => Self { volume: self.volume, blobs, ..known },
            false => Self { blobs, ..self },
        }
    }

    /// The image as a volume: no program, and all its files.
    pub(crate) fn mounted(self, reference: &Reference, store: &Store, hold: Hold) -> Image {
        let tree = self.files().cloned();
        Self { wasm: None, tree, ..self }.image(reference, store, hold)
    }

    pub(crate) fn image(self, reference: &Reference, store: &Store, hold: Hold) -> Image {
        let program = |wasm: Wasm| Program::new(store.blob(&wasm.digest), wasm.digest, wasm.kind);
        Image {
            reference: reference.clone(),
            digest: self.digest.to_string(),
            top: self.digest.clone(),
            size: self.size(),
            packaging: self.packaging,
            program: self.wasm.clone().map(program),
            root: self.tree.as_ref().map(|chain| store.tree(chain)),
            config: self.settings,
            title: self.title,
            _hold: hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holds::Holds;

    fn image(packaging: Packaging, settings: Settings, title: Option<&str>) -> Image {
        Image {
            reference: Reference::parse("ghcr.io/team/app:1").unwrap(),
            digest: Digest::of(b"").to_string(),
            top: Digest::of(b""),
            size: 0,
            packaging,
            program: None,
            root: None,
            config: settings,
            title: title.map(str::to_owned),
            _hold: Holds::default().hold(PathBuf::new()),
        }
    }

    fn argv(image: &Image, command: &str, args: &str) -> String {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        image.argv(&words(command), &words(args)).join(" ")
    }

    #[test]
    fn an_artifact_is_named_by_command_title_or_repository() {
        let titled = image(Packaging::Artifact, Settings::default(), Some("hello.wasm"));
        let plain = image(Packaging::Legacy, Settings::default(), None);
        assert_eq!(argv(&titled, "", "a b"), "hello.wasm a b");
        assert_eq!(argv(&plain, "", ""), "app");
        assert_eq!(argv(&plain, "x y", "z"), "x y z");
    }

    #[test]
    fn an_image_follows_kubernetes_rules_for_command_and_args() {
        let words = |text: &str| vec![text.to_owned()];
        let settings = Settings { entrypoint: words("e"), cmd: words("c"), ..Settings::default() };
        let full = image(Packaging::Image, settings, None);
        assert_eq!(argv(&full, "", ""), "e c");
        assert_eq!(argv(&full, "", "a"), "e a");
        assert_eq!(argv(&full, "x", ""), "x");
        assert_eq!(argv(&full, "x", "a"), "x a");
        let bare = image(Packaging::Image, Settings::default(), None);
        assert_eq!(argv(&bare, "", ""), "app");
        assert_eq!(argv(&bare, "", "a"), "a");
    }

    #[test]
    fn the_id_is_the_repository_at_the_digest() {
        let image = image(Packaging::Plain, Settings::default(), None);
        assert!(image.id().starts_with("ghcr.io/team/app@sha256:"));
    }
}

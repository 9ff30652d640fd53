//! What a container wants of its image: which of its programs, which files, and where it begins. Pure.

use k8s_openapi::api::core::v1::Container;
use nodule_image::Image;
use nodule_sandbox_proto as proto;

use crate::env;

/// An image and what decides which of its files is the program. Containers that want the same share one fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Want {
    /// As the spec says it.
    pub(crate) image: String,
    /// The first words of the container's own, references to values of the spec replaced: what is known of other values
    /// comes later.
    command: Option<String>,
    args: Option<String>,
    cwd: Option<String>,
}

impl Want {
    pub(crate) fn of(container: &Container) -> Self {
        let written = container.env.iter().flatten();
        let written: Vec<_> = written
            .filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?)))
            .collect();
        let first = |words: Option<&Vec<String>>| {
            words.and_then(|words| words.first()).map(|word| env::expand_with(word, &written))
        };
        Self {
            image: container.image.clone().unwrap_or_default(),
            command: first(container.command.as_ref()),
            args: first(container.args.as_ref()),
            cwd: container.working_dir.clone().filter(|folder| !folder.is_empty()),
        }
    }

    /// Of which nothing is run.
    pub(crate) fn files(image: &str) -> Self {
        Self { image: image.to_owned(), command: None, args: None, cwd: None }
    }

    /// The name of the program; empty if nobody gives one.
    pub(crate) fn argv0(&self, image: &Image) -> String {
        let (command, args) =
            (Vec::from_iter(self.command.clone()), Vec::from_iter(self.args.clone()));
        let config = &image.config;
        let is_named = !command.is_empty() || !config.entrypoint.is_empty();
        if !is_named && args.is_empty() && config.cmd.is_empty() {
            return String::new();
        }
        image.argv(&command, &args).into_iter().next().unwrap_or_default()
    }

    /// Where the program begins: an absolute path in the image.
    pub(crate) fn cwd(&self, image: &Image) -> String {
        let folder = self.cwd.clone().or(image.config.working_dir.clone());
        folder.map_or_else(|| "/".to_owned(), |folder| format!("/{}", folder.trim_matches('/')))
    }
}

/// Tells the program where it begins, where somebody said so. WASI 0.1 has no word for it; Go's programs read this variable.
pub(crate) fn tell_cwd(env: &mut Vec<(String, String)>, cwd: &str) {
    if cwd != "/" && env.iter().all(|(name, _)| name != "PWD") {
        env.push(("PWD".to_owned(), cwd.to_owned()));
    }
}

/// The container's mounts and, below them, the image's files, unless something of its own is mounted there.
pub(crate) fn with_root(
    image: &Image,
    container: &Container,
    mut mounts: Vec<proto::Mount>,
) -> Vec<proto::Mount> {
    let is_covered = mounts.iter().any(|mount| mount.guest.trim_end_matches('/').is_empty());
    let Some(root) = image.root.clone().filter(|_| !is_covered) else { return mounts };
    let context = container.security_context.as_ref();
    let is_read_only = context.and_then(|context| context.read_only_root_filesystem) == Some(true);
    let access = if is_read_only { proto::Access::ReadOnly } else { proto::Access::Private };
    mounts.insert(0, proto::Mount { host: root, sub_path: None, guest: "/".to_owned(), access });
    mounts
}

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cli::Places;
use crate::lock;

/// A socket's path has at most 107 bytes, of which a sandbox's name takes 22 (unix(7)).
const LONGEST: usize = 85;

/// The socket of an agent, among those of its pods.
pub(crate) const SOCKET: &str = "agent.sock";
/// Where a node's agent keeps everything, unless its flags say otherwise.
const ROOT: &str = "/var/lib/nodule";
const RUN: &str = "/run/nodule";
/// Where root's configuration is, of a node's agent and of one without a cluster.
const CONFIG: &str = "/etc/nodule/config.yaml";

/// Where an agent without a cluster keeps everything. Nobody else can look in.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Images, pods, logs.
    pub(crate) root: PathBuf,
    /// Sockets.
    pub(crate) run: PathBuf,
    /// The configuration, if there is one.
    pub(crate) config: Option<PathBuf>,
}

impl Place {
    /// That of this machine's node: by the flags, else where its agent has it. The folders are not made here.
    pub(crate) fn of_node(places: &Places) -> Result<Self> {
        let or = |path: &Option<PathBuf>, default: &str| match path {
            Some(path) => std::path::absolute(path).context("the current folder"),
            None => Ok(default.into()),
        };
        let config = or(&places.config, CONFIG)?;
        Ok(Self {
            root: or(&places.root_dir, ROOT)?,
            run: or(&places.run_dir, RUN)?,
            config: (places.config.is_some() || config.exists()).then_some(config),
        })
    }

    /// Whether this machine is a node, and this user its owner.
    pub(crate) fn is_node() -> bool {
        rustix::process::geteuid().is_root() && Path::new(ROOT).join(lock::FILE).exists()
    }

    /// By the flags, else as the XDG base directory specification has it, else, for root, as a system's service.
    pub(crate) fn new(places: &Places) -> Result<Self> {
        let user =
            if rustix::process::geteuid().is_root() { Self::of_root() } else { Self::of_user()? };
        let absolute = |path: &PathBuf| std::path::absolute(path).context("the current folder");
        let root = places.root_dir.as_ref().map(absolute).transpose()?;
        let run = places.run_dir.as_ref().map(absolute).transpose()?;
        let config = places.config.as_ref().map(absolute).transpose()?;
        // Who names a root of their own means another agent: it shares no socket.
        let beside = root.as_ref().map(|root| root.join("run"));
        let place = Self {
            run: run.or(beside).unwrap_or(user.run),
            root: root.unwrap_or(user.root),
            config: config.or_else(|| user.config.filter(|path| path.exists())),
        };
        ensure!(
            place.run.as_os_str().len() <= LONGEST,
            "{} is too long for sockets: use --run-dir with a path of at most {LONGEST} bytes",
            place.run.display()
        );
        Ok(place)
    }

    fn of_root() -> Self {
        Self {
            root: "/var/lib/nodule/local".into(),
            run: "/run/nodule/local".into(),
            config: Some(CONFIG.into()),
        }
    }

    fn of_user() -> Result<Self> {
        let home = || {
            std::env::home_dir()
                .filter(|home| home.is_absolute())
                .context("there is no home folder: set HOME, or use --root-dir")
        };
        let or = |name: &str, default: &str| match xdg(name) {
            Some(path) => Ok(path),
            None => home().map(|home| home.join(default)),
        };
        let root = or("XDG_STATE_HOME", ".local/state")?.join("nodule");
        // Without one there is no place in /tmp that others could not take first.
        let run = xdg("XDG_RUNTIME_DIR").map_or_else(|| root.join("run"), |run| run.join("nodule"));
        let config = or("XDG_CONFIG_HOME", ".config")?.join("nodule/config.yaml");
        Ok(Self { root, run, config: Some(config) })
    }

    /// Makes the folders, for this user alone.
    pub(crate) fn make(&self) -> Result<()> {
        [&self.root, &self.run].into_iter().try_for_each(|path| own(path))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join(SOCKET)
    }

    /// What the agent says.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    /// The content of volumes.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The logs of pods.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

/// A path of the environment counts only if it is absolute.
fn xdg(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn own(path: &Path) -> Result<()> {
    let place = || format!("make folder {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(place)?;
    let found = fs::metadata(path).with_context(place)?;
    ensure!(
        found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0,
        "folder {} can be written by others: pods could be taken over through it; use another one",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        own(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let error = own(&path).unwrap_err().to_string();
        assert!(error.contains("written by others"), "{error}");
    }

    #[test]
    fn a_root_of_ones_own_has_an_agent_of_its_own() {
        let places =
            |root: &str| Places { root_dir: Some(root.into()), run_dir: None, config: None };
        let place = Place::new(&places("/a")).unwrap();
        assert_eq!(place.socket(), Path::new("/a/run/agent.sock"));
        let error = Place::new(&places(&format!("/{}", "a".repeat(90)))).unwrap_err();
        assert!(error.to_string().contains("--run-dir"), "{error}");
    }
}

//! The programs of the control plane, the registry and what pushes to it, built once from pinned Go modules and kept in the
//! cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};

use crate::go::{self, Go};
use crate::paths;
use crate::terminal::say;

/// Every program and the module that pins it, in the order in which they are built: the small ones first, so that what
/// is wrong with a machine shows in seconds, then the API server, which compiles what its siblings share.
const PROGRAMS: [(&str, &str, &str); 8] = [
    ("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    ("oras", "oras", "oras.land/oras/cmd/oras"),
    ("registry", "registry", "github.com/distribution/distribution/v3/cmd/registry"),
    ("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    ("kubeadm", "kubernetes", "k8s.io/kubernetes/cmd/kubeadm"),
];
/// How often a long build says that it goes on.
const TICK: Duration = Duration::from_secs(20);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    paths: Vec<(&'static str, PathBuf)>,
}

impl Binaries {
    /// The programs, built if need be. Two runs at once wait for each other.
    pub fn build() -> Result<Self> {
        let cache = paths::cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let lock = fs::File::create(cache.join("setup.lock"))?;
        if lock.try_lock().is_err() {
            say("setup: waiting for another setup to finish");
            lock.lock()?;
        }
        let go = go::find(&cache)?;
        let found = Self::locate(&cache, &go)?;
        let missing: Vec<_> = found.paths.iter().filter(|(_, path)| !path.is_file()).collect();
        for (number, (name, path)) in missing.iter().enumerate() {
            build(&go, name, path, number + 1, missing.len())?;
        }
        say(format!(
            "setup: control plane and registry ready ({} built now, {})",
            missing.len(),
            go.version
        ));
        Ok(found)
    }

    /// The programs, which must be there.
    pub fn find() -> Result<Self> {
        let cache = paths::cache()?;
        let found = Self::locate(&cache, &go::find(&cache)?)?;
        match found.paths.iter().find(|(_, path)| !path.is_file()) {
            Some((name, _)) => bail!("{name} is not built: `e2e/just setup` does"),
            None => Ok(found),
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.paths.iter().map(|(name, path)| (*name, path.as_path()))
    }

    /// One of them.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let mut all = self.iter();
        all.find(|(known, _)| *known == name)
            .map(|(_, path)| path)
            .with_context(|| format!("no program {name}"))
    }

    fn locate(cache: &Path, go: &Go) -> Result<Self> {
        let place = |(name, module, _): &(&'static str, &str, &str)| {
            Ok((*name, cache.join("bin").join(format!("{module}-{}", key(module, go)?)).join(name)))
        };
        Ok(Self { paths: PROGRAMS.iter().map(place).collect::<Result<_>>()? })
    }
}

fn module_folder(module: &str) -> PathBuf {
    paths::checkout().join("e2e/control-plane").join(module)
}

/// What a built program depends on, in 12 hex digits.
fn key(module: &str, go: &Go) -> Result<String> {
    let folder = module_folder(module);
    let mut text = go.version.clone();
    text.push_str(&linker_flags(module)?);
    for file in ["go.mod", "go.sum"] {
        let path = folder.join(file);
        text.push_str(
            &fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?,
        );
    }
    Ok(digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// A Kubernetes program that was not told its version calls itself v0.0.0, and clients then treat it as too old.
fn linker_flags(module: &str) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    if module != "kubernetes" {
        return Ok(flags);
    }
    let version = kubernetes_version()?;
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let fields = [
            ("gitVersion", version.as_str()),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        ];
        for (field, value) in fields {
            flags.push_str(&format!(" -X {package}.{field}={value}"));
        }
    }
    Ok(flags)
}

/// The version that go.mod pins.
fn kubernetes_version() -> Result<String> {
    let path = module_folder("kubernetes").join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| {
        line.trim_start_matches("require ").trim().strip_prefix("k8s.io/kubernetes ")
    });
    Ok(line.context("go.mod requires no k8s.io/kubernetes")?.trim().to_owned())
}

fn build(go: &Go, name: &str, path: &Path, number: usize, count: usize) -> Result<()> {
    let Some((_, module, package)) = PROGRAMS.iter().find(|(known, ..)| *known == name) else {
        bail!("no {name}")
    };
    say(format!("setup: [{number}/{count}] building {name} ({} remain after it)", count - number));
    let folder = path.parent().context("a program has a folder")?;
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension("unfinished");
    let log = folder.join(format!("{name}.log"));
    let output = fs::File::create(&log)?;
    let mut command = Command::new(&go.program);
    command.current_dir(module_folder(module)).args([
        "build",
        "-trimpath",
        "-ldflags",
        &linker_flags(module)?,
        "-o",
    ]);
    command.arg(&unfinished).arg(package);
    command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let started = tokio::time::Instant::now();
    let elapsed = || started.elapsed().as_secs();
    let child = command.spawn().context("start go")?;
    let status =
        wait(child, || say(format!("setup: [{number}/{count}] {name}: {} s so far", elapsed())))?;
    go::check(status, &format!("go build {package}"), &log)?;
    fs::rename(&unfinished, path)?;
    say(format!("setup: [{number}/{count}] {name} built in {} s", elapsed()));
    Ok(())
}

/// Waits for the child and calls `tick` now and then.
fn wait(mut child: Child, tick: impl Fn()) -> Result<ExitStatus> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child has a pid")?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(TICK)?;
    while poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit))? == 0 {
        tick();
    }
    Ok(child.wait()?)
}

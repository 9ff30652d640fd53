//! A container's last words: the file at its `terminationMessagePath`, or the end of its log (Kubernetes docs, "Determine the
//! Reason for Pod Failure").
//!
//! A guest reaches the file by the folder that it lies in. Where no volume is mounted there, that folder is one of the run's
//! own; it cannot be the guest's whole root, so that a file directly below `/` is not offered.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, ContainerStatus};
use nodule_sandbox_proto::{Access, Mount, State, User};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// Where it is if the pod does not say.
const DEFAULT: &str = "/dev/termination-log";
/// The run's own folder for it, in its state folder.
const FOLDER: &str = "termination";
/// The most that is taken of a file, in bytes, from its end (the kubelet's `MaxContainerTerminationMessageLength`).
const FILE: u64 = 4096;
/// The most that is taken of a log (`MaxContainerTerminationMessageLogLength`, `…LogLines`).
const LOG: usize = 2048;
const LINES: u64 = 80;
/// The most that a pod's containers say together, in bytes (`MaxPodTerminationMessageLogLength`).
const POD: usize = 12 << 10;

fn path_of(container: &Container) -> &str {
    let own = container.termination_message_path.as_deref();
    own.filter(|path| !path.is_empty()).unwrap_or(DEFAULT)
}

/// The mount among `mounts` that holds `path`, and where below it; the innermost wins.
fn holder<'a>(mounts: &'a [Mount], path: &'a str) -> Option<(&'a Mount, &'a Path)> {
    let below = |mount: &'a Mount| Some((mount, Path::new(path).strip_prefix(&mount.guest).ok()?));
    mounts.iter().filter_map(below).min_by_key(|(_, rest)| rest.components().count())
}

/// The folder that a guest needs so that it can write its last words: none where a volume holds them already, or where it
/// would be the guest's root.
pub(crate) fn mount(container: &Container, mounts: &[Mount], run: &Path) -> Option<Mount> {
    let path = path_of(container);
    let folder = Path::new(path).parent().filter(|folder| folder.parent().is_some())?;
    // An image's root holds what nothing else does: it may be one that is only read.
    if holder(mounts, path).is_some_and(|(mount, _)| mount.guest != "/") {
        return None;
    }
    Some(Mount {
        sub_path: None,
        host: run.join(FOLDER),
        guest: folder.to_str()?.to_owned(),
        access: Access::ReadWrite,
    })
}

/// Makes the file, empty, and the folder that [`mount`] speaks of; both are the user's.
pub(crate) fn make(container: &Container, folder: &Path, user: Option<&User>) -> io::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let Some(name) = Path::new(path_of(container)).file_name() else { return made };
    made?;
    let file = folder.join(name);
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&file)?;
    let Some(user) = user else { return Ok(()) };
    chown(&file, Some(user.uid), Some(user.gid))?;
    chown(folder, Some(user.uid), Some(user.gid))
}

/// The folder that is to be made for [`mount`] of this run.
pub(crate) fn folder(run: &Path) -> PathBuf {
    run.join(FOLDER)
}

/// What the container said at its end; none if nothing. `failed`: its exit code was not 0. Blocking, but reads little.
pub(crate) fn words(
    container: &Container,
    state: &State,
    log: &Path,
    failed: bool,
) -> Option<String> {
    let file = read(container, state).unwrap_or_default();
    if !file.is_empty() {
        return Some(file);
    }
    let policy = container.termination_message_policy.as_deref();
    let asked = failed && policy == Some("FallbackToLogsOnError");
    let tail = asked.then(|| nodule_logs::tail(log, LOG, LINES).ok()).flatten();
    tail.filter(|tail| !tail.is_empty())
}

/// The guest may have put anything there: a link, a pipe, a file without an end.
fn read(container: &Container, state: &State) -> Option<String> {
    let mounts = state.mounts().ok()?;
    let (mount, rest) = holder(&mounts, path_of(container))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, &mount.host, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = Path::new(mount.sub_path.as_deref().unwrap_or_default()).join(rest);
    let mut file = File::from(openat2(folder, &path, flags, Mode::empty(), inside).ok()?);
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    file.seek(SeekFrom::Start(length.saturating_sub(FILE))).ok()?;
    let mut text = Vec::new();
    file.take(FILE).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Shortens the messages of a pod's containers so that they are not too long together.
pub(crate) fn bound(statuses: &mut [&mut ContainerStatus]) {
    let ends = statuses.iter_mut().flat_map(|status| {
        let states = [status.state.as_mut(), status.last_state.as_mut()];
        states.into_iter().flatten().filter_map(|state| state.terminated.as_mut())
    });
    let mut messages: Vec<&mut String> = ends.filter_map(|end| end.message.as_mut()).collect();
    if messages.iter().map(|message| message.len()).sum::<usize>() <= POD {
        return;
    }
    let share = POD / messages.len().max(1);
    for message in &mut messages {
        message.truncate(message.floor_char_boundary(share));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated};

    use super::*;

    fn mounted(guest: &str) -> Mount {
        Mount {
            host: PathBuf::new(),
            sub_path: None,
            guest: guest.to_owned(),
            access: Access::ReadWrite,
        }
    }

    #[test]
    fn the_folder_of_the_message_is_mounted_unless_a_volume_holds_it_or_it_is_the_root() {
        for (path, mounts, wanted) in [
            (None, &[][..], Some("/dev")),
            (Some(""), &[], Some("/dev")),
            (Some("/tmp/deep/words"), &[], Some("/tmp/deep")),
            (Some("/words"), &[], None),
            (Some("/data/words"), &["/data"], None),
            (Some("/data/words"), &["/data/words"], None),
            (Some("/data/words"), &["/database"], Some("/data")),
            (Some("/data/words"), &["/data/deeper"], Some("/data")),
            (None, &["/"], Some("/dev")),
        ] {
            let container = Container {
                termination_message_path: path.map(str::to_owned),
                ..Container::default()
            };
            let mounts: Vec<Mount> = mounts.iter().copied().map(mounted).collect();
            let found = mount(&container, &mounts, Path::new("/run"));
            assert_eq!(found.map(|mount| mount.guest).as_deref(), wanted, "{path:?}");
        }
    }

    /// What a run says that left `file` and a log of a hundred lines of so many letters.
    fn said(file: &str, letters: usize, policy: Option<&str>, failed: bool) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path(), folder.path().join("0.log"));
        let state = State::new(path);
        state.create(None).unwrap();
        let container = serde_json::json!({
            "version": nodule_sandbox_proto::VERSION, "id": "", "program": {"cwasm": "", "kind": "module"}, "args": [], "env": [],
            "mounts": [{"host": path, "guest": "/dev", "access": "ReadWrite"}], "stdin": "Empty",
            "limits": {"memory": null}, "log": {"path": log, "max_size": 1, "max_files": 1}});
        state.write_container(&serde_json::from_value(container).unwrap()).unwrap();
        std::fs::write(path.join("termination-log"), file).unwrap();
        let line = |n: usize| format!("2026-08-01T10:00:00Z stdout F {n:0letters$}\n");
        std::fs::write(&log, (0..100).map(line).collect::<String>()).unwrap();
        let termination_message_policy = policy.map(str::to_owned);
        let container = Container { termination_message_policy, ..Container::default() };
        words(&container, &state, &log, failed)
    }

    #[test]
    fn the_end_of_the_file_is_told_or_of_the_log_where_a_failure_has_left_no_file() {
        let fallback = Some("FallbackToLogsOnError");
        let long = format!("{}{}", "a".repeat(5000), "b".repeat(4095));
        assert_eq!(said(&long, 1, None, true), Some(format!("a{}", "b".repeat(4095))));
        assert_eq!(said("words", 1, fallback, true).as_deref(), Some("words"));
        assert_eq!(said("", 1, None, true), None);
        assert_eq!(said("", 1, Some("File"), true), None);
        assert_eq!(said("", 1, fallback, false), None);
        let by_bytes = said("", 30, fallback, true).unwrap();
        assert!(by_bytes.len() == 2048 && by_bytes.ends_with("099\n"), "{by_bytes}");
        let by_lines = said("", 3, fallback, true).unwrap();
        assert!(by_lines.starts_with("020\n") && by_lines.ends_with("099\n"), "{by_lines}");
    }

    #[test]
    fn the_innermost_mount_holds_a_file() {
        let mounts = ["/data", "/data/in", "/"].map(mounted);
        let (mount, rest) = holder(&mounts, "/data/in/words").unwrap();
        assert_eq!((mount.guest.as_str(), rest), ("/data/in", Path::new("words")));
    }

    #[test]
    fn messages_are_shortened_only_when_they_are_too_long_together() {
        let status = |bytes: usize| ContainerStatus {
            state: Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    message: Some("ä".repeat(bytes / 2)),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        };
        let length = |status: &ContainerStatus| {
            let end = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
            end.message.as_ref().unwrap().len()
        };
        for (sizes, wanted) in
            [(vec![4096, 4096, 4096], [4096, 4096, 4096]), (vec![4096; 4], [3072; 3])]
        {
            let mut statuses: Vec<_> = sizes.into_iter().map(status).collect();
            bound(&mut statuses.iter_mut().collect::<Vec<_>>());
            let lengths: Vec<_> = statuses.iter().take(3).map(length).collect();
            assert_eq!(lengths, wanted);
        }
    }
}

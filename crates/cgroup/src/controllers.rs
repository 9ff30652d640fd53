//! Passing controllers on from a cgroup to its children (cgroup-v2.rst, "Enabling and Disabling").

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::limits::Kind;
use crate::top::Top;
use crate::{Error, Group};

/// What limits, measures and counts here.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Where the processes of a delegated cgroup go: the name that systemd's manual proposes for `DelegateSubgroup=`.
const SUPERVISOR: &str = "supervisor";

/// How often processes are moved: each time there can be new ones, forked meanwhile.
const ROUNDS: usize = 100;

/// What is done with processes that live where only cgroups may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residents {
    /// They are others': it is an error.
    Stay,
    /// They move into a child.
    Move,
}

/// Makes the cgroup at `root`, below the mount, unless it is there, and sees to it that it has the controllers.
pub(crate) fn provide(top: &Arc<Top>, root: &Path) -> Result<Group, Error> {
    let mut group = Group::new(Arc::clone(top), PathBuf::new(), Kind::Inner);
    for name in names(root)? {
        let child = group.child(name, Kind::Inner);
        if !missing(&child, "cgroup.controllers").is_ok_and(|missing| missing.is_empty()) {
            pass_on(&group, Residents::Stay)?;
            child.create()?;
        }
        group = child;
    }
    Ok(group)
}

/// Sees to it that the children of `group` have the controllers.
pub(crate) fn pass_on(group: &Group, residents: Residents) -> Result<(), Error> {
    let wanted = missing(group, "cgroup.subtree_control")?;
    if wanted.is_empty() {
        return Ok(());
    }
    let lacking = missing(group, "cgroup.controllers")?;
    if !lacking.is_empty() {
        return Err(Error::Controllers { path: group.path(), missing: lacking.join(", ") });
    }
    let order = wanted.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if enable(group, &order)? {
        return Ok(());
    }
    if residents == Residents::Move {
        move_out(group)?;
    }
    if enable(group, &order)? { Ok(()) } else { Err(Error::Occupied { path: group.path() }) }
}

/// False if processes are in the way.
fn enable(group: &Group, order: &str) -> Result<bool, Error> {
    match group.write("cgroup.subtree_control", order) {
        Ok(()) => Ok(true),
        Err(error) if error.is_write(Errno::BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

fn move_out(group: &Group) -> Result<(), Error> {
    let supervisor = group.child(SUPERVISOR, Kind::Inner);
    supervisor.create()?;
    for _ in 0..ROUNDS {
        let processes = group.read("cgroup.procs")?;
        // A process of another PID namespace is shown as 0, which to write would mean the writer.
        let mut known = processes.lines().filter(|pid| *pid != "0").peekable();
        if known.peek().is_none() {
            break;
        }
        for pid in known {
            enter(&supervisor, pid)?;
        }
    }
    Ok(())
}

fn enter(group: &Group, pid: &str) -> Result<(), Error> {
    match group.write("cgroup.procs", pid) {
        // It has ended.
        Err(error) if error.is_write(Errno::SRCH) => Ok(()),
        written => written,
    }
}

fn missing(group: &Group, file: &str) -> Result<Vec<&'static str>, Error> {
    let present = group.read(file)?;
    let lacks = |name: &&str| !present.split_ascii_whitespace().any(|found| found == *name);
    Ok(CONTROLLERS.into_iter().filter(lacks).collect())
}

/// A leading slash is of no meaning, as in `/proc/self/cgroup`.
fn names(root: &Path) -> Result<Vec<&str>, Error> {
    let bad = || Error::Root { path: root.to_owned() };
    let components = root.components().filter(|component| *component != Component::RootDir);
    let name = |component| match component {
        Component::Normal(name) => name.to_str().ok_or_else(bad),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            Err(bad())
        }
    };
    components.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_leads_downward() {
        for (root, wanted) in [
            ("", Some(vec![])),
            ("/", Some(vec![])),
            ("nodule", Some(vec!["nodule"])),
            ("/system.slice/nodule.service", Some(vec!["system.slice", "nodule.service"])),
            ("..", None),
            ("a/../b", None),
            ("./a", None),
        ] {
            assert_eq!(names(Path::new(root)).ok(), wanted, "{root}");
        }
    }
}

//! What may be opened, said to the kernel: the folders that are held and nothing else (landlock(7)).

use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nodule_sandbox_proto::Access as Mode;
use rustix::fs::{CWD, Mode as FileMode, OFlags, openat};

use super::{Held, JailError, Sockets};

/// The newest version whose rights are known here; of an older kernel's, those that it knows are set.
const NEWEST: ABI = ABI::V6;

/// A folder that stays reachable, and for what.
pub(super) struct Hold {
    folder: OwnedFd,
    access: BitFlags<AccessFs>,
}

/// Opens what is held while its paths still lead somewhere.
pub(super) fn hold(held: &Held<'_>) -> Result<Vec<Hold>, JailError> {
    let mut holds = Vec::new();
    for mount in held.mounts {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, &mount.host, flags, FileMode::empty())
            .map_err(|error| JailError::Hold { path: mount.host.clone(), source: error.into() })?;
        holds.push(Hold { folder, access: access(mount.access) });
    }
    for folder in held.folders {
        let folder = folder.try_clone();
        let folder =
            folder.map_err(|source| JailError::Hold { path: "/proc/self/fd".into(), source })?;
        holds.push(Hold { folder, access: own() });
    }
    Ok(holds)
}

/// What the sandbox does in folders of its own: it keeps regular files there. Who reads them, as collectors of logs do,
/// shall not meet a link.
fn own() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
}

/// Nothing is ever executed, and no device is made.
fn access(mode: Mode) -> BitFlags<AccessFs> {
    let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock;
    match mode {
        Mode::ReadOnly => AccessFs::from_read(NEWEST) & !never,
        Mode::ReadWrite | Mode::Private => AccessFs::from_all(NEWEST) & !never,
    }
}

/// Restricts this thread, the only one. False where the kernel has no landlock.
pub(super) fn restrict(holds: &[Hold], sockets: Sockets) -> Result<bool, JailError> {
    let status = rules(holds, sockets)
        .and_then(RulesetCreated::restrict_self)
        .map_err(JailError::Landlock)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn rules(holds: &[Hold], sockets: Sockets) -> Result<RulesetCreated, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    // Ports are all that its rules of the network speak of: who may have sockets may have any.
    let ruleset = match sockets {
        Sockets::None => ruleset.handle_access(AccessNet::from_all(NEWEST))?,
        Sockets::Internet => ruleset,
    };
    let rules = holds.iter().map(|hold| Ok(PathBeneath::new(hold.folder.as_fd(), hold.access)));
    ruleset.create()?.add_rules(rules)
}

//! The user of the process, and the rights that come with being one.

use nodule_sandbox_proto::User;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::JailError;

/// Becomes `user`, with its groups and no others. For this thread, the only one.
pub(super) fn become_user(user: &User) -> Result<(), JailError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|error| JailError::User { uid: user.uid, gid: user.gid, source: error.into() })
}

/// Gives up every capability, which root has whatever its user, the way to get one by an exec, and being looked into by
/// other processes of the same user.
pub(super) fn give_up() -> Result<(), JailError> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let error =
        |what| move |error: rustix::io::Errno| JailError::GiveUp { what, source: error.into() };
    clear_ambient_capability_set().map_err(error("ambient capabilities"))?;
    set_capabilities(None, none).map_err(error("capabilities"))?;
    set_no_new_privs(true).map_err(error("new privileges"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(error("being dumped"))
}

//! The user of the process, and the rights that come with being one.

use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::JailError;

/// Becomes the user and the group `id`, in no other group. For this thread, the only one. False where this is not root,
/// who alone can.
pub(super) fn become_user(id: u32) -> Result<bool, JailError> {
    if !geteuid().is_root() {
        return Ok(false);
    }
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|error| JailError::User { id, source: error.into() })?;
    Ok(true)
}

/// Gives up every capability, the way to get one by an exec, and being looked into by other processes of the same user.
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

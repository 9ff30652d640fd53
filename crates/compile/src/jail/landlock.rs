//! What may be opened, said to the kernel: nothing (landlock(7)).

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetError, RulesetStatus, Scope,
};

/// The newest version whose rights are known here; of an older kernel's, those that it knows are taken.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and those that it starts. False where the kernel has no landlock.
pub(super) fn restrict() -> Result<bool, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
        .and_then(RulesetCreated::restrict_self)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

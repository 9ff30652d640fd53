//! Commands in a container, for probes and hooks: none can be run yet.

/// Says of the exec of a probe or a hook that there is none, and what to do.
const UNSUPPORTED: &str = "exec is not supported yet by this node: use httpGet, tcpSocket (probes only) or grpc (probes only)";

/// Runs a command in a container; all that there is to know of its end, or why it could not be run.
///
/// # Errors
/// Always: this is where exec is to be put in.
pub(crate) fn exec(_command: &[String]) -> super::Attempt {
    Err(UNSUPPORTED.to_owned())
}

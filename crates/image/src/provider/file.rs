//! The node's own file of credentials: a docker `config.json`, with which the kubelet opens images for all pods of a node
//! (Kubernetes documentation, "Configuring Nodes to Authenticate to a Private Registry").

use std::io::{self, Read};
use std::path::Path;

use super::exec::ProviderError;
use crate::keyring::Keyring;

/// The longest file that is read.
const LIMIT: u64 = 1 << 20;

/// Adds what the file says; without one there is nothing to add.
pub(super) fn add(path: &Path, keyring: &mut Keyring) -> Result<(), ProviderError> {
    let failed = |cause: String| {
        tracing::warn!(path = %path.display(), cause, "no credentials of the node's own");
        ProviderError::file(path)
    };
    match read(path) {
        Ok(content) => keyring.add_node(&content).map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(LIMIT).read_to_end(&mut content)?;
    Ok(content)
}

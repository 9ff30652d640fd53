//! Kubeconfig files with everything inline.

use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki::{Pair, write_private};

/// Writes a kubeconfig for one user of one cluster.
pub fn write(path: &Path, server: &str, authority: &str, user: &Pair) -> Result<()> {
    let encode = |text: &str| STANDARD.encode(text);
    let content = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: nodule
  cluster:
    server: {server}
    certificate-authority-data: {}
users:
- name: user
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: nodule
  context:
    cluster: nodule
    user: user
current-context: nodule
",
        encode(authority),
        encode(&user.certificate),
        encode(&user.key),
    );
    write_private(path, &content)
}

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// All static pods of one place, as they should be now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// The pods, each of its own namespace and name.
    pub pods: Vec<Pod>,
    /// Manifests that could not be made use of, and why, as one line. What ran of one of these goes on running.
    pub troubles: BTreeMap<String, String>,
}

//! What a guest reaches by the network, and how it finds names.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::Block;

/// A guest's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Net {
    /// What the guest may neither connect to, nor send to, nor bind.
    pub deny: Vec<Block>,
    /// How it finds names.
    pub names: Names,
}

/// How a guest's names become addresses: hosts(5) and resolv.conf(5), read by the agent. The sandbox has neither file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Names {
    /// Names that have addresses without being asked for.
    pub hosts: Vec<Host>,
    /// Name servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// What is appended to short names, in this order.
    pub search: Vec<String>,
    /// A name with so many dots is first looked up as it is.
    pub ndots: u8,
    /// Seconds until the next server is asked.
    pub timeout: u8,
    /// How often all servers are asked.
    pub attempts: u8,
    /// Whether each name begins with another server.
    pub rotate: bool,
}

/// A line of hosts(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The address of all the names.
    pub address: IpAddr,
    /// The names.
    pub names: Vec<String>,
}

impl Default for Names {
    /// The defaults of resolv.conf(5), without a server.
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: 5,
            attempts: 2,
            rotate: false,
        }
    }
}

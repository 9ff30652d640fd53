//! What tests and the demo need around the agent: a real control plane, a registry, programs to push, nodes to start.
//!
//! Nothing here is part of what an operator runs. A control plane is one *supervisor* process (`supervisor.rs`) with
//! etcd, the API server and the rest as its children, which die with it; `control.rs` is the side that starts it and
//! gives it orders, `layout.rs` its folder and certificates, `parts.rs` its command lines. `binaries.rs` builds what it
//! runs. For tests, `cluster.rs` is the cluster of a run, `agent.rs` a node on it, and `test.rs` what each test starts
//! from; `tools.rs` calls other people's programs. Read `main.rs` next for what can be asked for.

pub mod access;
pub mod agent;
pub mod audit;
pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod control;
pub mod credentials;
pub mod demo;
pub mod go;
pub mod kubeconfig;
pub mod kubectl;
pub mod layout;
pub mod mounts;
pub mod node;
mod parts;
pub mod paths;
pub mod pki;
pub mod ports;
pub mod process;
pub mod push;
pub mod status;
pub mod supervisor;
pub mod terminal;
pub mod test;
pub mod tools;
pub mod wait;

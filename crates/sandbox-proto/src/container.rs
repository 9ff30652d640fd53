//! What a sandbox is told before it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Net;
use crate::{Http, Roots};

/// One container to run: `container.json`, written by the agent before it starts the process and never changed after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// [`VERSION`](crate::VERSION) of the agent that wrote the file. A sandbox runs its own version only.
    pub version: u32,
    /// The container's id: 64 hex digits, the part of Kubernetes' `containerID` after the scheme.
    pub id: String,
    /// What is run.
    pub program: Program,
    /// The guest's arguments, `argv[0]` among them.
    pub args: Vec<String>,
    /// The guest's environment, in order. Where a name is given twice, the guest sees both.
    pub env: Vec<(String, String)>,
    /// What the guest sees of the host's files. A path that is not below one of these does not exist for it.
    pub mounts: Vec<Mount>,
    /// What the guest reads from standard input.
    pub stdin: Stdin,
    /// What the guest may use.
    pub limits: Limits,
    /// Where the guest's output goes.
    pub log: Log,
    /// Whom the process becomes before the guest's first instruction; none leaves it what the agent is.
    pub user: Option<User>,
    /// The folder of the cgroup (v2) that the process enters before it reads anything of the guest's.
    pub cgroup: Option<PathBuf>,
    /// What the kernel adds to the process when it looks for a victim for want of memory (proc_pid_oom_score_adj(5)),
    /// -1000 to 1000; none leaves it what the agent's is.
    pub oom_score_adj: Option<i32>,
    /// The process's niceness (setpriority(2)), where it has no cgroup that shares the CPU; none leaves it the agent's.
    pub nice: Option<i32>,
    /// What the guest reaches by the network, if its kind has one at all.
    #[serde(default)]
    pub net: Net,
    /// What a component that imports `wasi:config/store` finds there.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Where and how a [`Kind::Proxy`] is served; for other kinds it means nothing.
    #[serde(default)]
    pub http: Option<Http>,
    /// Whom the guest's outgoing HTTPS believes beside the authorities that everybody does.
    #[serde(default)]
    pub roots: Vec<Roots>,
}

/// A user of the host, by numbers alone: it needs no entry in `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Supplementary groups. Those of the agent are never kept.
    pub groups: Vec<u32>,
}

/// Compiled code on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The output of `nodule-compile`, on this node, for this sandbox's engine. It is run as native code: the agent
    /// names only files that it had compiled itself, that nobody else can write and that never change.
    pub cwasm: PathBuf,
    /// What the file holds.
    pub kind: Kind,
}

/// The kinds of WebAssembly programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A core module: WASI 0.1, entered at `_start`.
    Module,
    /// A component: WASI 0.2, entered at `wasi:cli/run`.
    Component,
    /// A component that answers HTTP requests: it exports `wasi:http/incoming-handler`, or `wasi:http/handler` of 0.3.
    Proxy,
}

/// A folder or file of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The absolute path on the host.
    pub host: PathBuf,
    /// What of it is meant, as a relative path: the sandbox follows no link out of `host` on the way. None: all of it.
    #[serde(default)]
    pub sub_path: Option<String>,
    /// The absolute path that the guest sees.
    pub guest: String,
    /// What the guest may do below it.
    pub access: Access,
}

/// What a guest may do with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Look at it.
    ReadOnly,
    /// Look at it and change it.
    ReadWrite,
    /// Look at it, and change a copy of one's own that ends with the container. Only for a folder; where this machine has
    /// no such copies it is [`ReadOnly`](Self::ReadOnly).
    Private,
}

/// Where a guest's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// At its end from the start.
    Empty,
    /// Silent until the stop notice, then at its end: how a command that asked for it learns that it should stop.
    Held,
}

/// What a guest may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of linear memory and tables together; none means what Wasm itself allows.
    pub memory: Option<u64>,
}

/// Where a container's output goes, in the log format of the Container Runtime Interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The newest file, `<restart count>.log`; older ones lie beside it.
    pub path: PathBuf,
    /// Bytes after which a file is rotated: the kubelet's `containerLogMaxSize`.
    pub max_size: u64,
    /// How many files are kept, the newest among them: the kubelet's `containerLogMaxFiles`.
    pub max_files: u32,
}

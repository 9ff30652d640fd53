use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Taint;

use crate::pressure::Resource;

/// What the Node is to be. Parsed and checked by the binary.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Node's name.
    pub name: String,
    /// The machine's host name: the `Hostname` address and the label `kubernetes.io/hostname`.
    pub hostname: String,
    /// `InternalIP` addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Where the agent's HTTPS API really listens.
    pub port: u16,
    /// The directory whose file system is the node's ephemeral storage.
    pub root: PathBuf,
    /// `kubernetes.io/os` and `nodeInfo.operatingSystem`.
    pub os: String,
    /// `kubernetes.io/arch` and `nodeInfo.architecture`.
    pub arch: String,
    /// `nodule.dev/wasi`: the WASI versions that programs here may import.
    pub wasi: String,
    /// The operator's labels: set when the Node is created, and then left to whoever changes them.
    pub labels: BTreeMap<String, String>,
    /// Taints, which a node may set only while it is created.
    pub taints: Vec<Taint>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// How many pods may be bound here.
    pub max_pods: u32,
    /// What is kept from pods for the system and the agent (`kubeReserved` and `systemReserved`, summed).
    pub reserved: Reserved,
    /// Below these the node is under pressure and evicts pods; the hard ones are subtracted from allocatable.
    pub eviction: Thresholds,
    /// Whether containers have the groups that their pod names, and no others (KEP-3619, the policy `Strict`).
    pub strict_groups: bool,
    /// The version of nodule, for `containerRuntimeVersion`.
    pub version: String,
    /// How often things happen.
    pub periods: Periods,
}

/// Resources that pods cannot have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub storage: u64,
}

/// How much must be left free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many bytes, inodes or process ids.
    Units(u64),
    /// A share of the capacity, 0 to 1.
    Share(f64),
}

impl Amount {
    /// The amount in units, of a capacity in the same units.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a capacity needs no more than 52 bits of precision and lies between 0 and it"
    )]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Share(share) => (capacity as f64 * share.clamp(0.0, 1.0)) as u64,
        }
    }
}

/// When pods are evicted so that the node lives: the signals of `evictionHard` that mean something here (`None` switches one off),
/// and the soft ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// `memory.available`, in bytes.
    pub memory: Option<Amount>,
    /// `nodefs.available` and `imagefs.available` in bytes, which are one file system here.
    pub storage: Vec<Amount>,
    /// `nodefs.inodesFree` and `imagefs.inodesFree`.
    pub inodes: Vec<Amount>,
    /// The part of `storage` that is kept from pods: `nodefs.available`.
    pub storage_kept: Option<Amount>,
    /// `pid.available`.
    pub pids: Option<Amount>,
    /// `evictionSoft` with `evictionSoftGracePeriod`.
    pub soft: Vec<Soft>,
    /// `evictionMinimumReclaim`: what an eviction frees beyond the threshold, once it has begun. Of several for one resource the
    /// largest counts.
    pub reclaim: Vec<(Resource, Amount)>,
    /// `evictionMaxPodGracePeriod`, in seconds: how long a pod has at most to end that is evicted for a soft threshold.
    pub longest_grace: u64,
}

/// A threshold that a node may be below for a while before pods are evicted. It shows the pressure at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Soft {
    /// What must be left of.
    pub resource: Resource,
    /// How much.
    pub amount: Amount,
    /// For how long without a break less is left before pods are evicted.
    pub grace: Duration,
}

impl Default for Thresholds {
    /// The kubelet's own: memory 100 MiB, nodefs 10 % and 5 % of inodes, imagefs 15 % and 5 %.
    fn default() -> Self {
        Self {
            memory: Some(Amount::Units(100 << 20)),
            storage: vec![Amount::Share(0.10), Amount::Share(0.15)],
            inodes: vec![Amount::Share(0.05)],
            storage_kept: Some(Amount::Share(0.10)),
            pids: None,
            soft: Vec::new(),
            reclaim: Vec::new(),
            longest_grace: 0,
        }
    }
}

/// How often things happen. The defaults are the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Periods {
    /// `nodeStatusUpdateFrequency`: the status is computed so often.
    pub update: Duration,
    /// `nodeStatusReportFrequency`: and sent so often when nothing changes, give or take a half.
    pub report: Duration,
    /// How often it is computed until the node is Ready for the first time.
    pub startup: Duration,
    /// The least time between two statuses once Ready, so that an input that flickers does not load the API server.
    pub gap: Duration,
    /// `nodeLeaseDurationSeconds`: how long the Lease is good for. Renewed when a quarter of it has passed.
    pub lease: Duration,
    /// How long one request may take.
    pub request: Duration,
    /// The first wait after an error; it doubles with each.
    pub retry_first: Duration,
    /// The longest wait after an error. With `request` it bounds how long the node stays away after an outage.
    pub retry_last: Duration,
    /// How long a pressure is shown after it has gone (`evictionPressureTransitionPeriod`).
    pub pressure: Duration,
}

impl Periods {
    /// How often the Lease is renewed.
    pub(crate) fn renew(&self) -> Duration {
        self.lease / 4
    }
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            update: Duration::from_secs(10),
            report: Duration::from_secs(300),
            startup: Duration::from_millis(100),
            gap: Duration::from_secs(1),
            lease: Duration::from_secs(40),
            request: Duration::from_secs(10),
            retry_first: Duration::from_millis(200),
            retry_last: Duration::from_secs(5),
            pressure: Duration::from_secs(300),
        }
    }
}

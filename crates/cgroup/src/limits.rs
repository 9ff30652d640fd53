//! From a pod's resources to what is written: the conversions of the kubelet and of runc.

/// What a pod or a container may use. What is `None` or 0 is not limited, as in the kubelet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes: `limits.memory`.
    pub memory: Option<u64>,
    /// Thousandths of a CPU: `requests.cpu`, the share where there is not enough for all. None is the least share.
    pub cpu_request: Option<u64>,
    /// Thousandths of a CPU: `limits.cpu`, the most even where there is enough.
    pub cpu_limit: Option<u64>,
    /// Processes and threads: the node's `podPidsLimit`.
    pub pids: Option<u64>,
}

/// The length of the time in which a quota is counted, in µs: the kubelet's `cpuCFSQuotaPeriod`.
const PERIOD: u64 = 100_000;

/// The smallest quota that the kernel takes, in µs: `MinQuotaPeriod` of the kubelet's `cm/helpers_linux.go`.
const MIN_QUOTA: u64 = 1000;

/// The bounds of cgroup v1's `cpu.shares`, which the kubelet still counts in: `MinShares` and `MaxShares` there.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// Whether a cgroup holds processes or other cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Inner,
    Container,
}

impl Limits {
    /// The files of a cgroup and what each shall hold.
    pub(crate) fn files(&self, kind: Kind) -> Vec<(&'static str, String)> {
        let mut files = vec![
            ("memory.max", or_max(self.memory)),
            ("cpu.max", format!("{} {PERIOD}", or_max(self.cpu_limit.map(quota)))),
            ("cpu.weight", weight(self.cpu_request.unwrap_or_default()).to_string()),
            ("pids.max", or_max(self.pids)),
        ];
        if kind == Kind::Container {
            // The kubelet's default, `singleProcessOOMKill: false`: one victim takes the container with it.
            files.push(("memory.oom.group", "1".to_owned()));
        }
        files
    }
}

fn or_max(limit: Option<u64>) -> String {
    limit.filter(|limit| *limit > 0).map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

/// The µs in each period that this limit allows; 0 for none (`MilliCPUToQuota` of the kubelet's `cm/helpers_linux.go`).
fn quota(millicores: u64) -> u64 {
    match millicores {
        0 => 0,
        _ => millicores.saturating_mul(PERIOD / 1000).max(MIN_QUOTA),
    }
}

/// cgroup v1's `cpu.shares` for a request: 1024 for a CPU (`MilliCPUToShares` of the kubelet's `cm/helpers_linux.go`).
fn shares(millicores: u64) -> u64 {
    (millicores.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The `cpu.weight` for a request, from 1 to 10000: 100, the kernel's default, for one CPU.
///
/// The curve is that of `ConvertCPUSharesToCgroupV2Value` in opencontainers/cgroups, which containers have had since runc
/// 1.3.2 and crun 1.23. Up to those all of a node had KEP-2254's line, that gave one CPU 39 and so less than any service
/// of the system; the kubelet itself still has it for pods. Here every level has the curve, so that levels agree.
pub(crate) fn weight(millicores: u64) -> u64 {
    let exact = |log: f64| (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    match shares(millicores) {
        MIN_SHARES => 1,
        MAX_SHARES => 10_000,
        shares => 10_f64.powf(exact((shares as f64).log2())).ceil() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_become_the_weights_of_runc() {
        for (millicores, shares_wanted, weight_wanted) in [
            (0, 2, 1),
            (1, 2, 1),
            (3, 3, 2),
            (100, 102, 17),
            (500, 512, 59),
            (1000, 1024, 100),
            (2000, 2048, 174),
            (256_000, 262_144, 10_000),
            (u64::MAX, 262_144, 10_000),
        ] {
            assert_eq!(shares(millicores), shares_wanted, "{millicores}");
            assert_eq!(weight(millicores), weight_wanted, "{millicores}");
        }
    }

    #[test]
    fn limits_become_quotas_of_at_least_a_millisecond() {
        for (millicores, wanted) in
            [(0, 0), (1, 1000), (9, 1000), (10, 1000), (11, 1100), (100, 10_000), (2500, 250_000)]
        {
            assert_eq!(quota(millicores), wanted, "{millicores}");
        }
    }

    #[test]
    fn what_is_not_limited_is_lifted_and_zero_limits_nothing() {
        let zero =
            Limits { memory: Some(0), cpu_request: Some(0), cpu_limit: Some(0), pids: Some(0) };
        let lifted = [
            ("memory.max", "max"),
            ("cpu.max", "max 100000"),
            ("cpu.weight", "1"),
            ("pids.max", "max"),
        ];
        for limits in [Limits::default(), zero] {
            let files = limits.files(Kind::Inner);
            assert!(files.iter().map(|(file, value)| (*file, value.as_str())).eq(lifted));
        }
    }

    #[test]
    fn each_limit_goes_to_its_file_and_only_containers_are_killed_as_one() {
        let limits = Limits {
            memory: Some(64 << 20),
            cpu_request: Some(250),
            cpu_limit: Some(1500),
            pids: Some(32),
        };
        let files = limits.files(Kind::Container);
        let wanted = [
            ("memory.max", "67108864"),
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "35"),
            ("pids.max", "32"),
            ("memory.oom.group", "1"),
        ];
        assert!(files.iter().map(|(file, value)| (*file, value.as_str())).eq(wanted), "{files:?}");
        assert_eq!(limits.files(Kind::Inner), files[..4]);
    }
}

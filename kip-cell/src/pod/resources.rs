//! Turns requests and limits into cgroup settings, with the kubelet's formulas.

use kip_cell_api::v1::{Container, Pod, Resources};

use super::model::containers;
use crate::cri::v1::LinuxContainerResources;

const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: u64 = 2;
const MIN_QUOTA: u64 = 1_000;

/// Quality of service, which decides who is killed first when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// Cgroup settings of one container; `machine_memory` is the cell's memory in bytes.
pub(crate) fn linux_resources(
    pod: &Pod,
    container: &Container,
    machine_memory: u64,
) -> LinuxContainerResources {
    let wanted = container.resources.clone().unwrap_or_default();
    let cpu_request = if wanted.cpu_request_millis == 0 {
        wanted.cpu_limit_millis
    } else {
        wanted.cpu_request_millis
    };
    let quota = match wanted.cpu_limit_millis {
        0 => 0,
        limit => signed((limit.saturating_mul(100)).max(MIN_QUOTA)),
    };
    LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: quota,
        cpu_shares: signed((cpu_request.saturating_mul(1024) / 1000).max(MIN_SHARES)),
        memory_limit_in_bytes: signed(wanted.memory_limit_bytes),
        oom_score_adj: oom_score_adj(qos(pod), &wanted, machine_memory),
        ..Default::default()
    }
}

fn qos(pod: &Pod) -> Qos {
    let mut any = false;
    let mut all_guaranteed = true;
    for (_, container) in containers(pod) {
        let r = container.resources.clone().unwrap_or_default();
        any |= r.cpu_request_millis + r.cpu_limit_millis > 0
            || r.memory_request_bytes > 0
            || r.memory_limit_bytes > 0;
        let cpu = r.cpu_limit_millis > 0
            && (r.cpu_request_millis == 0 || r.cpu_request_millis == r.cpu_limit_millis);
        let memory = r.memory_limit_bytes > 0
            && (r.memory_request_bytes == 0 || r.memory_request_bytes == r.memory_limit_bytes);
        all_guaranteed &= cpu && memory;
    }
    match (any, all_guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

fn oom_score_adj(qos: Qos, wanted: &Resources, machine_memory: u64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = if wanted.memory_request_bytes == 0 {
                wanted.memory_limit_bytes
            } else {
                wanted.memory_request_bytes
            };
            let share = u128::from(request) * 1000 / u128::from(machine_memory.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::fixtures::pod;

    const GIB: u64 = 1 << 30;

    fn with(resources: Resources) -> LinuxContainerResources {
        let mut pod = pod("Always", &["c"]);
        pod.containers[0].resources = Some(resources);
        linux_resources(&pod, &pod.containers[0], 4 * GIB)
    }

    /// Wrong shares or quota make a pod slower on Kip than on any other node.
    #[test]
    fn cpu_and_memory() {
        let got = with(Resources {
            cpu_request_millis: 250,
            cpu_limit_millis: 500,
            memory_request_bytes: GIB,
            memory_limit_bytes: 2 * GIB,
            ..Default::default()
        });
        assert_eq!(
            (got.cpu_shares, got.cpu_quota, got.cpu_period),
            (256, 50_000, 100_000)
        );
        assert_eq!(got.memory_limit_in_bytes, 2 << 30);
        assert_eq!(got.oom_score_adj, 750);
    }

    #[test]
    fn quality_classes() {
        assert_eq!(with(Resources::default()).oom_score_adj, 1000);
        let limits = Resources {
            cpu_limit_millis: 100,
            memory_limit_bytes: GIB,
            ..Default::default()
        };
        assert_eq!(with(limits).oom_score_adj, -997);
        assert_eq!(
            with(Resources {
                cpu_limit_millis: 1,
                ..Default::default()
            })
            .cpu_quota,
            1_000
        );
    }
}

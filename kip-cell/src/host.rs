//! Facts about the machine the agent runs on.

use std::fs;
use std::net::UdpSocket;

/// What the agent says about its cell.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Changes with every boot of the cell; see [`boot_id`].
    pub(crate) boot_id: String,
    /// In Kubernetes' words: `amd64`, `arm64`.
    pub(crate) architecture: String,
    pub(crate) kernel_version: String,
    pub(crate) os_image: String,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
}

impl Host {
    /// Reads them. What cannot be read is left empty: they inform, nothing depends on them.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            boot_id: boot_id(&text("/proc/sys/kernel/random/boot_id"), &text("/proc/1/stat")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64".into(),
                "aarch64" => "arm64".into(),
                other => other.into(),
            },
            kernel_version: text("/proc/sys/kernel/osrelease").trim().into(),
            os_image: os_image(&text("/etc/os-release")),
            memory_bytes: memory_bytes(&text("/proc/meminfo")),
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        }
    }
}

/// The kernel's boot id joined with the start of process 1: cells may share one kernel, each with its own process 1.
fn boot_id(kernel: &str, stat_of_init: &str) -> String {
    // Field 22 counted from the name's closing parenthesis, since the name may hold blanks.
    let start = stat_of_init
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19))
        .unwrap_or("0");
    format!("{}-{start}", kernel.trim())
}

fn os_image(os_release: &str) -> String {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').into()
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The address the machine would speak to others from, for pods in the host's network.
pub(crate) fn primary_address() -> Option<String> {
    // No packet is sent: connecting a datagram socket only chooses the source address.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The controller tells a rebooted cell from a restarted agent by this id alone.
    #[test]
    fn boot_id_is_kernel_and_init() {
        let stat = "1 (a (b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2";
        assert_eq!(boot_id("abc\n", stat), "abc-4242");
        assert_ne!(Host::read().boot_id, "-0");
    }

    #[test]
    fn memory_is_bytes() {
        assert_eq!(
            memory_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            2048 * 1024
        );
    }
}

//! How an instance's containerd is configured.

use std::fmt::Write as _;
use std::path::Path;

use crate::image::PAUSE_IMAGE;

/// What a containerd runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose<'a> {
    /// Inside an instance.
    Instance {
        /// Where the CNI plugins are.
        plugins: &'a Path,
    },
    /// On the machine, only to unpack images.
    Bake {
        /// Its root folder.
        root: &'a Path,
        /// Its state folder.
        state: &'a Path,
    },
}

/// Plugins nobody asks for, each of which costs time at start or tries a file system that is not there.
const DISABLED: [&str; 8] = [
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The configuration file.
pub(crate) fn config(purpose: Purpose<'_>, restrict_oom_score: bool) -> String {
    let (root, state) = match purpose {
        Purpose::Instance { .. } => (Path::new("/var/lib/containerd"), Path::new("/run/containerd")),
        Purpose::Bake { root, state } => (root, state),
    };
    let disabled: Vec<String> = DISABLED.iter().map(|name| format!("\"{name}\"")).collect();
    let mut text = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{}]\n\n\
         [grpc]\naddress = \"{}/containerd.sock\"\n\n\
         [ttrpc]\naddress = \"{}/containerd.sock.ttrpc\"\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{PAUSE_IMAGE}\"\n\
         restrict_oom_score_adj = {restrict_oom_score}\n\
         disable_apparmor = true\n\
         disable_hugetlb_controller = true\n\
         stream_server_address = \"127.0.0.1\"\n\
         stream_server_port = \"0\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
         snapshotter = \"overlayfs\"\n",
        root.display(),
        state.display(),
        disabled.join(", "),
        state.display(),
        state.display(),
    );
    if let Purpose::Instance { plugins } = purpose {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{}\"\nconf_dir = \"/etc/cni/net.d\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
             config_path = \"/etc/containerd/certs.d\"\n",
            plugins.display()
        );
    }
    text
}

//! Builds an archive with busybox and a pause image from the machine's static busybox, so that no registry is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// Writes an OCI archive of `docker.io/library/busybox:1.35` and `registry.k8s.io/pause:kip`.
pub(crate) fn write(archive: &Path) {
    let folder = tempfile::tempdir().expect("folder");
    let (root, layout) = (folder.path().join("root"), folder.path().join("layout"));
    for part in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"] {
        fs::create_dir_all(root.join(part)).expect("folder");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("install busybox-static: `cargo xtask test` does");
    let list = Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .expect("busybox");
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n",
    )
    .expect("passwd");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("folder");
    let layer = folder.path().join("layer.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&layer)
        .arg("."));
    let layer = blob(&blobs, &fs::read(&layer).expect("layer"));
    let busybox = image(&blobs, &layer, super::BUSYBOX, r#""Cmd":["/bin/sh"]"#);
    let pause = r#""Entrypoint":["/bin/sleep","2147483647"]"#;
    let pause = image(&blobs, &layer, "registry.k8s.io/pause:kip", pause);
    fs::write(
        layout.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{busybox},{pause}]}}"#),
    )
    .expect("index");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("layout");
    run(Command::new("tar")
        .arg("-C")
        .arg(&layout)
        .arg("-cf")
        .arg(archive)
        .arg("."));
}

fn image(blobs: &Path, layer: &(String, usize), name: &str, entry: &str) -> String {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"],{entry}}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        layer.0
    );
    let config = blob(blobs, config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{}","size":{}}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{}","size":{}}}]}}"#,
        config.0, config.1, layer.0, layer.1
    );
    let manifest = blob(blobs, manifest.as_bytes());
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":{},
        "annotations":{{"io.containerd.image.name":"{name}"}}}}"#,
        manifest.0, manifest.1
    )
}

fn blob(blobs: &Path, bytes: &[u8]) -> (String, usize) {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(blobs.join(&digest), bytes).expect("blob");
    (digest, bytes.len())
}

fn run(command: &mut Command) {
    let status = command.status().expect("tar");
    assert!(status.success(), "{command:?}");
}

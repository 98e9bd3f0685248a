//! Writes image archives (OCI layout in a tar) around one static program.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use kip_core::error::{Error, ErrorKind, Result};
use serde_json::json;

/// Writes an archive of an image that holds busybox and a link for each of `applets` in `/bin`, plus a `/tmp`.
///
/// `busybox` must be a static binary for this machine; `reference` is the image's whole name, such as
/// `docker.io/library/busybox:1.35`. Deterministic: equal inputs, equal bytes. For tests and demonstrations without a registry.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_busybox_archive(
    archive: &Path,
    busybox: &Path,
    reference: &str,
    applets: &[&str],
) -> Result<()> {
    write(archive, busybox, reference, applets, &["/bin/sh"])
}

/// The sandbox's image: a process that waits, ends on SIGTERM, and collects the dead of a shared process namespace.
pub(super) fn write_pause_archive(archive: &Path, busybox: &Path) -> Result<()> {
    let wait = "trap 'exit 0' TERM INT; while :; do sleep 1000000 & wait; done";
    write(
        archive,
        busybox,
        super::PAUSE_IMAGE,
        &["sh", "sleep"],
        &["/bin/sh", "-c", wait],
    )
}

fn write(archive: &Path, busybox: &Path, reference: &str, applets: &[&str], command: &[&str]) -> Result<()> {
    let failed = |message: &str, path: &Path, source: io::Error| {
        Error::new(ErrorKind::Unexpected, "write image archive", message)
            .with_context("file", path.display())
            .with_source(source)
    };
    let program = fs::read(busybox).map_err(|source| failed("cannot read busybox", busybox, source))?;
    let bytes = image(&program, reference, applets, command);
    fs::write(archive, bytes).map_err(|source| failed("cannot write the archive", archive, source))
}

fn image(program: &[u8], reference: &str, applets: &[&str], command: &[&str]) -> Vec<u8> {
    let mut layer = Tar::default();
    for (folder, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("root/", 0o700),
        ("tmp/", 0o1777),
        ("home/", 0o755),
    ] {
        layer.folder(folder, mode);
    }
    layer.file("bin/busybox", 0o755, program);
    for applet in applets {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    );
    layer.file("etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n");
    let layer = layer.finish();

    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "kip" }],
    })
    .to_string();
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest(bytes),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()),
        "layers": [descriptor("layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = descriptor("manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({ "io.containerd.image.name": reference });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();

    let mut tar = Tar::default();
    tar.file("oci-layout", 0o644, b"{\"imageLayoutVersion\":\"1.0.0\"}");
    tar.file("index.json", 0o644, index.as_bytes());
    for blob in [manifest.as_bytes(), config.as_bytes(), &layer] {
        let name = digest(blob).replace("sha256:", "blobs/sha256/");
        tar.file(&name, 0o644, blob);
    }
    tar.finish()
}

fn digest(bytes: &[u8]) -> String {
    let hash = hmac_sha256::Hash::hash(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar archive in the making, in the ustar format. Owner is root, times are zero.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn folder(&mut self, name: &str, mode: u32) {
        self.header(name, mode, 0, b'5', "");
    }

    fn link(&mut self, name: &str, to: &str) {
        self.header(name, 0o777, 0, b'2', to);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.header(name, mode, content.len(), b'0', "");
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8, link: &str) {
        let mut block = [0_u8; 512];
        put(&mut block, 0, name);
        put(&mut block, 100, &format!("{mode:07o}"));
        put(&mut block, 108, "0000000");
        put(&mut block, 116, "0000000");
        put(&mut block, 124, &format!("{size:011o}"));
        put(&mut block, 136, "00000000000");
        // The checksum counts its own field as spaces.
        put(&mut block, 148, "        ");
        block[156] = kind;
        put(&mut block, 157, link);
        put(&mut block, 257, "ustar");
        put(&mut block, 263, "00");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, &format!("{sum:06o}\0"));
        self.0.extend_from_slice(&block);
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        // Two empty blocks end an archive; a Vec takes every byte.
        let _ = self.0.write_all(&[0; 1024]);
        self.0
    }
}

/// Puts text into a header field. Our names are short: a field never overflows into the next.
fn put(block: &mut [u8; 512], at: usize, text: &str) {
    for (to, from) in block[at..].iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

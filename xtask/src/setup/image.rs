//! For an image without a registry: Debian's static busybox as an OCI image archive that `ctr images import` takes.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::command::{cmd, read, run_quiet};
use crate::control_plane::hex;
use crate::{paths, ui};

/// The name the archive gives the image.
pub(crate) const NAME: &str = "docker.io/library/busybox:1.35";

/// An image that does nothing for ever: what holds the namespaces of a pod on a runtime started for a measurement.
pub(crate) const PAUSE: &str = "kip.local/bench-pause:1";

/// The archive of [`NAME`], made anew only when the busybox program has changed.
pub(crate) fn busybox() -> Result<PathBuf> {
    archive("busybox", NAME, &["sh"])
}

/// The archive of [`PAUSE`].
pub(crate) fn pause() -> Result<PathBuf> {
    archive("pause", PAUSE, &["sleep", "2147483647"])
}

fn archive(file: &str, name: &str, command: &[&str]) -> Result<PathBuf> {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_file())
        .context("busybox is missing: install the Debian package busybox-static")?;
    let folder = paths::target().join("images");
    let (archive, stamp) = (
        folder.join(format!("{file}.tar")),
        folder.join(format!("{file}.stamp")),
    );
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let want = format!("{name} {} layout 1", hex(&Sha256::digest(&bytes)));
    if archive.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == want) {
        return Ok(archive);
    }
    ui::step(&format!(
        "making the image {name} from {} in {}",
        program.display(),
        archive.display()
    ));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let work = tempfile::tempdir_in(&folder).context("cannot create a temporary folder")?;
    let layer = work.path().join("layer.tar");
    root_filesystem(&work.path().join("root"), program, &bytes)?;
    pack(&work.path().join("root"), &layer)?;
    let layout = work.path().join("layout");
    write_layout(
        name,
        command,
        &layout,
        &std::fs::read(&layer).context("cannot read the layer")?,
    )?;
    let packed = work.path().join("image.tar");
    pack(&layout, &packed)?;
    std::fs::rename(&packed, &archive)
        .with_context(|| format!("cannot put {} in place", archive.display()))?;
    std::fs::write(&stamp, want).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(archive)
}

fn root_filesystem(root: &Path, program: &Path, bytes: &[u8]) -> Result<()> {
    let write = |path: &str, bytes: &[u8], mode: u32| -> Result<()> {
        let path = root.join(path);
        std::fs::write(&path, bytes)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    for (folder, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("home", 0o755),
        ("var", 0o755),
    ] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .with_context(|| format!("cannot create {}", path.display()))?;
    }
    write("bin/busybox", bytes, 0o755)?;
    for applet in read(&mut cmd(program, ["--list"]))?
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).with_context(|| format!("cannot link {applet}"))?;
    }
    write(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
        0o644,
    )?;
    write("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
}

/// An OCI image layout with one uncompressed layer (small, and imported in the least time).
fn write_layout(name: &str, command: &[&str], layout: &Path, layer: &[u8]) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
    let blob = |bytes: &[u8], media_type: &str| -> Result<serde_json::Value> {
        let digest = hex(&Sha256::digest(bytes));
        std::fs::write(blobs.join(&digest), bytes).context("cannot write a blob")?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => anyhow::bail!("no image can be made for the architecture {other}"),
    };
    let layer = blob(layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    )?;
    manifest["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit_once(':').map(|(_, tag)| tag),
    });
    manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).context("cannot write index.json")?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .context("cannot write oci-layout")
}

/// Packs a folder's content so that the same content gives the same bytes.
fn pack(folder: &Path, archive: &Path) -> Result<()> {
    let mut tar = cmd(
        "tar",
        [
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "-cf",
        ],
    );
    run_quiet(tar.arg(archive).arg("-C").arg(folder).arg("."))
}

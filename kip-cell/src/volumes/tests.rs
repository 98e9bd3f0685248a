use kip_cell_api::v1::{File, Files, PodSecurity, VolumeMount};

use super::*;
use crate::pod::fixtures;

fn file(path: &str, content: &str, mode: u32) -> File {
    File {
        path: path.into(),
        content: content.into(),
        mode,
    }
}

fn pod_with(volumes: Vec<Volume>) -> Pod {
    let mut pod = fixtures::pod("Always", &["c"]);
    pod.volumes = volumes;
    pod
}

fn files(name: &str, files: Vec<File>) -> Volume {
    Volume {
        name: name.into(),
        source: Some(Source::Files(Files { files, secret: false })),
    }
}

/// A program that rereads its configuration must never see half of an update, nor a file that was taken away.
#[test]
fn files_are_swapped_as_a_whole() {
    let state = tempfile::tempdir().expect("folder");
    let pod = pod_with(vec![files(
        "v",
        vec![file("a", "1", 0o644), file("sub/b", "2", 0o400)],
    )]);
    let folders = Folders::new(state.path(), &pod);
    folders.prepare(&pod).expect("first");
    let volume = folders.volume("v");
    assert_eq!(fs::read_to_string(volume.join("a")).expect("a"), "1");
    assert_eq!(fs::read_to_string(volume.join("sub/b")).expect("b"), "2");
    assert_eq!(
        fs::metadata(volume.join("sub/b"))
            .expect("b")
            .permissions()
            .mode()
            & 0o777,
        0o400
    );
    let before = fs::read_link(volume.join("..data")).expect("link");
    folders.prepare(&pod).expect("same again");
    assert_eq!(
        fs::read_link(volume.join("..data")).expect("link"),
        before,
        "nothing changed, nothing is written"
    );
    let pod = pod_with(vec![files("v", vec![file("a", "3", 0o644)])]);
    folders.prepare(&pod).expect("update");
    assert_eq!(fs::read_to_string(volume.join("a")).expect("a"), "3");
    assert!(!volume.join("sub").exists());
    let left = fs::read_dir(&volume).expect("list").count();
    assert_eq!(left, 3, "..data, its folder, a");
}

#[test]
fn empty_dir_is_writable_by_anyone_and_group_owned() {
    let state = tempfile::tempdir().expect("folder");
    let mut pod = pod_with(vec![Volume {
        name: "v".into(),
        source: Some(Source::EmptyDir(EmptyDir::default())),
    }]);
    let folders = Folders::new(state.path(), &pod);
    folders.prepare(&pod).expect("prepare");
    let mode = || {
        fs::metadata(folders.volume("v"))
            .expect("folder")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode(), 0o777);
    pod.security = Some(PodSecurity {
        fs_group: Some(nix::unistd::getgid().as_raw().into()),
        ..Default::default()
    });
    folders.prepare(&pod).expect("prepare");
    assert_eq!(mode(), 0o2777);
}

/// Memory volumes refuse what is over their limit, and nothing stays mounted when the pod is done.
#[test]
fn memory_volume_is_limited_and_released() {
    let state = tempfile::tempdir().expect("folder");
    let empty = EmptyDir {
        medium: "Memory".into(),
        size_limit_bytes: 1 << 20,
    };
    let pod = pod_with(vec![Volume {
        name: "v".into(),
        source: Some(Source::EmptyDir(empty)),
    }]);
    let folders = Folders::new(state.path(), &pod);
    folders.prepare(&pod).expect("mounting memory needs root");
    folders.prepare(&pod).expect("again");
    let big = folders.volume("v").join("big");
    assert!(
        fs::write(&big, vec![0_u8; 2 << 20]).is_err(),
        "twice the limit fits"
    );
    folders.release().expect("release");
    assert!(!folders.volume("v").exists());
}

/// A container that plants links in its volume must not get the machine's files mounted.
#[test]
fn sub_paths_stay_inside() {
    let state = tempfile::tempdir().expect("folder");
    let mut pod = pod_with(vec![Volume {
        name: "v".into(),
        source: Some(Source::EmptyDir(EmptyDir::default())),
    }]);
    let folders = Folders::new(state.path(), &pod);
    folders.prepare(&pod).expect("prepare");
    folders.write_hosts(&pod, &[]).expect("hosts");
    let volume = folders.volume("v");
    std::os::unix::fs::symlink("/etc", volume.join("absolute")).expect("link");
    std::os::unix::fs::symlink("../../..", volume.join("up")).expect("link");
    fs::create_dir(volume.join("real")).expect("folder");
    fs::write(volume.join("real/f"), "inside").expect("file");
    std::os::unix::fs::symlink("real", volume.join("inner")).expect("link");
    let mut mounts = |sub_path: &str| {
        let mount = VolumeMount {
            volume: "v".into(),
            mount_path: "/m".into(),
            sub_path: sub_path.into(),
            ..Default::default()
        };
        pod.containers[0].mounts = vec![mount];
        folders.mounts(&pod, &pod.containers[0], 0)
    };
    assert!(matches!(
        mounts("absolute/passwd"),
        Err(VolumeError::SubPath { .. })
    ));
    assert!(matches!(mounts("up"), Err(VolumeError::SubPath { .. })));
    let host_path =
        |mounts: Result<Vec<Mount>, VolumeError>| mounts.expect("bind needs root")[0].host_path.clone();
    assert_eq!(
        fs::read_to_string(Path::new(&host_path(mounts("inner"))).join("f")).expect("file"),
        "inside"
    );
    assert_eq!(
        fs::read_to_string(host_path(mounts("real/f"))).expect("file"),
        "inside"
    );
    let made = host_path(mounts("new/deep"));
    fs::write(Path::new(&made).join("x"), "y").expect("write");
    assert_eq!(
        fs::read_to_string(volume.join("new/deep/x")).expect("made in the volume"),
        "y"
    );
    folders.release().expect("release");
}

#[test]
fn host_paths_are_checked() {
    let state = tempfile::tempdir().expect("folder");
    let path = state.path().join("h");
    let host = |kind: &str| HostPath {
        path: path.to_string_lossy().into_owned(),
        r#type: kind.into(),
    };
    let text = host_path(&host("Directory")).expect_err("missing").to_string();
    assert!(text.starts_with("hostPath type check failed: "), "{text}");
    host_path(&host("DirectoryOrCreate")).expect("made");
    host_path(&host("Directory")).expect("there");
    assert!(host_path(&host("FileOrCreate")).is_err());
}

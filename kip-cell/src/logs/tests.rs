use std::fs;
use std::path::Path;

use super::cursor::{Cursor, Options, Step};
use super::entry::{Entry, Stream};
use super::{files, rotate};

const LOG: &str = "\
2026-01-01T00:00:01.000000001Z stdout F one
2026-01-01T00:00:02.000000000Z stderr F oops
2026-01-01T00:00:03.000000000Z stdout P thr
2026-01-01T00:00:03.500000000Z stderr F between
2026-01-01T00:00:04.000000000Z stdout F ee
2026-01-01T00:00:05.000000000+01:00 stdout F four
";

fn read(path: &Path, options: &Options) -> String {
    let opened = files::open(path, options.tail_lines, options.stream).expect("open");
    let mut cursor = Cursor::new(opened, options.clone());
    let mut out = Vec::new();
    while cursor.step(&mut out).expect("step") == Step::More {}
    cursor.finish(&mut out);
    String::from_utf8(out).expect("text")
}

fn log() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    fs::write(&path, LOG).expect("write");
    (folder, path)
}

#[test]
fn entries() {
    let entry = Entry::parse(b"2026-01-01T00:00:01Z stderr P:x a b").expect("entry");
    assert_eq!(
        (entry.stream, entry.partial, entry.text),
        (Stream::Stderr, true, b"a b".as_slice())
    );
    assert_eq!(
        Entry::parse(b"2026-01-01T00:00:01Z stdout F").map(|entry| entry.text.len()),
        Some(0)
    );
    assert_eq!(Entry::parse(b"nonsense"), None);
}

/// Each option of `kubectl logs` by itself.
#[test]
fn options() {
    let (_folder, path) = log();
    let all = Options::default();
    assert_eq!(read(&path, &all), "one\noops\nbetween\nthree\nfour\n");
    let tail = |lines| Options {
        tail_lines: Some(lines),
        ..all.clone()
    };
    assert_eq!(read(&path, &tail(0)), "");
    assert_eq!(read(&path, &tail(1)), "four\n");
    assert_eq!(read(&path, &tail(99)), "one\noops\nbetween\nthree\nfour\n");
    let stderr = Options {
        stream: Some(Stream::Stderr),
        ..tail(1)
    };
    assert_eq!(read(&path, &stderr), "between\n");
    assert_eq!(
        read(
            &path,
            &Options {
                limit_bytes: Some(5),
                ..all.clone()
            }
        ),
        "one\no"
    );
    let since = Options {
        since: "2026-01-01T00:00:03.6Z".parse().ok(),
        ..all.clone()
    };
    assert_eq!(
        read(&path, &since),
        "ee\n",
        "the last line's time is an hour earlier in UTC"
    );
    let stamped = read(
        &path,
        &Options {
            timestamps: true,
            ..all
        },
    );
    assert!(
        stamped.starts_with("2026-01-01T00:00:01.000000001Z one\n"),
        "{stamped}"
    );
    assert!(
        stamped.ends_with("2025-12-31T23:00:05.000000000Z four\n"),
        "{stamped}"
    );
}

/// `--tail` must be right however the lines fall on the blocks they are read in.
#[test]
fn tail_over_many_blocks_and_rotated_files() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    let lines: Vec<String> = (0..5000).map(|i| format!("{i} {}", "x".repeat(i % 97))).collect();
    let text = |lines: &[String]| {
        lines
            .iter()
            .map(|line| format!("2026-01-01T00:00:01.000000000Z stdout F {line}\n"))
            .collect::<String>()
    };
    fs::write(&path, text(&lines[..2000])).expect("write");
    rotate::put_aside(&path).expect("rotate");
    fs::write(&path, text(&lines[2000..4500])).expect("write");
    rotate::put_aside(&path).expect("rotate");
    fs::write(&path, text(&lines[4500..])).expect("write");
    for wanted in [
        1_usize, 2, 499, 500, 501, 1234, 2999, 3000, 3001, 4999, 5000, 9999,
    ] {
        let options = Options {
            tail_lines: Some(wanted as u64),
            ..Options::default()
        };
        let expected: String = lines[lines.len().saturating_sub(wanted)..]
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(read(&path, &options) == expected, "tail {wanted}");
    }
}

/// A disk full of logs would take the pod down: only so many are kept.
#[test]
fn old_files_are_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("0.log");
    for i in 0..8 {
        fs::write(&path, format!("{i}")).expect("write");
        rotate::put_aside(&path).expect("rotate");
    }
    let kept: Vec<String> = files::rotated(&path)
        .expect("list")
        .iter()
        .map(|path| fs::read_to_string(path).expect("read"))
        .collect();
    assert_eq!(kept, ["4", "5", "6", "7"]);
}

#[test]
fn termination_message_from_the_log() {
    let (_folder, path) = log();
    assert_eq!(files::last_lines(&path, 2048, 2), "ee\nfour\n");
    assert_eq!(files::last_lines(&path, 3, 80), "ur\n");
    assert_eq!(files::last_lines(Path::new("/nowhere"), 10, 10), "");
}

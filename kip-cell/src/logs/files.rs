//! Finds a run's log files, rotated ones included, and the place where its last lines begin.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::entry::{Entry, Stream};

/// Bytes read at once when looking backwards.
const BLOCK: u64 = 64 * 1024;

/// The run's files, oldest first: rotated ones are named after the current with a time behind.
pub(super) fn all(current: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut rotated = rotated(current)?;
    if current.exists() {
        rotated.push(current.to_path_buf());
    }
    Ok(rotated)
}

/// The rotated ones, oldest first.
pub(super) fn rotated(current: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (
        current.parent(),
        current.file_name().and_then(|name| name.to_str()),
    ) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(&prefix))
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a run's log, positioned so that reading gives the last `tail` lines (everything without it). Blocking.
pub(super) fn open(
    current: &Path,
    tail: Option<u64>,
    stream: Option<Stream>,
) -> std::io::Result<VecDeque<File>> {
    let mut opened = VecDeque::new();
    let mut left = tail;
    for path in all(current)?.into_iter().rev() {
        let mut file = match File::open(&path) {
            // Rotated away between listing and opening.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut enough = false;
        if let Some(wanted) = left {
            let (start, found) = tail_start(&mut file, wanted, stream)?;
            file.seek(SeekFrom::Start(start))?;
            left = Some(wanted - found);
            enough = start > 0 || wanted == found;
        }
        opened.push_front(file);
        if enough {
            break;
        }
    }
    Ok(opened)
}

/// Where the last `wanted` output lines of a file begin, and how many there are (at most `wanted`).
fn tail_start(file: &mut File, wanted: u64, stream: Option<Stream>) -> std::io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    if wanted == 0 {
        return Ok((length, 0));
    }
    let mut found = 0;
    // `pending` is what lies between `position` and the entry boundary last seen; walking goes towards the start.
    let mut position = length;
    let mut pending: Vec<u8> = Vec::new();
    loop {
        // Whole entries in `pending` after its first newline are examined, last first.
        while let Some(newline) = pending.iter().rposition(|byte| *byte == b'\n') {
            let tail_end = newline + 1;
            if tail_end < pending.len() && counts(&pending[tail_end..], stream) {
                if found == wanted {
                    return Ok((position + pending.len() as u64 + 1, found));
                }
                found += 1;
            }
            pending.truncate(newline);
        }
        if position == 0 {
            if !pending.is_empty() && counts(&pending, stream) {
                if found == wanted {
                    return Ok((pending.len() as u64 + 1, found));
                }
                found += 1;
            }
            return Ok((0, found));
        }
        let block = BLOCK.min(position);
        position -= block;
        file.seek(SeekFrom::Start(position))?;
        let mut bytes = Vec::new();
        file.take(block).read_to_end(&mut bytes)?;
        bytes.extend_from_slice(&pending);
        pending = bytes;
    }
}

/// An entry that ends an output line of the streams asked for.
fn counts(line: &[u8], stream: Option<Stream>) -> bool {
    Entry::parse(line)
        .is_some_and(|entry| !entry.partial && stream.is_none_or(|wanted| wanted == entry.stream))
}

/// The last output of a run, at most so many bytes and lines, for its termination message. Blocking; empty when there
/// is none.
pub(crate) fn last_lines(path: &Path, bytes: u64, lines: usize) -> String {
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Room for the headers of as many entries as can matter.
    let start = length.saturating_sub(bytes + 64 * lines as u64 + BLOCK);
    let mut raw = Vec::new();
    if file.seek(SeekFrom::Start(start)).is_err() || file.read_to_end(&mut raw).is_err() {
        return String::new();
    }
    let mut out: Vec<u8> = Vec::new();
    for line in raw.split(|byte| *byte == b'\n') {
        if let Some(entry) = Entry::parse(line) {
            out.extend_from_slice(entry.text);
            if !entry.partial {
                out.push(b'\n');
            }
        }
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    let kept: Vec<&str> = text.split_inclusive('\n').collect();
    let kept = kept[kept.len().saturating_sub(lines)..].concat();
    let mut cut = kept
        .len()
        .saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    while !kept.is_char_boundary(cut) {
        cut += 1;
    }
    kept[cut..].to_owned()
}

//! Reads log files piece by piece and turns entries into output: filters, joins what the runtime split, counts bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;

use jiff::Timestamp;

use super::entry::{Entry, Stream};

/// Bytes read in one step.
const PIECE: usize = 64 * 1024;
/// A line is passed on unfinished when it is longer than this, so that memory stays bounded.
const LONGEST_LINE: usize = 256 * 1024;

/// What a reader asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) stream: Option<Stream>,
}

/// A place in a container's log.
#[derive(Debug)]
pub(super) struct Cursor {
    files: VecDeque<File>,
    options: Options,
    left: Option<u64>,
    /// Bytes read of an entry whose end was not read yet.
    raw: Vec<u8>,
    /// Output lines of stdout and stderr whose end was not read yet.
    open: [Vec<u8>; 2],
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more.
    More,
    /// Everything written so far was read.
    AtEnd,
    /// As many bytes as asked for were delivered.
    Full,
}

impl Cursor {
    /// Files oldest first, each positioned where reading starts.
    pub(super) fn new(files: VecDeque<File>, options: Options) -> Self {
        let left = options.limit_bytes;
        Self {
            files,
            options,
            left,
            raw: Vec::new(),
            open: [Vec::new(), Vec::new()],
        }
    }

    /// Goes on with another file when the present ones are read.
    pub(super) fn push(&mut self, file: File) {
        self.files.push_back(file);
    }

    /// The file being read.
    pub(super) fn current(&self) -> Option<&File> {
        self.files.back()
    }

    /// Reads one piece and appends what it gives to `out`. Blocking.
    pub(super) fn step(&mut self, out: &mut Vec<u8>) -> std::io::Result<Step> {
        if self.left == Some(0) {
            return Ok(Step::Full);
        }
        let Some(file) = self.files.front_mut() else {
            return Ok(Step::AtEnd);
        };
        let before = self.raw.len();
        self.raw.resize(before + PIECE, 0);
        let read = file.read(&mut self.raw[before..]);
        self.raw.truncate(before + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            if self.files.len() == 1 {
                return Ok(Step::AtEnd);
            }
            self.files.pop_front();
            return Ok(Step::More);
        }
        let raw = std::mem::take(&mut self.raw);
        let mut rest = raw.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.entry(&rest[..end], out);
            rest = &rest[end + 1..];
            if self.left == Some(0) {
                return Ok(Step::Full);
            }
        }
        self.raw = rest.to_vec();
        Ok(Step::More)
    }

    /// The container has ended: what it wrote without a newline at its end is passed on too.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for index in 0..self.open.len() {
            let line = std::mem::take(&mut self.open[index]);
            self.deliver(&line, out);
        }
    }

    fn entry(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = Entry::parse(line) else {
            // A write cut by a crash of the machine: nothing of it can be shown truly.
            return;
        };
        if self.options.stream.is_some_and(|wanted| wanted != entry.stream) || self.is_too_old(&entry) {
            return;
        }
        let timestamp = self.options.timestamps.then(|| utc(entry.time));
        let open = &mut self.open[usize::from(entry.stream == Stream::Stderr)];
        if let Some(timestamp) = timestamp.filter(|_| open.is_empty()) {
            open.extend_from_slice(timestamp.as_bytes());
            open.push(b' ');
        }
        open.extend_from_slice(entry.text);
        if !entry.partial {
            open.push(b'\n');
        }
        if !entry.partial || open.len() > LONGEST_LINE {
            let line = std::mem::take(open);
            self.deliver(&line, out);
        }
    }

    fn is_too_old(&self, entry: &Entry<'_>) -> bool {
        let Some(since) = self.options.since else {
            return false;
        };
        entry.time.parse::<Timestamp>().is_ok_and(|time| time < since)
    }

    fn deliver(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let most = self.left.map_or(bytes.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
        });
        out.extend_from_slice(&bytes[..most]);
        if let Some(left) = &mut self.left {
            *left -= most as u64;
        }
    }
}

/// The runtime writes its local time; users read UTC.
fn utc(time: &str) -> String {
    if time.ends_with('Z') {
        return time.to_owned();
    }
    time.parse::<Timestamp>()
        .map_or_else(|_| time.to_owned(), |time| format!("{time:.9}"))
}

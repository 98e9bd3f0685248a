//! Serves container logs from the files the runtime writes, in the form `kubectl logs` prints.

mod cursor;
mod entry;
mod files;
mod follow;
mod rotate;
#[cfg(test)]
mod tests;

pub(crate) use cursor::Options;
pub(crate) use entry::Stream as LogStream;
pub(crate) use files::last_lines;
pub(crate) use follow::stream;
pub(crate) use rotate::rotate;

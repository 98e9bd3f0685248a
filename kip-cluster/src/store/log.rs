//! Remember the last changes of one table, and say when a reader asks for older ones.

use std::collections::VecDeque;

use super::Object;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One commit.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) kind: ChangeKind,
    /// The object after the commit; for a deletion its last state, at the deletion's version.
    pub(crate) object: Object,
    /// The object before the commit.
    pub(crate) previous: Option<Object>,
}

/// The version asked for is older than what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The oldest version a reader can continue from.
    pub(crate) oldest: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    changes: VecDeque<Change>,
    /// The version of the newest change that was dropped.
    forgotten: u64,
}

impl Log {
    pub(super) fn push(&mut self, change: Change, keep: usize) {
        self.changes.push_back(change);
        while self.changes.len() > keep {
            if let Some(dropped) = self.changes.pop_front() {
                self.forgotten = dropped.version;
            }
        }
    }

    /// The changes after `version`, oldest first.
    pub(super) fn after(&self, version: u64) -> Result<Vec<&Change>, Gone> {
        if version < self.forgotten {
            return Err(Gone {
                oldest: self.forgotten,
            });
        }
        let start = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.iter().skip(start).collect())
    }
}

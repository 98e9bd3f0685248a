//! A record as it is found in a store: sound, or changed by hand.

use super::CellRecord;
use crate::ids::{CellName, InstanceId, PodUid};

/// A record as it is found in the store.
#[expect(
    clippy::large_enum_variant,
    reason = "a damaged one is rare; a box would cost every sound one an allocation"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredCell {
    /// It is as a controller wrote it.
    Sound(CellRecord),
    /// It was changed by hand, or cannot be read. It is never acted on; what it may stand for is left alone.
    Damaged(DamagedCell),
}

impl StoredCell {
    /// Sound or damaged, by what the record says of itself.
    pub fn judge(record: CellRecord) -> Self {
        match record.problem() {
            None => Self::Sound(record),
            Some(problem) => Self::Damaged(DamagedCell::of(&record, problem)),
        }
    }

    /// The record's name.
    pub fn name(&self) -> &CellName {
        match self {
            Self::Sound(record) => &record.name,
            Self::Damaged(damaged) => &damaged.name,
        }
    }

    /// The store's version of it.
    pub fn version(&self) -> &str {
        match self {
            Self::Sound(record) => &record.version,
            Self::Damaged(damaged) => &damaged.version,
        }
    }

    /// The record, if it is sound.
    pub fn sound(self) -> Option<CellRecord> {
        match self {
            Self::Sound(record) => Some(record),
            Self::Damaged(_) => None,
        }
    }
}

/// What can still be told of a record that was changed by hand or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCell {
    /// Its name.
    pub name: CellName,
    /// The store's version of it, for compare-and-swap.
    pub version: String,
    /// The pod it names, if it does.
    pub pod: Option<PodUid>,
    /// The instance it names, if it does.
    pub instance: Option<InstanceId>,
    /// What is wrong with it, in one sentence.
    pub problem: String,
}

impl DamagedCell {
    /// What can be told of a record with this problem.
    pub fn of(record: &CellRecord, problem: impl Into<String>) -> Self {
        Self {
            name: record.name.clone(),
            version: record.version.clone(),
            pod: Some(record.pod.uid.clone()),
            instance: record.instance.clone(),
            problem: problem.into(),
        }
    }

    /// Whether it stands, or once stood, for this pod: by its name, which nobody can change, or by what it says.
    pub fn is_for(&self, pod: &PodUid) -> bool {
        self.name == CellName::of_pod(pod) || self.pod.as_ref() == Some(pod)
    }
}

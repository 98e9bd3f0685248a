//! What can be wrong with a catalogue.

use kip_core::error::{Error, ErrorKind};

use super::LivePart;

/// What can be wrong with a catalogue. Each message names the field, or the part, and what would work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The region is not one the seed knows.
    #[error("region: {region:?} is not known; known are {known}")]
    UnknownRegion {
        /// What was asked for.
        region: String,
        /// All that are known, with commas.
        known: String,
    },
    /// The compiled-in data cannot be read.
    #[error("the compiled-in list of instance types is broken: line {line}: {problem}")]
    BrokenSeed {
        /// Which line; 0 is the file itself.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the old Kip cannot be used.
    #[error("the file of instance types {problem}")]
    InstanceData {
        /// What is wrong with it.
        problem: String,
    },
    /// The cloud answered with nothing where there must be something: what was known before stays.
    #[error("EC2 named no {part} for {region}; what was known before stays in use")]
    EmptyPart {
        /// Which part.
        part: LivePart,
        /// The region.
        region: String,
    },
}

impl From<CatalogueError> for Error {
    fn from(error: CatalogueError) -> Self {
        let kind = match &error {
            CatalogueError::UnknownRegion { .. } | CatalogueError::InstanceData { .. } => {
                ErrorKind::ConfigInvalid
            }
            CatalogueError::BrokenSeed { .. } | CatalogueError::EmptyPart { .. } => ErrorKind::Unexpected,
        };
        let message = error.to_string();
        Self::new(kind, "read the catalogue", message).with_source(error)
    }
}

//! Keeps on disk what cannot be rebuilt from the runtime: the desired pod, the request to stop it, and which runs had
//! passed their probes. One small file, mode 0600, replaced atomically.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kip_cell_api::v1::{Pod, StartMarks};
use prost::Message as _;

/// What is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    /// The desired pod.
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<Pod>,
    /// Milliseconds since 1970 at which the containers are killed, when termination was asked for.
    #[prost(int64, optional, tag = "2")]
    pub(crate) stop_deadline_ms: Option<i64>,
    /// Why termination was asked for.
    #[prost(string, tag = "3")]
    pub(crate) stop_reason: String,
    /// Ids of runs that passed their startup probe and post-start hook.
    #[prost(string, repeated, tag = "4")]
    pub(crate) started: Vec<String>,
    /// Ids of runs that were ready.
    #[prost(string, repeated, tag = "5")]
    pub(crate) ready: Vec<String>,
    /// Stage marks of the start.
    #[prost(message, optional, tag = "6")]
    pub(crate) marks: Option<StartMarks>,
    /// Uids of pods that were told to stop before they were deployed: they are never taken.
    #[prost(string, repeated, tag = "7")]
    pub(crate) refused: Vec<String>,
    /// Ids of runs that could not be started, as the runtime told the agent that asked.
    #[prost(string, repeated, tag = "8")]
    pub(crate) start_errors: Vec<String>,
}

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is damaged; remove it to start without a pod")]
    Damaged {
        path: PathBuf,
        #[source]
        source: prost::DecodeError,
    },
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
    /// Version of the newest record written, so that saves that overtake each other leave the newest.
    newest: Arc<Mutex<u64>>,
}

impl Store {
    /// Makes the folder if need be.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        Ok(Self {
            path: folder.join("pod.pb"),
            newest: Arc::default(),
        })
    }

    /// What was stored last; an empty record at first.
    pub(crate) fn load(&self) -> Result<Record, StoreError> {
        match fs::read(&self.path) {
            Ok(bytes) => Record::decode(bytes.as_slice()).map_err(|source| StoreError::Damaged {
                path: self.path.clone(),
                source,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
            Err(source) => Err(StoreError::Io {
                what: "read",
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Replaces the record unless a newer version was saved already. Blocking. After it returned the record survives a
    /// power cut.
    pub(crate) fn save(&self, version: u64, record: &Record) -> Result<(), StoreError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if version < *newest {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io("create", &temporary))?;
        file.write_all(&record.encode_to_vec())
            .map_err(io("write", &temporary))?;
        file.sync_all().map_err(io("write", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(io("replace", &self.path))?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io("write", folder))?;
        *newest = version;
        Ok(())
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::pod::fixtures;

    /// After a crash the agent must find the pod it was given; nobody else may read its secrets.
    #[test]
    fn survives_and_is_private() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("open");
        assert_eq!(store.load().expect("empty"), Record::default());
        let record = Record {
            pod: Some(fixtures::pod("Always", &["c"])),
            stop_deadline_ms: Some(5),
            ..Default::default()
        };
        store.save(2, &record).expect("save");
        store
            .save(1, &Record::default())
            .expect("an older one that comes late");
        assert_eq!(
            Store::open(folder.path()).expect("again").load().expect("load"),
            record
        );
        let mode = fs::metadata(folder.path().join("pod.pb"))
            .expect("file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("pod.pb"), b"\xff\xff").expect("damage");
        assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
    }
}

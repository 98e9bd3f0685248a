//! What is written down about an instance before anything of it exists, so that nothing is ever forgotten.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use kip_core::ids::{InstanceId, LaunchToken, OfferingId};
use kip_core::model::{Addresses, Instance, InstancePhase};
use kip_core::provider::{LaunchRequest, UserData};
use serde::{Deserialize, Serialize};

use crate::host::{Addressing, Network};

const RECORD: &str = "instance.json";
const USER_DATA: &str = "user-data";

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// Accepted; parts of it may exist.
    Booting,
    /// Its first process was started.
    Running,
    /// Being removed; parts of it may be gone.
    Terminating,
}

/// The record of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: InstanceId,
    pub(super) token: LaunchToken,
    pub(super) cell: String,
    pub(super) offering: OfferingId,
    pub(super) tags: BTreeMap<String, String>,
    /// Hash of the whole request: a token that comes back with another one is refused.
    pub(super) fingerprint: String,
    /// Which pair of the network's addresses it has; means nothing when it has others.
    pub(super) slot: u32,
    /// The addresses it was launched at, when the caller chose them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Addressing>,
    pub(super) launched_at: Timestamp,
    pub(super) stage: Stage,
    pub(super) reason: Option<String>,
}

impl Record {
    pub(super) fn new(id: InstanceId, request: &LaunchRequest, slot: u32, now: Timestamp) -> Self {
        Self {
            id,
            token: request.token.clone(),
            cell: request.cell.to_string(),
            offering: request.offering.clone(),
            tags: request.tags.clone(),
            fingerprint: fingerprint(request),
            slot,
            at: None,
            launched_at: now,
            stage: Stage::Booting,
            reason: None,
        }
    }

    /// The id without its `i-`, as in the names of what belongs to it.
    pub(super) fn short(&self) -> &str {
        let id = self.id.as_str();
        id.strip_prefix("i-").unwrap_or(id)
    }

    /// Its addresses.
    pub(super) fn addressing(&self, network: &Network) -> Addressing {
        self.at.unwrap_or_else(|| network.addressing(self.slot))
    }

    /// What a caller is told.
    pub(super) fn instance(&self, network: &Network) -> Instance {
        let provider_id = format!("local:///{}/{}", self.offering.zone, self.id);
        let mut instance = Instance::new(
            self.id.clone(),
            provider_id,
            self.offering.clone(),
            self.launched_at,
        );
        instance.phase = match self.stage {
            Stage::Booting => InstancePhase::Pending,
            Stage::Running => InstancePhase::Running,
            Stage::Terminating => InstancePhase::Terminating,
        };
        let addressing = self.addressing(network);
        instance.addresses = Addresses {
            management: Some(addressing.management.into()),
            pod: Some(addressing.pod.into()),
        };
        instance.token = Some(self.token.clone());
        instance.tags = self.tags.clone();
        instance.reason = self.reason.clone();
        instance
    }

    /// Writes it into the instance's folder: wholly or not at all.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        write_private(folder, RECORD, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads it back; None when there is none. An empty file is what a power cut leaves of one.
    pub(super) fn load(folder: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(folder.join(RECORD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&bytes)?))
    }
}

pub(super) fn save_user_data(folder: &Path, user_data: &UserData) -> io::Result<()> {
    write_private(folder, USER_DATA, user_data.as_bytes())
}

pub(super) fn load_user_data(folder: &Path) -> io::Result<UserData> {
    fs::read(folder.join(USER_DATA)).map(UserData::new)
}

fn write_private(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    fs::rename(new, folder.join(name))
}

pub(super) fn fingerprint(request: &LaunchRequest) -> String {
    let mut hash = hmac_sha256::Hash::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(request.cell.as_str().as_bytes());
    part(request.offering.to_string().as_bytes());
    part(request.user_data.as_bytes());
    part(&request.options.ephemeral_storage.0.to_be_bytes());
    part(&request.options.volume_size.0.to_be_bytes());
    for (key, value) in &request.tags {
        part(key.as_bytes());
        part(value.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

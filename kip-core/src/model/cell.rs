//! The durable record of a cell.

use std::net::IpAddr;

use hmac_sha256::Hash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Addresses, Price, Verdict};
use crate::ids::{CellName, ClusterUid, InstanceId, LaunchToken, NodeName, OfferingId, PodRef, hex};

/// Where a cell is in its life, as far as it must survive a restart of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CellPhase {
    /// The intent is recorded; whether an instance exists is not known yet.
    Launching,
    /// The instance exists; the pod is not running yet.
    Booting,
    /// The pod was told to run on it.
    Running,
    /// The instance is to be terminated and forgotten.
    Terminating,
}

impl CellPhase {
    /// The name, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "Launching",
            Self::Booting => "Booting",
            Self::Running => "Running",
            Self::Terminating => "Terminating",
        }
    }
}

/// When each stage was reached. Each is set once and kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CellMarks {
    /// The pod was first seen on the node.
    pub seen_at: Option<Timestamp>,
    /// The offering was chosen.
    pub decided_at: Option<Timestamp>,
    /// The cloud accepted the launch.
    pub launched_at: Option<Timestamp>,
    /// The agent answered for the first time.
    pub connected_at: Option<Timestamp>,
    /// Images were on the cell.
    pub images_at: Option<Timestamp>,
    /// Every container was running (or had run).
    pub running_at: Option<Timestamp>,
    /// Termination was decided.
    pub terminating_at: Option<Timestamp>,
}

/// What comes after the instance of a terminating cell is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Ending {
    /// Another attempt for the same pod.
    Again,
    /// Nothing: the pod is over. How it ended, when that was decided by its run and not by its deletion.
    Over(Option<Verdict>),
}

/// The instance of an earlier attempt that is still on its way out while the next attempt is already made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// Which attempt it was.
    pub attempt: u32,
    /// The token it was launched with.
    pub token: LaunchToken,
    /// The instance.
    pub instance: InstanceId,
    /// Where its agent is reached, if that was known.
    pub address: Option<IpAddr>,
}

impl Replaced {
    /// The name of the host it is.
    pub fn host(&self) -> CellName {
        self.token.host_name()
    }
}

/// The durable record of a cell: written before the launch call, removed only when the instance is gone and the pod is over.
///
/// A pod has one record all its life, named after its UID. Attempts follow one another in it, so every decision about a pod is a
/// compare-and-swap on one object: of two controllers that decide at the same time, one loses and follows the other.
///
/// Written at most four times in an ordinary life: intent, instance known, running, terminating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CellRecord {
    /// The cell's name, derived from the pod's UID.
    pub name: CellName,
    /// The pod it runs.
    pub pod: PodRef,
    /// The virtual node the pod is bound to.
    pub node: NodeName,
    /// The cluster.
    pub cluster: ClusterUid,
    /// Which attempt for this pod it is, from 1.
    pub attempt: u32,
    /// The token of its launch.
    pub token: LaunchToken,
    /// What was chosen.
    pub offering: OfferingId,
    /// What it costs, as known when it was chosen.
    pub price: Price,
    /// When the launch was decided: part of the identity put in user-data, so a repeated launch sends the same bytes.
    pub issued_at: Timestamp,
    /// Where it is in its life.
    pub phase: CellPhase,
    /// The instance, once known.
    pub instance: Option<InstanceId>,
    /// The instance's addresses, once known.
    pub addresses: Addresses,
    /// When each stage was reached.
    pub marks: CellMarks,
    /// Why it is being terminated, in words for people.
    pub reason: Option<String>,
    /// What comes after the instance is gone; set with [`CellPhase::Terminating`], and only then.
    pub ending: Option<Ending>,
    /// The instance of an earlier attempt that may still exist. Told to run the pod before, so the new one is not until it has ended.
    pub replaces: Option<Replaced>,
    /// The store's version of this record, for compare-and-swap; empty before the first write.
    #[serde(skip)]
    pub version: String,
}

impl CellRecord {
    /// The record of an intent to launch.
    #[expect(
        clippy::too_many_arguments,
        reason = "every part is required; a builder would only hide a missing one"
    )]
    pub fn intent(
        pod: PodRef,
        node: NodeName,
        cluster: ClusterUid,
        attempt: u32,
        token: LaunchToken,
        offering: OfferingId,
        price: Price,
        issued_at: Timestamp,
    ) -> Self {
        Self {
            name: CellName::of_pod(&pod.uid),
            pod,
            node,
            cluster,
            attempt,
            token,
            offering,
            price,
            issued_at,
            phase: CellPhase::Launching,
            instance: None,
            addresses: Addresses::default(),
            marks: CellMarks {
                decided_at: Some(issued_at),
                ..CellMarks::default()
            },
            reason: None,
            ending: None,
            replaces: None,
            version: String::new(),
        }
    }

    /// The name of this attempt's host: what its certificate says and what people see in the cloud. Another attempt has another.
    pub fn host(&self) -> CellName {
        self.token.host_name()
    }

    /// What shows that the record was not written by a controller, if anything does. Such a record is never acted on.
    pub fn problem(&self) -> Option<String> {
        if self.name != CellName::of_pod(&self.pod.uid) {
            return Some(format!(
                "the name {} does not belong to pod {}",
                self.name, self.pod.uid
            ));
        }
        let token = LaunchToken::derive(
            &self.cluster,
            &self.node,
            &self.pod.uid,
            self.attempt,
            &self.offering,
        );
        if self.token != token {
            return Some("the launch token does not belong to pod, attempt and offering".into());
        }
        let is_terminating = self.phase == CellPhase::Terminating;
        if is_terminating != self.ending.is_some() {
            return Some("the phase and what comes after it contradict each other".into());
        }
        if matches!(self.phase, CellPhase::Booting | CellPhase::Running) && self.instance.is_none() {
            return Some(format!("the phase is {:?}, but no instance is named", self.phase));
        }
        None
    }

    /// A short hash of what the record says, stored beside it: a change by hand does not match it. It keeps accidents out, not
    /// attackers: whoever may write records may also seal them.
    pub fn seal(&self) -> String {
        // Spelled out rather than derived, so that a later version of Kip finds the same.
        let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
        let mut parts = vec![
            self.token.to_string(),
            self.phase.as_str().to_owned(),
            self.instance
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            text(self.addresses.management),
            text(self.addresses.pod),
        ];
        match &self.ending {
            None => parts.push("none".into()),
            Some(Ending::Again) => parts.push("again".into()),
            Some(Ending::Over(None)) => parts.push("over".into()),
            Some(Ending::Over(Some(verdict))) => parts.extend([
                verdict.phase.as_str().to_owned(),
                verdict.reason.clone(),
                verdict.message.clone(),
                verdict.disruption.clone().unwrap_or_default(),
            ]),
        }
        if let Some(replaced) = &self.replaces {
            parts.extend([
                replaced.attempt.to_string(),
                replaced.token.to_string(),
                replaced.instance.to_string(),
                text(replaced.address),
            ]);
        }
        let mut hash = Hash::new();
        for part in parts {
            // Length first, so that no two lists of parts run together to the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex(&hash.finalize()[..8])
    }
}

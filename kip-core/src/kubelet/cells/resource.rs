//! The `Cell` custom resource, and its conversion from and to the record the driver keeps.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{
    CellName, ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use crate::model::{
    Addresses, CapacityType, CellMarks, CellPhase, CellRecord, Ending, PodPhase, Price, Replaced, Verdict,
};

/// Keeps the object until the cloud said that the instance is gone.
pub(super) const FINALIZER: &str = "kip.elotl.co/instance";
/// Label with the name of the virtual node.
pub(super) const NODE_LABEL: &str = "kip.elotl.co/node";

/// One instance that runs one pod: what was decided, written before the launch.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kip.elotl.co",
    version = "v1alpha1",
    kind = "Cell",
    plural = "cells",
    singular = "cell",
    status = "CellStatus",
    doc = "A cell: the one instance that runs one pod, and its record.",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.pod.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.offering.instanceType"}"#,
    printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".spec.offering.zone"}"#,
    printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".spec.offering.capacityType"}"#,
    printcolumn = r#"{"name":"Price","type":"string","jsonPath":".spec.price"}"#,
    printcolumn = r#"{"name":"Instance","type":"string","jsonPath":".status.instance"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CellSpec {
    /// The pod it runs.
    pub pod: PodFields,
    /// The virtual node the pod is bound to.
    pub node: String,
    /// UID of the cluster's `kube-system` namespace.
    pub cluster: String,
    /// Which attempt for this pod it is, from 1.
    #[schemars(schema_with = "count")]
    pub attempt: u32,
    /// The token of its launch.
    pub token: String,
    /// What was chosen.
    pub offering: OfferingFields,
    /// What an hour costs, for people.
    pub price: String,
    /// What an hour costs, in millionths of a US dollar.
    #[schemars(schema_with = "count")]
    pub price_micros: u64,
    /// When the launch was decided.
    #[schemars(schema_with = "time")]
    pub issued_at: Timestamp,
    /// When the pod was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub seen_at: Option<Timestamp>,
    /// The instance of an earlier attempt that may still exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ReplacesFields>,
}

/// The instance of an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacesFields {
    /// Which attempt it was.
    #[schemars(schema_with = "count")]
    pub attempt: u32,
    /// The token of its launch.
    pub token: String,
    /// The cloud's id of the instance.
    pub instance: String,
    /// Where its agent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// How the pod ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictFields {
    /// `Succeeded` or `Failed`.
    #[schemars(schema_with = "verdict_phase")]
    pub phase: PodPhase,
    /// CamelCase reason.
    #[serde(default)]
    pub reason: String,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// Why the infrastructure is to blame, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<String>,
}

/// What comes after the instance is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndingField {
    /// Another attempt.
    Again,
    /// The pod is over.
    Over,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodFields {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// An offering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferingFields {
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// `on-demand`, `spot` or `reserved`.
    #[schemars(schema_with = "capacity_type")]
    pub capacity_type: CapacityType,
}

/// Where the cell is in its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellStatus {
    /// Which attempt this is about; of an older attempt than the spec's it counts for nothing.
    #[schemars(schema_with = "count")]
    pub attempt: u32,
    /// `Launching`, `Booting`, `Running` or `Terminating`.
    #[schemars(schema_with = "phase")]
    pub phase: CellPhase,
    /// The cloud's id of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Where the agent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_address: Option<String>,
    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_address: Option<String>,
    /// When each stage was reached.
    #[serde(default)]
    pub marks: CellMarksFields,
    /// Why it is being terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `Again` or `Over`: what comes after the instance is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ending")]
    pub ending: Option<EndingField>,
    /// How the pod ended, when its run decided that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictFields>,
    /// Shows a change by hand.
    pub seal: String,
}

macro_rules! marks {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        /// When each stage was reached.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct CellMarksFields {
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schemars(schema_with = "time")]
                pub $name: Option<Timestamp>,
            )*
        }

        impl From<CellMarks> for CellMarksFields {
            fn from(marks: CellMarks) -> Self {
                Self { $($name: marks.$name),* }
            }
        }

        impl From<CellMarksFields> for CellMarks {
            fn from(marks: CellMarksFields) -> Self {
                Self { $($name: marks.$name),* }
            }
        }
    };
}

marks! {
    /// The pod was first seen on the node.
    seen_at,
    /// The offering was chosen.
    decided_at,
    /// The cloud accepted the launch.
    launched_at,
    /// The agent answered for the first time.
    connected_at,
    /// Images were on the cell.
    images_at,
    /// Every container was running.
    running_at,
    /// Termination was decided.
    terminating_at,
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

fn capacity_type(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["on-demand", "spot", "reserved"] })
}

fn phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Launching", "Booting", "Running", "Terminating"] })
}

fn verdict_phase(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Succeeded", "Failed"] })
}

fn ending(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Again", "Over"] })
}

/// The object of a record, with everything but its version.
pub(super) fn object(record: &CellRecord) -> Cell {
    let mut cell = Cell::new(
        record.name.as_str(),
        CellSpec {
            pod: PodFields {
                namespace: record.pod.namespace.clone(),
                name: record.pod.name.clone(),
                uid: record.pod.uid.to_string(),
            },
            node: record.node.to_string(),
            cluster: record.cluster.to_string(),
            attempt: record.attempt,
            token: record.token.to_string(),
            offering: OfferingFields {
                instance_type: record.offering.instance_type.to_string(),
                zone: record.offering.zone.to_string(),
                capacity_type: record.offering.capacity_type,
            },
            price: record.price.to_string(),
            price_micros: record.price.0,
            issued_at: record.issued_at,
            seen_at: record.marks.seen_at,
            replaces: record.replaces.as_ref().map(|replaced| ReplacesFields {
                attempt: replaced.attempt,
                token: replaced.token.to_string(),
                instance: replaced.instance.to_string(),
                address: replaced.address.map(|ip| ip.to_string()),
            }),
        },
    );
    cell.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    cell.metadata.labels = Some([(NODE_LABEL.to_owned(), label_value(&record.node))].into());
    let (ending, verdict) = match &record.ending {
        None => (None, None),
        Some(Ending::Again) => (Some(EndingField::Again), None),
        Some(Ending::Over(verdict)) => (Some(EndingField::Over), verdict.clone()),
    };
    cell.status = Some(CellStatus {
        attempt: record.attempt,
        phase: record.phase,
        instance: record.instance.as_ref().map(ToString::to_string),
        management_address: record.addresses.management.map(|ip| ip.to_string()),
        pod_address: record.addresses.pod.map(|ip| ip.to_string()),
        marks: record.marks.into(),
        reason: record.reason.clone(),
        ending,
        verdict: verdict.map(|verdict| VerdictFields {
            phase: verdict.phase,
            reason: verdict.reason,
            message: verdict.message,
            disruption: verdict.disruption,
        }),
        seal: record.seal(),
    });
    cell
}

/// The record of an object.
pub(super) fn record(cell: &Cell) -> Result<CellRecord> {
    let spec = &cell.spec;
    let name = cell.metadata.name.clone().unwrap_or_default();
    let broken = |field: &str| {
        Error::new(
            ErrorKind::Unexpected,
            "read cell",
            format!("{field} was changed to something that cannot be read"),
        )
        .with_context("cell", &name)
    };
    let address = |text: &Option<String>, field| match text {
        Some(text) => text.parse().map(Some).map_err(|_| broken(field)),
        None => Ok(None),
    };
    let mut record = CellRecord::intent(
        PodRef {
            uid: PodUid::new(&spec.pod.uid),
            namespace: spec.pod.namespace.clone(),
            name: spec.pod.name.clone(),
        },
        NodeName::new(&spec.node),
        ClusterUid::new(&spec.cluster),
        spec.attempt,
        LaunchToken::from_stored(&spec.token),
        OfferingId {
            instance_type: InstanceType::new(&spec.offering.instance_type),
            zone: Zone::new(&spec.offering.zone),
            capacity_type: spec.offering.capacity_type,
        },
        Price(spec.price_micros),
        spec.issued_at,
    );
    record.name = CellName::new(name.clone());
    record.marks.seen_at = spec.seen_at;
    if let Some(replaced) = &spec.replaces {
        record.replaces = Some(Replaced {
            attempt: replaced.attempt,
            token: LaunchToken::from_stored(&replaced.token),
            instance: InstanceId::new(&replaced.instance),
            address: address(&replaced.address, "spec.replaces.address")?,
        });
    }
    if let Some(status) = cell
        .status
        .as_ref()
        .filter(|status| status.attempt == spec.attempt)
    {
        record.ending = status.ending.map(|ending| match ending {
            EndingField::Again => Ending::Again,
            EndingField::Over => Ending::Over(status.verdict.as_ref().map(|verdict| Verdict {
                phase: verdict.phase,
                reason: verdict.reason.clone(),
                message: verdict.message.clone(),
                disruption: verdict.disruption.clone(),
            })),
        });
        record.phase = status.phase;
        record.instance = status.instance.as_ref().map(InstanceId::new);
        record.addresses = Addresses {
            management: address(&status.management_address, "status.managementAddress")?,
            pod: address(&status.pod_address, "status.podAddress")?,
        };
        record.marks = status.marks.clone().into();
        record.reason.clone_from(&status.reason);
        if status.seal != record.seal() {
            return Err(broken("status"));
        }
    }
    record.version = cell.metadata.resource_version.clone().unwrap_or_default();
    Ok(record)
}

/// The node's name as a label's value: cut, and made unique again, where it is longer than labels may be.
pub(crate) fn label_value(node: &NodeName) -> String {
    let name = node.as_str();
    if name.len() <= 63 {
        return name.to_owned();
    }
    let hash = hmac_sha256::Hash::hash(name.as_bytes());
    let tail: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let head: String = name.chars().take(48).collect();
    format!("{}-{tail}", head.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> CellRecord {
        let now: Timestamp = "2026-01-02T03:04:05.678901234Z".parse().expect("a time");
        let offering = OfferingId {
            instance_type: InstanceType::new("small"),
            zone: Zone::new("z1"),
            capacity_type: CapacityType::Spot,
        };
        let pod = PodRef {
            uid: PodUid::new("u"),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
        };
        let (cluster, node) = (ClusterUid::new("c"), NodeName::new("kip"));
        let token = LaunchToken::derive(&cluster, &node, &pod.uid, 2, &offering);
        let mut record = CellRecord::intent(pod, node, cluster, 2, token, offering, Price(5200), now);
        record.marks.seen_at = Some(now);
        record
    }

    #[test]
    fn a_record_survives_the_way_through_the_api_or_a_restart_would_launch_with_another_token() {
        let mut changed = full();
        changed.phase = CellPhase::Running;
        changed.instance = Some(InstanceId::new("i-1"));
        changed.addresses.management = Some("10.0.0.1".parse().expect("an address"));
        changed.addresses.pod = Some("fd00::1".parse().expect("an address"));
        changed.marks.running_at = Some(changed.issued_at);
        changed.reason = Some("why".to_owned());
        for original in [full(), changed] {
            let json = serde_json::to_string(&object(&original)).expect("JSON");
            let cell: Cell = serde_json::from_str(&json).expect("a cell");
            assert_eq!(record(&cell).expect("a record"), original);
        }
        // The API drops the status of a new object: the intent is in the spec.
        let mut created = object(&full());
        created.status = None;
        assert_eq!(record(&created).expect("a record"), full());
    }

    #[test]
    fn long_node_names_still_make_labels() {
        let long = NodeName::new("n".repeat(200));
        let other = NodeName::new(format!("{}x", "n".repeat(199)));
        assert!(label_value(&long).len() <= 63);
        assert_ne!(label_value(&long), label_value(&other));
        assert_eq!(label_value(&NodeName::new("kip")), "kip");
    }
}

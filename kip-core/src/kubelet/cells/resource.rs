//! The `Cell` custom resource: its fields, and the rules the API server holds every change to.
//!
//! A cell is one pod's, all its life. Its spec is what was decided before a launch; only another attempt changes it. Its status is how far
//! that attempt got. The rules refuse what no controller ever writes, so most changes by hand never happen; the `restorations` are the
//! one way past them, for a controller that puts back what somebody changed all the same.

#![expect(
    unreachable_pub,
    reason = "deriving a schema with rules copies the struct into a function"
)]

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::ids::NodeName;
use crate::model::{CapacityType, CellMarks, CellPhase, PodPhase};

/// Keeps the object until the cloud said that the instance is gone.
pub(super) const FINALIZER: &str = "kip.elotl.co/instance";
/// Label with the name of the virtual node.
pub(super) const NODE_LABEL: &str = "kip.elotl.co/node";

/// True where a controller puts back what was changed by hand: the way past the rules about changes.
const RESTORED: &str =
    "(has(self.restorations) && self.restorations > (has(oldSelf.restorations) ? oldSelf.restorations : 0))";
/// True where the phase does not go back. Spelled out: looking phases up in a list would cost more than the API server allows a rule.
const FORWARD: &str = "self.phase == oldSelf.phase || oldSelf.phase == 'Launching' || self.phase == 'Terminating' \
                       || (oldSelf.phase == 'Booting' && self.phase == 'Running')";

/// One instance that runs one pod: what was decided, written before the launch.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kip.elotl.co",
    version = "v1alpha1",
    kind = "Cell",
    plural = "cells",
    singular = "cell",
    status = "CellStatus",
    doc = "A cell: the one instance that runs one pod, and its record.",
    derive = "PartialEq",
    validation = Rule::new("!has(self.status) || self.status.attempt <= self.spec.attempt")
        .message("status.attempt is of an attempt that spec does not know"),
    validation = Rule::new("has(self.status) || !has(oldSelf.status)")
        .message("status cannot be removed: it names the instance"),
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.pod.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.offering.instanceType"}"#,
    printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".spec.offering.zone"}"#,
    printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".spec.offering.capacityType"}"#,
    printcolumn = r#"{"name":"Price","type":"string","jsonPath":".spec.price"}"#,
    printcolumn = r#"{"name":"Instance","type":"string","jsonPath":".status.instance"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new(format!("self.pod == oldSelf.pod || {RESTORED}"))
        .message("spec.pod cannot be changed: a cell is one pod's, all its life"),
    validation = Rule::new(format!("self.node == oldSelf.node || {RESTORED}"))
        .message("spec.node cannot be changed: it is the node the pod is bound to"),
    validation = Rule::new(format!("self.cluster == oldSelf.cluster || {RESTORED}"))
        .message("spec.cluster cannot be changed: the instance is tagged with it"),
    validation = Rule::new(format!("self.attempt >= oldSelf.attempt || {RESTORED}"))
        .message("spec.attempt only grows"),
    validation = Rule::new(format!("self == oldSelf || self.attempt > oldSelf.attempt || {RESTORED}"))
        .message("spec can only be changed together with a higher spec.attempt: the instance was launched with what it says"),
)]
#[serde(rename_all = "camelCase")]
pub struct CellSpec {
    /// The pod it runs.
    pub pod: PodFields,
    /// The virtual node the pod is bound to.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// UID of the cluster's `kube-system` namespace.
    #[schemars(length(min = 1, max = 128))]
    pub cluster: String,
    /// Which attempt for this pod it is, from 1.
    #[schemars(schema_with = "attempt")]
    pub attempt: u32,
    /// The token of its launch: a hash of cluster, node, pod, attempt and offering.
    #[schemars(schema_with = "token")]
    pub token: String,
    /// What was chosen.
    pub offering: OfferingFields,
    /// What an hour costs, for people.
    #[schemars(length(max = 64))]
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
    /// Grows when a controller puts back what was changed by hand, which the rules would else refuse; absent otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "count")]
    pub restorations: u32,
}

/// The instance of an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacesFields {
    /// Which attempt it was.
    #[schemars(schema_with = "attempt")]
    pub attempt: u32,
    /// The token of its launch.
    #[schemars(schema_with = "token")]
    pub token: String,
    /// The cloud's id of the instance.
    #[schemars(length(min = 1, max = 1024))]
    pub instance: String,
    /// Where its agent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
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
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

/// An offering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferingFields {
    /// Instance type.
    #[schemars(length(min = 1, max = 128))]
    pub instance_type: String,
    /// Zone.
    #[schemars(length(max = 128))]
    pub zone: String,
    /// `on-demand`, `spot` or `reserved`.
    #[schemars(schema_with = "capacity_type")]
    pub capacity_type: CapacityType,
}

/// Where the cell is in its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!(self.phase in ['Booting', 'Running']) || has(self.instance)")
        .message("a cell that is Booting or Running has an instance"),
    validation = Rule::new("(self.phase == 'Terminating') == has(self.ending)")
        .message("a cell that is Terminating, and no other, says by ending whether another attempt follows (Again) or not (Over)"),
    validation = Rule::new("!has(self.verdict) || (has(self.ending) && self.ending == 'Over')")
        .message("only a pod that is over has a verdict"),
    validation = Rule::new(format!("self.attempt >= oldSelf.attempt || {RESTORED}"))
        .message("status.attempt only grows"),
    validation = Rule::new(format!(
        "self.attempt > oldSelf.attempt || !has(oldSelf.instance) || (has(self.instance) && self.instance == oldSelf.instance) || {RESTORED}"
    ))
    .message("status.instance cannot be changed: an attempt has one instance, and it must be terminated"),
    validation = Rule::new(format!("self.attempt > oldSelf.attempt || {FORWARD} || {RESTORED}"))
    .message("status.phase never goes back: Launching, Booting, Running, Terminating"),
)]
#[serde(rename_all = "camelCase")]
pub struct CellStatus {
    /// Which attempt this is about; of an older attempt than the spec's it counts for nothing.
    #[schemars(schema_with = "attempt")]
    pub attempt: u32,
    /// `Launching`, `Booting`, `Running` or `Terminating`.
    #[schemars(schema_with = "phase")]
    pub phase: CellPhase,
    /// The cloud's id of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub instance: Option<String>,
    /// Where the agent is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub management_address: Option<String>,
    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
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
    /// A hash of what a controller wrote; a change by hand does not match it.
    #[schemars(length(max = 64))]
    pub seal: String,
    /// Grows when a controller puts back what was changed by hand, which the rules would else refuse; absent otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "count")]
    pub restorations: u32,
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

fn attempt(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1 })
}

fn token(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{40}$", "maxLength": 40 })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
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

    #[test]
    fn long_node_names_still_make_labels() {
        let long = NodeName::new("n".repeat(200));
        let other = NodeName::new(format!("{}x", "n".repeat(199)));
        assert!(label_value(&long).len() <= 63);
        assert_ne!(label_value(&long), label_value(&other));
        assert_eq!(label_value(&NodeName::new("kip")), "kip");
    }
}

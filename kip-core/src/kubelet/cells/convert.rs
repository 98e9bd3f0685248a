//! Turns the driver's records into `Cell` objects and back, and tells what was changed by hand from what was not.

use kube::api::DynamicObject;
use serde_json::Value;

use super::resource::{
    Cell, CellSpec, CellStatus, EndingField, FINALIZER, NODE_LABEL, OfferingFields, PodFields,
    ReplacesFields, VerdictFields, label_value,
};
use crate::driver::{DamagedCell, StoredCell};
use crate::error::Chain;
use crate::ids::{
    CellName, ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use crate::model::{Addresses, CellRecord, Ending, Price, Replaced, Verdict};

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
            restorations: 0,
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
        restorations: 0,
    });
    cell
}

/// The record of an object, or what is wrong with it. `raw` is anything the API has under that name.
pub(super) fn stored(raw: DynamicObject) -> StoredCell {
    let text = |pointer: &str| raw.data.pointer(pointer).and_then(Value::as_str);
    let mut damaged = DamagedCell {
        name: CellName::new(raw.metadata.name.clone().unwrap_or_default()),
        version: raw.metadata.resource_version.clone().unwrap_or_default(),
        pod: text("/spec/pod/uid").map(PodUid::new),
        instance: text("/status/instance").map(InstanceId::new),
        problem: String::new(),
    };
    let read = raw
        .try_parse::<Cell>()
        .map_err(|error| format!("it cannot be read: {}", Chain::of(&error)));
    match read.and_then(|cell| record(&cell)) {
        Ok(record) => StoredCell::judge(record),
        Err(problem) => {
            damaged.problem = problem;
            StoredCell::Damaged(damaged)
        }
    }
}

/// The record of an object. `Err` says what was changed by hand.
fn record(cell: &Cell) -> Result<CellRecord, String> {
    let spec = &cell.spec;
    let address = |text: &Option<String>, field: &str| match text {
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{field} is no address: {text:?}")),
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
    record.name = CellName::new(cell.metadata.name.clone().unwrap_or_default());
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
            return Err("status is not what a controller wrote: its seal does not fit".to_owned());
        }
    }
    record.version = cell.metadata.resource_version.clone().unwrap_or_default();
    Ok(record)
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;

//! Reads a Cell object by itself: what the product makes of it must not be what the judge believes.

use kip_core::ids::{
    CellName, ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodRef, PodUid, Zone,
};
use kip_core::model::{CapacityType, CellPhase, CellRecord, Ending, Price, Replaced};
use serde_json::Value;

/// The record of a Cell object, as far as a judge looks at it; None when it cannot be read.
pub(super) fn record(cell: &Value) -> Option<CellRecord> {
    let (meta, spec, status) = (&cell["metadata"], &cell["spec"], &cell["status"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let attempt = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let pod = PodRef {
        uid: PodUid::new(text(&spec["pod"]["uid"])?),
        namespace: text(&spec["pod"]["namespace"])?,
        name: text(&spec["pod"]["name"])?,
    };
    let capacity_type = match spec["offering"]["capacityType"].as_str()? {
        "on-demand" => CapacityType::OnDemand,
        "spot" => CapacityType::Spot,
        "reserved" => CapacityType::Reserved,
        _ => return None,
    };
    let offering = OfferingId {
        instance_type: InstanceType::new(text(&spec["offering"]["instanceType"])?),
        zone: Zone::new(text(&spec["offering"]["zone"])?),
        capacity_type,
    };
    let mut record = CellRecord::intent(
        pod,
        NodeName::new(text(&spec["node"])?),
        ClusterUid::new(text(&spec["cluster"])?),
        attempt(&spec["attempt"])?,
        LaunchToken::from_stored(text(&spec["token"])?),
        offering,
        Price(spec["priceMicros"].as_u64()?),
        spec["issuedAt"].as_str()?.parse().ok()?,
    );
    record.name = CellName::new(text(&meta["name"])?);
    record.version = text(&meta["resourceVersion"])?;
    if let Some(replaced) = spec["replaces"].as_object() {
        record.replaces = Some(Replaced {
            attempt: attempt(replaced.get("attempt")?)?,
            token: LaunchToken::from_stored(text(replaced.get("token")?)?),
            instance: InstanceId::new(text(replaced.get("instance")?)?),
            address: None,
        });
    }
    // A status of an attempt before counts for nothing.
    if attempt(&status["attempt"]) == Some(record.attempt) {
        record.phase = match status["phase"].as_str()? {
            "Launching" => CellPhase::Launching,
            "Booting" => CellPhase::Booting,
            "Running" => CellPhase::Running,
            "Terminating" => CellPhase::Terminating,
            _ => return None,
        };
        record.instance = text(&status["instance"]).map(InstanceId::new);
        record.ending = match status["ending"].as_str() {
            Some("Again") => Some(Ending::Again),
            Some("Over") => Some(Ending::Over(None)),
            _ => None,
        };
        // So that each write is seen as one, whatever it changed.
        record.reason = Some(status.to_string());
    }
    Some(record)
}

//! What this crate's unit tests share.

use kip_core::ids::{InstanceType, LaunchToken, OfferingId, Zone};
use kip_core::model::CapacityType;
use kip_core::provider::{LaunchRequest, UserData};

/// An offering in `us-east-1a`.
pub(crate) fn offering(instance_type: &str, capacity_type: CapacityType) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new("us-east-1a"),
        capacity_type,
    }
}

/// A launch of a `t3.small`, on demand.
pub(crate) fn request() -> LaunchRequest {
    LaunchRequest::new(
        LaunchToken::from_stored("0123456789abcdef0123456789abcdef01234567"),
        offering("t3.small", CapacityType::OnDemand),
        UserData::new("#cloud-config\n"),
    )
}

/// User-data that no compression makes shorter.
pub(crate) fn incompressible(bytes: usize) -> UserData {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    UserData::new(noise.take(bytes).collect::<Vec<u8>>())
}

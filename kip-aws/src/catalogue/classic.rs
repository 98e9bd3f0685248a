//! The choices of the old Kip.

use kip_core::model::Bytes;
use kip_core::sizing::{MemoryReserve, SizingPolicy};

/// Families in the old Kip's table of EC2 that [`classic_policy`] keeps to.
const FAMILIES: [&str; 50] = [
    "c1", "c3", "c4", "c5", "c5a", "c5ad", "c5d", "c5n", "d2", "f1", "g2", "g3", "g3s", "g4dn", "h1", "i2",
    "i3", "i3en", "inf1", "m1", "m2", "m3", "m4", "m5", "m5a", "m5ad", "m5d", "m5dn", "m5n", "p2", "p3",
    "p3dn", "r3", "r4", "r5", "r5a", "r5ad", "r5d", "r5dn", "r5n", "t2", "t3", "t3a", "x1", "x1e", "z1d",
    "cc2", "cr1", "hs1", "cg1",
];

/// The compatibility mode: sizes as the Kip that was written in Go did, for those who compare or who must keep what they had.
///
/// - nothing is kept for kernel and agent, so a pod of 0.5 GiB may get an instance of 0.5 GiB, on which it may run out of memory;
/// - only the families of its table are taken: no Arm, nothing that came after 2020, but previous generations too;
/// - burstable types cost their list price plus $0.05 for each vCPU-hour above the baseline, as they still do.
///
/// Two things are not copied. Equal prices went to the type that happened to come first in its file; here they go to larger memory, newer
/// generation, name. Types it thought of as having no models of GPUs can be asked for by model.
pub fn classic_policy() -> SizingPolicy {
    let nothing = MemoryReserve {
        permille: 0,
        fixed: Bytes(0),
    };
    SizingPolicy::default()
        .with_reserve(nothing)
        .with_instance_types(FAMILIES.map(|family| format!("{family}.*")))
}

//! The volumes of an instance: how large the root is, and that none outlives the instance.

use aws_sdk_ec2::types::{BlockDeviceMapping, EbsBlockDevice, VolumeType};
use kip_core::model::{Bytes, LaunchOptions};

use crate::images::BootImage;

/// Largest gp3 volume in GiB. Source: "Amazon EBS volume types", Amazon EBS User Guide.
const LARGEST: u64 = 64 * 1024;

/// All block devices of a launch that differ from the image's.
///
/// # Errors
/// When EC2 sells no volume that is so large.
pub(crate) fn mappings(
    options: &LaunchOptions,
    default: Bytes,
    image: &BootImage,
) -> Result<Vec<BlockDeviceMapping>, String> {
    let root = EbsBlockDevice::builder()
        .volume_size(root_gib(options, default, image.root_gib)?)
        .volume_type(VolumeType::Gp3)
        .delete_on_termination(true);
    let root = BlockDeviceMapping::builder()
        .device_name(&image.root_device)
        .ebs(root.build());
    let kept = image.kept_volumes.iter().map(|device| {
        let ends = EbsBlockDevice::builder().delete_on_termination(true);
        BlockDeviceMapping::builder()
            .device_name(device)
            .ebs(ends.build())
            .build()
    });
    Ok(std::iter::once(root.build()).chain(kept).collect())
}

/// Size of the root volume in GiB, rounded up: the largest of what the image holds, the default, what the pod names by annotation, and what
/// it asks by its resources beside the image. No wish makes it smaller than the default, as in the old Kip.
fn root_gib(options: &LaunchOptions, default: Bytes, image_gib: i32) -> Result<i32, String> {
    let image = Bytes::gib(u64::try_from(image_gib).unwrap_or(0));
    let beside_image = match options.ephemeral_storage {
        Bytes(0) => 0,
        Bytes(asked) => image.0.saturating_add(asked),
    };
    let bytes = [image.0, default.0, options.volume_size.0, beside_image]
        .into_iter()
        .fold(1, u64::max);
    let gib = bytes.div_ceil(Bytes::gib(1).0);
    i32::try_from(gib)
        .ok()
        .filter(|_| gib <= LARGEST)
        .ok_or_else(|| {
            format!(
                "the root volume would have {gib} GiB, EC2 sells {LARGEST} at most: ask for less by the annotation pod.elotl.co/volume-size \
                 or ephemeral-storage, or set `cells.defaultVolumeSize` lower"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(ephemeral_storage: u64, volume_size: u64) -> LaunchOptions {
        let mut options = LaunchOptions::default();
        options.ephemeral_storage = Bytes(ephemeral_storage);
        options.volume_size = Bytes(volume_size);
        options
    }

    const GIB: u64 = 1 << 30;

    /// A pod that asks for 20 GiB and gets 12 fails in the middle of its work; one that gets 50 pays for 30.
    #[test]
    fn the_root_volume_holds_the_image_and_what_the_pod_asked_for() {
        for (ephemeral, annotation, default, image, gib) in [
            (0, 0, 5, 8, 8),
            (0, 0, 20, 8, 20),
            // By its resources: beside the image.
            (20, 0, 5, 8, 28),
            (4, 0, 20, 8, 20),
            // By annotation: the whole volume.
            (0, 30, 20, 8, 30),
            (0, 1, 20, 8, 20),
            (0, 1, 5, 8, 8),
            // By both: whatever holds both.
            (20, 10, 5, 8, 28),
            (20, 40, 5, 8, 40),
            (0, 0, 0, 0, 1),
        ] {
            let size = root_gib(
                &options(ephemeral * GIB, annotation * GIB),
                Bytes::gib(default),
                image,
            );
            assert_eq!(size, Ok(gib), "{ephemeral} {annotation} {default} {image}");
        }
        assert_eq!(root_gib(&options(0, 30 * GIB + 1), Bytes::gib(5), 8), Ok(31));
        assert_eq!(root_gib(&options(GIB + 1, 0), Bytes::gib(5), 8), Ok(10));
    }

    #[test]
    fn a_volume_that_ec2_does_not_sell_is_refused_by_the_name_of_what_asks_for_it() {
        for asked in [options(0, u64::MAX), options(u64::MAX, 0)] {
            let refused = root_gib(&asked, Bytes::gib(5), 8).unwrap_err();
            assert!(refused.contains("pod.elotl.co/volume-size"), "{refused}");
        }
    }
}

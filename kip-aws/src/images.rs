//! Boot images: which one an instance boots from, by architecture.

mod live;
mod parameters;

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{ArchitectureValues, DeviceType, Filter, Image};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::Architecture;

use crate::api::{self, Api};
use crate::builder::START;

pub(crate) use live::Images;

/// Which images instances boot from. Of several that match, each architecture's newest is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSpec {
    /// Images by id, such as `ami-0abc`; one an architecture is enough.
    pub ids: Vec<String>,
    /// Parameters of the Systems Manager whose values are image ids, such as `/aws/service/ami-amazon-linux-latest/...`; one an architecture.
    pub ssm_parameters: Vec<String>,
    /// Account ids, or `amazon`, `self`, `aws-marketplace`.
    pub owners: Vec<String>,
    /// Accounts that may launch the image, or `self`, `all`.
    pub executable_users: Vec<String>,
    /// Filters of DescribeImages: name and accepted values, such as `name` with `kip-cell-*`.
    pub filters: Vec<(String, Vec<String>)>,
}

impl ImageSpec {
    /// Reads the keys of `bootImageSpec`: `imageIDs`, `ssmParameters`, `owners`, `executableUsers`, each a list separated by spaces, and `filters`, a list
    /// of `name=value1,value2` separated by spaces.
    ///
    /// # Errors
    /// All problems, each beginning with its key.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let mut spec = Self::default();
        let mut problems = Vec::new();
        for (key, text) in keys {
            let words = || text.split_whitespace().map(str::to_owned).collect();
            match key.as_str() {
                "imageIDs" => {
                    spec.ids = words();
                    for id in spec.ids.iter().filter(|id| !id.starts_with("ami-")) {
                        problems.push(format!("imageIDs: `{id}` is no image: it begins with `ami-`"));
                    }
                }
                "ssmParameters" => {
                    spec.ssm_parameters = words();
                    for name in spec.ssm_parameters.iter().filter(|name| !name.starts_with('/')) {
                        problems.push(format!("ssmParameters: `{name}` is no path: it begins with `/`"));
                    }
                }
                "owners" => spec.owners = words(),
                "executableUsers" => spec.executable_users = words(),
                "filters" => {
                    for word in text.split_whitespace() {
                        match word.split_once('=') {
                            Some((name, values)) if !name.is_empty() && !values.is_empty() => {
                                let values = values.split(',').map(str::to_owned).collect();
                                spec.filters.push((name.to_owned(), values));
                            }
                            _ => problems.push(format!("filters: write `{word}` as name=value")),
                        }
                    }
                }
                _ => problems.push(format!(
                    "{key}: is no key here; there are imageIDs, ssmParameters, owners, executableUsers, filters"
                )),
            }
        }
        if problems.is_empty() {
            Ok(spec)
        } else {
            Err(problems)
        }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.ssm_parameters.is_empty()
            && self.owners.is_empty()
            && self.filters.is_empty()
    }
}

/// An image to boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootImage {
    pub(crate) id: String,
    pub(crate) root_device: String,
    pub(crate) root_gib: i32,
    /// Devices beside the root whose volumes would outlive the instance, and be paid for without anyone knowing.
    pub(crate) kept_volumes: Vec<String>,
}

/// The images a specification means now: each architecture's newest.
///
/// # Errors
/// `ConfigInvalid` when there is none; what the call answers.
pub(crate) async fn resolve(api: &Api, spec: &ImageSpec) -> Result<BTreeMap<Architecture, BootImage>> {
    let filters: Vec<Filter> = spec
        .filters
        .iter()
        .map(|(name, values)| api::filter(name, values.clone()))
        .collect();
    let found = api.describe_images(spec, filters).await?;
    let count = found.len();
    let images = newest(found);
    if images.is_empty() {
        let message = match count {
            0 => "found no boot image: check bootImageSpec, its owners and the region".to_owned(),
            _ => format!(
                "of {count} images that match bootImageSpec none can be used: one of x86_64 or arm64 with an EBS root that is available"
            ),
        };
        return Err(Error::new(ErrorKind::ConfigInvalid, START, message));
    }
    Ok(images)
}

/// Of the images that can be used, the newest of each architecture; of equally old ones the one with the largest id.
fn newest(images: Vec<Image>) -> BTreeMap<Architecture, BootImage> {
    let mut images: Vec<Image> = images;
    images.sort_by(|a, b| (a.creation_date(), a.image_id()).cmp(&(b.creation_date(), b.image_id())));
    images
        .into_iter()
        .filter_map(|image| Some((architecture(&image)?, usable(&image)?)))
        .collect()
}

fn architecture(image: &Image) -> Option<Architecture> {
    match image.architecture()? {
        ArchitectureValues::X8664 => Some(Architecture::Amd64),
        ArchitectureValues::Arm64 => Some(Architecture::Arm64),
        _ => None,
    }
}

fn usable(image: &Image) -> Option<BootImage> {
    let is_available = image.state().is_none_or(|state| state.as_str() == "available");
    let has_ebs_root = image
        .root_device_type()
        .is_none_or(|kind| *kind == DeviceType::Ebs);
    if !is_available || !has_ebs_root {
        return None;
    }
    let root_device = image.root_device_name()?.to_owned();
    let root_gib = image
        .block_device_mappings()
        .iter()
        .find(|mapping| mapping.device_name() == Some(root_device.as_str()))
        .and_then(|mapping| mapping.ebs())
        .and_then(|ebs| ebs.volume_size())
        .unwrap_or(0);
    let kept_volumes = image
        .block_device_mappings()
        .iter()
        .filter(|mapping| {
            let ends = mapping.ebs().map(|ebs| ebs.delete_on_termination() == Some(true));
            // What has no volume of its own, such as an instance store, ends with the instance.
            ends == Some(false)
        })
        .filter_map(|mapping| mapping.device_name())
        .filter(|device| *device != root_device)
        .map(str::to_owned)
        .collect();
    Some(BootImage {
        id: image.image_id()?.to_owned(),
        root_device,
        root_gib,
        kept_volumes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{BlockDeviceMapping, EbsBlockDevice, ImageState};

    fn image(id: &str, date: &str, architecture: ArchitectureValues) -> Image {
        let ebs = EbsBlockDevice::builder().volume_size(8).build();
        let root = BlockDeviceMapping::builder()
            .device_name("/dev/xvda")
            .ebs(ebs)
            .build();
        Image::builder()
            .image_id(id)
            .creation_date(date)
            .architecture(architecture)
            .root_device_name("/dev/xvda")
            .root_device_type(DeviceType::Ebs)
            .state(ImageState::Available)
            .block_device_mappings(root)
            .build()
    }

    #[test]
    fn the_newest_usable_image_of_each_architecture_is_booted() {
        let mut pending = image("ami-9", "2027-01-01T00:00:00.000Z", ArchitectureValues::X8664);
        pending.state = Some(ImageState::Pending);
        let found = newest(vec![
            image("ami-2", "2026-02-01T00:00:00.000Z", ArchitectureValues::X8664),
            image("ami-1", "2026-01-01T00:00:00.000Z", ArchitectureValues::X8664),
            image("ami-3", "2025-01-01T00:00:00.000Z", ArchitectureValues::Arm64),
            image("ami-4", "2028-01-01T00:00:00.000Z", ArchitectureValues::I386),
            pending,
        ]);
        let ids: Vec<_> = found.values().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["ami-2", "ami-3"]);
        assert_eq!(found[&Architecture::Amd64].root_gib, 8);
    }

    /// They are found on the bill only.
    #[test]
    fn volumes_of_the_image_that_would_outlive_an_instance_are_known() {
        let device = |name: &str, ebs: Option<EbsBlockDevice>| {
            BlockDeviceMapping::builder()
                .device_name(name)
                .set_ebs(ebs)
                .build()
        };
        let ebs = |ends| EbsBlockDevice::builder().set_delete_on_termination(ends).build();
        let mut image = image("ami-1", "2026-01-01T00:00:00.000Z", ArchitectureValues::X8664);
        image.block_device_mappings.get_or_insert_default().extend([
            device("/dev/sdb", Some(ebs(Some(false)))),
            device("/dev/sdc", Some(ebs(Some(true)))),
            device("/dev/sdd", Some(ebs(None))),
            device("/dev/sde", None),
        ]);
        assert_eq!(usable(&image).unwrap().kept_volumes, ["/dev/sdb", "/dev/sdd"]);
    }

    #[test]
    fn the_old_keys_are_read_and_every_mistake_is_told() {
        let keys = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let spec = ImageSpec::parse(&keys(&[
            ("owners", "123456789012 self"),
            ("filters", "name=kip-*,cell-* architecture=arm64"),
        ]))
        .unwrap();
        assert_eq!(spec.owners.len(), 2);
        assert_eq!(
            spec.filters[0],
            ("name".to_owned(), vec!["kip-*".to_owned(), "cell-*".to_owned()])
        );
        let problems = ImageSpec::parse(&keys(&[
            ("imageIDs", "img-1"),
            ("filters", "name"),
            ("owner", "self"),
            ("ssmParameters", "/a b"),
        ]))
        .unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}

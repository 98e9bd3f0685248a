//! For the file itself: text in columns, packed. `kip_aws::catalogue` reads it and documents each column.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

use super::moto::{self, Described, Moto};
use super::prices::Prices;

/// Grows when a reader of the last one could not read the next.
const FORMAT: u32 = 1;
/// One byte of a mask for the zones of each region.
const MOST_ZONES: usize = 8;

/// The text, and what is in it.
#[derive(Debug)]
pub(super) struct Made {
    /// The file, unpacked.
    pub(super) text: String,
    /// Types in it.
    pub(super) types: usize,
    /// Those of them that have a price.
    pub(super) priced: usize,
    /// Types that are not in it.
    pub(super) left_out: usize,
    /// Families in it without a price.
    pub(super) unpriced_families: BTreeSet<String>,
}

/// Writes the text.
pub(super) fn make(data: &Moto, prices: &Prices) -> Result<Made> {
    let mut made = Made {
        text: String::new(),
        types: 0,
        priced: 0,
        left_out: 0,
        unpriced_families: BTreeSet::new(),
    };
    let text = &mut made.text;
    writeln!(text, "kip-ec2-seed\t{FORMAT}")?;
    writeln!(text, "types\tmoto {}\t{}", moto::VERSION, moto::DATE)?;
    writeln!(text, "prices\t{}\t{}", prices.region, prices.date)?;
    for (region, zones) in &data.zones {
        ensure!(
            zones.len() <= MOST_ZONES,
            "{region} has more than {MOST_ZONES} zones"
        );
        let names: Vec<&str> = zones.keys().map(String::as_str).collect();
        writeln!(text, "region\t{region}\t{}", names.join("\t"))?;
    }
    for (name, described) in &data.types {
        let Some(architecture) = architecture(described) else {
            made.left_out += 1;
            continue;
        };
        let price = prices.of(name, described.v_cpu_info.count);
        made.types += 1;
        if price.is_some() {
            made.priced += 1;
        } else {
            let family = name.split('.').next().unwrap_or_default();
            made.unpriced_families.insert(family.to_owned());
        }
        let columns = [
            name.clone(),
            architecture.to_owned(),
            described.v_cpu_info.count.to_string(),
            described.memory_info.mib.to_string(),
            flags(described),
            described.hypervisor.clone().unwrap_or_default(),
            gpus(described),
            neuron(described),
            described
                .instance_storage_info
                .as_ref()
                .map(|storage| storage.gigabytes.to_string())
                .unwrap_or_default(),
            price.map(|price| price.to_string()).unwrap_or_default(),
            masks(data, name),
        ];
        writeln!(text, "type\t{}", columns.join("\t"))?;
    }
    Ok(made)
}

/// Packs it, without the time or the name of a file, so that the same text gives the same bytes.
pub(super) fn pack(text: &str) -> Result<Vec<u8>> {
    let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    packer.write_all(text.as_bytes()).context("cannot pack")?;
    packer.finish().context("cannot pack")
}

/// The architecture by its Kubernetes name; None when no Linux of ours runs there.
fn architecture(described: &Described) -> Option<&'static str> {
    let all = &described.processor_info.supported_architectures;
    if all.iter().any(|one| one == "x86_64") {
        Some("amd64")
    } else if all.iter().any(|one| one == "arm64") {
        Some("arm64")
    } else {
        None
    }
}

/// `b`urstable, bare `m`etal, `c`urrent generation, sold on `d`emand, as `s`pot, local disks that are `n`vme, processors of `I`ntel, `A`MD or
/// A`W`S.
fn flags(described: &Described) -> String {
    let disks = described.instance_storage_info.as_ref();
    let is_nvme = disks.is_some_and(|disks| disks.nvme_support != "unsupported");
    let made_by = |maker: &str| described.processor_info.manufacturer == maker;
    let usage = |class: &str| described.supported_usage_classes.iter().any(|one| one == class);
    [
        ('b', described.burstable_performance_supported),
        ('m', described.bare_metal),
        ('c', described.current_generation),
        ('d', usage("on-demand")),
        ('s', usage("spot")),
        ('n', is_nvme),
        ('I', made_by("Intel")),
        ('A', made_by("AMD")),
        ('W', made_by("AWS")),
    ]
    .into_iter()
    .filter_map(|(letter, set)| set.then_some(letter))
    .collect()
}

/// `manufacturer/name/whole GPUs/logical GPUs/MiB of each`, with commas between several models.
fn gpus(described: &Described) -> String {
    let models = described.gpu_info.iter().flat_map(|info| &info.gpus).map(|gpu| {
        let logical = gpu.logical_gpu_count.unwrap_or(gpu.count);
        format!(
            "{}/{}/{}/{logical}/{}",
            gpu.manufacturer, gpu.name, gpu.count, gpu.memory_info.mib
        )
    });
    models.collect::<Vec<_>>().join(",")
}

/// `name/devices/cores of each`.
fn neuron(described: &Described) -> String {
    let devices = described.neuron_info.iter().flat_map(|info| &info.neuron_devices);
    let devices =
        devices.map(|device| format!("{}/{}/{}", device.name, device.count, device.core_info.count));
    devices.collect::<Vec<_>>().join(",")
}

/// Two hexadecimal digits for each region, in the order of the region lines: bit n is the region's n-th zone.
fn masks(data: &Moto, name: &str) -> String {
    let mut text = String::new();
    for zones in data.zones.values() {
        let mask = zones
            .values()
            .enumerate()
            .filter(|(_, types)| types.contains(name))
            .fold(0_u8, |mask, (place, _)| mask | 1 << place);
        text.push_str(&format!("{mask:02x}"));
    }
    text
}

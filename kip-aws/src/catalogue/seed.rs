//! The data that is compiled in, made by `cargo xtask catalogue`.
//!
//! Text in columns between tabs, packed with gzip. The first line names the format; then come where types and prices are from and of which
//! day, one line for each region with its zones, and one for each type: name, architecture, vCPUs, MiB, flags (`b`urstable, bare `m`etal,
//! `c`urrent generation, sold on `d`emand, as `s`pot, with local disks that are `n`vme, processors of `I`ntel, `A`MD or A`W`S), hypervisor, GPUs, Neuron devices, GB of local disks, on-demand price in
//! millionths of a dollar (empty when unknown), and the zones of all regions as two hexadecimal digits for each.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use kip_core::ids::{InstanceType, Zone};
use kip_core::model::{Architecture, Bytes, Price};

use super::{CatalogueError, Gpu, InstanceKind, Neuron, UsageClass};

const PACKED: &[u8] = include_bytes!("../../data/ec2-seed.tsv.gz");
const FORMAT: &str = "1";

/// Everything that is compiled in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seed {
    /// Format of the file.
    pub format: u32,
    /// Where types and zones are from, such as `moto 5.2.5`.
    pub types_source: String,
    /// The day types and zones are of.
    pub types_date: Date,
    /// The region the prices are of.
    pub price_region: String,
    /// The day the prices are of.
    pub prices_date: Date,
    /// The regions, by name.
    pub regions: Vec<Region>,
    /// The types, by name.
    pub kinds: Vec<SeededKind>,
}

/// A region and its zones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its name, such as `us-east-1`.
    pub name: String,
    /// Its zones, by name.
    pub zones: Vec<Zone>,
}

/// A type, with its price and where it is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeededKind {
    /// The type.
    pub kind: InstanceKind,
    /// On-demand Linux price in [`Seed::price_region`]; None when the list has none.
    pub price: Option<Price>,
    /// For each region of [`Seed::regions`], bit n set when its n-th zone has the type.
    zones: Vec<u8>,
}

impl Seed {
    /// The compiled-in data, unpacked at the first call.
    ///
    /// # Errors
    /// [`CatalogueError::BrokenSeed`] when the file in the source tree was damaged; a test keeps that from being released.
    pub fn get() -> Result<&'static Self, CatalogueError> {
        static SEED: OnceLock<Seed> = OnceLock::new();
        if let Some(seed) = SEED.get() {
            return Ok(seed);
        }
        let seed = unpack(PACKED).and_then(|text| parse(&text))?;
        Ok(SEED.get_or_init(|| seed))
    }

    /// Bytes of it in the program.
    pub const fn packed_bytes() -> usize {
        PACKED.len()
    }

    /// Where a region stands in the list.
    ///
    /// # Errors
    /// [`CatalogueError::UnknownRegion`], which names all that are known.
    pub fn region(&self, name: &str) -> Result<usize, CatalogueError> {
        self.regions
            .iter()
            .position(|region| region.name == name)
            .ok_or_else(|| CatalogueError::UnknownRegion {
                region: name.to_owned(),
                known: self
                    .regions
                    .iter()
                    .map(|region| region.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Midnight of the day types and zones are of, UTC.
    pub fn types_time(&self) -> Timestamp {
        midnight(self.types_date)
    }

    /// Midnight of the day prices are of, UTC.
    pub fn prices_time(&self) -> Timestamp {
        midnight(self.prices_date)
    }
}

impl SeededKind {
    /// Which of a region's zones have it; the place is one of [`Seed::region`].
    pub fn zones<'s>(&'s self, seed: &'s Seed, region: usize) -> impl Iterator<Item = &'s Zone> + 's {
        let mask = self.zones.get(region).copied().unwrap_or(0);
        seed.regions
            .get(region)
            .into_iter()
            .flat_map(|region| &region.zones)
            .enumerate()
            .filter_map(move |(place, zone)| (mask & (1 << place) != 0).then_some(zone))
    }
}

fn midnight(date: Date) -> Timestamp {
    // A day of this century has a midnight in UTC.
    date.to_zoned(TimeZone::UTC)
        .map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp())
}

fn broken(line: usize, problem: impl Into<String>) -> CatalogueError {
    CatalogueError::BrokenSeed {
        line,
        problem: problem.into(),
    }
}

fn unpack(packed: &[u8]) -> Result<String, CatalogueError> {
    let mut text = String::new();
    GzDecoder::new(packed)
        .read_to_string(&mut text)
        .map_err(|error| broken(0, format!("cannot be unpacked: {error}")))?;
    Ok(text)
}

fn parse(text: &str) -> Result<Seed, CatalogueError> {
    let mut seed: Option<Seed> = None;
    let mut sources: Vec<(String, Date)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let fields: Vec<&str> = line.split('\t').collect();
        match (fields.as_slice(), &mut seed) {
            (["kip-ec2-seed", FORMAT], None) if number == 1 => {}
            (["kip-ec2-seed", other], _) => {
                return Err(broken(
                    number,
                    format!("format {other} is not {FORMAT}, which this version reads"),
                ));
            }
            (["types" | "prices", source, date], None) => {
                let date = date
                    .parse()
                    .map_err(|error| broken(number, format!("{date:?} is no day: {error}")))?;
                sources.push(((*source).to_owned(), date));
                if let [(types_source, types_date), (price_region, prices_date)] = sources.as_slice() {
                    seed = Some(Seed {
                        format: 1,
                        types_source: types_source.clone(),
                        types_date: *types_date,
                        price_region: price_region.clone(),
                        prices_date: *prices_date,
                        regions: Vec::new(),
                        kinds: Vec::new(),
                    });
                }
            }
            (["region", name, zones @ ..], Some(seed)) => seed.regions.push(Region {
                name: (*name).to_owned(),
                zones: zones.iter().map(|zone| Zone::new(*zone)).collect(),
            }),
            (["type", columns @ ..], Some(seed)) => {
                let kind = parse_kind(columns, seed.regions.len())
                    .ok_or_else(|| broken(number, "cannot be read as an instance type"))?;
                seed.kinds.push(kind);
            }
            _ => return Err(broken(number, "is of no kind that is expected here")),
        }
    }
    seed.ok_or_else(|| broken(0, "ends too early"))
}

fn parse_kind(columns: &[&str], regions: usize) -> Option<SeededKind> {
    let &[
        name,
        architecture,
        vcpus,
        mib,
        flags,
        hypervisor,
        gpus,
        neuron,
        disks,
        price,
        masks,
    ] = columns
    else {
        return None;
    };
    let architecture = match architecture {
        "amd64" => Architecture::Amd64,
        "arm64" => Architecture::Arm64,
        _ => return None,
    };
    let memory = Bytes::mib(mib.parse().ok()?);
    let mut kind = InstanceKind::new(InstanceType::new(name), architecture, vcpus.parse().ok()?, memory);
    let has = |flag: char| flags.contains(flag);
    kind.burstable = has('b');
    kind.bare_metal = has('m');
    kind.current_generation = has('c');
    kind.local_nvme = has('n');
    let makers = [('I', "intel"), ('A', "amd"), ('W', "aws")];
    let maker = makers.into_iter().find(|(flag, _)| has(*flag));
    kind.cpu_maker = maker.map(|(_, maker)| maker.to_owned());
    kind.usage = [('d', UsageClass::OnDemand), ('s', UsageClass::Spot)]
        .into_iter()
        .filter_map(|(flag, class)| has(flag).then_some(class))
        .collect::<BTreeSet<_>>();
    kind.hypervisor = (!hypervisor.is_empty()).then(|| hypervisor.to_owned());
    kind.gpu = parse_gpu(gpus)?;
    kind.neuron = parse_neuron(neuron)?;
    if !disks.is_empty() {
        kind.local_storage = Bytes(disks.parse::<u64>().ok()?.checked_mul(1_000_000_000)?);
    }
    let price = if price.is_empty() {
        None
    } else {
        Some(Price(price.parse().ok()?))
    };
    let zones: Vec<u8> = (0..regions)
        .map(|region| u8::from_str_radix(masks.get(2 * region..2 * region + 2)?, 16).ok())
        .collect::<Option<_>>()?;
    (masks.len() == 2 * regions).then_some(SeededKind { kind, price, zones })
}

/// The first model listed; no type has two. The outer None is an entry that cannot be read.
#[expect(clippy::option_option, reason = "unreadable and absent are different")]
fn parse_gpu(text: &str) -> Option<Option<Gpu>> {
    let Some(first) = text.split(',').next().filter(|first| !first.is_empty()) else {
        return Some(None);
    };
    let parts: Vec<&str> = first.split('/').collect();
    let [maker, model, whole, devices, mib] = parts[..] else {
        return None;
    };
    let memory = Bytes::mib(mib.parse().ok()?);
    Some(Some(Gpu::new(
        maker,
        model,
        whole.parse().ok()?,
        devices.parse().ok()?,
        memory,
    )))
}

/// As for GPUs.
#[expect(clippy::option_option, reason = "unreadable and absent are different")]
fn parse_neuron(text: &str) -> Option<Option<Neuron>> {
    let Some(first) = text.split(',').next().filter(|first| !first.is_empty()) else {
        return Some(None);
    };
    let parts: Vec<&str> = first.split('/').collect();
    let [model, devices, cores] = parts[..] else {
        return None;
    };
    Some(Some(Neuron::new(
        model,
        devices.parse().ok()?,
        cores.parse().ok()?,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "kip-ec2-seed\t1\ntypes\tmoto 1\t2026-01-02\nprices\tus-x-1\t2026-01-01\nregion\tus-x-1\ta\tb\n";

    #[test]
    fn a_line_says_all_of_a_type() {
        let line =
            "type\tg1.large\tarm64\t2\t4096\tbcdsnW\tnitro\tNVIDIA/T4g/1/1/16384\tInf/2/4\t125\t420000\t02\n";
        let seed = parse(&format!("{HEAD}{line}")).unwrap();
        let kind = &seed.kinds[0];
        assert_eq!(kind.price, Some(Price(420_000)));
        assert_eq!(kind.zones(&seed, 0).map(Zone::as_str).collect::<Vec<_>>(), ["b"]);
        assert!(kind.kind.burstable && !kind.kind.bare_metal && kind.kind.current_generation);
        assert_eq!(
            kind.kind.gpu,
            Some(Gpu::new("NVIDIA", "T4g", 1, 1, Bytes::gib(16)))
        );
        assert_eq!(kind.kind.neuron, Some(Neuron::new("Inf", 2, 4)));
        assert_eq!(kind.kind.local_storage, Bytes(125_000_000_000));
        assert!(kind.kind.local_nvme);
        assert_eq!(kind.kind.cpu_maker.as_deref(), Some("aws"));
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line_not_half_read() {
        for (text, line) in [
            ("", 0),
            ("kip-ec2-seed\t2\n", 1),
            ("kip-ec2-seed\t1\ntypes\tmoto\tyesterday\n", 2),
            (&format!("{HEAD}type\tm5.large\tamd64\t2\n"), 5),
            (&format!("{HEAD}type\tm5.large\tmips\t2\t4\tc\t\t\t\t\t\t00\n"), 5),
            (&format!("{HEAD}what\n"), 5),
        ] {
            match parse(text) {
                Err(CatalogueError::BrokenSeed { line: at, .. }) => assert_eq!(at, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(unpack(b"no gzip").is_err());
    }
}

//! For EC2's own words: the answers to DescribeInstanceTypes and DescribeInstanceTypeOfferings that the package `moto` carries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::command::{cmd, run};
use crate::{paths, ui};

/// The version that is read.
pub(super) const VERSION: &str = "5.2.5";
/// When it was made: the date of the files in its wheel.
pub(super) const DATE: &str = "2026-10-27";
/// The SHA-256 of its wheel.
const WHEEL: &str = "eef62cdcf3bfe73e0863743511ba042dfaba04ba3d5ecdcb896a196c693ad528";

/// What the package says.
#[derive(Debug)]
pub(super) struct Moto {
    /// Instance types by name.
    pub(super) types: BTreeMap<String, Described>,
    /// By region, which types each of its zones has.
    pub(super) zones: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// One element of the answer to DescribeInstanceTypes; only what is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Described {
    pub(super) bare_metal: bool,
    pub(super) burstable_performance_supported: bool,
    pub(super) current_generation: bool,
    pub(super) hypervisor: Option<String>,
    pub(super) memory_info: Size,
    pub(super) processor_info: Processor,
    pub(super) supported_usage_classes: Vec<String>,
    pub(super) v_cpu_info: Cpus,
    pub(super) gpu_info: Option<Gpus>,
    pub(super) neuron_info: Option<Neuron>,
    pub(super) instance_storage_info: Option<Storage>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Size {
    #[serde(rename = "SizeInMiB")]
    pub(super) mib: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Processor {
    pub(super) manufacturer: String,
    pub(super) supported_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Cpus {
    #[serde(rename = "DefaultVCpus")]
    pub(super) count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Gpus {
    pub(super) gpus: Vec<Gpu>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Gpu {
    pub(super) count: u64,
    pub(super) logical_gpu_count: Option<u64>,
    pub(super) manufacturer: String,
    pub(super) name: String,
    pub(super) memory_info: Size,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Neuron {
    pub(super) neuron_devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Device {
    pub(super) count: u64,
    pub(super) core_info: Cores,
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Cores {
    pub(super) count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Storage {
    #[serde(rename = "TotalSizeInGB")]
    pub(super) gigabytes: u64,
    pub(super) nvme_support: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sold {
    instance_type: String,
    location: String,
}

/// Reads it, installing it into the cache first if need be.
pub(super) fn provide() -> Result<Moto> {
    let resources = install()?.join("moto/ec2/resources");
    let types = unpack(&resources.join("instance_types.json.gz"))?;
    let folder = resources.join("instance_type_offerings/availability-zone");
    let mut zones = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.context("cannot read a folder")?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let Some(region) = name.strip_suffix(".json.gz") else {
            continue;
        };
        let sold: Vec<Sold> = unpack(&path)?;
        let mut of_region: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for Sold {
            instance_type,
            location,
        } in sold
        {
            of_region.entry(location).or_default().insert(instance_type);
        }
        zones.insert(region.to_owned(), of_region);
    }
    Ok(Moto { types, zones })
}

/// The folder it is installed in.
fn install() -> Result<PathBuf> {
    let folder = paths::cache()?.join("tools").join(format!("moto-{VERSION}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    ui::step(&format!(
        "installing moto {VERSION} into {} (once)",
        folder.display()
    ));
    let parent = folder.parent().unwrap_or(&folder);
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent).context("cannot create a temporary folder")?;
    let wanted = work.path().join("requirements.txt");
    fs::write(&wanted, format!("moto=={VERSION} --hash=sha256:{WHEEL}\n")).context("cannot write a file")?;
    let target = work.path().join("moto");
    // Only its data is read, so none of what it needs to run is installed.
    let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let mut pip = cmd("python3", options);
    pip.args([
        "--no-deps",
        "--only-binary=:all:",
        "--no-compile",
        "--require-hashes",
        "--target",
    ])
    .arg(&target)
    .arg("--requirement")
    .arg(&wanted);
    run(&mut pip)
        .context("cannot install moto: it takes the Debian packages python3 and python3-pip, and pypi.org")?;
    fs::rename(&target, &folder).with_context(|| format!("cannot put {} in place", folder.display()))?;
    Ok(folder)
}

fn unpack<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    serde_json::from_reader(std::io::BufReader::new(GzDecoder::new(file)))
        .with_context(|| format!("cannot read {}", path.display()))
}

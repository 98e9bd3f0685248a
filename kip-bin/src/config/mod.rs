//! The configuration file: the `provider.yaml` of the old Kip, with new sections.
//!
//! A file is read key by key ([`document`]); every problem is reported at once, with its path and its fix. What is left is a [`Config`]
//! in which every value is present and valid. `kip config print` writes it back in the same shape, secrets masked.

mod agent;
mod aws;
mod cells;
mod cloud;
mod document;
mod kubelet;
mod limits;
mod problem;
mod refresh;
mod show;
mod sizing;

#[cfg(all(test, feature = "local"))]
mod tests;

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize as _, Serialize};
use serde_norway::Value;

#[cfg(feature = "aws")]
pub(crate) use aws::Aws;
pub(crate) use cells::Cells;
pub(crate) use cloud::{Cloud, Local};
pub(crate) use kubelet::Kubelet;
pub(crate) use problem::{Problem, Problems};
#[cfg(feature = "aws")]
use sizing::Credits;
pub(crate) use sizing::{Orphans, Sizing};

use document::{Findings, Section};

pub(crate) use document::duration;

/// The effective configuration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    /// Where instances come from.
    #[serde(serialize_with = "serde_norway::with::singleton_map::serialize")]
    pub(crate) cloud: Cloud,
    /// What instances are like.
    pub(crate) cells: Cells,
    /// What the virtual node says of itself.
    pub(crate) kubelet: Kubelet,
    /// How offerings are chosen.
    pub(crate) sizing: Sizing,
    /// What happens to what is left over.
    pub(crate) orphans: Orphans,
}

impl Config {
    /// All defaults, with this machine as the cloud.
    pub(crate) fn local(local: Local) -> Self {
        Self {
            cloud: Cloud::Local(local),
            cells: Cells::default(),
            kubelet: Kubelet::default(),
            sizing: Sizing::default(),
            orphans: Orphans::default(),
        }
    }
}

/// A configuration, and what in its file has no effect.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// What has no effect.
    pub(crate) warnings: Vec<Problem>,
}

/// Reads and checks a file.
///
/// # Errors
/// When it cannot be read, is no YAML or JSON, or has [`Problems`].
pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the configuration {}; give its path with --provider-config",
            path.display()
        )
    })?;
    Ok(parse(&text, &path.display().to_string())?)
}

/// Checks the text of a file; `file` is its name in messages.
///
/// # Errors
/// All problems at once.
pub(crate) fn parse(text: &str, file: &str) -> Result<Loaded, Problems> {
    let fail = |list| Problems {
        file: file.to_owned(),
        list,
    };
    // Only the first document counts, as it did.
    let value = serde_norway::Deserializer::from_str(text)
        .next()
        .map_or(Ok(Value::Null), Value::deserialize)
        .map_err(|error| {
            fail(vec![Problem {
                path: String::new(),
                message: format!("is neither YAML nor JSON: {error}"),
            }])
        })?;
    let findings = Findings::default();
    let root = Section::of("", &value, &findings);
    let version = root.text("apiVersion");
    if version.as_deref().is_some_and(|version| version != "v1") {
        root.problem("apiVersion", "must be v1");
    }
    let cloud = cloud::read(root.section("cloud"), &findings);
    let cells = cells::read(root.section("cells"));
    #[cfg(feature = "aws")]
    if let Some(Cloud::Aws(aws)) = &cloud {
        aws::check(aws, &cells, &findings);
    }
    let kubelet = kubelet::read(root.section("kubelet"));
    let sizing = sizing::read(root.section("sizing"));
    let orphans = sizing::read_orphans(root.section("orphans"));
    root.obsolete(
        "etcd",
        "state lives in Cell objects of the cluster; no database is kept",
    );
    root.obsolete(
        "testing",
        "the controller's identity is its cluster and its node name",
    );
    root.finish();

    let (problems, warnings) = findings.into_parts();
    match cloud {
        Some(cloud) if problems.is_empty() => Ok(Loaded {
            config: Config {
                cloud,
                cells,
                kubelet,
                sizing,
                orphans,
            },
            warnings,
        }),
        _ => Err(fail(problems)),
    }
}

/// The effective configuration as YAML, secrets masked.
///
/// # Errors
/// Never for a value that was parsed; the writer's error otherwise.
pub(crate) fn print(config: &Config) -> anyhow::Result<String> {
    let mut value = serde_norway::to_value(config)?;
    remove_absent(&mut value);
    Ok(serde_norway::to_string(&value)?)
}

/// What has no value need not be shown.
fn remove_absent(value: &mut Value) {
    if let Value::Mapping(mapping) = value {
        mapping.retain(|_, value| !value.is_null());
        mapping.iter_mut().for_each(|(_, value)| remove_absent(value));
    }
}

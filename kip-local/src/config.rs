//! What a user may set about the local cloud.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::Offering;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::Subnet;
use crate::offering::{self, Catalogue, LocalOffering};

/// How the local cloud runs. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalConfig {
    /// Where instances, images and the lock live. One running `LocalCloud` a folder; the names of bridge, network namespaces and
    /// cgroups are derived from it. Default `/var/lib/kip/local`.
    pub data_dir: PathBuf,
    /// Image archives (OCI or `docker save`, tar) that every instance has from birth, so that they are not pulled. Default none.
    pub image_archives: Vec<PathBuf>,
    /// The agent's binary. Default `kip-cell` beside the running program.
    pub agent_path: Option<PathBuf>,
    /// IPv4 network of the instances, such as `100.64.0.0/20`; at least a /28. Default: a /20 in 100.64.0.0/10 that nothing else
    /// on the machine uses.
    pub subnet: Option<String>,
    /// Name of the bridge, at most 15 characters. Default: derived from `dataDir`.
    pub bridge: Option<String>,
    /// What can be bought. Default: the price list that is built in.
    pub offerings: Option<Vec<LocalOffering>>,
    /// How images of a registry are fetched, by registry host. Default: straight from it, over HTTPS.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Name servers of the instances. Default: the machine's own, as far as they can be reached from another network namespace.
    pub nameservers: Vec<IpAddr>,
    /// How long an instance stays pending before it boots, such as `2s`, to feel like a cloud. Default none.
    #[serde(with = "duration")]
    pub boot_delay: Duration,
}

/// How images of one registry are fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// URL that is asked first, such as `http://100.64.0.1:5000`. Default none.
    pub mirror: Option<String>,
    /// Accept plain HTTP and unknown certificates. Default false.
    pub insecure: bool,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/kip/local"),
            image_archives: Vec::new(),
            agent_path: None,
            subnet: None,
            bridge: None,
            offerings: None,
            registries: BTreeMap::new(),
            nameservers: Vec::new(),
            boot_delay: Duration::ZERO,
        }
    }
}

impl LocalConfig {
    /// All problems of the configuration, each with the field it is about; empty when it is good. Looks at no file.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.data_dir.is_absolute() {
            problems.push(format!(
                "dataDir: `{}` must be an absolute path",
                self.data_dir.display()
            ));
        }
        if self
            .data_dir
            .to_string_lossy()
            .contains(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '\\' | '"'))
        {
            problems.push("dataDir: must not contain white space, `:`, `,`, `\\` or `\"`".into());
        }
        if let Some(subnet) = &self.subnet
            && let Err(reason) = Subnet::parse(subnet)
        {
            problems.push(format!("subnet: {reason}"));
        }
        if let Some(bridge) = &self.bridge
            && (bridge.is_empty()
                || bridge.len() > 15
                || !bridge
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        {
            problems.push(format!(
                "bridge: `{bridge}` must be 1 to 15 letters, digits, `-` or `_`"
            ));
        }
        for (host, registry) in &self.registries {
            if host.is_empty()
                || host.contains(['/', '"', '\\'])
                || host.contains(char::is_whitespace)
                || host.starts_with('.')
            {
                problems.push(format!(
                    "registries: `{host}` is not a host, with a port where needed"
                ));
            }
            if let Some(mirror) = &registry.mirror
                && (!(mirror.starts_with("http://") || mirror.starts_with("https://"))
                    || mirror.contains(['"', '\\', '\n']))
            {
                problems.push(format!(
                    "registries.{host}.mirror: `{mirror}` must begin with http:// or https://"
                ));
            }
        }
        if let Some(list) = &self.offerings {
            problems.extend(offering::problems(list));
        }
        problems
    }

    /// What this configuration offers. Looks at nothing of the machine, and needs no rights.
    ///
    /// # Errors
    /// `ConfigInvalid` when the list has problems.
    pub fn price_list(&self) -> Result<Vec<Offering>> {
        self.validated()?;
        Ok(Catalogue::new(self.offerings.as_deref())?.offerings)
    }

    pub(crate) fn validated(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ConfigInvalid,
            "start local cloud",
            problems.join("; "),
        ))
    }
}

/// Durations as people write them: `2s`, `1m30s`.
mod duration {
    use super::{Deserialize as _, Deserializer, Duration, Serialize as _, Serializer, SignedDuration};
    use serde::de::Error as _;

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let signed = SignedDuration::try_from(*value).map_err(serde::ser::Error::custom)?;
        format!("{signed:#}").serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let signed: SignedDuration = text
            .parse()
            .map_err(|_| D::Error::custom(format!("`{text}` is not a duration such as `2s`")))?;
        Duration::try_from(signed).map_err(|_| D::Error::custom(format!("`{text}` is negative")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that names each field once must be read back as it was written, or `config print` would lie.
    #[test]
    fn the_default_is_what_the_documentation_says_and_survives_a_round_trip() {
        let config = LocalConfig::default();
        assert!(config.problems().is_empty());
        let text = serde_norway::to_string(&config).unwrap();
        assert!(text.contains("dataDir: /var/lib/kip/local"), "{text}");
        assert!(text.contains("bootDelay: 0s"), "{text}");
        assert_eq!(serde_norway::from_str::<LocalConfig>(&text).unwrap(), config);
        let config: LocalConfig = serde_norway::from_str("bootDelay: 1m30s").unwrap();
        assert_eq!(config.boot_delay, Duration::from_secs(90));
    }

    #[test]
    fn a_misspelt_key_is_refused_instead_of_being_silently_without_effect() {
        let error = serde_norway::from_str::<LocalConfig>("dataDirectory: /x").unwrap_err();
        assert!(error.to_string().contains("dataDirectory"), "{error}");
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_field() {
        let config: LocalConfig = serde_norway::from_str(
            "{dataDir: rel/x, subnet: 10.0.0.1/30, bridge: much-too-long-a-name, registries: {'a/b': {mirror: ftp://x}}}",
        )
        .unwrap();
        let problems = config.problems();
        for field in [
            "dataDir",
            "subnet",
            "bridge",
            "registries:",
            "registries.a/b.mirror",
        ] {
            assert!(
                problems.iter().any(|p| p.starts_with(field)),
                "{field}: {problems:?}"
            );
        }
    }
}

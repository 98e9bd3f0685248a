//! What cells are given at boot, from the configuration: read and checked before a pod waits for it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use kip_core::cell::{BootOptions, CloudInit};
use kip_core::model::Architecture;

use crate::config::Config;

/// Reads what `cells.agent` and `cells.cloudInitFile` say.
///
/// # Errors
/// When the file cannot be read or used, or makes user-data larger than the cloud takes.
pub(crate) fn options(config: &Config) -> anyhow::Result<BootOptions> {
    let mut boot = BootOptions::default();
    boot.agent = config.cells.agent.downloads().collect();
    boot.cloud_init = config.cells.cloud_init_file.as_deref().map(read).transpose()?;
    #[cfg(feature = "aws")]
    if matches!(config.cloud, crate::config::Cloud::Aws(_)) {
        boot.metadata = Some(kip_core::cell::MetadataService::ec2());
        ec2::fits(&boot)?;
    }
    Ok(boot)
}

fn read(path: &str) -> anyhow::Result<CloudInit> {
    let content =
        std::fs::read(Path::new(path)).with_context(|| format!("cells.cloudInitFile: cannot read {path}"))?;
    CloudInit::parse(&content, path).context("cells.cloudInitFile cannot be used")
}

/// Checks that there is an agent for each architecture that is launched.
///
/// # Errors
/// Which is missing.
pub(crate) fn covers(boot: &BootOptions, architectures: &BTreeSet<Architecture>) -> anyhow::Result<()> {
    if boot.agent.is_empty() {
        return Ok(());
    }
    if let Some(missing) = architectures
        .iter()
        .find(|wanted| !boot.agent.contains_key(wanted))
    {
        bail!(
            "cells.agent: names no agent for {missing}, for which there are boot images: add cells.agent.{missing}, or leave \
             the images of {missing} out of cells.bootImageSpec"
        );
    }
    Ok(())
}

#[cfg(feature = "aws")]
mod ec2 {
    use std::sync::Arc;

    use anyhow::bail;
    use jiff::Timestamp;
    use kip_core::cell::{BootOptions, CellAuthority, CellRuntime};
    use kip_core::ids::{LaunchToken, NodeName, PodUid};
    use kip_core::provider::UserData;
    use kip_core::runtime::{BootRequest, PodRuntime as _};

    /// Two cells' user-data differ in keys and names: so much more than this one's another's may have.
    const SLACK: usize = 128;

    /// Checks that EC2 takes what cells are given, by making it for a cell that will never be.
    pub(super) fn fits(boot: &BootOptions) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let authority = CellAuthority::generate("kip-cell-ca", now)?;
        let token = LaunchToken::from_stored("0123456789abcdef0123456789abcdef01234567");
        let user_data = CellRuntime::new(Arc::new(authority))
            .with_boot(boot.clone())
            .user_data(&BootRequest {
                cell: token.host_name(),
                node: NodeName::new("n".repeat(63)),
                pod: PodUid::new("9f6c0e5c-0000-4000-8000-000000000000"),
                token,
                issued_at: now,
            })?;
        let most = UserData::MAX_BYTES - SLACK;
        let length = kip_aws::user_data_len(&user_data);
        if length > most {
            bail!(
                "cells.cloudInitFile: user-data would have {length} bytes compressed, and {most} can be sent to EC2: shorten the file, \
                 or let it fetch what is long"
            );
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "local"))]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config;

    fn options_of(cloud: &str, content: &[u8]) -> anyhow::Result<BootOptions> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content)?;
        let text = format!(
            "{{cloud: {cloud}, cells: {{cloudInitFile: {}, bootImageSpec: {{imageIDs: ami-1}}}}}}",
            file.path().display()
        );
        options(&config::parse(&text, "provider.yaml")?.config)
    }

    #[test]
    fn a_file_that_cannot_be_used_stops_kip_before_a_pod_waits() {
        assert!(
            options_of("{local: {}}", b"runcmd: [ls]")
                .unwrap()
                .cloud_init
                .is_some()
        );
        let error = format!("{:#}", options_of("{local: {}}", b"runcmd: ls").unwrap_err());
        assert!(
            error.contains("cells.cloudInitFile") && error.contains(":1: runcmd: must be a list"),
            "{error}"
        );
        let missing = "{cloud: {local: {}}, cells: {cloudInitFile: /no/such}}";
        let error = options(&config::parse(missing, "x").unwrap().config).unwrap_err();
        assert!(
            format!("{error:#}").contains("cells.cloudInitFile: cannot read /no/such"),
            "{error:#}"
        );
    }

    #[cfg(feature = "aws")]
    #[test]
    fn seventeen_kilobytes_are_refused_at_start_and_only_if_they_cannot_be_compressed() {
        let mut state = 1_u32;
        let noise: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + (state >> 24) as u8 % 95)
        })
        .take(20 * 1024)
        .collect();
        let aws = "{aws: {region: us-east-1}}";
        let error = options_of(aws, format!("#!/bin/sh\n{noise}").as_bytes()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("cells.cloudInitFile: user-data would have "),
            "{error:#}"
        );
        assert!(options_of(aws, "#!/bin/sh\necho hi\n".repeat(1000).as_bytes()).is_ok());
    }

    #[test]
    fn an_architecture_without_an_agent_is_refused_before_an_instance_boots_in_vain() {
        let sum = "0f".repeat(32);
        let text = format!(
            "{{cloud: {{local: {{}}}}, cells: {{agent: {{arm64: {{url: 'https://x/a', sha256: {sum}}}}}}}}}"
        );
        let boot = options(&config::parse(&text, "x").unwrap().config).unwrap();
        covers(&boot, &BTreeSet::from([Architecture::Arm64])).unwrap();
        let error = covers(&boot, &BTreeSet::from([Architecture::Amd64])).unwrap_err();
        assert!(error.to_string().contains("cells.agent.amd64"), "{error}");
        covers(&BootOptions::default(), &BTreeSet::from([Architecture::Amd64])).unwrap();
    }
}

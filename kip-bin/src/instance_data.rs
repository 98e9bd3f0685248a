//! `--instance-data-path`: an operator's own list of instance types and prices, in the format of the old Kip.

use std::path::Path;

use crate::config::Cloud;

/// Lets a cloud sell what the file lists, and nothing else, at the file's prices; they are not refreshed while Kip runs. `environment` is the
/// region to take where the configuration names none.
///
/// # Errors
/// When the file cannot be read or says nothing about the region: other prices would choose other instances. When the cloud is not EC2.
pub(crate) fn apply(path: &Path, environment: Option<&str>, cloud: &mut Cloud) -> anyhow::Result<()> {
    match cloud {
        #[cfg(feature = "aws")]
        Cloud::Aws(aws) => {
            let region = aws.region.as_deref().or(environment);
            aws.facts = Some(ec2::read(path, region)?);
            Ok(())
        }
        other => anyhow::bail!(
            "--instance-data-path {}: is a list of EC2's instance types, and the cloud is {}; remove the flag (region of the environment: {})",
            path.display(),
            other.name(),
            environment.unwrap_or("none")
        ),
    }
}

#[cfg(feature = "aws")]
mod ec2 {
    use std::path::Path;

    use anyhow::Context as _;
    use jiff::Timestamp;
    use kip_aws::catalogue::{Facts, from_instance_data};

    pub(super) fn read(path: &Path, region: Option<&str>) -> anyhow::Result<Facts> {
        let said = || format!("--instance-data-path {}", path.display());
        let region = region
            .context("the file is by region: write cloud.aws.region")
            .with_context(said)?;
        let read = || -> anyhow::Result<(String, Timestamp)> {
            let written = std::fs::metadata(path)?.modified()?;
            Ok((std::fs::read_to_string(path)?, Timestamp::try_from(written)?))
        };
        let (json, written) = read().context("cannot be read").with_context(said)?;
        let facts = from_instance_data(&json, region, written).with_context(said)?;
        tracing::info!(
            file = %path.display(),
            region,
            types = facts.kinds.len(),
            "instance types and prices are the file's, and are not refreshed"
        );
        Ok(facts)
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn config(cloud: &str) -> Config {
        let text = format!("{{cloud: {cloud}, cells: {{bootImageSpec: {{imageIDs: ami-1}}}}}}");
        parse(&text, "provider.yaml").expect("a good file").config
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        file
    }

    /// Whoever negotiated prices lets them choose the instances.
    #[test]
    fn an_operators_own_prices_take_the_place_of_the_clouds_and_stay() {
        let file =
            file(r#"{"us-east-1": [{"instanceType": "m5.large", "price": 0.07, "memory": 8, "cpu": 2}]}"#);
        for (cloud, environment) in [
            ("{aws: {region: us-east-1}}", None),
            ("{aws: {}}", Some("us-east-1")),
        ] {
            let mut config = config(cloud);
            apply(file.path(), environment, &mut config.cloud).unwrap();
            let Cloud::Aws(aws) = &config.cloud else {
                panic!("{:?}", config.cloud)
            };
            let facts = aws.facts.as_ref().expect("the file's");
            let prices: Vec<String> = facts.on_demand.values().map(ToString::to_string).collect();
            assert_eq!(prices, ["$0.0700/h"]);
            let refresh = config.ec2(aws).refresh;
            assert!(
                refresh.types.is_zero() && refresh.on_demand.is_zero(),
                "{refresh:?}"
            );
            assert!(!refresh.spot.is_zero(), "{refresh:?}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_used_ends_the_start_rather_than_let_other_prices_choose() {
        let empty = file("{}");
        let east = "{aws: {region: us-east-1}}";
        for (path, cloud, expected) in [
            (empty.path(), east, "us-east-1"),
            (empty.path(), "{aws: {}}", "write cloud.aws.region"),
            (Path::new("/none"), east, "cannot be read"),
            #[cfg(feature = "local")]
            (empty.path(), "{local: {}}", "the cloud is local"),
        ] {
            let mut config = config(cloud);
            let error = apply(path, None, &mut config.cloud).expect_err(cloud);
            let said = crate::output::chain(&error);
            assert!(
                said.starts_with("--instance-data-path /") && said.contains(expected),
                "{said}"
            );
        }
    }
}

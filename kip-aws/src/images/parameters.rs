//! Images named by parameters of the Systems Manager, such as the public ones of AWS and Canonical: what each stands for changes with time.

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use kip_core::error::{Error, ErrorKind, Result};

use crate::builder::START;
use crate::config::AwsConfig;
use crate::errors;

/// Names a call of GetParameters takes. Source: GetParameters, AWS Systems Manager API Reference.
const MOST: usize = 10;

/// A client of the Systems Manager that asks each question once.
pub(super) fn client(sdk: &SdkConfig, config: &AwsConfig) -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(config.call_timeout);
    let mut builder = aws_sdk_ssm::config::Builder::from(sdk)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    if let Some(url) = config.emulator() {
        builder = builder.endpoint_url(url);
    }
    Client::from_conf(builder.build())
}

/// The images that the parameters stand for now, in any order.
///
/// # Errors
/// `ConfigInvalid` when a parameter is not there or stands for no image; what the call answers.
pub(super) async fn images(client: &Client, names: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for names in names.chunks(MOST) {
        let answer = client
            .get_parameters()
            .set_names(Some(names.to_vec()))
            .send()
            .await
            .map_err(|error| errors::of_sdk(START, "ssm:GetParameters", error))?;
        let values = answer
            .parameters()
            .iter()
            .filter_map(|parameter| Some((parameter.name()?, parameter.value()?)));
        found.extend(image_ids(values, answer.invalid_parameters())?);
    }
    Ok(found)
}

fn image_ids<'a>(
    values: impl Iterator<Item = (&'a str, &'a str)>,
    unknown: &[String],
) -> Result<Vec<String>> {
    let wrong = |message: String| Err(Error::new(ErrorKind::ConfigInvalid, START, message));
    if !unknown.is_empty() {
        return wrong(format!(
            "bootImageSpec.ssmParameters: there is no {} in this region: `aws ssm get-parameters-by-path --path /aws/service` lists them",
            unknown.join(" and no ")
        ));
    }
    let mut ids = Vec::new();
    for (name, value) in values {
        if !value.starts_with("ami-") {
            return wrong(format!(
                "bootImageSpec.ssmParameters: {name} stands for no image: its value must be an id such as ami-0abc"
            ));
        }
        ids.push(value.to_owned());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_names_no_image_is_told_by_its_name() {
        let of = |values: &[(&'static str, &'static str)], unknown: &[&str]| {
            let unknown: Vec<String> = unknown.iter().map(|name| (*name).to_owned()).collect();
            image_ids(values.iter().copied(), &unknown)
        };
        assert_eq!(
            of(&[("/a", "ami-1"), ("/b", "ami-2")], &[]).unwrap(),
            ["ami-1", "ami-2"]
        );
        for (values, unknown, expected) in [
            (
                &[("/a", "ami-1")][..],
                &["/b", "/c"][..],
                "there is no /b and no /c in this region",
            ),
            (
                &[("/a", "{\"image_id\": \"ami-1\"}")],
                &[],
                "/a stands for no image",
            ),
        ] {
            let error = of(values, unknown).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.message().contains(expected), "{error}");
        }
    }
}

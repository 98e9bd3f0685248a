//! Who the credentials are.

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::error::ProvideErrorMetadata as _;
use kip_core::error::ErrorKind;

use super::{Check, Verdict, judge};
use crate::config::AwsConfig;
use crate::errors;

const WHAT: &str = "identity";

/// Asks STS, which needs no permission. Whoever cannot reach STS can still use EC2, so that is no failure.
pub(crate) async fn identity(sdk: &SdkConfig, config: &AwsConfig) -> Check {
    let timeouts = TimeoutConfig::builder().operation_timeout(config.call_timeout);
    let mut builder = aws_sdk_sts::config::Builder::from(sdk)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build());
    if let Some(url) = config.emulator() {
        builder = builder.endpoint_url(url);
    }
    let client = aws_sdk_sts::Client::from_conf(builder.build());
    match client.get_caller_identity().send().await {
        Ok(answer) => Check::new(WHAT, Verdict::Ok, answer.arn().unwrap_or("STS does not say")),
        Err(error) => {
            let code = error.code().map(str::to_owned);
            let error = errors::of_sdk("preflight", "GetCallerIdentity", error);
            match code {
                Some(code) => Check::new(WHAT, Verdict::Failed, format!("STS answers {code}"))
                    .with_remedy(judge::remedy(ErrorKind::Unauthenticated)),
                None => Check::new(
                    WHAT,
                    Verdict::Unknown,
                    format!("STS is not of use: {}", error.chain()),
                )
                .with_remedy("nothing, when the rest is well: Kip uses STS for web identities only"),
            }
        }
    }
}

//! What the instance metadata service says about where this process runs.

use std::fmt;
use std::time::Duration;

use aws_config::imds::Client;
use aws_config::provider_config::ProviderConfig;
use aws_smithy_http_client::proxy::ProxyConfig;

use crate::http;

/// Where the interfaces are.
const INTERFACES: &str = "/latest/meta-data/network/interfaces/macs/";
/// How long a question may take: a pod that may not ask gets no answer at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The instance metadata service of the machine this process runs on, if it may ask it.
pub(crate) struct Metadata(Client);

impl Metadata {
    /// Asks the service at a URL; by default AWS's own, or what `AWS_EC2_METADATA_SERVICE_ENDPOINT` says.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) fn at(url: Option<&str>) -> Result<Self, String> {
        // It is on this machine: no proxy is on the way.
        let provider = ProviderConfig::default().with_http_client(http::client(ProxyConfig::disabled()));
        let builder = Client::builder()
            .configure(&provider)
            .max_attempts(1)
            .connect_timeout(PATIENCE / 2)
            .read_timeout(PATIENCE / 2)
            .operation_timeout(PATIENCE);
        let builder = match url {
            Some(url) => builder
                .endpoint(url)
                .map_err(|error| format!("metadata_url: `{url}` is no URL: {error}"))?,
            None => builder,
        };
        Ok(Self(builder.build()))
    }

    /// The VPCs of this machine's network interfaces; empty when it is no instance, or may not ask.
    pub(crate) async fn vpcs(&self) -> Vec<String> {
        let macs = match self.0.get(INTERFACES).await {
            Ok(macs) => macs,
            Err(error) => {
                tracing::debug!(%error, "the instance metadata service does not answer");
                return Vec::new();
            }
        };
        let mut vpcs = Vec::new();
        for mac in macs.as_ref().lines() {
            let path = format!("{INTERFACES}{}/vpc-id", mac.trim_end_matches('/'));
            match self.0.get(path).await {
                Ok(vpc) => vpcs.push(vpc.as_ref().trim().to_owned()),
                Err(error) => tracing::debug!(%error, mac, "the VPC of an interface stays unknown"),
            }
        }
        vpcs.sort();
        vpcs.dedup();
        vpcs
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metadata")
    }
}

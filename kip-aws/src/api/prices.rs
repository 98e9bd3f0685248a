//! The Price List API: what instance types cost on demand. It is another service than EC2, in few regions.

use aws_sdk_pricing::Client;
use aws_sdk_pricing::types::{Filter, FilterType};
use kip_core::error::{Error, ErrorKind, Result};

use super::catalogue::{Page, REFRESH};
use crate::errors;

/// Products a page: the most there are. Source: GetProducts, AWS Price List API Reference.
const PRODUCTS: i32 = 100;

/// What is asked for beside the region: Linux without software of others, in use, bought by the second, on shared hardware.
const LINUX: [(&str, &str); 5] = [
    ("operatingSystem", "Linux"),
    ("preInstalledSw", "NA"),
    ("capacitystatus", "Used"),
    ("marketoption", "OnDemand"),
    ("tenancy", "Shared"),
];

/// The region whose Price List API tells the prices of a region, in dollars; None when no such API is in its partition (GovCloud), or tells
/// them in another currency (China).
///
/// Source: "AWS Billing and Cost Management endpoints and quotas", AWS General Reference: us-east-1, eu-central-1 and ap-south-1.
pub(crate) fn region_of_prices(region: &str) -> Option<&'static str> {
    let is = |prefix: &str| region.starts_with(prefix);
    if is("cn-") || is("us-gov-") || is("us-iso") || is("eu-iso") || is("eusc-") {
        None
    } else if is("eu-") {
        Some("eu-central-1")
    } else if is("ap-") {
        Some("ap-south-1")
    } else {
        Some("us-east-1")
    }
}

/// The Price List API.
#[derive(Clone, Debug)]
pub(crate) struct PriceList(Client);

impl PriceList {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// A page of the on-demand products of a region, each as JSON.
    pub(crate) async fn products(&self, region: &str, page: Option<String>) -> Result<Page<String>> {
        let mut call = self
            .0
            .get_products()
            .service_code("AmazonEC2")
            .set_next_token(page)
            .max_results(PRODUCTS);
        for (field, value) in LINUX.into_iter().chain([("regionCode", region)]) {
            let filter = Filter::builder()
                .r#type(FilterType::TermMatch)
                .field(field)
                .value(value)
                .build()
                .map_err(|error| {
                    Error::new(ErrorKind::Unexpected, REFRESH, "the request cannot be made")
                        .with_source(error)
                })?;
            call = call.filters(filter);
        }
        let output = call
            .send()
            .await
            .map_err(|error| errors::of_sdk(REFRESH, "GetProducts", error))?;
        Ok((output.price_list.unwrap_or_default(), output.next_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked where there is no such API, every refresh would fail; in another currency, cheap would be dear.
    #[test]
    fn prices_are_asked_for_where_they_are_told_in_dollars() {
        for (region, told) in [
            ("us-east-1", Some("us-east-1")),
            ("sa-east-1", Some("us-east-1")),
            ("eu-west-1", Some("eu-central-1")),
            ("ap-southeast-2", Some("ap-south-1")),
            ("cn-north-1", None),
            ("us-gov-west-1", None),
        ] {
            assert_eq!(region_of_prices(region), told, "{region}");
        }
    }
}

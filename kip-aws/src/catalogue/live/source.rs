//! Asks EC2 and the Price List API what a region sells.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_config::SdkConfig;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceType;
use kip_core::model::Price;

use super::described::{Described, kind, spot_prices, zones};
use super::pages::all;
use super::product;
use crate::api::Api;
use crate::api::catalogue::REFRESH;
use crate::api::prices::{PriceList, region_of_prices};
use crate::builder;
use crate::catalogue::{Live, LivePart};
use crate::config::AwsConfig;

/// One complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// What it says.
    pub live: Live,
    /// Elements that were left out because they make no sense, such as prices of zero.
    pub rejected: usize,
}

/// Asks the cloud what a region sells. Changes nothing there.
#[derive(Clone, Debug)]
pub struct LiveSource {
    region: String,
    ec2: Api,
    prices: Option<PriceList>,
}

impl LiveSource {
    /// A source with the region, credentials and endpoints of a configuration; what it says of subnets and images does not matter. Asks for
    /// credentials, and nothing else.
    ///
    /// # Errors
    /// `ConfigInvalid` when no region is known, `Unauthenticated` when there are no usable credentials.
    pub async fn connect(config: &AwsConfig) -> Result<Self> {
        let (sdk, region) = builder::connect(config).await?;
        Ok(Self::new(&sdk, &region, config))
    }

    pub(crate) fn new(sdk: &SdkConfig, region: &str, config: &AwsConfig) -> Self {
        Self {
            region: region.to_owned(),
            ec2: Api::new(builder::reading_client(sdk, config)),
            prices: price_list(sdk, region, config),
        }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether the part can be asked for: on-demand prices cannot where the partition has no Price List API in dollars (China, GovCloud), nor
    /// with an endpoint for EC2 of its own unless the one for prices is set too.
    pub fn has(&self, part: LivePart) -> bool {
        part != LivePart::OnDemandPrices || self.prices.is_some()
    }

    /// All pages of a part. A page is asked for up to three times. Safe to repeat and to drop.
    ///
    /// # Errors
    /// Those of the calls, such as `PermissionDenied`; `Unexpected` for an answer without end; `Timeout`; `Unsupported` when the part cannot be
    /// [had](Self::has).
    pub async fn fetch(&self, part: LivePart) -> Result<Fetched> {
        match part {
            LivePart::Kinds => self.kinds().await,
            LivePart::Zones => self.zones().await,
            LivePart::OnDemandPrices => self.on_demand().await,
            LivePart::SpotPrices => self.spot().await,
        }
        .map_err(|error| error.with_context("region", &self.region))
    }

    async fn kinds(&self) -> Result<Fetched> {
        let infos = all(|page| self.ec2.instance_types(page)).await?;
        let mut kinds = Vec::with_capacity(infos.len());
        let mut rejected = 0;
        for info in &infos {
            match kind(info) {
                Described::Kind(kind) => kinds.push(*kind),
                Described::Foreign => {}
                Described::Unreadable => rejected += 1,
            }
        }
        Ok(Fetched {
            live: Live::Kinds(kinds),
            rejected,
        })
    }

    async fn zones(&self) -> Result<Fetched> {
        let elements = all(|page| self.ec2.type_offerings(page)).await?;
        let (zones, rejected) = zones(&elements);
        Ok(Fetched {
            live: Live::Zones(zones),
            rejected,
        })
    }

    async fn on_demand(&self) -> Result<Fetched> {
        let list = self.prices.as_ref().ok_or_else(|| {
            let message = "on-demand prices cannot be had here: the partition has no Price List API in dollars, or `endpointURL` is set \
                           and `pricingEndpointURL` is not";
            Error::new(ErrorKind::Unsupported, REFRESH, message)
        })?;
        let products = all(|page| list.products(&self.region, page)).await?;
        let mut prices: BTreeMap<InstanceType, Price> = BTreeMap::new();
        let mut rejected = 0;
        for json in &products {
            match product::on_demand(json, &self.region) {
                // Of two prices the higher: too dear is passed over, too cheap would be bought.
                Some((name, price)) => {
                    let known = prices.entry(name).or_insert(price);
                    *known = (*known).max(price);
                }
                None => rejected += 1,
            }
        }
        Ok(Fetched {
            live: Live::OnDemandPrices(prices),
            rejected,
        })
    }

    async fn spot(&self) -> Result<Fetched> {
        // From now on: then the history begins with the prices in force.
        let now = SystemTime::now();
        let elements = all(|page| self.ec2.spot_prices(now, page)).await?;
        let (prices, rejected) = spot_prices(&elements);
        Ok(Fetched {
            live: Live::SpotPrices(prices),
            rejected,
        })
    }
}

fn price_list(sdk: &SdkConfig, region: &str, config: &AwsConfig) -> Option<PriceList> {
    let list = |region: &str| PriceList::new(builder::pricing_client(sdk, region, config));
    match (&config.pricing_endpoint_url, &config.endpoint_url) {
        (Some(_), _) => Some(list(region_of_prices(region).unwrap_or(region))),
        // Whoever keeps EC2 to an endpoint of their own, or to an emulator, does not expect calls to elsewhere.
        (None, Some(_)) => None,
        (None, None) => region_of_prices(region).map(list),
    }
}

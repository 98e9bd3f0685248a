//! What the fake EC2 sells: sizes, zones and prices, as EC2 and the Price List API tell them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::state::Answer;
use super::wire::{Params, element, set, wrap};

/// What is sold, to be changed by a test.
#[derive(Clone, Debug)]
pub struct Market {
    /// Types by name.
    pub sizes: BTreeMap<String, Size>,
    /// The types each zone has.
    pub zones: BTreeMap<String, Vec<String>>,
    /// Dollars an hour on demand, as text.
    pub on_demand: BTreeMap<String, String>,
    /// The history of spot prices.
    pub spot: Vec<Spot>,
    /// Elements a page, whatever is asked for.
    pub page: usize,
    /// Bytes of nonsense in each page of the price list.
    pub padding: usize,
}

/// What DescribeInstanceTypes says of a type.
#[derive(Clone, Debug)]
pub struct Size {
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    /// vCPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub mib: u64,
    /// Whether its CPU is shared.
    pub burstable: bool,
    /// Model and number of its GPUs.
    pub gpus: Option<(&'static str, u64)>,
}

/// One element of the history of spot prices.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The type.
    pub instance_type: String,
    /// The zone.
    pub zone: String,
    /// Dollars an hour, as text.
    pub price: String,
    /// When it began, such as `2026-11-25T12:00:00.000Z`.
    pub at: String,
}

impl Default for Market {
    /// Three small types in three zones, spot for less than half.
    fn default() -> Self {
        let mut market = Self {
            sizes: BTreeMap::new(),
            zones: BTreeMap::new(),
            on_demand: BTreeMap::new(),
            spot: Vec::new(),
            page: 1000,
            padding: 0,
        };
        for (name, architecture, mib, price, spot) in [
            ("t3.small", "x86_64", 2048, "0.0208000000", "0.008300"),
            ("c7i.large", "x86_64", 4096, "0.0892500000", "0.035700"),
            ("t4g.small", "arm64", 2048, "0.0168000000", "0.006700"),
        ] {
            let size = Size {
                architecture,
                vcpus: 2,
                mib,
                burstable: name.starts_with('t'),
                gpus: None,
            };
            market.sell(name, size, price, spot);
        }
        market
    }
}

impl Market {
    /// Sells a type in three zones.
    pub fn sell(&mut self, name: &str, size: Size, price: &str, spot: &str) {
        self.sizes.insert(name.to_owned(), size);
        self.on_demand.insert(name.to_owned(), price.to_owned());
        for zone in ["us-east-1a", "us-east-1b", "us-east-1f"] {
            self.zones
                .entry(zone.to_owned())
                .or_default()
                .push(name.to_owned());
            self.spot.push(Spot {
                instance_type: name.to_owned(),
                zone: zone.to_owned(),
                price: spot.to_owned(),
                at: "2026-11-25T12:00:00.000Z".to_owned(),
            });
        }
    }

    /// Answers a call of EC2; None for one that is about something else.
    pub(super) fn call(&self, action: &str, params: &Params) -> Option<Answer> {
        Some(match action {
            "DescribeInstanceTypes" => {
                let (shown, next) = self.page(params, self.sizes.iter().collect());
                Ok(set(
                    "instanceTypeSet",
                    shown.iter().map(|(name, size)| describe(name, size)),
                ) + &next)
            }
            "DescribeInstanceTypeOfferings" => {
                let kind = params.get("LocationType").unwrap_or("region");
                let all = self
                    .zones
                    .iter()
                    .flat_map(|(zone, names)| names.iter().map(move |name| (zone, name)));
                let (shown, next) = self.page(params, all.collect());
                let items = shown.iter().map(|(zone, name)| {
                    element("instanceType", name)
                        + &element("locationType", kind)
                        + &element("location", zone)
                });
                Ok(set("instanceTypeOfferingSet", items) + &next)
            }
            "DescribeSpotPriceHistory" => {
                let (shown, next) = self.page(params, self.spot.iter().collect());
                let items = shown.iter().map(|spot| {
                    element("instanceType", &spot.instance_type)
                        + &element("productDescription", "Linux/UNIX")
                        + &element("spotPrice", &spot.price)
                        + &element("timestamp", &spot.at)
                        + &element("availabilityZone", &spot.zone)
                });
                Ok(set("spotPriceHistorySet", items) + &next)
            }
            _ => return None,
        })
    }

    /// Answers GetProducts of the Price List API; None for another call.
    pub(super) fn call_json(&self, action: &str, params: &Params) -> Option<Value> {
        if action != "GetProducts" {
            return None;
        }
        let (shown, next) = self.cut(params, self.on_demand.iter().collect());
        let mut list: Vec<String> = shown
            .into_iter()
            .map(|(name, price)| product(name, price))
            .collect();
        if self.padding > 0 {
            list.push("x".repeat(self.padding));
        }
        let mut answer = json!({ "FormatVersion": "aws_v1", "PriceList": list });
        if let Some(next) = next {
            answer["NextToken"] = next.to_string().into();
        }
        Some(answer)
    }

    /// The elements a call asks for, and where the next begin.
    fn cut<T: Clone>(&self, params: &Params, all: Vec<T>) -> (Vec<T>, Option<usize>) {
        let number = |name: &str| params.get(name).and_then(|text| text.parse::<usize>().ok());
        let from = number("NextToken").unwrap_or(0).min(all.len());
        let most = self.page.min(number("MaxResults").unwrap_or(usize::MAX));
        let until = all.len().min(from + most);
        (all[from..until].to_vec(), (until < all.len()).then_some(until))
    }

    /// The same, with the next place as an element; the last page has an empty one, as EC2's has.
    fn page<T: Clone>(&self, params: &Params, all: Vec<T>) -> (Vec<T>, String) {
        let (shown, next) = self.cut(params, all);
        let next = next.map(|next| next.to_string()).unwrap_or_default();
        (shown, element("nextToken", &next))
    }
}

fn describe(name: &str, size: &Size) -> String {
    let mut shown = element("instanceType", name)
        + &element("currentGeneration", "true")
        + &element("bareMetal", "false")
        + &element("hypervisor", "nitro")
        + &element("burstablePerformanceSupported", &size.burstable.to_string())
        + &wrap("supportedUsageClasses", "<item>on-demand</item><item>spot</item>")
        + &wrap(
            "processorInfo",
            &wrap("supportedArchitectures", &element("item", size.architecture)),
        )
        + &wrap("vCpuInfo", &element("defaultVCpus", &size.vcpus.to_string()))
        + &wrap("memoryInfo", &element("sizeInMiB", &size.mib.to_string()));
    if let Some((model, count)) = size.gpus {
        let gpu = element("name", model)
            + &element("manufacturer", "NVIDIA")
            + &element("count", &count.to_string())
            + &wrap("memoryInfo", &element("sizeInMiB", "16384"));
        shown += &wrap("gpuInfo", &set("gpus", [gpu]));
    }
    shown
}

fn product(name: &str, price: &str) -> String {
    json!({
        "product": {
            "productFamily": "Compute Instance",
            "attributes": {
                "instanceType": name, "regionCode": "us-east-1", "operatingSystem": "Linux", "tenancy": "Shared",
                "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand",
            },
            "sku": name,
        },
        "serviceCode": "AmazonEC2",
        "terms": { "OnDemand": { "term": { "priceDimensions": { "dimension": {
            "unit": "Hrs", "pricePerUnit": { "USD": price },
        } } } } },
    })
    .to_string()
}

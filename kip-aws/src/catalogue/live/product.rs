//! One product of the Price List API: JSON, of which little matters here, and that strictly.

use std::collections::BTreeMap;

use kip_core::ids::InstanceType;
use kip_core::model::Price;
use serde::Deserialize;

use super::price::price;

/// What the price list says of one product. Unknown fields are most of it.
#[derive(Debug, Deserialize)]
struct Product {
    product: Described,
    terms: Terms,
}

#[derive(Debug, Deserialize)]
struct Described {
    attributes: Attributes,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    instance_type: String,
    region_code: Option<String>,
    operating_system: String,
    tenancy: String,
    #[serde(rename = "preInstalledSw")]
    software: String,
    #[serde(rename = "capacitystatus")]
    capacity_status: String,
    #[serde(rename = "marketoption")]
    market_option: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand")]
    on_demand: BTreeMap<String, Term>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    price_dimensions: BTreeMap<String, Dimension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dimension {
    unit: String,
    price_per_unit: BTreeMap<String, String>,
}

/// Type and price of a product; None unless it is exactly what was asked for, with one price for an hour in dollars. What else there is,
/// such as a price of zero for what is paid in advance, must not be taken for a bargain.
pub(super) fn on_demand(json: &str, region: &str) -> Option<(InstanceType, Price)> {
    let Product { product, terms } = serde_json::from_str(json).ok()?;
    let attributes = product.attributes;
    let is_asked_for = attributes.operating_system == "Linux"
        && attributes.tenancy == "Shared"
        && attributes.software == "NA"
        && attributes.capacity_status == "Used"
        && attributes.market_option.is_none_or(|option| option == "OnDemand")
        && attributes.region_code.is_none_or(|code| code == region);
    if !is_asked_for || !attributes.instance_type.contains('.') {
        return None;
    }
    let dimensions: Vec<&Dimension> = terms
        .on_demand
        .values()
        .flat_map(|term| term.price_dimensions.values())
        .collect();
    let [Dimension { unit, price_per_unit }] = dimensions[..] else {
        return None;
    };
    if !unit.eq_ignore_ascii_case("hrs") {
        return None;
    }
    let price = price(price_per_unit.get("USD")?)?;
    Some((InstanceType::new(attributes.instance_type), price))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn product() -> Value {
        json!({
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {
                    "instanceType": "m5.large", "regionCode": "us-east-1", "operatingSystem": "Linux", "tenancy": "Shared",
                    "preInstalledSw": "NA", "capacitystatus": "Used", "marketoption": "OnDemand", "memory": "8 GiB"
                },
                "sku": "SKU"
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {"SKU.JRT": {
                "priceDimensions": {"SKU.JRT.6YS": {
                    "unit": "Hrs", "beginRange": "0", "endRange": "Inf",
                    "pricePerUnit": {"USD": "0.0960000000"}
                }},
                "offerTermCode": "JRT"
            }}}
        })
    }

    fn read(product: &Value) -> Option<(InstanceType, Price)> {
        on_demand(&product.to_string(), "us-east-1")
    }

    #[test]
    fn the_price_of_an_hour_of_linux_is_read() {
        assert_eq!(
            read(&product()),
            Some((InstanceType::new("m5.large"), Price(96_000)))
        );
    }

    /// Each of these, taken for a price, would have pods placed by the price of something else.
    #[test]
    fn what_is_not_exactly_that_is_no_price() {
        let attributes = "/product/attributes/";
        let dimension = "/terms/OnDemand/SKU.JRT/priceDimensions/SKU.JRT.6YS/";
        for (at, value) in [
            (format!("{attributes}operatingSystem"), json!("Windows")),
            (format!("{attributes}tenancy"), json!("Dedicated")),
            (format!("{attributes}preInstalledSw"), json!("SQL Std")),
            (
                format!("{attributes}capacitystatus"),
                json!("UnusedCapacityReservation"),
            ),
            (format!("{attributes}marketoption"), json!("CapacityBlock")),
            (format!("{attributes}regionCode"), json!("eu-west-1")),
            (format!("{attributes}instanceType"), json!("m5")),
            (format!("{attributes}instanceType"), json!(5)),
            (format!("{dimension}unit"), json!("Quantity")),
            (format!("{dimension}pricePerUnit"), json!({"CNY": "0.6"})),
            (format!("{dimension}pricePerUnit"), json!({"USD": "0.0000000000"})),
            (format!("{dimension}pricePerUnit"), json!({"USD": 0.096})),
            (format!("{dimension}pricePerUnit"), json!({"USD": "NaN"})),
            (
                "/terms/OnDemand/SKU.JRT/priceDimensions".to_owned(),
                json!({
                    "a": {"unit": "Hrs", "pricePerUnit": {"USD": "1"}}, "b": {"unit": "Hrs", "pricePerUnit": {"USD": "2"}}
                }),
            ),
            ("/terms/OnDemand".to_owned(), json!({})),
            ("/terms".to_owned(), json!({"Reserved": {}})),
        ] {
            let mut product = product();
            *product.pointer_mut(&at).expect("it is there") = value.clone();
            assert_eq!(read(&product), None, "{at} {value}");
        }
        assert_eq!(on_demand("{", "us-east-1"), None);
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in "\\PC{0,200}", price in "\\PC{0,20}") {
            let _ = on_demand(&text, "us-east-1");
            let mut product = product();
            let at = "/terms/OnDemand/SKU.JRT/priceDimensions/SKU.JRT.6YS/pricePerUnit/USD";
            *product.pointer_mut(at).expect("it is there") = json!(price);
            prop_assert!(read(&product).is_none_or(|(_, price)| price > Price(0)));
        }
    }
}

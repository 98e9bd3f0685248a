//! For prices: reads the list of families and sizes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// Prices in US dollars per hour, as decimal text makes them: millionths, exactly.
#[derive(Debug, Default)]
pub(super) struct Prices {
    /// The region the list is for.
    pub(super) region: String,
    /// The day the list is of.
    pub(super) date: String,
    /// Millionths of a dollar for one vCPU-hour, by family.
    families: BTreeMap<String, u64>,
    /// Millionths of a dollar for an hour, by instance type; these come first.
    sizes: BTreeMap<String, u64>,
}

impl Prices {
    /// Millionths of a dollar for an hour of an instance type.
    pub(super) fn of(&self, instance_type: &str, vcpus: u64) -> Option<u64> {
        let family = instance_type.split('.').next().unwrap_or_default();
        let by_family = || self.families.get(family).map(|rate| rate.saturating_mul(vcpus));
        self.sizes.get(instance_type).copied().or_else(by_family)
    }
}

/// Reads the list. Its first line names the region and the day.
pub(super) fn read(text: &str) -> Result<Prices> {
    let title = text.lines().next().unwrap_or_default();
    let after = |words: &str| {
        title
            .split_once(words)
            .and_then(|(_, rest)| rest.split(',').next())
            .map(str::to_owned)
            .with_context(|| format!("the first line has no {words:?}"))
    };
    let mut prices = Prices {
        region: after("list prices, ")?,
        date: after("as of ")?,
        ..Prices::default()
    };
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() || line == "kind,name,usd" {
            continue;
        }
        let place = || format!("line {}: {line:?}", number + 1);
        let fields: Vec<&str> = line.split(',').collect();
        let [kind, name, usd] = fields[..] else {
            bail!("{}: must be kind,name,usd", place());
        };
        let amount = millionths(usd).with_context(|| format!("{}: no amount of dollars", place()))?;
        let list = match kind {
            "family" => &mut prices.families,
            "size" => &mut prices.sizes,
            _ => bail!("{}: kind must be family or size", place()),
        };
        if list.insert(name.to_owned(), amount).is_some() {
            bail!("{}: is there twice", place());
        }
    }
    Ok(prices)
}

/// Decimal text in millionths; None when it has more than six decimals or is no number.
fn millionths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > 6 || whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# EC2 on-demand Linux list prices, us-east-1, as of 2026-07-20, in USD\nkind,name,usd\n\
        family,m5,0.048000\nfamily,t3,0.0026\nsize,t3.large,0.0832\n";

    #[test]
    fn a_size_has_its_own_price_or_its_family_s_rate() {
        let prices = read(LIST).unwrap();
        assert_eq!(
            (prices.region.as_str(), prices.date.as_str()),
            ("us-east-1", "2026-07-20")
        );
        assert_eq!(prices.of("m5.2xlarge", 8), Some(384_000));
        assert_eq!(prices.of("t3.large", 2), Some(83_200));
        assert_eq!(prices.of("p9.large", 2), None);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for line in ["family,m5", "size,x,1.2345678", "kind,x,1", "family,m5,1"] {
            let error = read(&format!("{LIST}{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 6"), "{error}");
        }
    }
}

//! For a cold start without permissions: writes the list of EC2's instance types, zones and prices that `kip-aws` compiles in.
//!
//! Types and zones are what EC2's API answered to the makers of `moto`, a public Python package; prices are the public list beside the
//! result. The same inputs give the same bytes.

mod moto;
mod prices;
mod seed;

use std::fs;

use anyhow::{Context, Result};

use crate::{paths, ui};

/// Where the result goes, seen from the workspace.
const RESULT: &str = "kip-aws/data/ec2-seed.tsv.gz";
/// Where prices come from, seen from the workspace.
const PRICES: &str = "kip-aws/data/ec2-list-prices-us-east-1.csv";
/// It is compiled into every controller.
const MOST_BYTES: usize = 150 * 1024;

/// Writes the file, and says what is in it.
pub(crate) fn run() -> Result<()> {
    let root = paths::workspace();
    let data = moto::provide()?;
    let list = fs::read_to_string(root.join(PRICES)).with_context(|| format!("cannot read {PRICES}"))?;
    let prices = prices::read(&list).with_context(|| format!("cannot use {PRICES}"))?;
    let made = seed::make(&data, &prices)?;
    let packed = seed::pack(&made.text)?;
    anyhow::ensure!(
        packed.len() <= MOST_BYTES,
        "{RESULT} would have {} bytes; at most {MOST_BYTES} are compiled in",
        packed.len()
    );
    fs::write(root.join(RESULT), &packed).with_context(|| format!("cannot write {RESULT}"))?;
    ui::step(&format!(
        "{RESULT}: {} bytes; {} types of which {} have a price; {} regions; left out: {} types that run no Linux",
        packed.len(),
        made.types,
        made.priced,
        data.zones.len(),
        made.left_out
    ));
    if !made.unpriced_families.is_empty() {
        let families: Vec<&str> = made.unpriced_families.iter().map(String::as_str).collect();
        ui::step(&format!("families without a price: {}", families.join(", ")));
    }
    Ok(())
}

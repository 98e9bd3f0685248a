//! Baselines of burstable types, which no API tells.

use kip_core::model::{CpuMillis, Price};

/// vCPUs a burstable type may use all the time without paying for credits, in thousandths; None for types that are not in the table.
///
/// Source: "Key concepts for burstable performance instances", Amazon EC2 User Guide: the baseline for each vCPU, times the vCPUs. T2's
/// two largest sizes have 22.5 % of four and 17 % of eight.
pub fn baseline(instance_type: &str) -> Option<CpuMillis> {
    let (family, size) = instance_type.split_once('.')?;
    let millis = match (family, size) {
        ("t2", "nano") => 50,
        ("t2", "micro") => 100,
        ("t2", "small") => 200,
        ("t2", "medium") => 400,
        ("t2", "large") => 600,
        ("t2", "xlarge") => 900,
        ("t2", "2xlarge") => 1360,
        ("t3" | "t3a" | "t4g", "nano") => 100,
        ("t3" | "t3a" | "t4g", "micro") => 200,
        ("t3" | "t3a" | "t4g", "small" | "medium") => 400,
        ("t3" | "t3a" | "t4g", "large") => 600,
        ("t3" | "t3a" | "t4g", "xlarge") => 1600,
        ("t3" | "t3a" | "t4g", "2xlarge") => 3200,
        _ => return None,
    };
    Some(CpuMillis(millis))
}

/// What a vCPU-hour of surplus credits costs on Linux, where it is not the usual $0.05: $0.04 on T4g.
///
/// Source: "Unlimited mode for burstable performance instances", Amazon EC2 User Guide.
pub fn surplus_cpu_hour(instance_type: &str) -> Option<Price> {
    instance_type.starts_with("t4g.").then_some(Price(40_000))
}

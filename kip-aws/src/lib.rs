//! Amazon EC2 as a cloud for Kip.
//!
//! [`catalogue`] knows what EC2 sells: instance types, zones and prices, from data that is compiled in and, later, from the cloud itself.

pub mod catalogue;

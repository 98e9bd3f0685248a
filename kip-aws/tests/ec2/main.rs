//! The provider on two EC2s that are not Amazon's: our own, which fails when told to, and `moto`, whose wire format others vouch for.

mod behaviour;
mod calls;
mod catalogue;
mod conformance;
mod driver;
mod fake;
mod interruption;
mod moto;
mod repeat;
mod terminate;
mod wire;
mod zones;

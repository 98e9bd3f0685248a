//! The provider on two EC2s that are not Amazon's: our own, which fails when told to, and `moto`, whose wire format others vouch for.

mod behaviour;
mod calls;
mod catalogue;
mod conformance;
mod driver;
mod fake;
mod interruption;
mod moto;
mod preflight;
mod repeat;
mod running;
mod security_group;
mod terminate;
mod upkeep;
mod vpc;
mod wire;
mod zones;

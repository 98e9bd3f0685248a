//! Where instances go and who reaches them: the VPC, and the security group that Kip keeps there.

mod cidr;
mod ingress;
mod metadata;
mod owner;
mod security_group;
mod settle;
mod vpc;

pub(crate) use cidr::Cidr;
pub(crate) use metadata::Metadata;
pub(crate) use owner::Owner;
pub(crate) use security_group::{OwnGroup, ensure, find};
pub(crate) use settle::{guard, own_group, place};
pub(crate) use vpc::{DEFAULT, Vpc};

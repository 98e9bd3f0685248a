//! For which cloud's instances the pods run on.

use std::fmt;

/// What gives the controller its instances. On each, cells are real ones on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    /// `kip-local`.
    Local,
    /// `kip-aws` on moto: an EC2 of other people's making, that never fails.
    Moto,
    /// `kip-aws` on our fake EC2, with faults on.
    FakeEc2,
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "the local cloud",
            Self::Moto => "moto's EC2",
            Self::FakeEc2 => "the fake EC2 with faults on",
        })
    }
}

/// What a user chooses from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// This machine as a cloud.
    #[default]
    Local,
    /// EC2's API, from moto and then from the fake EC2 with faults on, with this machine's cells as its instances.
    Ec2,
    /// `moto` only.
    Moto,
    /// The fake EC2 with faults on only.
    FakeEc2,
}

impl Choice {
    /// What it means, one after the other.
    pub(crate) fn clouds(self) -> &'static [Cloud] {
        match self {
            Self::Local => &[Cloud::Local],
            Self::Ec2 => &[Cloud::Moto, Cloud::FakeEc2],
            Self::Moto => &[Cloud::Moto],
            Self::FakeEc2 => &[Cloud::FakeEc2],
        }
    }
}

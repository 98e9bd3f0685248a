//! Faults at random, seeded: for a whole Kip that runs for a while, where a test cannot say which call goes wrong.

use super::Ec2Fault;

/// The calls that go wrong: those about instances, which Kip makes as long as it runs.
const ACTIONS: [&str; 3] = ["RunInstances", "TerminateInstances", "DescribeInstances"];

/// How many of a thousand calls go wrong, by what happens to them. What is drawn follows from the seed and the order of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    /// Refused with `RequestLimitExceeded`.
    pub throttled: u16,
    /// Refused with `InternalError`.
    pub internal_errors: u16,
    /// Done, and the answer breaks off.
    pub lost_replies: u16,
    /// The connection breaks before anything is done.
    pub lost_calls: u16,
    /// Refused with `InsufficientInstanceCapacity`; launches only.
    pub no_capacity: u16,
    /// What is drawn.
    pub seed: u64,
}

impl Chaos {
    /// What happens to the next call of an action.
    pub(super) fn strike(&mut self, action: &str) -> Option<Ec2Fault> {
        if !ACTIONS.contains(&action) {
            return None;
        }
        let drawn = self.draw();
        let no_capacity = if action == "RunInstances" {
            self.no_capacity
        } else {
            0
        };
        let mut upto = 0;
        [
            (self.throttled, Ec2Fault::Refused("RequestLimitExceeded", 503)),
            (self.internal_errors, Ec2Fault::Refused("InternalError", 500)),
            (self.lost_replies, Ec2Fault::LostReply),
            (self.lost_calls, Ec2Fault::LostCall),
            (
                no_capacity,
                Ec2Fault::Refused("InsufficientInstanceCapacity", 500),
            ),
        ]
        .into_iter()
        .find_map(|(share, fault)| {
            upto += u64::from(share);
            (drawn < upto).then_some(fault)
        })
    }

    /// A number below 1,000 (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(action: &str, seed: u64) -> Vec<String> {
        let mut chaos = Chaos {
            throttled: 100,
            internal_errors: 100,
            lost_replies: 100,
            lost_calls: 100,
            no_capacity: 100,
            seed,
        };
        (0..1000)
            .filter_map(|_| chaos.strike(action))
            .map(|fault| format!("{fault:?}"))
            .collect()
    }

    /// Else a run "with faults on" would prove nothing, or not be repeatable.
    #[test]
    fn every_fault_strikes_where_it_belongs_and_a_seed_strikes_alike() {
        let launches = struck("RunInstances", 7);
        assert!((350..650).contains(&launches.len()), "{}", launches.len());
        for fault in [
            "RequestLimitExceeded",
            "InternalError",
            "LostReply",
            "LostCall",
            "InsufficientInstanceCapacity",
        ] {
            assert!(launches.iter().any(|struck| struck.contains(fault)), "{fault}");
        }
        assert!(
            !struck("DescribeInstances", 7)
                .iter()
                .any(|fault| fault.contains("Capacity"))
        );
        assert!(struck("DescribeImages", 7).is_empty());
        assert_eq!(launches, struck("RunInstances", 7));
        assert_ne!(launches, struck("RunInstances", 8));
    }
}

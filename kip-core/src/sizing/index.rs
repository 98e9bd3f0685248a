//! Finds the best offering without looking at all of them.
//!
//! Entries lie in rank order (price first) in small blocks; each block knows the largest CPU and memory in it and which
//! architectures, capacity types, zones and extended resources occur. A search skips whole blocks by these summaries, checks the rest by
//! the plain [`rule`], and stops at the first price that cannot be beaten any more. The index only ever skips; it never decides.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Avoid, SizingPolicy, requirement, rule};
use crate::ids::InstanceType;
use crate::model::{Architecture, Bytes, CapacityType, CpuMillis, Offering, PodDemand, Price};

const BLOCK: usize = 32;

/// Offerings in an order that makes searching short.
#[derive(Debug, Default)]
pub(super) struct Index {
    offerings: Vec<Offering>,
    keys: Vec<Key>,
    blocks: Vec<Key>,
    by_type: BTreeMap<InstanceType, Vec<usize>>,
    labels: BTreeSet<String>,
}

/// What decides most questions about an entry, or about a block of them.
#[derive(Clone, Copy, Debug)]
struct Key {
    cpu: CpuMillis,
    usable: Bytes,
    /// Cheapest list price.
    price: Price,
    /// Whether pods may get it that name no type; of a block: whether they may get any of it.
    for_all: bool,
    traits: Traits,
}

/// One bit for each architecture, capacity type, zone and extended resource that occurs. Zones and resources share bits when there are
/// many, which costs a few needless checks and no wrong answer.
#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    kinds: u8,
    zones: u64,
    extended: u64,
}

const ARCHITECTURES: u8 = 0b0000_1111;
const CAPACITY_TYPES: u8 = 0b1111_0000;

fn architecture_bit(architecture: Architecture) -> u8 {
    match architecture {
        Architecture::Amd64 => 1,
        Architecture::Arm64 => 2,
    }
}

fn capacity_bit(capacity_type: CapacityType) -> u8 {
    match capacity_type {
        CapacityType::OnDemand => 1 << 4,
        CapacityType::Spot => 2 << 4,
        CapacityType::Reserved => 4 << 4,
    }
}

fn name_bit(name: &str) -> u64 {
    // FNV-1a: stable and quick; collisions are allowed.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    1 << (hash >> 58)
}

impl Traits {
    fn of(offering: &Offering) -> Self {
        Self {
            kinds: architecture_bit(offering.architecture) | capacity_bit(offering.id.capacity_type),
            zones: name_bit(offering.id.zone.as_str()),
            extended: bits_of(offering.extended.keys()),
        }
    }

    /// What a demand allows (kinds, zones) and what it needs (extended).
    fn wanted(policy: &SizingPolicy, demand: &PodDemand) -> Self {
        let architectures = demand.architectures.iter().map(|a| architecture_bit(*a));
        let architectures = architectures.reduce(|a, b| a | b).unwrap_or(ARCHITECTURES);
        let capacity_types = policy.capacity_types_of(demand).iter();
        let capacity_types = capacity_types.fold(0, |bits, c| bits | capacity_bit(*c));
        let zones = demand.zones.iter().map(|z| name_bit(z.as_str()));
        Self {
            kinds: architectures | capacity_types,
            zones: zones.reduce(|a, b| a | b).unwrap_or(u64::MAX),
            extended: bits_of(demand.extended.keys()),
        }
    }

    fn join(self, other: Self) -> Self {
        Self {
            kinds: self.kinds | other.kinds,
            zones: self.zones | other.zones,
            extended: self.extended | other.extended,
        }
    }

    /// Whether what is here may satisfy what is wanted; false is certain.
    fn may_satisfy(self, wanted: Self) -> bool {
        let kinds = self.kinds & wanted.kinds;
        kinds & ARCHITECTURES != 0
            && kinds & CAPACITY_TYPES != 0
            && self.zones & wanted.zones != 0
            && self.extended & wanted.extended == wanted.extended
    }
}

fn bits_of<'a>(names: impl Iterator<Item = &'a String>) -> u64 {
    names.map(|name| name_bit(name)).fold(0, |bits, bit| bits | bit)
}

impl Key {
    fn of(policy: &SizingPolicy, offering: &Offering) -> Self {
        Self {
            cpu: rule::countable_cpu(policy, offering),
            usable: policy
                .reserve_of(&offering.id.instance_type)
                .usable(offering.memory),
            price: offering.price,
            for_all: rule::for_all(policy, offering),
            traits: Traits::of(offering),
        }
    }

    fn join(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            usable: self.usable.max(other.usable),
            price: self.price.min(other.price),
            for_all: self.for_all || other.for_all,
            traits: self.traits.join(other.traits),
        }
    }

    /// Whether a pod that names no type may fit; false is certain.
    fn may_fit(&self, demand: &PodDemand, wanted: Traits) -> bool {
        self.for_all
            && self.usable >= demand.memory
            && self.cpu >= demand.cpu
            && self.traits.may_satisfy(wanted)
    }
}

impl Index {
    /// Sorts and summarizes a list of offerings.
    pub(super) fn build(policy: &SizingPolicy, offerings: &[Offering]) -> Self {
        let mut offerings = offerings.to_vec();
        offerings.sort_by(|a, b| rule::rank(a.price, a).cmp(&rule::rank(b.price, b)));
        let keys: Vec<Key> = offerings.iter().map(|o| Key::of(policy, o)).collect();
        let blocks = keys
            .chunks(BLOCK)
            .filter_map(|block| block.iter().copied().reduce(Key::join))
            .collect();
        let mut by_type: BTreeMap<InstanceType, Vec<usize>> = BTreeMap::new();
        for (at, offering) in offerings.iter().enumerate() {
            by_type
                .entry(offering.id.instance_type.clone())
                .or_default()
                .push(at);
        }
        let labels = requirement::labels_of(&offerings);
        Self {
            offerings,
            keys,
            blocks,
            by_type,
            labels,
        }
    }

    /// Labels that any offering has.
    pub(super) fn labels(&self) -> &BTreeSet<String> {
        &self.labels
    }

    /// Whether some offering has each label that is required, so that what lacks it lacks it for a reason. A name nobody knows would
    /// otherwise be met by everything that is required not to have it.
    fn knows_labels_of(&self, demand: &PodDemand) -> bool {
        requirement::unknown(demand, &self.labels).is_none()
    }

    /// All offerings in rank order by list price.
    pub(super) fn offerings(&self) -> &[Offering] {
        &self.offerings
    }

    /// The best offering that fits and is not avoided.
    pub(super) fn best(
        &self,
        policy: &SizingPolicy,
        demand: &PodDemand,
        avoid: &Avoid,
        now: Timestamp,
    ) -> Option<&Offering> {
        let mut best = Best {
            policy,
            demand,
            found: None,
        };
        let allowed = |o: &Offering| rule::available(policy, o, demand, avoid, now);
        if !self.knows_labels_of(demand) {
            return None;
        }
        let named = rule::Wanted::of(policy, demand);
        if named.is_some() {
            for pattern in named.patterns() {
                let prefix = pattern.split('*').next().unwrap_or_default();
                let types = self.by_type.range(InstanceType::new(prefix)..);
                for (_, places) in types.take_while(|(name, _)| name.as_str().starts_with(prefix)) {
                    for offering in places.iter().filter_map(|at| self.offerings.get(*at)) {
                        if allowed(offering) {
                            best.consider(offering);
                        }
                    }
                }
            }
            return best.found.map(|(_, offering)| offering);
        }
        let wanted = Traits::wanted(policy, demand);
        let blocks = self
            .blocks
            .iter()
            .zip(self.keys.chunks(BLOCK))
            .zip(self.offerings.chunks(BLOCK));
        for ((summary, keys), offerings) in blocks {
            if best.is_final(summary.price) {
                break;
            }
            if !summary.may_fit(demand, wanted) {
                continue;
            }
            for (key, offering) in keys.iter().zip(offerings) {
                if best.is_final(key.price) {
                    break;
                }
                if key.may_fit(demand, wanted) && allowed(offering) {
                    best.consider(offering);
                }
            }
        }
        best.found.map(|(_, offering)| offering)
    }
}

struct Best<'q, 'o> {
    policy: &'q SizingPolicy,
    demand: &'q PodDemand,
    found: Option<(Price, &'o Offering)>,
}

impl<'o> Best<'_, 'o> {
    fn consider(&mut self, offering: &'o Offering) {
        let price = rule::effective_price(self.policy, offering, self.demand);
        let better = self
            .found
            .is_none_or(|(best, holder)| rule::rank(price, offering) < rule::rank(best, holder));
        if better {
            self.found = Some((price, offering));
        }
    }

    /// Whether nothing from this list price on can be better: effective prices are never below list prices, and among equal list prices
    /// an entry that costs no more than its list price already ranks first.
    fn is_final(&self, list_price: Price) -> bool {
        self.found
            .is_some_and(|(best, holder)| list_price > best || (list_price == best && holder.price == best))
    }
}
